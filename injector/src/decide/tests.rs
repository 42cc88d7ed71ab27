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

#[test]
fn mend_25_pods_for_windows_by_whatever_says_so() {
    let os =
        |operator: &str, values: &[&str]| json!({"key": "kubernetes.io/os", "operator": operator, "values": values});
    let other = || json!({"key": "zone", "operator": "In", "values": ["a"]});
    let affinity = |terms: Vec<Value>| {
        let terms: Vec<_> = terms.into_iter().map(|expressions| json!({"matchExpressions": expressions})).collect();
        json!({"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms},
        }}})
    };
    for spec in [
        json!({"os": {"name": "windows"}}),
        json!({"nodeSelector": {"kubernetes.io/os": "windows"}}),
        json!({"nodeSelector": {"beta.kubernetes.io/os": "windows", "a": "b"}}),
        affinity(vec![json!([os("In", &["windows"])])]),
        affinity(vec![json!([other(), os("NotIn", &["linux"])]), json!([os("In", &["windows"])])]),
    ] {
        assert_eq!(skip(&pod(json!({}), spec.clone()), SHOP), Skip::Windows, "{spec}");
    }
    for spec in [
        json!({"os": {"name": "linux"}, "nodeSelector": {"kubernetes.io/os": "windows"}}),
        json!({"nodeSelector": {"kubernetes.io/os": "linux"}}),
        affinity(vec![json!([os("In", &["windows", "linux"])])]),
        affinity(vec![json!([os("In", &["windows"])]), json!([other()])]),
        affinity(vec![json!([os("NotIn", &["windows"])])]),
        affinity(vec![json!([os("Exists", &[])])]),
        affinity(vec![]),
        json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 1, "preference": {"matchExpressions": [os("In", &["windows"])]}},
        ]}}}),
    ] {
        inject(&pod(json!({}), spec), SHOP);
    }
}

#[test]
fn mend_25_a_volume_of_our_name_is_not_ours() {
    for name in pod::VOLUMES {
        let spec = json!({"volumes": [{"name": "data", "emptyDir": {}}, {"name": name, "hostPath": {"path": "/"}}]});
        assert_eq!(deny(&pod(json!({}), spec.clone()), SHOP), Deny::TakenVolume(name.to_owned()));
        assert_eq!(skip(&pod(json!({"labels": {INJECT: "disabled"}}), spec), SHOP), Skip::Disabled);
    }
}

#[test]
fn mend_24_values_without_effect_beside_others_are_said() {
    let said = |annotations: Value, spec: Value| inject(&pod(json!({"annotations": annotations}), spec), SHOP).warnings;
    let drain = said(json!({"tulle.io/drain-seconds": "60"}), json!({}));
    assert!(drain[0].contains("terminationGracePeriodSeconds: 30"), "{drain:?}");
    let longer = said(json!({"tulle.io/drain-seconds": "60"}), json!({"terminationGracePeriodSeconds": 60}));
    assert_eq!(longer, Vec::<String>::new());
    let none = said(
        json!({"tulle.io/capture": "none", "tulle.io/dns-capture": "true", "tulle.io/exclude-uids": "1"}),
        json!({}),
    );
    assert_eq!(none.len(), 2, "{none:?}");
}

#[test]
fn mend_30_words_of_other_meshes_are_told_apart_from_values() {
    for (value, meant) in
        [("true", "enabled"), ("Yes", "enabled"), ("enable", "enabled"), ("false", "disabled"), ("disable", "disabled")]
    {
        for place in ["labels", "annotations"] {
            let denied = deny(&pod(json!({place: {INJECT: value}}), json!({})), SHOP).to_string();
            let wanted = format!("tulle.io/inject: \"{value}\" is not a value; did you mean {meant}?");
            assert!(denied.contains(&wanted), "{denied}");
        }
    }
    let typo = inject(&annotated("tulle.io/skip-outbound-port", "25"), SHOP).warnings;
    assert!(typo[0].contains("did you mean tulle.io/skip-outbound-ports?"), "{typo:?}");
}
