//! From `tulle install` to Helm and back, by the commands of `docs/kubernetes.md`, on a real API server.

#![expect(clippy::unwrap_used, reason = "what cannot fail on a machine that runs tests")]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tulle_testing::api_server::ApiServer;
use tulle_testing::foreign;

fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert!(status.success(), "{command:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

/// The control plane, and who manages it.
fn control_plane(api: &ApiServer) -> (Value, String) {
    let words = ["get", "deployment", "tulle-control-plane", "-n", "tulle-system", "-o", "json"];
    let object: Value = serde_json::from_str(&api.kubectl(&words, "")).unwrap();
    let manager = object["metadata"]["labels"]["app.kubernetes.io/managed-by"].as_str().unwrap().to_owned();
    (object["metadata"]["uid"].clone(), manager)
}

#[tokio::test]
async fn mend_31_from_tulle_install_to_helm_and_back() {
    let Some(helm) = foreign::helm() else { return };
    let Some(api) = ApiServer::start().await else { return };
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/helm/tulle");
    let folder = tempfile::tempdir().unwrap();
    let values = folder.path().join("values.yaml");
    std::fs::write(&values, "controlPlane: {replicas: 3}\n").unwrap();
    let values = values.to_str().unwrap();
    let command = |program: &Path, words: &[&str]| {
        let mut command = Command::new(program);
        command.env("KUBECONFIG", api.kubeconfig("admin")).env("HOME", folder.path()).args(words);
        command
    };
    let tulle = Path::new(env!("CARGO_BIN_EXE_tulle"));

    let installed = run(&mut command(tulle, &["install", "-f", values]));
    api.kubectl(&["apply", "-f", "-"], &installed);
    let (first, manager) = control_plane(&api);
    assert_eq!(manager, "tulle");

    let adopt = ["upgrade", "--install", "tulle", chart.to_str().unwrap(), "--namespace", "tulle-system"];
    let helm_run = |words: &[&str]| run(&mut command(&helm, words));
    helm_run(&[&adopt[..], &["--take-ownership", "-f", values]].concat());
    let (second, manager) = control_plane(&api);
    assert_eq!((&second, manager.as_str()), (&first, "Helm"), "the same object, of another manager");
    let refused = command(tulle, &["upgrade"]).output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("helm upgrade"), "{refused:?}");

    let kept = helm_run(&["get", "values", "tulle", "--namespace", "tulle-system", "-o", "yaml"]);
    std::fs::write(values, kept).unwrap();
    api.kubectl(&["-n", "tulle-system", "delete", "secret", "-l", "owner=helm,name=tulle"], "");
    let installed = run(&mut command(tulle, &["install", "-f", values]));
    api.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", "-"], &installed);
    let (third, manager) = control_plane(&api);
    assert_eq!((&third, manager.as_str()), (&first, "tulle"));
    assert_eq!(helm_run(&["list", "--namespace", "tulle-system", "-q"]).trim(), "", "Helm has forgotten it");
    let upgraded = run(&mut command(tulle, &["upgrade", "-f", values]));
    assert!(upgraded.contains("replicas: 3"), "the values came along");
    api.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", "-"], &upgraded);

    // The definitions stay unless it is asked for, as the page says.
    let shown = run(&mut command(tulle, &["uninstall", "--yes"]));
    assert!(shown.contains("workloads.tulle.io: kept"), "{shown}");
    api.kubectl(&["get", "crd", "workloads.tulle.io"], "");
    let shown = run(&mut command(tulle, &["uninstall", "--yes", "--definitions"]));
    assert!(shown.contains("workloads.tulle.io: deleted"), "{shown}");
}
