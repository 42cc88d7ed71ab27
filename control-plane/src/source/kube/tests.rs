//! The source by events, without an API: what the API sends, and what is told to the registry.

use std::sync::Arc;

use kube::runtime::watcher::Event;
use serde_json::{Value, json};

use super::follow::{Need, Trouble};
use super::objects::Objects;
use super::pods::Pods;
use super::watched::{Manifest, Watched};
use crate::model::ranges::WorkloadRanges;
use crate::model::{Delta, Health, Locality, Object, Port, Workload};
use crate::source::object::{EndpointSliceManifest, NodeManifest, PodManifest, ServiceManifest};

/// Workloads of every namespace, at any address.
fn everywhere() -> Arc<WorkloadRanges> {
    Arc::new(WorkloadRanges::parse(["*=0.0.0.0/0", "*=::/0"]).unwrap())
}

fn watched<T: Manifest>(value: Value) -> Watched<T> {
    // As the API sends it: text, type first.
    serde_json::from_str(&value.to_string()).unwrap()
}

fn service(name: &str, port: &Value) -> Watched<ServiceManifest> {
    watched(json!({
        "metadata": {
            "name": name, "namespace": "shop", "resourceVersion": "7", "uid": "u",
            "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}],
        },
        "spec": {"clusterIP": "10.96.0.12", "clusterIPs": ["10.96.0.12"], "ports": [
            {"name": "http", "port": 80, "protocol": "TCP", "targetPort": port},
        ]},
        "status": {"loadBalancer": {}},
    }))
}

fn pod(name: &str, change: impl FnOnce(&mut Value)) -> Watched<PodManifest> {
    let mut value = json!({
        "metadata": {
            "name": name, "namespace": "shop", "uid": "u-1", "resourceVersion": "8",
            "creationTimestamp": "2026-01-02T03:04:05Z", "labels": {"app": "web"},
            "annotations": {"tulle.io/workload": "web", "tulle.io/inject-status": "{}"},
        },
        "spec": {
            "nodeName": "n1", "serviceAccountName": "web",
            "initContainers": [
                {"name": "tulle-init"},
                {"name": "tulle-proxy", "restartPolicy": "Always", "ports": [{"containerPort": 15020}]},
            ],
            "containers": [{"name": "web", "ports": [{"name": "http", "containerPort": 8080}]}],
        },
        "status": {
            "phase": "Running", "podIP": "10.1.0.1", "podIPs": [{"ip": "10.1.0.1"}, {"ip": "fd00::1"}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    });
    change(&mut value);
    watched(value)
}

fn node(name: &str, zone: &str) -> Watched<NodeManifest> {
    let labels = json!({"topology.kubernetes.io/region": "eu", "topology.kubernetes.io/zone": zone});
    watched(json!({"metadata": {"name": name, "resourceVersion": "9", "labels": labels}}))
}

/// Pods over one node, listed.
fn listed(pods: Vec<Watched<PodManifest>>) -> (Pods, Vec<Delta>) {
    let mut state = Pods::default();
    for event in [Event::Init, Event::InitApply(node("n1", "a")), Event::InitDone] {
        assert_eq!(state.node(event), []);
    }
    assert_eq!(state.pod(Event::Init), []);
    for pod in pods {
        assert_eq!(state.pod(Event::InitApply(pod)), []);
    }
    let step = state.pod(Event::InitDone);
    (state, step)
}

fn workload(delta: &Delta) -> &Workload {
    let (Delta::Upsert(item), ..) = (delta,) else { panic!("no value in {delta:?}") };
    let Object::Workload(workload) = &item.object else { panic!("no workload in {item:?}") };
    workload
}

#[test]
fn a_list_is_told_at_once_and_changes_one_by_one() {
    let mut services = Objects::service();
    assert_eq!(services.event(Event::Init), []);
    assert_eq!(services.event(Event::InitApply(service("a", &json!(8080)))), []);
    let step = services.event(Event::InitDone);
    assert!(matches!(step.as_slice(), [Delta::Reset(items)] if items.len() == 1), "{step:?}");
    // The same again, as a status write would be.
    assert_eq!(services.event(Event::Apply(service("a", &json!(8080)))), []);
    let step = services.event(Event::Apply(service("a", &json!("web"))));
    assert!(matches!(step.as_slice(), [Delta::Upsert(_)]), "{step:?}");
    let step = services.event(Event::Delete(service("a", &json!("web"))));
    assert!(matches!(step.as_slice(), [Delta::Remove(..)]), "{step:?}");
    // After 410 Gone: what was not listed again is gone.
    services.event(Event::Apply(service("b", &json!(1))));
    services.event(Event::Init);
    services.event(Event::InitApply(service("c", &json!(1))));
    let step = services.event(Event::InitDone);
    assert!(
        matches!(step.as_slice(), [Delta::Reset(items)] if items.len() == 1 && &*items[0].object.reference().key.name == "c")
    );
}

#[test]
fn a_bad_object_keeps_its_last_good_value_and_is_named() {
    let mut services = Objects::service();
    services.event(Event::Init);
    services.event(Event::InitApply(service("a", &json!(8080))));
    services.event(Event::InitDone);
    let step = services.event(Event::Apply(service("a", &json!(99_999))));
    let [Delta::Problems(problems)] = step.as_slice() else { panic!("{step:?}") };
    let text = problems[0].to_string();
    assert!(text.contains("Service shop/a: spec.ports[0].targetPort") && text.contains("last good"), "{text}");
    assert!(
        matches!(services.event(Event::Apply(service("a", &json!(8080)))).as_slice(), [Delta::Problems(none)] if none.is_empty())
    );
}

#[test]
fn a_kind_of_ours_that_makes_no_sense_spoils_nothing_else() {
    let spec = json!({"metadata": {"name": "vm", "namespace": "shop"}, "spec": {"adresses": []}});
    let mut workloads = Objects::workload(everywhere());
    let step = workloads.event(Event::Apply(watched(spec)));
    let [Delta::Problems(problems)] = step.as_slice() else { panic!("{step:?}") };
    assert!(problems[0].to_string().contains("adresses"), "{problems:?}");
    let whole = json!({
        "apiVersion": "tulle.io/v1alpha1", "kind": "Workload", "metadata": {"name": "vm", "namespace": "shop"},
        "spec": {"addresses": ["10.9.0.1"], "ports": [{"name": "http", "port": 80}]}, "status": {"conditions": []},
    });
    assert!(
        matches!(workloads.event(Event::Apply(watched(whole))).as_slice(), [Delta::Upsert(_), Delta::Problems(none)] if none.is_empty())
    );
}

#[test]
fn a_kind_that_is_absent_is_an_empty_set_once_and_may_come_later() {
    let absent = || Trouble { absent: true, reason: Some("no workloads".to_owned()) };
    let mut workloads = Objects::workload(everywhere());
    assert_eq!(workloads.trouble(absent(), Need::WhenThere), [Delta::Reset(Vec::new())]);
    assert_eq!(workloads.trouble(absent(), Need::WhenThere), []);
    workloads.event(Event::Init);
    assert!(matches!(workloads.event(Event::InitDone).as_slice(), [Delta::Reset(_)]));
}

#[test]
fn what_may_not_be_seen_is_a_problem_and_the_mesh_waits_for_it() {
    let forbidden = || Trouble { absent: false, reason: Some("may not list services".to_owned()) };
    let mut services = Objects::service();
    let step = services.trouble(forbidden(), Need::Always);
    assert!(matches!(step.as_slice(), [Delta::Problems(problems)] if problems.len() == 1), "{step:?}");
    assert_eq!(services.trouble(forbidden(), Need::Always), []);
    services.event(Event::Init);
    let step = services.event(Event::InitDone);
    assert!(matches!(step.as_slice(), [Delta::Reset(_), ..]), "{step:?}");
}

#[test]
fn a_kind_that_comes_goes_and_comes_again() {
    let route = || {
        watched(json!({
            "metadata": {"name": "r", "namespace": "shop", "generation": 3},
            "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "web"}]},
            "status": {"parents": []},
        }))
    };
    let absent = || Trouble { absent: true, reason: Some("not installed".to_owned()) };
    let mut routes = Objects::http_route();
    let step = routes.trouble(absent(), Need::WhenThere);
    assert!(matches!(step.as_slice(), [Delta::Reset(none)] if none.is_empty()), "the mesh is ready without: {step:?}");
    assert_eq!(routes.trouble(absent(), Need::WhenThere), [], "and says nothing more");
    for event in [Event::Init, Event::InitApply(route())] {
        assert_eq!(routes.event(event), []);
    }
    let step = routes.event(Event::InitDone);
    assert!(matches!(step.as_slice(), [Delta::Reset(one)] if one.len() == 1), "{step:?}");
    // A status that was written is no news.
    assert_eq!(routes.event(Event::Apply(route())), []);
    // Once or twice may be an API that starts.
    assert_eq!(routes.trouble(absent(), Need::WhenThere), []);
    assert_eq!(routes.trouble(absent(), Need::WhenThere), []);
    let step = routes.trouble(absent(), Need::WhenThere);
    assert!(matches!(step.as_slice(), [Delta::Reset(none)] if none.is_empty()), "{step:?}");
    assert_eq!(routes.trouble(absent(), Need::WhenThere), []);
    let step = routes.event(Event::Apply(route()));
    assert!(matches!(step.as_slice(), [Delta::Upsert(_)]), "{step:?}");
}

#[test]
fn ports_outside_of_the_mesh_are_dialled_plain() {
    let skip = json!("9090, 8000-8010");
    let (_, step) = listed(vec![pod("web-1", |pod| {
        pod["metadata"]["annotations"]["tulle.io/skip-inbound-ports"] = skip;
    })]);
    let [Delta::Reset(items)] = step.as_slice() else { panic!("{step:?}") };
    let Object::Workload(web) = &items[0].object else { panic!("{items:?}") };
    let meshed = [80, 7999, 8000, 8010, 8011, 9090].map(|port| web.is_meshed_at(Port::new(port).unwrap()));
    assert_eq!(meshed, [true, true, false, false, true, false]);
}

#[test]
fn a_pod_is_a_workload_where_its_node_is() {
    let (mut state, step) = listed(vec![pod("web-1", |_| {})]);
    let [Delta::Reset(items)] = step.as_slice() else { panic!("{step:?}") };
    let Object::Workload(web) = &items[0].object else { panic!("{items:?}") };
    assert_eq!((&*web.owner, &*web.service_account, web.pod.as_deref()), ("web", "web", Some("u-1")));
    assert_eq!(web.addresses.len(), 2);
    assert_eq!(web.locality, Locality::new("eu", "a"));
    assert!(web.meshed && web.health == Health::Ready);
    // Not the proxy's.
    assert_eq!(web.ports.iter().map(|port| port.port.number()).collect::<Vec<_>>(), [8080]);

    // A node that moves takes its pods along; one that only beats its heart does not.
    assert_eq!(state.node(Event::Apply(node("n1", "a"))), []);
    assert_eq!(state.node(Event::Apply(node("n2", "b"))), []);
    let step = state.node(Event::Apply(node("n1", "b")));
    assert_eq!(workload(&step[0]).locality, Locality::new("eu", "b"));
}

#[test]
fn the_life_of_a_pod() {
    let (mut state, _) = listed(Vec::new());
    let waiting = pod("web-1", |pod| pod["status"] = json!({"phase": "Pending"}));
    let step = state.pod(Event::Apply(waiting));
    assert_eq!(workload(&step[0]).addresses, [] as [std::net::IpAddr; 0]);
    assert_eq!(workload(&step[0]).health, Health::Unready);
    let step = state.pod(Event::Apply(pod("web-1", |_| {})));
    assert_eq!(workload(&step[0]).health, Health::Ready);
    let ending = |pod: &mut Value| pod["metadata"]["deletionTimestamp"] = json!("2026-01-02T03:04:06Z");
    let step = state.pod(Event::Apply(pod("web-1", ending)));
    assert_eq!(workload(&step[0]).health, Health::Draining);
    let step = state.pod(Event::Apply(pod("web-1", |pod| pod["status"]["phase"] = json!("Succeeded"))));
    assert!(matches!(step.as_slice(), [Delta::Remove(..)]), "{step:?}");
    let step = state.pod(Event::Apply(pod("host", |pod| pod["spec"]["hostNetwork"] = json!(true))));
    assert_eq!(step, []);
}

#[test]
fn who_is_meshed() {
    type Change<'a> = &'a dyn Fn(&mut Value);
    let cases: [(Change<'_>, bool); 3] = [
        (&|pod| pod["metadata"]["annotations"] = json!({"tulle.io/workload": "web"}), false),
        (&|pod| pod["spec"]["initContainers"] = json!(null), false),
        (
            &|pod| {
                pod["spec"]["initContainers"] = json!(null);
                pod["spec"]["containers"] = json!([{"name": "web"}, {"name": "tulle-proxy"}]);
            },
            true,
        ),
    ];
    for (change, meshed) in cases {
        let (mut state, _) = listed(Vec::new());
        let step = state.pod(Event::Apply(pod("web-1", change)));
        assert_eq!(workload(&step[0]).meshed, meshed);
    }
}

#[test]
fn pods_without_nodes_have_no_place() {
    let mut state = Pods::default();
    state.pod(Event::Init);
    state.pod(Event::InitApply(pod("web-1", |_| {})));
    assert_eq!(state.pod(Event::InitDone), [], "the nodes may come yet");
    let forbidden = Trouble { absent: false, reason: Some("may not list nodes".to_owned()) };
    let step = state.node_trouble(forbidden);
    let [Delta::Reset(items), Delta::Problems(problems)] = step.as_slice() else { panic!("{step:?}") };
    assert_eq!(items.len(), 1);
    assert!(problems[0].to_string().contains("zones"), "{problems:?}");
}

/// Every object of the golden files, as a cluster would hand it out, becomes what the file source makes of it.
#[test]
fn both_sources_make_the_same_of_an_object() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/translate");
    let mut count = 0;
    for entry in std::fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        if !path.to_string_lossy().ends_with(".in.yaml") {
            continue;
        }
        let home = tempfile::tempdir().unwrap();
        std::fs::copy(&path, home.path().join("mesh.yaml")).unwrap();
        let (items, _) = crate::source::file::read(home.path());
        let mut expected: Vec<_> = items.into_iter().map(|item| item.object).collect();
        let text = std::fs::read_to_string(&path).unwrap();
        let mut actual: Vec<_> = text.split("\n---").filter_map(of_cluster).collect();
        expected.sort_by_key(Object::reference);
        actual.sort_by_key(Object::reference);
        assert_eq!(actual, expected, "{}", path.display());
        count += actual.len();
    }
    assert!(count > 20, "{count} objects");
}

/// The object of a manifest, after the API has accepted it.
fn of_cluster(manifest: &str) -> Option<Object> {
    let text = manifest.trim_start_matches("---");
    let mut value: Value = serde_saphyr::from_str(text).ok().filter(Value::is_object)?;
    let metadata = value["metadata"].as_object_mut().unwrap();
    metadata.insert("resourceVersion".to_owned(), json!("1"));
    metadata.insert("managedFields".to_owned(), json!([{"manager": "kubectl"}]));
    if value["kind"] != "Namespace" && value["metadata"].get("namespace").is_none() {
        value["metadata"]["namespace"] = json!("default");
    }
    for texts in ["annotations", "labels"] {
        for text in value["metadata"].get_mut(texts).and_then(Value::as_object_mut).into_iter().flatten() {
            if !text.1.is_string() {
                *text.1 = json!(text.1.to_string());
            }
        }
    }
    fn told<T: Manifest>(mut objects: Objects<T>, value: Value) -> Option<Object> {
        let step = objects.event(Event::Apply(watched(value)));
        step.into_iter().find_map(|delta| if let Delta::Upsert(item) = delta { Some(item.object) } else { None })
    }
    match value["kind"].as_str().unwrap() {
        "Namespace" => told(Objects::namespace(), value),
        "Service" => told(Objects::service(), value),
        "EndpointSlice" => told(Objects::endpoint_slice(), value),
        "Workload" => told(Objects::workload(everywhere()), value),
        "HTTPRoute" => told(Objects::http_route(), value),
        "GRPCRoute" => told(Objects::grpc_route(), value),
        "ReferenceGrant" => told(Objects::grant(), value),
        other => panic!("a kind that no source knows: {other}"),
    }
}

#[test]
fn hostile_01_a_workload_has_only_addresses_its_namespace_may_claim() {
    let workload = |namespace: &str, addresses: &[&str]| {
        watched(json!({
            "metadata": {"name": "vm", "namespace": namespace}, "spec": {"addresses": addresses, "meshed": false},
        }))
    };
    let ranges = WorkloadRanges::parse(["shop=10.9.0.0/16", "*=fd00::/8"]).unwrap();
    for (namespace, addresses, taken) in [
        ("shop", &["10.9.1.2"][..], true),
        ("shop", &["10.9.1.2", "fd00::1"], true),
        ("shop", &["::ffff:10.9.1.2"], true),
        ("bank", &["10.9.1.2"], false),
        ("bank", &["::ffff:10.9.1.2"], false),
        ("bank", &["fd00::1"], true),
        ("bank", &["10.10.0.1", "fd00::1"], false),
        ("*", &["10.9.1.2"], false),
    ] {
        let mut workloads = Objects::workload(Arc::new(ranges.clone()));
        let step = workloads.event(Event::Apply(workload(namespace, addresses)));
        let upserts = step.iter().filter(|delta| matches!(delta, Delta::Upsert(_))).count();
        assert_eq!(upserts, usize::from(taken), "{namespace} {addresses:?}: {step:?}");
    }
    let mut none = Objects::workload(Arc::default());
    let step = none.event(Event::Apply(workload("shop", &["10.9.1.2"])));
    let [Delta::Problems(problems)] = step.as_slice() else { panic!("{step:?}") };
    assert!(problems[0].to_string().contains("mesh.workloadRanges"), "{problems:?}");
    // A change for the worse leaves what was good.
    let mut workloads = Objects::workload(Arc::new(ranges));
    workloads.event(Event::Apply(workload("shop", &["10.9.1.2"])));
    let step = workloads.event(Event::Apply(workload("shop", &["10.96.0.1"])));
    assert!(matches!(step.as_slice(), [Delta::Problems(one)] if one[0].reason.contains("last good")), "{step:?}");
}

/// Anything at all in place of an object, and numbers that are none of theirs: a list is a list, and the good are in it.
#[test]
fn hostile_03_no_object_spoils_a_list() {
    let slice = |name: &str, port: Value| {
        json!({
            "metadata": {"name": name, "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4", "ports": [{"name": "http", "port": port}],
            "endpoints": [{"addresses": ["10.1.0.1"]}],
        })
    };
    let odd = [
        slice("a", json!(70_000)),
        slice("b", json!(-1)),
        slice("c", json!(0)),
        slice("d", json!(4_294_967_376_i64)),
        slice("e", json!(18_446_744_073_709_551_615_u64)),
        slice("f", json!(80.5)),
        slice("g", json!("80")),
        slice("h", json!([80])),
        json!({"metadata": {"name": "i", "namespace": "shop", "labels": [1]}}),
        json!({"metadata": {"name": "j", "namespace": "shop", "annotations": {"tulle.io/mtls": {"a": 1}}}}),
        json!({"metadata": {"name": 7, "namespace": {"x": 1}, "resourceVersion": 9}}),
        json!({"metadata": null}),
        json!({}),
        json!(null),
        json!("x"),
        json!([[], {}]),
    ];
    let mut items: Vec<String> = odd.iter().map(ToString::to_string).collect();
    // Deeper than what the JSON library follows; more of a number than it holds would be no JSON to the API server either.
    items.push(format!("{{\"metadata\":{{\"name\":\"k\"}},\"x\":{}{}}}", "[".repeat(500), "]".repeat(500)));
    items.push(slice("good", json!(8080)).to_string());
    let text = format!("{{\"metadata\":{{}},\"items\":[{}]}}", items.join(","));
    let list: kube::core::ObjectList<Watched<EndpointSliceManifest>> = serde_json::from_str(&text).expect("a list");
    assert_eq!(list.items.len(), items.len());
    let mut slices = Objects::endpoint_slice();
    slices.event(Event::Init);
    for object in list.items {
        slices.event(Event::InitApply(object));
    }
    let step = slices.event(Event::InitDone);
    let [Delta::Reset(good), ..] = step.as_slice() else { panic!("the first set is delivered: {step:?}") };
    let names: Vec<_> = good.iter().map(|item| item.object.reference().to_string()).collect();
    assert_eq!(names, ["EndpointSlice shop/good"]);
    let Some(Delta::Problems(problems)) = slices.event(Event::Apply(watched(slice("a", json!(65_536))))).pop() else {
        panic!("a problem")
    };
    let text = problems.iter().map(ToString::to_string).find(|text| text.contains("shop/a")).unwrap();
    assert!(text.contains("ports.port: 65536 is not a port: ports are from 1 to 65535"), "{text}");
    // A watch gives the same events, in either order of its keys.
    for text in [
        format!("{{\"type\":\"ADDED\",\"object\":{}}}", slice("a", json!(70_000))),
        format!("{{\"object\":{},\"type\":\"ADDED\"}}", slice("a", json!(70_000))),
    ] {
        let event: kube::core::WatchEvent<Watched<EndpointSliceManifest>> = serde_json::from_str(&text).unwrap();
        assert!(matches!(event, kube::core::WatchEvent::Added(object) if object.manifest.is_ok()));
    }
}
