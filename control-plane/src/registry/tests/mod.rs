//! The registry, fed by hand: what joins what, what wins, and what counts as changed.

mod hostile;

use std::sync::Arc;

use tulle_proto::ResourceType::{self, Cluster, Endpoint as Eds, Listener, Route};

use super::{Mesh, Registry, Writer};
use crate::model::delta::Item;
use crate::model::endpoint::{SliceEndpoint, SlicePort};
use crate::model::policy::{FailoverLevel, Mtls};
use crate::model::service::{ServicePort, TargetPort};
use crate::model::workload::WorkloadPort;
use crate::model::{
    Delta, EndpointSlice, Health, Key, Labels, Locality, Namespace, Object, Origin, Policy, Port, Protocol, Service,
    Workload,
};

const WEB: &str = "web.shop.svc.cluster.local:80";

fn port(number: u16) -> Port {
    Port::new(number).unwrap()
}

fn labels(app: &str) -> Labels {
    [("app".into(), app.into())].into()
}

fn service(name: &str) -> Service {
    Service {
        key: Key::new("shop", name),
        created: None,
        selector: labels("web"),
        cluster_ips: vec!["10.96.0.1".parse().unwrap()],
        ports: vec![ServicePort {
            name: "http".into(),
            port: port(80),
            target: TargetPort::Name("app".into()),
            protocol: Some(Protocol::Http),
        }],
        prefer_close: false,
        publish_unready: false,
        policy: Policy::default(),
    }
}

fn workload(name: &str, address: &str) -> Workload {
    Workload {
        key: Key::new("shop", name),
        created: None,
        labels: labels("web"),
        addresses: vec![address.parse().unwrap()],
        service_account: "web".into(),
        owner: "web".into(),
        ports: vec![WorkloadPort { name: "app".into(), port: port(8080), protocol: None }],
        locality: Locality::default(),
        weight: 1,
        meshed: true,
        uncaptured: Vec::new(),
        health: Health::Ready,
        pod: None,
    }
}

/// An item read from `file`.
fn item(file: &str, object: Object) -> Item {
    Item { origin: Origin { file: file.into(), document: 0, line: 1 }, object }
}

fn of_service(service: Service) -> Item {
    item(&format!("{}.yaml", service.key.name), Object::Service(Arc::new(service)))
}

fn of_workload(workload: Workload) -> Item {
    item(&format!("{}.yaml", workload.key.name), Object::Workload(Arc::new(workload)))
}

/// A slice of `web`: for each endpoint its address, its health, and the zone it is meant for.
fn of_slice(endpoints: &[(&str, Health, Option<&str>)]) -> Item {
    let endpoint = |(address, health, zone): &(&str, Health, Option<&str>)| SliceEndpoint {
        address: address.parse().unwrap(),
        health: *health,
        locality: Locality::default(),
        for_zones: zone.iter().map(|zone| Arc::from(*zone)).collect(),
    };
    let slice = EndpointSlice {
        key: Key::new("shop", "web-x"),
        created: None,
        service: "web".into(),
        ports: vec![SlicePort { name: "http".into(), port: port(8080), protocol: None }],
        endpoints: endpoints.iter().map(endpoint).collect(),
    };
    item("slice.yaml", Object::EndpointSlice(Arc::new(slice)))
}

fn of_namespace(policy: Policy) -> Item {
    let namespace = Namespace { key: Key::new("shop", "shop"), created: None, policy };
    item("shop.yaml", Object::Namespace(Arc::new(namespace)))
}

struct Bench {
    writer: Writer,
}

impl Bench {
    /// A service with two workloads, published as version 1.
    fn new() -> Self {
        let mut bench = Self { writer: Writer::default() };
        let items = vec![
            of_service(service("web")),
            of_workload(workload("web-1", "10.1.0.1")),
            of_workload(workload("web-2", "10.1.0.2")),
        ];
        assert_eq!(bench.step(Delta::Reset(items)).version, 1);
        bench
    }

    fn step(&mut self, delta: Delta) -> Arc<Mesh> {
        self.writer.apply(0, delta);
        self.writer.build().0
    }

    fn upsert(&mut self, item: Item) -> Arc<Mesh> {
        self.step(Delta::Upsert(item))
    }

    fn remove(&mut self, item: Item) -> Arc<Mesh> {
        self.step(Delta::Remove(item.origin, item.object.reference()))
    }
}

/// When each type of `name` changed: listener, route, cluster, endpoints.
fn changed(mesh: &Mesh, name: &str) -> [u64; 4] {
    [Listener, Route, Cluster, Eds].map(|ty: ResourceType| mesh.changed_at(ty, name))
}

fn endpoints(mesh: &Mesh, name: &str) -> Vec<String> {
    let view = mesh.service(&Key::new("shop", name)).unwrap();
    view.ports[0].endpoints.iter().map(|e| format!("{}:{}", e.address, e.port)).collect()
}

#[test]
fn a_service_has_the_endpoints_it_selects() {
    let mut bench = Bench::new();
    let mesh = bench.upsert(of_workload(Workload { labels: labels("other"), ..workload("web-3", "10.1.0.3") }));
    assert_eq!(endpoints(&mesh, "web"), ["10.1.0.1:8080", "10.1.0.2:8080"]);
    let mesh = bench.upsert(of_workload(workload("web-3", "10.1.0.3")));
    assert_eq!(endpoints(&mesh, "web").len(), 3);
    assert_eq!(mesh.problems(), []);
}

#[test]
fn hints_count_when_every_ready_endpoint_has_them_and_no_annotation_says_otherwise() {
    use Health::{Draining, Ready, Unready};
    let selects_nothing = |policy| of_service(Service { selector: Labels::new(), policy, ..service("web") });
    let mut bench = Bench { writer: Writer::default() };
    bench.upsert(selects_nothing(Policy::default()));
    let hinted = |mesh: &Mesh| {
        let view = mesh.service(&Key::new("shop", "web")).unwrap();
        view.ports[0].endpoints.iter().filter(|endpoint| endpoint.is_for("a")).count()
    };
    let (one, two) = (("10.1.0.1", Ready, Some("a")), ("10.1.0.2", Ready, Some("a")));
    for (others, expected) in [
        (vec![two], 2),
        (vec![("10.1.0.2", Ready, Some("b"))], 1),
        (vec![("10.1.0.2", Draining, None), ("10.1.0.3", Unready, None)], 1),
        (vec![two, ("10.1.0.3", Ready, None)], 0),
    ] {
        let mesh = bench.upsert(of_slice(&[vec![one], others.clone()].concat()));
        assert_eq!(hinted(&mesh), expected, "{others:?}");
    }
    // What comes and goes with a hint is the endpoints, and nothing else.
    let mesh = bench.upsert(of_slice(&[one, two]));
    assert_eq!((hinted(&mesh), changed(&mesh, WEB)), (2, [1, 1, 1, 6]));
    let policy = Policy { failover: Some(vec![FailoverLevel::Any]), ..Policy::default() };
    assert_eq!(hinted(&bench.upsert(selects_nothing(policy))), 0);
}

#[test]
fn an_endpoint_change_touches_endpoints_alone() {
    let mut bench = Bench::new();
    let mesh = bench.upsert(of_workload(Workload { health: Health::Unready, ..workload("web-2", "10.1.0.2") }));
    assert_eq!(changed(&mesh, WEB), [1, 1, 1, 2]);
    assert_eq!(changed(&mesh, "*"), [1, 1, 1, 2]);
    assert_eq!(mesh.changed_at(Listener, "10.96.0.1:80"), 1);
    assert_eq!(mesh.changed_at(Listener, "inbound/shop/web"), 1);
    let mesh = bench.remove(of_workload(workload("web-2", "10.1.0.2")));
    assert_eq!(changed(&mesh, WEB), [1, 1, 1, 3]);
    // What is not there changed when something last went away.
    assert_eq!(mesh.changed_at(Listener, "10.1.0.2:8080"), 3);
    // The identities behind a service are part of its cluster.
    let mesh = bench.upsert(of_workload(Workload { service_account: "new".into(), ..workload("web-2", "10.1.0.2") }));
    assert_eq!(changed(&mesh, WEB), [1, 1, 4, 4]);
}

#[test]
fn one_service_does_not_touch_another() {
    let mut bench = Bench::new();
    let other = Service { cluster_ips: vec!["10.96.0.2".parse().unwrap()], ..service("other") };
    let mesh = bench.upsert(of_service(Service { selector: labels("none"), ..other.clone() }));
    assert_eq!(changed(&mesh, WEB), [1; 4]);
    assert_eq!(changed(&mesh, "other.shop.svc.cluster.local:80"), [2; 4]);
    let mesh = bench.remove(of_service(other));
    assert_eq!(changed(&mesh, WEB), [1; 4]);
    assert_eq!(changed(&mesh, "other.shop.svc.cluster.local:80"), [3; 4]);
    assert_eq!(mesh.changed_at(Listener, "10.96.0.2:80"), 3);
}

#[test]
fn what_is_the_same_is_no_change() {
    let mut bench = Bench::new();
    // The same object at another line of its file.
    let mut moved = of_workload(workload("web-1", "10.1.0.1"));
    let removed = Delta::Remove(moved.origin.clone(), moved.object.reference());
    moved.origin.line = 7;
    bench.writer.apply(0, removed);
    let mesh = bench.upsert(moved);
    assert_eq!(changed(&mesh, WEB), [1; 4]);
    assert_eq!(mesh.changed_at(Eds, "pod/10.1.0.1:8080"), 1);
    assert_eq!(mesh.changed_at(Listener, "inbound/shop/web"), 1);
}

#[test]
fn a_namespace_gives_defaults() {
    let mut bench = Bench::new();
    let policy = Policy { mtls: Some(Mtls::Strict), retry_limit: Some(7), ..Policy::default() };
    let mesh = bench.upsert(of_namespace(policy));
    let view = mesh.service(&Key::new("shop", "web")).unwrap();
    assert_eq!(view.policy.retry_limit(), 7);
    let inbound = mesh.inbound(&Key::new("shop", "web")).unwrap();
    assert_eq!((inbound.mtls, inbound.ports[&port(8080)].mtls), (Mtls::Strict, Mtls::Strict));
    assert_eq!(mesh.changed_at(Listener, "inbound/shop/web"), 2);
    assert_eq!(mesh.changed_at(Route, "pod/10.1.0.1:8080"), 2);
}

#[test]
fn of_two_definitions_the_older_wins() {
    let mut bench = Bench::new();
    let headless = Service { cluster_ips: Vec::new(), ..service("web") };
    let again = item("a-second.yaml", Object::Service(Arc::new(headless)));
    // Without ages the order of files decides.
    let mesh = bench.upsert(again.clone());
    assert!(mesh.service(&Key::new("shop", "web")).unwrap().service.cluster_ips.is_empty());
    assert_eq!(mesh.problems().len(), 1);
    assert!(mesh.problems()[0].to_string().starts_with("web.yaml:1: error: Service shop/web: it is defined twice"));
    // An age beats none.
    let aged = Service { created: Some("2026-01-01T00:00:00Z".into()), ..service("web") };
    let mesh = bench.upsert(of_service(aged));
    assert_eq!(mesh.service(&Key::new("shop", "web")).unwrap().service.cluster_ips.len(), 1);
    let mesh = bench.remove(again);
    assert_eq!(mesh.problems(), []);
}

#[test]
fn an_address_has_one_owner() {
    let mut bench = Bench::new();
    let aged = Service { created: Some("2026-01-01T00:00:00Z".into()), ..service("older") };
    let mesh = bench.upsert(of_service(aged.clone()));
    assert_eq!(mesh.problems().len(), 1);
    assert!(mesh.problems()[0].reason.contains("Service shop/older"), "{}", mesh.problems()[0]);
    assert_eq!(mesh.changed_at(Listener, "10.96.0.1:80"), 2);
    let mesh = bench.remove(of_service(aged));
    assert_eq!(mesh.problems(), []);
    assert_eq!(mesh.changed_at(Listener, "10.96.0.1:80"), 3);
}

#[test]
fn services_that_disagree_about_a_port() {
    let mut bench = Bench::new();
    let mut admin = Service { cluster_ips: Vec::new(), ..service("zz-admin") };
    admin.ports[0].protocol = Some(Protocol::Tcp);
    admin.policy.mtls = Some(Mtls::Strict);
    let mesh = bench.upsert(of_service(admin));
    let inbound = mesh.inbound(&Key::new("shop", "web")).unwrap();
    let port = &inbound.ports[&port(8080)];
    assert_eq!((port.protocol, port.mtls), (Protocol::Auto, Mtls::Strict));
    assert_eq!(mesh.problems().len(), 1);
}

#[test]
fn mend_04_ports_of_one_service_that_disagree_about_their_target() {
    for (first, second, joined) in [
        (Protocol::Http, Protocol::Tcp, Protocol::Auto),
        (Protocol::Tcp, Protocol::Http, Protocol::Auto),
        (Protocol::Grpc, Protocol::Http, Protocol::Auto),
        (Protocol::Auto, Protocol::Tcp, Protocol::Auto),
        (Protocol::Tls, Protocol::Tcp, Protocol::Tcp),
        (Protocol::Http2, Protocol::Http2, Protocol::Http2),
    ] {
        let mut both = service("web");
        both.ports[0].protocol = Some(first);
        let other = both.ports[0].clone();
        both.ports.push(ServicePort { port: port(9090), protocol: Some(second), ..other });
        let mut bench = Bench::new();
        let mesh = bench.upsert(of_service(both));
        let inbound = mesh.inbound(&Key::new("shop", "web")).unwrap();
        assert_eq!(inbound.ports[&port(8080)].protocol, joined, "{first} and {second}");
        assert_eq!(mesh.problems(), []);
    }
}

#[tokio::test]
async fn published_when_every_source_has_spoken() {
    let (registry, inputs) = Registry::start(2, None);
    let mut meshes = registry.subscribe();
    inputs[0].send(vec![Delta::Reset(vec![of_service(service("web"))])]).await.unwrap();
    meshes.changed().await.unwrap();
    assert!(!registry.synced());
    inputs[1].send(vec![Delta::Reset(Vec::new())]).await.unwrap();
    registry.wait_synced().await;
    assert_eq!(registry.subscribe().borrow().services().count(), 1);
}
