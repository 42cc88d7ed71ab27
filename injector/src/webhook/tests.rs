//! Requests as the API server and others send them.

use axum::http::Request;
use serde_json::json;
use tower::ServiceExt as _;

use super::*;

fn webhook() -> (Router, crate::events::Queue) {
    let (notes, queue) = crate::events::queue();
    let webhook = Webhook { injection: Injection::default(), native: true, metrics: Metrics::default(), notes };
    (router(Arc::new(webhook)), queue)
}

async fn send(method: &str, path: &str, kind: Option<&str>, body: impl Into<Body>) -> (StatusCode, String) {
    let (router, _queue) = webhook();
    let mut request = Request::builder().method(method).uri(path);
    if let Some(kind) = kind {
        request = request.header("content-type", kind);
    }
    let response = router.oneshot(request.body(body.into()).unwrap()).await.unwrap();
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

fn request(object: Value) -> Value {
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "5b1c", "operation": "CREATE", "namespace": "shop",
        "kind": {"group": "", "version": "v1", "kind": "Pod"}, "object": object,
    }})
}

async fn answer(review: Value) -> Value {
    let (status, body) = send("POST", "/inject?timeout=10s", Some("application/json"), review.to_string()).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(answer["kind"], "AdmissionReview");
    assert_eq!(answer["response"]["uid"], "5b1c");
    answer["response"].clone()
}

/// The operations of an answer.
fn operations(response: &Value) -> Vec<Value> {
    assert_eq!(response["patchType"], "JSONPatch");
    let bytes: k8s_openapi::ByteString = serde_json::from_value(response["patch"].clone()).unwrap();
    serde_json::from_slice(&bytes.0).unwrap()
}

#[tokio::test]
async fn a_pod_gets_its_proxy() {
    let pod = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "app"}]}});
    let response = answer(request(pod)).await;
    assert_eq!(response["allowed"], true);
    let paths: Vec<_> = operations(&response).iter().map(|operation| operation["path"].clone()).collect();
    assert_eq!(paths, ["/metadata/annotations", "/spec/initContainers", "/spec/volumes"]);
}

#[tokio::test]
async fn a_pod_that_cannot_have_one_is_admitted_with_a_warning() {
    let pod = json!({"metadata": {"name": "a"}, "spec": {"hostNetwork": true, "containers": [{"name": "app"}]}});
    let response = answer(request(pod)).await;
    assert_eq!((&response["allowed"], response.get("patch")), (&json!(true), None));
    assert!(response["warnings"][0].as_str().unwrap().contains("hostNetwork"), "{response}");
}

#[tokio::test]
async fn a_wrong_value_is_denied_with_a_right_one() {
    let metadata = json!({"name": "a", "annotations": {"tulle.io/capture": "magic"}});
    let response = answer(request(json!({"metadata": metadata, "spec": {"containers": [{"name": "app"}]}}))).await;
    assert_eq!(response["allowed"], false);
    let message = response["status"]["message"].as_str().unwrap();
    assert!(message.contains("tulle.io/capture") && message.contains("a right value is"), "{message}");
}

#[tokio::test]
async fn what_is_no_pod_passes_with_a_warning() {
    for object in [Value::Null, json!("x"), json!([])] {
        let response = answer(request(object)).await;
        assert_eq!((&response["allowed"], response.get("patch")), (&json!(true), None));
        assert!(response["warnings"].is_array());
    }
    let mut other = request(json!({"metadata": {}}));
    other["request"]["kind"]["kind"] = json!("Service");
    assert!(answer(other).await.get("patch").is_none());
}

#[tokio::test]
async fn what_is_no_request_is_refused() {
    let good = request(json!({})).to_string();
    let json = Some("application/json");
    for method in ["GET", "PUT", "DELETE", "HEAD"] {
        assert_eq!(send(method, "/inject", json, good.clone()).await.0, StatusCode::METHOD_NOT_ALLOWED, "{method}");
    }
    assert_eq!(send("POST", "/", json, good.clone()).await.0, StatusCode::NOT_FOUND);
    for kind in [None, Some("text/plain"), Some("application/jsonx"), Some("")] {
        assert_eq!(send("POST", "/inject", kind, good.clone()).await.0, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{kind:?}");
    }
    assert_eq!(send("POST", "/inject", Some("Application/JSON; charset=utf-8"), good.clone()).await.0, StatusCode::OK);
    for body in ["", "{", "null", "{}{}", "\u{feff}{}"] {
        assert_eq!(send("POST", "/inject", json, body).await.0, StatusCode::BAD_REQUEST, "{body}");
    }
    let large = vec![b' '; LARGEST + 1];
    assert_eq!(send("POST", "/inject", json, large).await.0, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_ends_is_not_waited_for() {
    let (_sender, receiver) = tokio::sync::mpsc::channel::<Result<bytes::Bytes, std::io::Error>>(1);
    let body = Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(receiver));
    assert_eq!(send("POST", "/inject", Some("application/json"), body).await.0, StatusCode::REQUEST_TIMEOUT);
}

#[tokio::test]
async fn objects_are_judged_as_tulle_validate_does() {
    let ask = async |object: Value, old: Value| {
        let mut review = request(object);
        review["request"]["oldObject"] = old;
        let (status, body) = send("POST", "/validate", Some("application/json"), review.to_string()).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        serde_json::from_str::<Value>(&body).unwrap()["response"].clone()
    };
    let service = |timeout: &str| {
        let annotations = json!({"tulle.io/timeout": timeout, "tulle.io/mirror": "x"});
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "annotations": annotations}, "spec": {}})
    };
    let good = ask(service("15s"), Value::Null).await;
    assert_eq!((&good["allowed"], good["warnings"].as_array().map(Vec::len)), (&json!(true), Some(1)), "{good}");
    let bad = ask(service("soon"), Value::Null).await;
    let message = bad["status"]["message"].as_str().unwrap();
    assert!(bad["allowed"] == false && message.contains("tulle.io/timeout") && message.contains("15s"), "{message}");
    // What is stored already is not held against an update of something else.
    let kept = ask(service("soon"), service("soon")).await;
    assert_eq!(kept["allowed"], true, "{kept}");
    let workload = json!({"apiVersion": "tulle.io/v1alpha1", "kind": "Workload", "metadata": {"name": "a"},
        "spec": {"addresses": ["10.0.0.300"]}});
    assert!(ask(workload, Value::Null).await["status"]["message"].as_str().unwrap().contains("10.0.0.300"));
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"annotations": {"tulle.io/capture": "x"}}});
    assert_eq!(ask(pod, Value::Null).await["allowed"], false);
    let other = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"annotations": {"tulle.io/timeout": "x"}}});
    assert_eq!(ask(other, Value::Null).await["allowed"], true);
    assert_eq!(ask(Value::Null, Value::Null).await["allowed"], true);
}

#[tokio::test]
async fn mend_25_what_another_webhook_adds_is_treated_when_the_server_asks_again() {
    let proxied = |port: u16, path: &str| json!({"httpGet": {"port": port, "path": path}});
    let app = json!({"name": "app", "livenessProbe": proxied(8080, "/app")});
    let added = json!({"name": "added", "readinessProbe": {"tcpSocket": {"port": 9}}, "lifecycle": {"preStop": proxied(9, "/$(X)")}});
    let first = json!({"name": "first", "image": "first:1"});
    for native in ["true", "false"] {
        let metadata = json!({"name": "a", "annotations": {"tulle.io/inject-native": native}});
        let injected = |containers: &[&Value], init: &[&Value]| {
            let pod = json!({"metadata": metadata, "spec": {"containers": containers, "initContainers": init}});
            let around = Circumstances { namespace: "shop", by_default: true, native: true };
            let Verdict::Inject(inject) = decide::decide(&pod, around) else { panic!("{pod}") };
            patch::inject(&pod, &inject, &Injection::default(), None)
        };
        // As another webhook leaves it: a container more at the end, an init container more at the beginning.
        let mut changed = injected(&[&app], &[]);
        changed["spec"]["containers"].as_array_mut().unwrap().push(added.clone());
        let init = changed["spec"]["initContainers"].as_array_mut().unwrap();
        init.insert(0, first.clone());
        if native == "false" {
            init.push(json!({"name": "last"}));
        }

        let response = answer(request(changed.clone())).await;
        let again = patch::again(&changed);
        assert_eq!(operations(&response), patch::diff(&changed, &again));
        let wanted = match native {
            "true" => injected(&[&app, &added], &[&first]),
            _ => injected(&[&app, &added], &[&first, &json!({"name": "last"})]),
        };
        assert_eq!(again["spec"], wanted["spec"], "as if it had been there before");
        assert!(answer(request(again)).await.get("patch").is_none(), "asked a third time there is nothing to do");
    }
    let plain = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "app"}]}});
    let around = Circumstances { namespace: "shop", by_default: true, native: true };
    let Verdict::Inject(inject) = decide::decide(&plain, around) else { panic!("{plain}") };
    let mut meshed = patch::inject(&plain, &inject, &Injection::default(), None);
    assert!(answer(request(meshed.clone())).await.get("patch").is_none());
    meshed["spec"]["containers"].as_array_mut().unwrap().push(json!({"name": "istio-proxy"}));
    let response = answer(request(meshed)).await;
    assert!(response["warnings"].to_string().contains("two meshes"), "{response}");
}

#[tokio::test]
async fn mend_30_words_that_nobody_reads_are_told() {
    let ask = async |object: Value| {
        let (_, body) = send("POST", "/validate", Some("application/json"), request(object).to_string()).await;
        serde_json::from_str::<Value>(&body).unwrap()["response"].clone()
    };
    let namespace = |labels: Value, annotations: Value| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": labels, "annotations": annotations}});
    let wrong = ask(namespace(json!({"tulle.io/inject": "true"}), json!({}))).await;
    assert!(
        wrong["allowed"] == false && wrong["status"]["message"].to_string().contains("did you mean enabled?"),
        "{wrong}"
    );
    for (labels, annotations, part) in [
        (json!({"tulle.io/injct": "enabled"}), json!({}), "label tulle.io/injct is not known"),
        (json!({}), json!({"tulle.io/inject": "enabled"}), "kubectl label namespace shop tulle.io/inject=enabled"),
        (json!({}), json!({"tulle.io/timeot": "5s"}), "did you mean tulle.io/timeout?"),
        (json!({}), json!({"tulle.io/retries": "3"}), "did you mean tulle.io/retry-"),
    ] {
        let warned = ask(namespace(labels, annotations)).await;
        assert!(warned["allowed"] == true && warned["warnings"].to_string().contains(part), "{part}: {warned}");
    }
    let right =
        ask(namespace(json!({"tulle.io/inject": "enabled", "a": "b"}), json!({"tulle.io/timeout": "5s"}))).await;
    assert_eq!((&right["allowed"], right.get("warnings")), (&json!(true), None));

    let template = |annotations: Value| json!({"metadata": {"annotations": annotations}, "spec": {}});
    let deployment = |annotations: Value| json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"template": template(annotations)}});
    let cron = json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "c"},
        "spec": {"jobTemplate": {"spec": {"template": template(json!({"tulle.io/capture": "x"}))}}}});
    for (object, part) in [
        (deployment(json!({"tulle.io/capture": "x"})), "pods that are to be injected are refused"),
        (deployment(json!({"tulle.io/skip-inbound-port": "1"})), "did you mean tulle.io/skip-inbound-ports?"),
        (cron, "tulle.io/capture"),
    ] {
        let warned = ask(object).await;
        assert!(warned["allowed"] == true && warned["warnings"].to_string().contains(part), "{part}: {warned}");
    }
}
