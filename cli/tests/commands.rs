//! The commands as programs: what they print, and how they end.

use std::path::Path;
use std::process::{Command, Output};

/// Runs `tulle` in the repository.
fn tulle(words: &[&str]) -> Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    Command::new(env!("CARGO_BIN_EXE_tulle"))
        .args(words)
        .current_dir(root)
        .output()
        .expect("the binary of this package")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_examples_are_valid() {
    for dir in ["examples/shop", "examples/policies"] {
        let out = tulle(&["validate", "-f", dir]);
        assert_eq!((out.status.code(), text(&out.stdout)), (Some(0), String::new()), "{dir}");
    }
}

#[test]
fn problems_are_printed_with_file_and_line() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  annotations:\n    tulle.io/timeout: soon\n\
                    spec:\n  ports:\n    - port: 80\n";
    std::fs::write(dir.path().join("web.yaml"), manifest).unwrap();
    let out = tulle(&["validate", "-f", dir.path().to_str().unwrap()]);
    let printed = text(&out.stdout);
    assert_eq!(out.status.code(), Some(1), "{printed}");
    assert!(printed.starts_with("web.yaml:6"), "{printed}");
    assert!(printed.contains("tulle.io/timeout") && printed.contains("soon"), "{printed}");
    let nowhere = tulle(&["validate", "-f", "/nowhere"]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(text(&nowhere.stderr).contains("/nowhere"));
}

#[test]
fn mend_30_words_about_injection_are_validated_too() {
    let dir = tempfile::tempdir().unwrap();
    let manifests = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n  labels:\n    tulle.io/inject: 'true'\n  annotations:\n    tulle.io/timeot: 5s\n\
                     ---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  template:\n    metadata:\n      annotations:\n        tulle.io/skip-inbound-port: '80'\n        tulle.io/capture: magic\n    spec: {}\n\
                     ---\napiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Pod\n  metadata: {name: a, annotations: {tulle.io/proxy-workers: many}}\n";
    std::fs::write(dir.path().join("all.yaml"), manifests).unwrap();
    let out = tulle(&["validate", "-f", dir.path().to_str().unwrap()]);
    let printed = text(&out.stdout);
    assert_eq!(out.status.code(), Some(1), "{printed}");
    for part in [
        "all.yaml:6: error: Namespace shop: label tulle.io/inject: \"true\" is not a value; did you mean enabled?",
        "did you mean tulle.io/timeout?",
        "all.yaml:17: warning: Deployment web: tulle.io/skip-inbound-port",
        "did you mean tulle.io/skip-inbound-ports?",
        "all.yaml:18: warning: Deployment web: tulle.io/capture: \"magic\"",
        "error: Pod a: tulle.io/proxy-workers: \"many\"",
    ] {
        assert!(printed.contains(part), "{part}\n{printed}");
    }
}

#[test]
fn a_token_is_all_that_is_printed() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let create = |more: &[&str]| {
        let words = ["token", "create", "--state-dir", state.to_str().unwrap(), "-n", "shop"];
        tulle(&[&words[..], more].concat())
    };
    let out = create(&["-s", "web", "--ttl", "1h"]);
    let printed = text(&out.stdout);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert_eq!(printed.trim_end().split('.').count(), 3, "{printed}");
    assert_eq!(printed.lines().count(), 1, "{printed}");
    assert!(text(&out.stderr).contains("is new"), "a new directory is a likely mistake");
    assert_eq!(text(&create(&["-s", "web"]).stderr), "");
    assert_eq!(create(&["-s", "not/a/name"]).status.code(), Some(1));
    assert_eq!(create(&["-s", "web", "--ttl", "2y"]).status.code(), Some(2), "the command line is wrong");
}

#[test]
fn an_absent_proxy_is_said_to_be_absent() {
    // A port that was free a moment ago; nobody on this machine serves proxy configuration on it.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let out = tulle(&["proxy-config", "endpoints", "--admin", &free]);
    assert_eq!(out.status.code(), Some(1));
    let wanted = format!("Nothing answers at {free}. For a pod: tulle proxy-config -n NS POD");
    assert!(text(&out.stderr).contains(&wanted), "{}", text(&out.stderr));
    for words in [&["proxy-config", "endpoints", "web", "more"][..], &["proxy-config", "web", "--admin", &free]] {
        assert_eq!(tulle(words).status.code(), Some(2), "{words:?}");
    }
}

#[test]
fn mend_33_a_missing_kubeconfig_is_told_once() {
    let out =
        Command::new(env!("CARGO_BIN_EXE_tulle")).arg("check").env("KUBECONFIG", "/nowhere/config").output().unwrap();
    let said = text(&out.stderr);
    let wanted = "tulle: no kubeconfig at /nowhere/config and not in a cluster: set KUBECONFIG\n";
    assert_eq!((out.status.code(), said.as_str()), (Some(1), wanted));
}

#[test]
fn components_read_their_own_flags() {
    for (command, flag) in [("proxy", "--outbound-http"), ("control-plane", "--config-dir")] {
        let out = tulle(&[command, "--help"]);
        assert_eq!(out.status.code(), Some(0), "{command}");
        assert!(text(&out.stdout).contains(flag), "{command}");
        assert_eq!(tulle(&[command, "--no-such-flag"]).status.code(), Some(2), "{command}");
    }
}

#[test]
fn injected_manifests_are_printed_or_nothing_is() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("web.yaml");
    let inject = |capture: &str| {
        let pod = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: web, annotations: {{tulle.io/capture: {capture}}}}}\n\
             spec: {{containers: [{{name: web, image: 'web:1'}}]}}\n"
        );
        std::fs::write(&file, pod).unwrap();
        tulle(&["inject", "-n", "shop", "-f", file.to_str().unwrap(), "--image-registry", "registry.example.com"])
    };
    let out = inject("nft");
    assert_eq!((out.status.code(), text(&out.stderr)), (Some(0), "Pod shop/web: injected\n".to_owned()));
    assert!(text(&out.stdout).contains("image: registry.example.com/tulle/proxy:"), "{}", text(&out.stdout));
    let out = inject("magic");
    assert_eq!((out.status.code(), text(&out.stdout)), (Some(1), String::new()));
    assert!(text(&out.stderr).contains("a right value is \"iptables\""), "{}", text(&out.stderr));
    let unnamed = tulle(&["inject", "-f", "/nowhere.yaml"]);
    assert!(unnamed.status.code() == Some(1) && text(&unnamed.stderr).contains("/nowhere.yaml"));
}
