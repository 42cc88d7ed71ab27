//! `tulle check`, `tulle upgrade` and `tulle uninstall` against an API server that holds objects and nothing more.

#![expect(clippy::unwrap_used, reason = "what cannot fail on a machine that runs tests")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

/// Objects by path.
type Objects = Arc<Mutex<BTreeMap<String, Value>>>;

/// An API server on loopback.
struct Server {
    objects: Objects,
    address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

impl Server {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let objects = Objects::default();
        let router = axum::Router::new().fallback(answer).with_state(objects.clone());
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move { axum::serve(listener, router).await });
        let server = Self { objects, address, _runtime: runtime };
        server.put("/version", json!({"major": "1", "minor": "34", "gitVersion": "v1.34.4"}));
        for name in ["default", "kube-system", "tulle-system"] {
            server.namespace(name, &json!({}));
        }
        server.namespace("shop", &json!({"tulle.io/inject": "enabled"}));
        server
    }

    fn put(&self, path: &str, object: Value) {
        self.objects.lock().unwrap().insert(path.to_owned(), object);
    }

    fn namespace(&self, name: &str, labels: &Value) {
        self.put(&format!("/api/v1/namespaces/{name}"), json!({"metadata": {"name": name, "labels": labels}}));
    }

    /// What `tulle install` prints, and what the control plane and the injector make of it.
    fn install(&self) {
        for object in install(&[]) {
            let word = |value: &Value| value.as_str().unwrap_or_default().to_lowercase();
            let plural = format!("{}s", word(&object["kind"]));
            let group = word(&object["apiVersion"]);
            let group = if group == "v1" { "/api/v1".to_owned() } else { format!("/apis/{group}") };
            let name = word(&object["metadata"]["name"]);
            let path = match object["metadata"]["namespace"].as_str() {
                Some(namespace) => format!("{group}/namespaces/{namespace}/{plural}/{name}"),
                None => format!("{group}/{plural}/{name}"),
            };
            self.put(&path, object);
        }
        let pem = rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap().cert.pem();
        let encoded = serde_json::to_value(k8s_openapi::ByteString(pem.clone().into_bytes())).unwrap();
        let mut objects = self.objects.lock().unwrap();
        for (path, object) in objects.iter_mut() {
            if path.contains("/deployments/") {
                object["status"] = json!({"readyReplicas": 2, "updatedReplicas": 2});
            }
            if path.contains("customresourcedefinitions") {
                object["status"] = json!({"conditions": [{"type": "Established", "status": "True"}]});
            }
            for webhook in object["webhooks"].as_array_mut().into_iter().flatten() {
                webhook["clientConfig"]["caBundle"] = encoded.clone();
            }
        }
        for name in ["tulle-ca", "tulle-injector-tls"] {
            let path = format!("/api/v1/namespaces/tulle-system/secrets/{name}");
            objects.insert(path, json!({"data": {"tls.crt": encoded}}));
        }
        for namespace in ["tulle-system", "shop"] {
            let path = format!("/api/v1/namespaces/{namespace}/configmaps/tulle-trust-bundle");
            objects.insert(path, json!({"data": {"bundle.pem": pem}}));
        }
    }

    fn tulle(&self, words: &[&str]) -> (Option<i32>, String, String) {
        self.tulle_in(words, "/usr/bin:/bin")
    }

    /// With `path` for other programs.
    fn tulle_in(&self, words: &[&str], path: &str) -> (Option<i32>, String, String) {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("config");
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c", "users": [],
            "clusters": [{"name": "k", "cluster": {"server": format!("http://{}", self.address)}}],
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": ""}}],
        });
        std::fs::write(&config, kubeconfig.to_string()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tulle"));
        let out = command.args(words).env("KUBECONFIG", &config).env("PATH", path).output().unwrap();
        let Output { status, stdout, stderr } = out;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (status.code(), text(stdout), text(stderr))
    }
}

async fn answer(State(objects): State<Objects>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let refused = |code: StatusCode, reason: &str| {
        let status =
            json!({"kind": "Status", "status": "Failure", "code": code.as_u16(), "reason": reason, "message": reason});
        (code, Json(status)).into_response()
    };
    let mut objects = objects.lock().unwrap();
    match *request.method() {
        Method::POST if path.ends_with("selfsubjectaccessreviews") => {
            Json(json!({"status": {"allowed": true}})).into_response()
        }
        Method::POST if objects.contains_key(&path.replace("/api/v1/namespaces", "/refused").replace("/pods", "")) => {
            let reason = objects[&path.replace("/api/v1/namespaces", "/refused").replace("/pods", "")].clone();
            refused(StatusCode::UNPROCESSABLE_ENTITY, reason.as_str().unwrap_or_default())
        }
        Method::POST => Json(json!({"spec": {"initContainers": [{"name": "tulle-proxy"}]}})).into_response(),
        Method::DELETE => match objects.remove(&path) {
            Some(_) => Json(json!({"kind": "Status", "status": "Success"})).into_response(),
            None => refused(StatusCode::NOT_FOUND, "NotFound"),
        },
        _ if path.ends_with("/forbidden") => refused(StatusCode::FORBIDDEN, "Forbidden"),
        _ => {
            if let Some(object) = objects.get(&path) {
                return Json(object.clone()).into_response();
            }
            let inside = format!("{path}/");
            let items: Vec<_> =
                objects.iter().filter(|(p, _)| p.strip_prefix(&inside).is_some_and(|r| !r.contains('/'))).collect();
            let collection = ["namespaces", "pods", "nodes", "events", "mutatingwebhookconfigurations"];
            if collection.iter().any(|plural| path.ends_with(plural)) {
                let items: Vec<Value> = items.into_iter().map(|(_, object)| object.clone()).collect();
                return Json(json!({"items": items, "metadata": {}})).into_response();
            }
            refused(StatusCode::NOT_FOUND, "NotFound")
        }
    }
}

fn install(flags: &[&str]) -> Vec<Value> {
    let out = Command::new(env!("CARGO_BIN_EXE_tulle")).arg("install").args(flags).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    text.split("---\n").filter(|d| !d.trim().is_empty()).map(|d| serde_saphyr::from_str(d).unwrap()).collect()
}

/// The lines of the table that are not well.
fn unwell(table: &str) -> Vec<&str> {
    table.lines().skip(1).filter(|line| !line.contains("  ok  ")).collect()
}

#[test]
fn a_cluster_without_tulle() {
    let server = Server::start();
    let (code, out, _) = server.tulle(&["check", "--before"]);
    assert_eq!((code, unwell(&out)), (Some(0), vec![]), "{out}");
    let (code, out, _) = server.tulle(&["check"]);
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("tulle install | kubectl apply -f -"), "{out}");
    server.put("/version", json!({"major": "1", "minor": "28+", "gitVersion": "v1.28.1"}));
    let (code, out, _) = server.tulle(&["check", "--before"]);
    assert!(code == Some(1) && out.contains("v1.28.1 is too old"), "{out}");
    let (code, _, error) = server.tulle(&["upgrade"]);
    assert!(code == Some(1) && error.contains("not installed"), "{error}");
}

#[test]
fn a_cluster_with_tulle() {
    let server = Server::start();
    server.install();
    let (code, out, error) = server.tulle(&["check"]);
    assert_eq!((code, unwell(&out)), (Some(0), vec![]), "{out} {error}");
    let (code, out, _) = server.tulle(&["check", "-o", "json"]);
    let lines: Value = serde_json::from_str(&out).unwrap();
    assert!(code == Some(0) && lines.as_array().unwrap().len() >= 12, "{out}");

    let bundle = "/api/v1/namespaces/shop/configmaps/tulle-trust-bundle";
    server.put(bundle, json!({"data": {"bundle.pem": "another"}}));
    let webhooks = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/tulle-injector";
    server.objects.lock().unwrap().get_mut(webhooks).unwrap()["webhooks"][0]["clientConfig"] = json!({});
    let pod = json!({
        "metadata": {"namespace": "shop", "name": "web-1"}, "spec": {"containers": [{"name": "web"}]},
        "status": {"phase": "Running"},
    });
    server.put("/api/v1/pods/web-1", pod);
    let (code, out, _) = server.tulle(&["check"]);
    let unwell = unwell(&out);
    assert_eq!((code, unwell.len()), (Some(1), 3), "{out}");
    for part in ["missing or old in shop", "namespace.inject.tulle.io has no caBundle", "shop/web-1"] {
        assert!(unwell.iter().any(|line| line.contains(part)), "{part}: {out}");
    }
}

#[test]
fn an_upgrade_keeps_identities() {
    let server = Server::start();
    server.install();
    let (code, out, error) = server.tulle(&["upgrade"]);
    assert_eq!(code, Some(0), "{error}");
    assert!(out.contains("kind: MutatingWebhookConfiguration") && error.contains("kubectl apply"), "{error}");
    let (code, out, error) = server.tulle(&["upgrade", "--set", "trustDomain=other"]);
    assert!(code == Some(1) && out.is_empty() && error.contains("every identity would change"), "{error}");
}

#[test]
fn mend_30_every_labelled_namespace_is_asked() {
    let server = Server::start();
    server.install();
    server.namespace("bank", &json!({"tulle.io/inject": "enabled"}));
    let trust = server.objects.lock().unwrap()["/api/v1/namespaces/shop/configmaps/tulle-trust-bundle"].clone();
    server.put("/api/v1/namespaces/bank/configmaps/tulle-trust-bundle", trust);
    let line = |out: &str, check: &str| out.lines().find(|line| line.starts_with(check)).unwrap().to_owned();
    let (code, out, _) = server.tulle(&["check"]);
    assert!(
        code == Some(0) && line(&out, "injection  ").contains("would get a sidecar (dry run in bank, shop)"),
        "{out}"
    );
    // What the API server says about the second namespace alone.
    server.put("/refused/bank", json!("exceeded quota: limits.cpu"));
    let (code, out, _) = server.tulle(&["check"]);
    let said = line(&out, "injection  ");
    assert!(code == Some(1) && said.contains("FAILED  in bank: ") && said.contains("limits.cpu"), "{out}");
    assert!(!said.contains("shop"), "{out}");
}

#[test]
fn mend_30_workloads_whose_pods_are_refused_are_named() {
    let server = Server::start();
    server.install();
    let set = json!({"kind": "ReplicaSet", "spec": {"replicas": 2}, "status": {"replicas": 0}});
    server.put("/apis/apps/v1/namespaces/shop/replicasets/web-1", set);
    let event = json!({
        "reason": "FailedCreate", "lastTimestamp": "2026-01-01T00:00:00Z", "message": "tulle.io/capture: \"x\" is none of nft",
        "involvedObject": {"kind": "ReplicaSet", "namespace": "shop", "name": "web-1"},
    });
    server.put("/api/v1/events/web-1", event);
    let (code, out, _) = server.tulle(&["check"]);
    let [line] = unwell(&out)[..] else { panic!("{out}") };
    assert!(code == Some(1) && line.contains("ReplicaSet shop/web-1: tulle.io/capture"), "{line}");
    let mended = json!({"kind": "ReplicaSet", "spec": {"replicas": 2}, "status": {"replicas": 2}});
    server.put("/apis/apps/v1/namespaces/shop/replicasets/web-1", mended);
    let (code, out, _) = server.tulle(&["check"]);
    assert_eq!((code, unwell(&out)), (Some(0), vec![]), "{out}");
}

#[test]
fn mend_31_the_proxy_of_a_pod_is_read_through_kubectl() {
    let server = Server::start();
    let pod = json!({"metadata": {"namespace": "shop", "name": "web-1"}, "spec": {"initContainers": [{"name": "tulle-proxy"}]}});
    server.put("/api/v1/namespaces/shop/pods/web-1", pod);
    // A stand-in for kubectl, which forwards to a page of this test.
    let folder = tempfile::tempdir().unwrap();
    let kubectl = folder.path().join("kubectl");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let pages = axum::Router::new().fallback(async |request: Request| match request.uri().path() {
        "/config_dump" => Json(json!({"generation": 7})).into_response(),
        "/certs" => Json(json!({})).into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    });
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(async move { axum::serve(listener, pages).await });
    let script = |text: &str| {
        std::fs::write(&kubectl, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&kubectl, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    };
    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    let asked = folder.path().join("asked");
    script(&format!("echo \"$@\" > {}; echo 'Forwarding from {address} -> 15000'; exec sleep 600", asked.display()));
    let (code, out, error) = server.tulle_in(&["proxy-config", "listeners", "-n", "shop", "web"], &path);
    assert!(code == Some(0) && out.starts_with("Configuration 7"), "{out}{error}");
    assert!(error.contains("pod shop/web-1: only destinations that it has used are listed"), "{error}");
    let asked = std::fs::read_to_string(asked).unwrap();
    assert_eq!(asked.trim_end(), "port-forward --address=127.0.0.1 -n shop pod/web-1 :15000");
    script("echo 'error: unable to forward port because pod is not running' >&2; exit 1");
    let (code, _, error) = server.tulle_in(&["proxy-config", "-n", "shop", "web-1"], &path);
    assert!(code == Some(1) && error.contains("pod is not running"), "{error}");
    let (code, _, error) = server.tulle_in(&["proxy-config", "-n", "shop", "web-1"], "/nowhere");
    assert!(code == Some(1) && error.contains("kubectl cannot be started"), "{error}");
    let (code, _, error) = server.tulle_in(&["proxy-config", "-n", "shop", "api"], &path);
    assert!(code == Some(1) && error.contains("with a sidecar: web-1"), "{error}");
}

#[test]
fn nothing_is_left_behind() {
    let server = Server::start();
    let before: Vec<String> = server.objects.lock().unwrap().keys().cloned().collect();
    server.install();
    let count = || server.objects.lock().unwrap().len();
    let all = count();
    let (code, out, error) = server.tulle(&["uninstall"]);
    assert!(code == Some(0) && error.contains("nothing was deleted"), "{error}");
    assert!(out.contains("Secret tulle-system/tulle-ca") && out.contains("ConfigMap shop/tulle-trust-bundle"), "{out}");
    assert_eq!(count(), all);

    let (code, out, error) = server.tulle(&["uninstall", "--yes"]);
    assert_eq!(code, Some(0), "{error}");
    assert!(out.starts_with("MutatingWebhookConfiguration tulle-injector: deleted\n"), "{out}");
    assert!(out.contains("CustomResourceDefinition workloads.tulle.io: kept; --definitions"), "{out}");
    let (code, ..) = server.tulle(&["uninstall", "--yes", "--definitions"]);
    assert_eq!(code, Some(0));
    let mut after: Vec<String> = server.objects.lock().unwrap().keys().cloned().collect();
    after.push("/api/v1/namespaces/tulle-system".to_owned());
    after.sort();
    assert_eq!(after, before);
}
