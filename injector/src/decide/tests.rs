//! Verdicts by table.

use serde_json::{Value, json};

use super::*;

const SHOP: Circumstances<'_> = Circumstances { namespace: "shop", by_default: true, native: true };

fn pod(metadata: Value, mut spec: Value) -> Value {
    if spec.get("containers").is_none() {
        spec["containers"] = json!([{"name": "app", "image": "app:1"}]);
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
}

fn annotated(key: &str, value: &str) -> Value {
    pod(json!({"annotations": {key: value}}), json!({}))
}

fn skip(pod: &Value, around: Circumstances<'_>) -> Skip {
    let verdict = decide(pod, around);
    let Verdict::Skip(skip) = verdict else { panic!("{verdict:?} for {pod}") };
    skip
}

fn inject(pod: &Value, around: Circumstances<'_>) -> Inject {
    let verdict = decide(pod, around);
    let Verdict::Inject(inject) = verdict else { panic!("{verdict:?} for {pod}") };
    inject
}

fn deny(pod: &Value, around: Circumstances<'_>) -> Deny {
    let verdict = decide(pod, around);
    let Verdict::Deny(deny) = verdict else { panic!("{verdict:?} for {pod}") };
    deny
}

#[test]
fn the_pod_wins_over_its_namespace() {
    let unlabelled = Circumstances { by_default: false, ..SHOP };
    let plain = pod(json!({}), json!({}));
    assert!(inject(&plain, SHOP).native);
    assert_eq!(skip(&plain, unlabelled), Skip::NotAsked);
    for place in ["labels", "annotations"] {
        let says = |value: &str| pod(json!({place: {INJECT: value}}), json!({}));
        assert_eq!(skip(&says("disabled"), SHOP), Skip::Disabled);
        inject(&says("enabled"), unlabelled);
        assert!(matches!(deny(&says("yes"), SHOP), Deny::Values(_)));
    }
    let both = pod(json!({"labels": {INJECT: "enabled"}, "annotations": {INJECT: "disabled"}}), json!({}));
    assert_eq!(skip(&both, SHOP), Skip::Disabled);
}

#[test]
fn some_pods_never_get_one() {
    let plain = pod(json!({}), json!({}));
    for namespace in NEVER {
        assert_eq!(skip(&plain, Circumstances { namespace, ..SHOP }), Skip::Namespace);
    }
    let with = |spec: Value| skip(&pod(json!({"labels": {INJECT: "enabled"}}), spec), SHOP);
    assert_eq!(with(json!({"hostNetwork": true})), Skip::HostNetwork);
    assert_eq!(with(json!({"os": {"name": "windows"}})), Skip::Windows);
    let istio = with(json!({"containers": [{"name": "app"}, {"name": "istio-proxy"}]}));
    assert_eq!(istio, Skip::OtherMesh { mesh: "Istio", container: "istio-proxy".to_owned() });
    let linkerd = with(json!({"initContainers": [{"name": "linkerd-proxy"}]}));
    assert!(linkerd.to_string().contains("Linkerd"), "{linkerd}");
    assert_eq!(skip(&annotated("kubernetes.io/config.mirror", "x"), SHOP), Skip::StaticPod);
}

#[test]
fn our_names_are_ours() {
    let spec = json!({"initContainers": [{"name": "tulle-proxy", "restartPolicy": "Always"}]});
    let injected = pod(json!({"annotations": {INJECT_STATUS: "{}"}}), spec.clone());
    assert_eq!(skip(&injected, SHOP), Skip::AlreadyInjected);
    assert_eq!(deny(&pod(json!({}), spec), SHOP), Deny::TakenName("tulle-proxy".to_owned()));
    let empty = json!({"metadata": {}, "spec": {"containers": []}});
    assert_eq!(deny(&empty, SHOP), Deny::NoContainers);
    assert_eq!(deny(&json!({}), SHOP), Deny::NoContainers);
    assert_eq!(deny(&json!({"spec": 7}), SHOP), Deny::NoContainers);
}

#[test]
fn native_where_the_cluster_has_it() {
    let old = Circumstances { native: false, ..SHOP };
    let plain = pod(json!({}), json!({}));
    assert!(!inject(&plain, old).native);
    assert!(!inject(&annotated("tulle.io/inject-native", "false"), SHOP).native);
    assert!(inject(&annotated("tulle.io/inject-native", "true"), SHOP).native);
    assert_eq!(deny(&annotated("tulle.io/inject-native", "true"), old), Deny::NoNative);
}

#[test]
fn jobs_complete() {
    let owners = json!([{"kind": "Job", "name": "import", "controller": true}]);
    let job = pod(json!({"ownerReferences": owners, "annotations": {"tulle.io/inject-native": "false"}}), json!({}));
    assert!(inject(&job, SHOP).native, "only a native sidecar ends with the Job");
    let old = Circumstances { native: false, ..SHOP };
    assert_eq!(skip(&job, old), Skip::Job);
    let wanted = pod(json!({"ownerReferences": owners, "labels": {INJECT: "enabled"}}), json!({}));
    assert!(!inject(&wanted, old).native);
}

#[test]
fn wrong_values_are_all_named() {
    let annotations = json!({"tulle.io/capture": "magic", "tulle.io/proxy-workers": "many", "other.io/x": "y"});
    let denied = deny(&pod(json!({"annotations": annotations}), json!({})), SHOP).to_string();
    assert!(denied.contains("a right value is \"iptables\"") && denied.contains("tulle.io/proxy-workers"), "{denied}");
}

#[test]
fn what_may_surprise_is_said() {
    let containers = json!([
        {"name": "a", "securityContext": {"runAsUser": 1337}},
        {"name": "b", "securityContext": {"privileged": true}, "ports": [{"containerPort": 15020}]},
    ]);
    let inject =
        inject(&pod(json!({"annotations": {"tulle.io/inejct": "x"}}), json!({"containers": containers})), SHOP);
    let all = inject.warnings.join("\n");
    for part in ["tulle.io/inejct", "1337", "privileged", "15020"] {
        assert!(all.contains(part), "{part} in {all}");
    }
}
