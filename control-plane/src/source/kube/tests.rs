//! The source by events, without an API: what the API sends, and what is told to the registry.

use kube::runtime::watcher::Event;
use serde_json::{Value, json};

use super::follow::{Need, Trouble};
use super::objects::Objects;
use super::pods::Pods;
use super::watched::{Manifest, Watched};
use crate::model::{Delta, Health, Locality, Object, Port, Workload};
use crate::source::object::{NodeManifest, PodManifest, ServiceManifest, WorkloadManifest};

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
    let mut workloads = Objects::<WorkloadManifest>::workload();
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
    let mut workloads = Objects::<WorkloadManifest>::workload();
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
        "Workload" => told(Objects::<WorkloadManifest>::workload(), value),
        "HTTPRoute" => told(Objects::http_route(), value),
        "GRPCRoute" => told(Objects::grpc_route(), value),
        "ReferenceGrant" => told(Objects::grant(), value),
        other => panic!("a kind that no source knows: {other}"),
    }
}
