//! `tulle install` against the chart as the real Helm renders it, and what the objects must and must not hold.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tulle_testing::foreign;

fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/helm/tulle")
}

fn run(command: &mut Command) -> String {
    let out = command.output().expect("the program starts");
    let error = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{command:?}: {error}");
    String::from_utf8(out.stdout).expect("text")
}

fn tulle(flags: &[&str]) -> String {
    run(Command::new(env!("CARGO_BIN_EXE_tulle")).arg("install").args(flags))
}

/// Objects by kind and name.
fn objects(text: &str) -> BTreeMap<String, Value> {
    let mut objects = BTreeMap::new();
    for document in text.split("\n---\n") {
        let value: Value = if document.lines().all(|l| l.trim().is_empty() || l.starts_with(['#', '-'])) {
            continue;
        } else {
            serde_saphyr::from_str(document.trim_start_matches("---\n")).expect("YAML")
        };
        let word = |field: &Value| field.as_str().expect("a kind and a name").to_owned();
        let id = format!("{} {}", word(&value["kind"]), word(&value["metadata"]["name"]));
        assert!(objects.insert(id.clone(), value).is_none(), "{id} is there twice");
    }
    objects
}

/// Values that go through every branch of the templates.
const OTHER_VALUES: &str = "\
image: {registry: 'registry.example.com:5000/mesh/', tag: 1.2.3-rc.1, pullPolicy: Always, pullSecrets: [one, two]}
trustDomain: example.com
clusterDomain: cluster.example
log: {level: 'info,tulle_control_plane::xds=debug', format: text}
crds: {keep: false}
proxy: {resources: {requests: {cpu: 1, memory: null}, limits: {cpu: 2}}, logLevel: 'debug,h2=info', accessLog: json}
controlPlane:
  replicas: 5
  antiAffinity: required
  leafTtl: 1h30m
  resources: {requests: {cpu: 2, memory: 1Gi}, limits: null}
  tolerations: [{key: a, operator: Exists, effect: NoSchedule}, {key: b, value: 'x \"y\"', tolerationSeconds: 3}]
  podAnnotations: {example.com/a: 'yes', b: '1'}
  env: [{name: TULLE_DNS_NAME, value: mesh.example.com}]
injector:
  replicas: 1
  antiAffinity: none
  failurePolicy: Ignore
  timeoutSeconds: 3
  validation: false
  nodeSelector: {a: b, kubernetes.io/os: null}
  resources: {requests: null, limits: null}
cni:
  enabled: true
  binDir: /var/lib/rancher/k3s/data/cni
  confDir: /var/lib/rancher/k3s/agent/etc/cni/net.d
  excludeNamespaces: [monitoring, ingress]
  tolerations: []
";

#[test]
fn the_same_objects_as_helm() {
    let Some(helm) = foreign::helm() else { return };
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other.yaml");
    std::fs::write(&other, OTHER_VALUES).unwrap();
    let other = other.to_str().unwrap();
    let cases: [&[&str]; 5] = [
        &[],
        &["--set", "cni.enabled=true"],
        &["-f", other],
        &["-f", other, "--set", "injector.replicas=2", "--set", "injector.validation=true"],
        &[
            "--set",
            "crds.install=false",
            "--set",
            "controlPlane.podDisruptionBudget=false",
            "--set",
            "createNamespace=false",
        ],
    ];
    for flags in cases {
        compare(&helm, flags);
    }
}

/// Helm with the chart.
fn template(helm: &Path, flags: &[&str]) -> Command {
    let mut command = Command::new(helm);
    command
        .args(["template", "tulle", "--namespace", "tulle-system", "--kube-version", "1.34.0"])
        .args(["--set", "createNamespace=true"])
        .args(flags)
        .arg(chart());
    command
}

/// Both come to the same objects.
fn compare(helm: &Path, flags: &[&str]) {
    let (helm, ours) = (objects(&run(&mut template(helm, flags))), objects(&tulle(flags)));
    assert_eq!(helm.keys().collect::<Vec<_>>(), ours.keys().collect::<Vec<_>>(), "{flags:?}");
    for (id, mut object) in helm {
        // Each says of itself that it manages the object.
        let manager = object["metadata"]["labels"].get_mut("app.kubernetes.io/managed-by").expect("a manager");
        assert_eq!(std::mem::replace(manager, "tulle".into()), "Helm");
        assert_eq!(object, ours[&id], "{flags:?} {id}");
    }
}

#[test]
fn mend_26_single_values_are_those_of_helm() {
    let Some(helm) = foreign::helm() else { return };
    let cases: [&[&str]; 11] = [
        &["--set", "controlPlane.replicas=3,injector.replicas=4"],
        &["--set", r"controlPlane.podAnnotations.example\.com/a=x\,y"],
        &["--set", "cni.enabled=true,cni.excludeNamespaces={a,b}"],
        &["--set", "cni.enabled=true,cni.tolerations=null"],
        &["--set", "controlPlane.tolerations[0].key=a,controlPlane.tolerations[0].operator=Exists"],
        &[
            "--set",
            "controlPlane.env[1].name=B,controlPlane.env[1].value=x,controlPlane.env[0].name=A,controlPlane.env[0].value=007",
        ],
        &["--set", "injector.nodeSelector=null,proxy.resources.limits.memory=null"],
        &["--set", "proxy.resources.limits.cpu=2", "--set-string", "proxy.resources.requests.cpu=1"],
        &["--set-string", "image.tag=2", "--set", "image.tag=v3"],
        &["--set", "image.tag=1.2,image.registry="],
        &["--set", "proxy.resources.requests.ephemeral-storage=64Mi,proxy.resources.limits.ephemeral-storage=1Gi"],
    ];
    for flags in cases {
        compare(&helm, flags);
    }
    // What one refuses, the other refuses.
    for flags in [
        &["--set", "image.tag=1"][..],
        &["--set", "trustDomain"],
        &["--set", "trustDomain=a,trustDomain.b=c"],
        &["--set-string", "injector.replicas=3"],
        &["--set", "controlPlane.env[0=1"],
        &["--set", "controlPlane.env[-1].name=1"],
        &["--set", "cni.excludeNamespaces={a"],
        &["--set", "cni.excludeNamespaces={}"],
        &["--set", "controlPlane.env={a}"],
    ] {
        assert!(!template(&helm, flags).output().unwrap().status.success(), "Helm takes {flags:?}");
        let out = Command::new(env!("CARGO_BIN_EXE_tulle")).arg("install").args(flags).output().unwrap();
        assert!(!out.status.success() && out.stdout.is_empty(), "{flags:?}");
    }
}

#[test]
fn wrong_values_are_refused() {
    for (value, part) in [
        ("trustDomian=x", "trustDomian is not known"),
        ("injector.replicas=0", "injector.replicas"),
        ("controlPlane.antiAffinity=maybe", "none of \"preferred\""),
        (
            "controlPlane.resources.requests.memory=2Gi",
            "requests.memory 2Gi is above controlPlane.resources.limits.memory 1Gi",
        ),
        ("controlPlane.replicas=1,injector.replicas", "\"replicas\" has no value"),
    ] {
        let out = Command::new(env!("CARGO_BIN_EXE_tulle")).args(["install", "--set", value]).output().unwrap();
        let error = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success() && error.contains(part), "{value}: {error}");
        assert!(out.stdout.is_empty(), "{value}: nothing half made");
    }
}

/// Everything that is granted, a line for each right. A new right is a decision: it is written here, and why in the chart.
const GRANTED: &str = "\
tulle-cni cluster core pods: get
tulle-cni tulle-cni apps daemonsets tulle-cni: get
tulle-control-plane cluster apiextensions.k8s.io customresourcedefinitions grpcroutes.gateway.networking.k8s.io,httproutes.gateway.networking.k8s.io,referencegrants.gateway.networking.k8s.io,workloads.tulle.io: list watch
tulle-control-plane cluster authentication.k8s.io tokenreviews: create
tulle-control-plane cluster core configmaps tulle-trust-bundle: list patch watch
tulle-control-plane cluster core configmaps: create
tulle-control-plane cluster core namespaces: get list watch
tulle-control-plane cluster core nodes: get list watch
tulle-control-plane cluster core pods: get list watch
tulle-control-plane cluster core services: get list watch
tulle-control-plane cluster discovery.k8s.io endpointslices: get list watch
tulle-control-plane cluster events.k8s.io events: create patch
tulle-control-plane cluster gateway.networking.k8s.io grpcroutes/status: patch
tulle-control-plane cluster gateway.networking.k8s.io grpcroutes: get list watch
tulle-control-plane cluster gateway.networking.k8s.io httproutes/status: patch
tulle-control-plane cluster gateway.networking.k8s.io httproutes: get list watch
tulle-control-plane cluster gateway.networking.k8s.io referencegrants: get list watch
tulle-control-plane cluster rbac.authorization.k8s.io clusterroles tulle-control-plane: get
tulle-control-plane cluster tulle.io workloads/status: patch
tulle-control-plane cluster tulle.io workloads: get list watch
tulle-control-plane tulle-system coordination.k8s.io leases tulle-control-plane: get update
tulle-control-plane tulle-system coordination.k8s.io leases: create
tulle-control-plane tulle-system core secrets tulle-ca: get list update watch
tulle-control-plane tulle-system core secrets: create
tulle-injector cluster admissionregistration.k8s.io mutatingwebhookconfigurations tulle-injector: get patch
tulle-injector cluster admissionregistration.k8s.io validatingwebhookconfigurations tulle-injector: get patch
tulle-injector cluster core events: create
tulle-injector tulle-system core secrets tulle-injector-tls: get update
tulle-injector tulle-system core secrets: create
";

#[test]
fn rights_are_the_least_and_listed() {
    let without = objects(&tulle(&[]));
    assert!(without.keys().all(|id| !id.contains("tulle-cni")), "nodes are touched only where it was asked for");
    let objects = objects(&tulle(&["--set", "cni.enabled=true"]));
    let mut granted = BTreeSet::new();
    for (id, role) in &objects {
        let scope = match role["kind"].as_str().unwrap() {
            "ClusterRole" => "cluster",
            "Role" => role["metadata"]["namespace"].as_str().unwrap(),
            _ => continue,
        };
        let name = role["metadata"]["name"].as_str().unwrap();
        for rule in role["rules"].as_array().unwrap() {
            assert!(!rule.to_string().contains('*'), "{id} grants a wildcard: {rule}");
            let mut verbs = texts(&rule["verbs"]);
            verbs.sort_unstable();
            let names = texts(&rule["resourceNames"]);
            for group in texts(&rule["apiGroups"]) {
                for resource in texts(&rule["resources"]) {
                    let group = if group.is_empty() { "core" } else { group };
                    let name_list = if names.is_empty() { String::new() } else { format!(" {}", names.join(",")) };
                    granted.insert(format!("{name} {scope} {group} {resource}{name_list}: {}\n", verbs.join(" ")));
                }
            }
        }
        // A role is bound to the account of its name, and to nothing else.
        let binding = &objects[&format!("{}Binding {name}", role["kind"].as_str().unwrap())];
        assert_eq!(binding["roleRef"]["name"], name);
        assert_eq!(binding["subjects"].as_array().unwrap().len(), 1);
        assert_eq!(binding["subjects"][0]["name"], name);
    }
    assert_eq!(granted.into_iter().collect::<String>(), GRANTED);
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

#[test]
fn webhooks_leave_the_cluster_alone() {
    let objects = objects(&tulle(&[]));
    let mut seen = 0;
    for (id, object) in objects.iter().filter(|(id, _)| id.contains("WebhookConfiguration")) {
        for webhook in object["webhooks"].as_array().unwrap() {
            seen += 1;
            let spared = webhook["namespaceSelector"]["matchExpressions"]
                .as_array()
                .unwrap()
                .iter()
                .find(|e| e["key"] == "kubernetes.io/metadata.name" && e["operator"] == "NotIn")
                .unwrap_or_else(|| panic!("{id} {webhook}"));
            for namespace in ["kube-system", "kube-node-lease", "tulle-system"] {
                assert!(texts(&spared["values"]).contains(&namespace), "{id} {namespace}");
            }
            // Only pods that asked for a sidecar, and objects of Tulle itself, wait for an answer.
            let asked = webhook["name"].as_str().unwrap().ends_with(".inject.tulle.io");
            let ours =
                webhook["rules"].as_array().unwrap().iter().all(|rule| texts(&rule["apiGroups"]) == ["tulle.io"]);
            assert!(asked || ours || webhook["failurePolicy"] == "Ignore", "{id} {webhook}");
            assert!(webhook["timeoutSeconds"].as_i64().unwrap() <= 10);
            assert!(webhook["clientConfig"]["caBundle"].is_null(), "it is the injector's to set");
        }
    }
    assert_eq!(seen, 6);
}

#[test]
fn pods_fit_the_level_restricted() {
    let objects = objects(&tulle(&[]));
    assert_eq!(
        objects["Namespace tulle-system"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"],
        "restricted"
    );
    for name in ["tulle-control-plane", "tulle-injector"] {
        let pod = &objects[&format!("Deployment {name}")]["spec"]["template"]["spec"];
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        assert!(pod["hostNetwork"].is_null() && pod["hostPID"].is_null());
        for container in pod["containers"].as_array().unwrap() {
            let context = &container["securityContext"];
            assert_eq!(context["allowPrivilegeEscalation"], false);
            assert_eq!(context["readOnlyRootFilesystem"], true);
            assert_eq!(texts(&context["capabilities"]["drop"]), ["ALL"]);
            assert!(context["capabilities"]["add"].is_null() && context["privileged"].is_null());
        }
        for volume in pod["volumes"].as_array().into_iter().flatten() {
            assert!(volume["hostPath"].is_null(), "{volume}");
        }
    }
}

#[test]
fn what_writes_to_nodes_has_a_namespace_of_its_own_and_two_folders() {
    let objects = objects(&tulle(&["--set", "cni.enabled=true", "--set", "cni.confDir=/etc/other/net.d"]));
    assert_eq!(
        objects["Namespace tulle-system"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"],
        "restricted"
    );
    let set = &objects["DaemonSet tulle-cni"];
    assert_eq!(set["metadata"]["namespace"], "tulle-cni");
    let pod = &set["spec"]["template"]["spec"];
    // Otherwise it would wait for the network that it is a part of.
    assert_eq!(pod["hostNetwork"], true);
    assert!(pod["hostPID"].is_null());
    let context = &pod["containers"][0]["securityContext"];
    assert_eq!(context["allowPrivilegeEscalation"], false);
    assert_eq!(texts(&context["capabilities"]["drop"]), ["ALL"]);
    assert!(context["capabilities"]["add"].is_null() && context["privileged"].is_null());
    let folders = pod["volumes"].as_array().unwrap().iter().map(|volume| &volume["hostPath"]["path"]);
    assert_eq!(folders.collect::<Vec<_>>(), ["/opt/cni/bin", "/etc/other/net.d"]);
    let injector = objects["Deployment tulle-injector"]["spec"]["template"]["spec"]["containers"][0]["env"].to_string();
    assert!(injector.contains(r#"{"name":"TULLE_CNI","value":"true"}"#), "{injector}");
}
