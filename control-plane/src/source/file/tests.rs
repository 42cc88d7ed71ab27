//! The source against real directories, and its files without one.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use super::files::Files;
use super::scan::Content;
use super::{FileSource, read};
use crate::model::delta::Item;
use crate::model::policy::{LoadBalancer, Mtls};
use crate::model::service::TargetPort;
use crate::model::{Delta, Health, Object, Protocol, Severity};

const DEADLINE: Duration = Duration::from_secs(20);

fn service(name: &str, port: u16) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  ports: [{{port: {port}}}]\n")
}

fn update(files: &mut Files, content: &[(&str, &str)]) -> Vec<Delta> {
    files.update(
        content.iter().map(|(name, text)| ((*name).into(), Content::Read(Ok(text.as_bytes().to_vec())))).collect(),
    )
}

fn problems(step: &[Delta]) -> Vec<String> {
    let of = |delta: &Delta| {
        let Delta::Problems(problems) = delta else { return None };
        Some(problems.iter().map(ToString::to_string).collect())
    };
    step.iter().find_map(of).unwrap_or_default()
}

fn objects(text: &str) -> Vec<Object> {
    let mut files = Files::default();
    let step = update(&mut files, &[("a.yaml", text)]);
    assert_eq!(problems(&step), [""; 0]);
    files.all().0.into_iter().map(|item| item.object).collect()
}

fn first_service(text: &str) -> std::sync::Arc<crate::model::Service> {
    let Object::Service(service) = objects(text).remove(0) else { panic!("not a service") };
    service
}

#[test]
fn a_whole_service() {
    let text = r#"
# a comment before the first document
---
apiVersion: v1
kind: Service
metadata:
  name: reviews
  namespace: shop
  creationTimestamp: "2026-01-02T03:04:05Z"
  annotations: {tulle.io/load-balancer: random, tulle.io/retry-limit: 3, tulle.io/protocol.9090: grpc}
spec:
  type: ClusterIP
  clusterIPs: [10.96.0.12, "fd00::12"]
  clusterIP: 10.96.0.12
  selector: {app: reviews}
  sessionAffinity: None
  trafficDistribution: PreferClose
  ports:
    - {name: http, port: 80, targetPort: web, nodePort: 30080}
    - {name: rpc, port: 9090, targetPort: 8081}
"#;
    let service = first_service(text);
    assert_eq!(service.key.to_string(), "shop/reviews");
    assert_eq!(service.cluster_ips.len(), 2);
    assert_eq!(service.ports[0].target, TargetPort::Name("web".into()));
    assert_eq!(service.ports[0].protocol, Some(Protocol::Http));
    assert_eq!(service.ports[1].target, TargetPort::Number("8081".parse().unwrap()));
    assert_eq!(service.policy.load_balancer, Some(LoadBalancer::Random));
    assert_eq!(service.policy.retry_limit, Some(3));
    assert!(service.prefer_close);
}

#[test]
fn mend_19_conditions_of_a_slice() {
    let text = r#"
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: reviews-abc, labels: {kubernetes.io/service-name: reviews}}
addressType: IPv4
ports: [{name: "", port: 8080}]
endpoints:
  - {addresses: [10.1.0.1]}
  - {addresses: [10.1.0.2], conditions: {ready: false}}
  - {addresses: [10.1.0.3], conditions: {ready: false, serving: true, terminating: true}}
  - {addresses: [10.1.0.5], conditions: {terminating: true}}
  - {addresses: [10.1.0.6], conditions: {ready: false, terminating: true}}
  - {addresses: [10.1.0.7], conditions: {serving: true}}
  - {addresses: [10.1.0.4], conditions: {ready: true}, zone: a, nodeName: n, targetRef: {kind: Pod, name: p}}
"#;
    let Object::EndpointSlice(slice) = objects(text).remove(0) else { panic!("not a slice") };
    let health: Vec<_> = slice.endpoints.iter().map(|e| e.health).collect();
    let (ready, unready, draining) = (Health::Ready, Health::Unready, Health::Draining);
    assert_eq!(health, [ready, unready, draining, draining, unready, ready, ready]);
    assert_eq!(&*slice.endpoints[6].locality.zone, "a");
}

#[test]
fn a_bad_file_keeps_its_last_good_content() {
    let mut files = Files::default();
    let good = format!("{}---\n{}", service("a", 80), service("b", 80));
    let step = update(&mut files, &[("shop.yaml", &good), ("other.yaml", &service("c", 80))]);
    assert!(matches!(&step[0], Delta::Reset(items) if items.len() == 3));

    // Line 10 of the file, in its second document.
    let bad = format!("{}---\n{}", service("a", 80), service("b", 80).replace("port: 80", "port: eighty"));
    let step = update(&mut files, &[("shop.yaml", &bad), ("other.yaml", &service("c", 81))]);
    let told = problems(&step);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("shop.yaml:11:"), "{told:?}");
    assert!(told[0].contains("last good content"), "{told:?}");
    // The other file moves on.
    assert!(step.iter().any(|d| matches!(d, Delta::Upsert(item) if &*item.origin.file == "other.yaml")), "{step:?}");
    assert_eq!(files.all().0.len(), 3);

    // The same bad content is nothing new.
    assert_eq!(update(&mut files, &[("shop.yaml", &bad), ("other.yaml", &service("c", 81))]), []);

    let step = update(&mut files, &[("shop.yaml", &service("a", 80)), ("other.yaml", &service("c", 81))]);
    assert!(step.iter().any(|d| matches!(d, Delta::Remove(_, reference) if &*reference.key.name == "b")), "{step:?}");
    assert!(matches!(step.last(), Some(Delta::Problems(problems)) if problems.is_empty()));
}

#[test]
fn every_error_of_a_file_is_named() {
    let mut files = Files::default();
    let text = format!("{}---\nkind: Service\n---\n{}", service("a", 0), service("Bad_Name", 80));
    let told = problems(&update(&mut files, &[("a.yaml", &text)]));
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[0].contains("Service default/a: spec.ports[0].port: 0 is not a port"), "{told:?}");
    assert!(told[1].starts_with("a.yaml:6: ") && told[1].contains("apiVersion"), "{told:?}");
    assert!(told[2].contains("is not a name"), "{told:?}");
}

#[test]
fn wrong_annotation_keeps_its_last_good_value() {
    let mut files = Files::default();
    let with = |mtls: &str| {
        service("a", 80).replace("{name: a}", &format!("{{name: a, annotations: {{tulle.io/mtls: {mtls}}}}}"))
    };
    update(&mut files, &[("a.yaml", &with("strict"))]);
    let step = update(&mut files, &[("a.yaml", &with("strickt"))]);
    let told = problems(&step);
    assert!(told[0].starts_with("a.yaml:3:"), "{told:?}");
    assert!(told[0].ends_with("(example: strict)"), "{told:?}");
    let Object::Service(service) = &files.all().0[0].object else { panic!("not a service") };
    assert_eq!(service.policy.mtls, Some(Mtls::Strict));
}

#[test]
fn what_is_not_ours_is_left_alone_and_what_is_ours_is_checked() {
    let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec: {anything: [1]}\n";
    assert_eq!(objects(text), []);

    let workload =
        "apiVersion: tulle.io/v1alpha1\nkind: Workload\nmetadata: {name: w}\nspec:\n  addresses: [127.1.0.1]\n";
    assert_eq!(objects(workload).len(), 1);
    for (added, part) in [
        ("  adresses: []", "adresses"),
        ("  weight: 0", "weight"),
        ("  serviceAccount: UPPER", "identity"),
        ("  health: sick", "sick"),
        ("  ports: [{prot: 1, port: 80}]", "prot"),
    ] {
        let told = problems(&update(&mut Files::default(), &[("w.yaml", &format!("{workload}{added}\n"))]));
        assert!(told.len() == 1 && told[0].starts_with("w.yaml:6:") && told[0].contains(part), "{added}: {told:?}");
    }
    let told = problems(&update(&mut Files::default(), &[("w.yaml", &workload.replace("Workload", "Wrkload"))]));
    assert!(told[0].starts_with("w.yaml:2:"), "{told:?}");
}

#[test]
fn items_of_a_list_are_objects_where_they_stand() {
    let block = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Service\n  metadata: {name: a}\n  spec:\n    ports: [{port: 80}]\n# the next\n- apiVersion: v1\n  kind: Service\n  metadata:\n    name: b\n  spec:\n    ports:\n    - port: 0\nmetadata: {resourceVersion: \"\"}\n";
    let told = problems(&update(&mut Files::default(), &[("l.yaml", block)]));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("l.yaml:16:13: error: Service default/b"), "{told:?}");
    assert_eq!(objects(&block.replace("port: 0", "port: 81")).len(), 2);
    let item = |name: &str| {
        format!(
            r#"{{"apiVersion": "v1", "kind": "Service", "metadata": {{"name": "{name}", "annotations": {{"x": "}}\""}}}},
  "spec": {{"ports": [{{"port": 80}}]}}}}"#
        )
    };
    let json = format!(r#"{{"apiVersion": "v1", "kind": "List", "items": [{}, {}]}}"#, item("a"), item("b"));
    assert_eq!(objects(&json).len(), 2);
    let nested = "apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: List}]\n";
    assert!(problems(&update(&mut Files::default(), &[("l.yaml", nested)]))[0].contains("within a List"));
    assert_eq!(objects("apiVersion: v1\nkind: List\n"), []);
}

#[test]
fn external_names_are_no_services_and_udp_is_told_of_gently() {
    let external = service("a", 80).replace("spec:", "spec:\n  type: ExternalName\n  externalName: example.com");
    assert_eq!(objects(&external), []);
    let mut files = Files::default();
    update(&mut files, &[("a.yaml", &service("a", 53).replace("{port: 53}", "{port: 53, protocol: UDP}"))]);
    let (items, problems) = files.all();
    assert!(items.is_empty());
    assert!(problems.iter().all(|problem| problem.severity == Severity::Info) && !problems.is_empty());
}

/// A running source and what it told.
struct Running {
    steps: mpsc::Receiver<Vec<Delta>>,
    _source: FileSource,
}

impl Running {
    fn start(directory: &Path) -> Self {
        let (sender, steps) = mpsc::channel();
        let source = FileSource::start(directory, move |step| sender.send(step).is_ok()).unwrap();
        Self { steps, _source: source }
    }

    fn next(&self) -> Vec<Delta> {
        self.steps.recv_timeout(DEADLINE).expect("a step in time")
    }

    /// Waits until `found` holds of a delta.
    fn until(&self, found: impl Fn(&Delta) -> bool) {
        while !self.next().iter().any(&found) {}
    }
}

fn upserted(name: &'static str, port: u16) -> impl Fn(&Delta) -> bool {
    move |delta| {
        let Delta::Upsert(Item { object: Object::Service(s), .. }) = delta else { return false };
        &*s.key.name == name && s.ports[0].port.number() == port
    }
}

#[test]
fn watches_changes_additions_and_removals() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::write(at("a.yaml"), service("a", 80)).unwrap();
    let running = Running::start(directory.path());
    assert!(matches!(&running.next()[0], Delta::Reset(items) if items.len() == 1));

    // As editors do: a new file over the old one.
    fs::write(at(".a.yaml.swp"), service("a", 81)).unwrap();
    fs::rename(at(".a.yaml.swp"), at("a.yaml")).unwrap();
    running.until(upserted("a", 81));
    // In place.
    fs::write(at("a.yaml"), service("a", 82)).unwrap();
    running.until(upserted("a", 82));
    fs::write(at("b.yml"), service("b", 80)).unwrap();
    running.until(upserted("b", 80));
    fs::write(at("ignored.txt"), service("c", 80)).unwrap();
    fs::remove_file(at("a.yaml")).unwrap();
    running.until(|delta| matches!(delta, Delta::Remove(_, reference) if &*reference.key.name == "a"));
}

#[test]
fn sees_the_swap_of_a_mounted_config_map_whole() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::create_dir(at("..one")).unwrap();
    fs::write(at("..one/a.yaml"), service("a", 80)).unwrap();
    fs::write(at("..one/b.yaml"), service("b", 80)).unwrap();
    symlink("..one", at("..data")).unwrap();
    for name in ["a.yaml", "b.yaml"] {
        symlink(format!("..data/{name}"), at(name)).unwrap();
    }
    let running = Running::start(directory.path());
    assert!(matches!(&running.next()[0], Delta::Reset(items) if items.len() == 2));

    fs::create_dir(at("..two")).unwrap();
    fs::write(at("..two/a.yaml"), service("a", 90)).unwrap();
    fs::write(at("..two/b.yaml"), service("b", 90)).unwrap();
    symlink("..two", at("..data_tmp")).unwrap();
    fs::rename(at("..data_tmp"), at("..data")).unwrap();
    let step = running.next();
    assert!(step.iter().any(upserted("a", 90)) && step.iter().any(upserted("b", 90)), "one step: {step:?}");
}

#[test]
fn a_directory_that_is_not_there() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    assert!(FileSource::start(&missing, |_| true).is_err());
    assert_eq!(read(&missing).1.len(), 1);
}

#[test]
fn follows_a_directory_whose_name_moves() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for (version, port) in [("one", 80), ("two", 90)] {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("a.yaml"), service("a", port)).unwrap();
    }
    symlink("one", at("current")).unwrap();
    let running = Running::start(&at("current"));
    assert!(matches!(&running.next()[0], Delta::Reset(items) if items.len() == 1));
    symlink("two", at("next")).unwrap();
    fs::rename(at("next"), at("current")).unwrap();
    running.until(upserted("a", 90));
    // The new directory is the one that is watched now.
    fs::write(at("two/b.yaml"), service("b", 80)).unwrap();
    running.until(upserted("b", 80));
}
