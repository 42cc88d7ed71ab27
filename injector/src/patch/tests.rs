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
