//! `tulle-cni` as a container runtime runs it: environment and stdin in, stdout and exit code out. Nothing here needs root; what
//! it does in a network namespace is in `tests/netns`.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// A call: exit code and what was printed.
fn call(env: &[(&str, &str)], input: &str) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tulle-cni"));
    command.env_clear().envs(env.iter().copied());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // One that needs no input may have ended.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let done = child.wait_with_output().unwrap();
    (done.status.success(), String::from_utf8(done.stdout).unwrap())
}

fn pod(namespace: &str) -> String {
    format!("IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME=web-1;K8S_POD_UID=1")
}

/// An ADD for a pod of `namespace`; nobody listens where the API server should be, and the network namespace is missing.
fn add(namespace: &str, more: &Value) -> (bool, Value) {
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    let config = json!({
        "clusters": [{"name": "a", "cluster": {"server": "http://127.0.0.1:9"}}],
        "users": [{"name": "a", "user": {"token": "t"}}],
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        "current-context": "a",
    });
    std::fs::write(&kubeconfig, config.to_string()).unwrap();
    let mut config = json!({
        "cniVersion": "1.0.0", "name": "pods", "type": "tulle-cni", "kubeconfig": kubeconfig,
        "excludeNamespaces": ["monitoring"],
        "prevResult": {"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.5/16"}], "dns": {}},
    });
    for (key, value) in more.as_object().unwrap() {
        config[key] = value.clone();
    }
    let args = pod(namespace);
    let env = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "c"),
        ("CNI_NETNS", "/run/netns/tulle-no-such"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/opt/cni/bin"),
        ("CNI_ARGS", args.as_str()),
    ];
    let (success, text) = call(&env, &config.to_string());
    (success, serde_json::from_str(&text).unwrap())
}

fn annotations(pairs: &Value) -> Value {
    json!({"runtimeConfig": {"io.kubernetes.cri.pod-annotations": pairs}})
}

#[test]
fn versions_are_told() {
    for input in [r#"{"cniVersion": "0.4.0"}"#, ""] {
        let (success, text) = call(&[("CNI_COMMAND", "VERSION")], input);
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert!(success);
        let spoken = answer["supportedVersions"].as_array().unwrap();
        for version in ["0.4.0", "1.0.0"] {
            assert!(spoken.contains(&version.into()), "{text}");
        }
    }
    let (success, text) = call(&[("CNI_COMMAND", "STATUS")], r#"{"cniVersion": "1.1.0"}"#);
    assert!(success && text.is_empty(), "{text}");
}

#[test]
fn deletion_never_fails() {
    for input in ["", "{", r#"{"cniVersion": "9.9.9"}"#, r#"{"cniVersion": "1.0.0", "kubeconfig": "/nowhere"}"#] {
        for args in ["", "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web"] {
            let (success, text) = call(&[("CNI_COMMAND", "DEL"), ("CNI_ARGS", args)], input);
            assert!(success && text.is_empty(), "{input}: {text}");
        }
    }
}

#[test]
fn errors_are_those_of_cni() {
    for (env, input, code) in [
        (vec![("CNI_COMMAND", "DANCE")], "{}", 4),
        (vec![("CNI_COMMAND", "ADD")], "not JSON", 6),
        (vec![("CNI_COMMAND", "ADD")], r#"{"cniVersion": "0.1.0"}"#, 1),
        (vec![("CNI_COMMAND", "ADD")], r#"{"cniVersion": "1.0.0"}"#, 7),
    ] {
        let (success, text) = call(&env, input);
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert!(!success, "{text}");
        assert_eq!(answer["code"], code, "{text}");
        assert!(
            answer["cniVersion"].is_string() && answer["msg"].as_str().unwrap().starts_with("tulle-cni: "),
            "{text}"
        );
    }
}

#[test]
fn a_pod_that_is_not_ours_waits_for_nobody() {
    let other = json!({"app": "x", "tulle.io/inject": "disabled"});
    let by_init_container = json!({"tulle.io/inject-status": r#"{"version":"0.1.0"}"#});
    for (namespace, more) in [
        ("kube-system", json!({})),
        ("tulle-system", json!({})),
        ("monitoring", json!({})),
        ("shop", annotations(&other)),
        ("shop", annotations(&json!({}))),
        ("shop", annotations(&by_init_container)),
    ] {
        let (success, answer) = add(namespace, &more);
        assert!(success, "{namespace} {answer}");
        assert_eq!(answer["ips"][0]["address"], "10.1.0.5/16", "the result before is passed on");
    }
}

#[test]
fn a_pod_that_may_be_ours_does_not_start_while_nobody_knows() {
    let (success, answer) = add("shop", &json!({}));
    assert!(!success);
    assert_eq!(answer["code"], 11, "try again later: {answer}");
    let message = answer["msg"].as_str().unwrap();
    assert!(message.contains("shop/web-1") && message.contains("does not start"), "{message}");
}

#[test]
fn a_pod_of_ours_that_cannot_be_captured_does_not_start() {
    let status = r#"{"redirect":"cni"}"#;
    let (success, answer) = add("shop", &annotations(&json!({"tulle.io/inject-status": status})));
    assert!(!success && answer["msg"].as_str().unwrap().contains("tulle-no-such"), "{answer}");
    let wrong = json!({"tulle.io/inject-status": status, "tulle.io/skip-inbound-ports": "99999"});
    let (success, answer) = add("shop", &annotations(&wrong));
    assert!(!success && answer["msg"].as_str().unwrap().contains("skip-inbound-ports"), "{answer}");
}
