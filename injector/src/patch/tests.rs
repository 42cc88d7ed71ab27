//! Golden pairs in `testdata/patch`: `NAME.in.yaml` is a pod, `NAME.out.yaml` what becomes of it.

use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::decide::{self, Circumstances, Verdict};

fn injected(pod: &Value, native: bool, cni: bool) -> Value {
    let around = Circumstances { namespace: "shop", by_default: true, native };
    let verdict = decide::decide(pod, around);
    let Verdict::Inject(verdict) = verdict else { panic!("{verdict:?}") };
    inject(pod, &verdict, &Injection { cni, ..Injection::default() }, None)
}

#[test]
fn golden_pairs() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/patch");
    let mut seen = 0;
    for entry in std::fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let Some(name) = name.strip_suffix(".in.yaml") else { continue };
        let pod: Value = serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let patched = injected(&pod, !name.starts_with("classic"), name.starts_with("cni"));
        let version = env!("CARGO_PKG_VERSION");
        let text = serde_saphyr::to_string(&patched).unwrap().replace(version, "VERSION");
        let golden = directory.join(format!("{name}.out.yaml"));
        if std::env::vars().any(|(key, _)| key == "UPDATE_GOLDEN") {
            std::fs::write(&golden, &text).unwrap();
        }
        let expected = std::fs::read_to_string(&golden).unwrap_or_default();
        assert_eq!(text, expected, "{name}: UPDATE_GOLDEN=1 rewrites it");
        let again: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(again, serde_json::from_str::<Value>(&patched.to_string().replace(version, "VERSION")).unwrap());
        seen += 1;
    }
    assert!(seen > 2, "no golden pairs in {}", directory.display());
}

#[test]
fn what_has_a_proxy_is_left_alone() {
    for native in [true, false] {
        let pod = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "app"}]}});
        let once = injected(&pod, native, false);
        let around = Circumstances { namespace: "shop", by_default: true, native };
        assert_eq!(decide::decide(&once, around), Verdict::Skip(decide::Skip::AlreadyInjected));
    }
}

#[test]
fn absent_and_null_fields_are_made() {
    let pod = json!({"metadata": {"annotations": null}, "spec": {
        "containers": [{"name": "app"}], "initContainers": null, "volumes": null,
    }});
    for native in [true, false] {
        let patched = injected(&pod, native, false);
        assert_eq!(patched["spec"]["volumes"].as_array().unwrap().len(), 4);
        assert!(patched["metadata"]["annotations"][INJECT_STATUS].is_string());
    }
}

#[test]
fn mend_23_handlers_that_are_too_large_are_left_and_told() {
    let header = json!({"name": "X-Large", "value": "x".repeat(60_000)});
    let probe = json!({"httpGet": {"port": 8080, "httpHeaders": [header]}});
    let pod = json!({"spec": {"containers": [{"name": "a", "livenessProbe": probe, "lifecycle": {"preStop": probe}}]}});
    let told = warnings(&pod, true);
    assert!(told.len() == 1 && told[0].contains("container a: lifecycle.preStop is too large"), "{told:?}");
    let patched = injected(&pod, true, false);
    let app = &patched["spec"]["containers"][0];
    assert_eq!((&app["livenessProbe"]["httpGet"]["port"], &app["lifecycle"]["preStop"]), (&json!(15020), &probe));
}

#[test]
fn mend_23_hooks_are_handed_on_without_a_time_limit() {
    let hooks = json!({"preStop": {"httpGet": {"port": 1}}, "postStart": {"tcpSocket": {"port": 1}}});
    let probe = json!({"httpGet": {"port": 1}});
    let pod = json!({"spec": {
        "initContainers": [{"name": "stays", "restartPolicy": "Always", "startupProbe": probe}],
        "containers": [{"name": "a", "lifecycle": hooks, "livenessProbe": {"httpGet": {"port": 1}, "timeoutSeconds": 7}}],
    }});
    let handed = |native| {
        let patched = injected(&pod, native, false);
        let lists = ["initContainers", "containers"].map(|list| patched["spec"][list].as_array().unwrap().clone());
        let proxy = lists.concat().into_iter().find(|container| container["name"] == "tulle-proxy").unwrap();
        let variable = proxy["env"].as_array().unwrap().iter().find(|v| v["name"] == "TULLE_APP_PROBES").unwrap();
        (patched, serde_json::from_str::<Value>(variable["value"].as_str().unwrap()).unwrap())
    };
    let (patched, native) = handed(true);
    let all = native.to_string();
    assert_eq!(native.as_object().unwrap().len(), 3, "{all}");
    assert!(all.contains(r#""hook":true,"httpGet":{"path":"/","port":1}"#) || all.contains(r#""hook":true"#), "{all}");
    assert_eq!(all.matches("timeoutSeconds").count(), 2, "{all}");
    let app = &patched["spec"]["containers"][0];
    assert_eq!(app["lifecycle"]["postStart"], hooks["postStart"], "the kubelet itself refuses such a hook");
    // A classic sidecar is not there yet when an init container that stays is probed.
    let (patched, classic) = handed(false);
    assert_eq!(classic.as_object().unwrap().len(), 2, "{classic}");
    assert_eq!(patched["spec"]["initContainers"][0]["startupProbe"], probe);
}

#[test]
fn mend_24_the_init_container_costs_what_the_proxy_costs() {
    let annotations = json!({"tulle.io/proxy-cpu-request": "1", "tulle.io/proxy-cpu-limit": "1",
        "tulle.io/proxy-memory-request": "512Mi"});
    for native in [true, false] {
        let pod = json!({"metadata": {"annotations": annotations}, "spec": {"containers": [{"name": "a"}]}});
        let patched = injected(&pod, native, false);
        let init = &patched["spec"]["initContainers"][0];
        let proxy = &patched["spec"][if native { "initContainers" } else { "containers" }][usize::from(native)];
        assert_eq!((&init["name"], &proxy["name"]), (&json!("tulle-init"), &json!("tulle-proxy")));
        let wanted = json!({"requests": {"cpu": "1", "memory": "512Mi"}, "limits": {"cpu": "1", "memory": "512Mi"}});
        assert_eq!((&init["resources"], &proxy["resources"]), (&wanted, &wanted));
    }
}
