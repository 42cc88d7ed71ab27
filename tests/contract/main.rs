//! The contract between control plane and proxy: what one translates the other compiles, whole and with the meaning it
//! was given. No sockets; objects in, snapshot out.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tulle_control_plane::model::service::{ServicePort, TargetPort};
use tulle_control_plane::model::workload::WorkloadPort;
use tulle_control_plane::model::{
    Delta, Health, Key, Locality, Object, Origin, Policy, Port, Protocol, Service, Workload, annotations, delta,
};
use tulle_control_plane::registry::{Mesh, Registry};
use tulle_control_plane::translate::{ClientKind, Scope, Translator};
use tulle_identity::spiffe::TrustDomain;
use tulle_proto::ResourceType;
use tulle_proxy::base::protocol::Protocol as Spoken;
use tulle_proxy::config::cluster::{HttpVersion, Policy as Balancer};
use tulle_proxy::config::compile::Store;
use tulle_proxy::config::listener::{MtlsMode, Outbound};
use tulle_proxy::config::route::Action;
use tulle_proxy::config::{Known, Snapshot};

const DOMAIN: &str = "cluster.local";

fn port(number: u16) -> Port {
    Port::new(number).expect("a test's port")
}

fn policy(pairs: &[(&str, &str)]) -> Policy {
    let mut policy = Policy::default();
    for (key, value) in pairs {
        annotations::read(&mut policy, &format!("tulle.io/{key}"), value, None).expect("a valid annotation");
    }
    policy
}

/// A service `reviews` in `shop` at 10.96.0.12, with one port 80 to 8080, and two instances of it.
fn objects(protocol: Protocol, policy: Policy) -> Vec<Object> {
    let labels = BTreeMap::from([("app".into(), "reviews".into())]);
    let service = Service {
        key: Key::new("shop", "reviews"),
        created: None,
        selector: labels.clone(),
        cluster_ips: vec!["10.96.0.12".parse().expect("an address")],
        ports: vec![ServicePort {
            name: "web".into(),
            port: port(80),
            target: TargetPort::Number(port(8080)),
            protocol: Some(protocol),
        }],
        prefer_close: false,
        publish_unready: false,
        policy,
    };
    let workload = |name: &str, address: &str, meshed, health, zone: &str| Workload {
        key: Key::new("shop", name),
        created: None,
        labels: labels.clone(),
        addresses: vec![address.parse::<IpAddr>().expect("an address")],
        service_account: "reviews-sa".into(),
        owner: "reviews".into(),
        ports: vec![WorkloadPort { name: "web".into(), port: port(8080), protocol: None }],
        locality: Locality::new("eu", zone),
        weight: 1,
        meshed,
        uncaptured: Vec::new(),
        health,
        pod: None,
    };
    vec![
        Object::Service(Arc::new(service)),
        Object::Workload(Arc::new(workload("reviews-1", "10.244.0.1", true, Health::Ready, "a"))),
        Object::Workload(Arc::new(workload("reviews-2", "10.244.0.2", false, Health::Draining, "b"))),
    ]
}

async fn mesh(objects: Vec<Object>) -> Arc<Mesh> {
    let (registry, inputs) = Registry::start(1, None);
    let items = (0..).zip(objects).map(|(document, object)| {
        let origin = Origin { file: "test".into(), document, line: 0 };
        delta::Item { origin, object }
    });
    let mut meshes = registry.subscribe();
    let input = inputs.first().expect("one source");
    input.send(vec![Delta::Reset(items.collect())]).await.expect("the registry runs");
    let mesh = meshes.wait_for(|mesh| mesh.version > 0).await.expect("the registry runs");
    Arc::clone(&mesh)
}

/// What a proxy that asked for `name` compiles from what the control plane says, however many steps it takes.
fn ask(mesh: &Mesh, store: &mut Store, name: &str) {
    let scope = Scope {
        client: ClientKind::Tulle,
        namespace: "shop".into(),
        workload: "web".into(),
        locality: Locality::new("eu", "a"),
        outbound_address: None,
    };
    let translator = Translator::new(DOMAIN, TrustDomain::parse(DOMAIN).expect("a trust domain"));
    let mut wanted = vec![(ResourceType::Listener, Arc::<str>::from(name))];
    let mut asked = Vec::new();
    while let Some((kind, wants)) = wanted.pop() {
        if asked.contains(&(kind, Arc::clone(&wants))) {
            continue;
        }
        match translator.resource(mesh, &scope, kind, &wants) {
            Some(resource) => {
                assert_eq!(resource.name, wants);
                store.accept(kind, &wants, &resource.body).unwrap_or_else(|rejected| panic!("{rejected}"));
            }
            None => store.gone(kind, &wants),
        }
        asked.push((kind, wants));
        store.needs(name, |kind, name| wanted.push((kind, Arc::clone(name))));
    }
}

fn compiled(mesh: &Mesh, name: &str) -> (Snapshot, Arc<Outbound>) {
    let mut store = Store::new();
    ask(mesh, &mut store, name);
    let snapshot = store.snapshot(std::iter::empty()).unwrap_or_default();
    match snapshot.by_name.get(name).cloned() {
        Some(Known::Service(outbound)) => (snapshot, outbound),
        other => panic!("{name} is {other:?}"),
    }
}

#[tokio::test]
async fn every_protocol_arrives_as_declared() {
    let protocols = [
        (Protocol::Auto, Spoken::Auto, HttpVersion::AsDownstream),
        (Protocol::Http, Spoken::Http, HttpVersion::AsDownstream),
        (Protocol::Http2, Spoken::Http2, HttpVersion::Http2),
        (Protocol::Grpc, Spoken::Grpc, HttpVersion::Http2),
        (Protocol::Tcp, Spoken::Tcp, HttpVersion::Http1),
        (Protocol::Tls, Spoken::Tls, HttpVersion::Http1),
    ];
    for (declared, spoken, version) in protocols {
        let mesh = mesh(objects(declared, Policy::default())).await;
        for name in ["reviews.shop.svc.cluster.local:80", "10.96.0.12:80"] {
            let (snapshot, outbound) = compiled(&mesh, name);
            assert_eq!(outbound.protocol, spoken, "{name}");
            assert!(snapshot.by_addr.contains_key(&"10.96.0.12:80".parse().expect("an address")), "{name}");
            let cluster = snapshot.clusters.first().expect("one cluster");
            assert_eq!((&*cluster.name, cluster.protocol), ("reviews.shop.svc.cluster.local:80", spoken));
            if !spoken.is_opaque() {
                assert_eq!(cluster.http, version);
            }
        }
    }
}

#[tokio::test]
async fn endpoints_arrive_with_identity_health_and_zone() {
    let mesh = mesh(objects(Protocol::Http, Policy::default())).await;
    let (snapshot, _) = compiled(&mesh, "reviews.shop.svc.cluster.local:80");
    let mut list = snapshot.clusters.first().expect("one cluster").endpoints.list.clone();
    list.sort_by_key(|endpoint| endpoint.address);
    let [first, second] = list.as_slice() else { panic!("{list:?}") };
    assert_eq!(first.address, "10.244.0.1:8080".parse().expect("an address"));
    let identity = first.identity.as_ref().expect("it is meshed");
    assert_eq!(identity.as_str(), "spiffe://cluster.local/ns/shop/sa/reviews-sa");
    assert_eq!((&*first.workload, &*first.namespace, &*first.zone), ("reviews", "shop", "a"));
    assert_eq!(second.identity, None);
    assert_eq!(second.health, tulle_proxy::config::endpoint::Health::Draining);
}

#[tokio::test]
async fn an_instance_is_reached_by_its_own_address() {
    let mesh = mesh(objects(Protocol::Http, Policy::default())).await;
    let (snapshot, outbound) = compiled(&mesh, "10.244.0.1:8080");
    assert_eq!(outbound.protocol, Spoken::Http);
    let clusters: Vec<_> = snapshot.clusters.iter().filter(|cluster| !cluster.name.is_empty()).collect();
    let [cluster] = clusters.as_slice() else { panic!("{clusters:?}") };
    assert_eq!(&*cluster.name, "pod/10.244.0.1:8080");
    let [endpoint] = cluster.endpoints.list.as_slice() else { panic!("{cluster:?}") };
    assert!(endpoint.identity.is_some());
}

#[tokio::test]
async fn policies_keep_their_meaning() {
    let policy = policy(&[
        ("load-balancer", "round-robin"),
        ("connect-timeout", "3s"),
        ("timeout", "7s"),
        ("per-try-timeout", "2s"),
        ("idle-timeout", "90s"),
        ("retry-on", "connect-failure,5xx,503,429-431,retriable-4xx,retriable-headers:X-Again,unavailable,reset"),
        ("retry-limit", "4"),
        ("retry-budget", "10%,min=5/s"),
        ("retry-backoff", "10ms..1s"),
        ("max-connections", "11"),
        ("max-pending", "12"),
        ("max-requests", "13"),
        ("failover", "zone,region,any"),
        ("failover-threshold", "60%"),
    ]);
    for protocol in [Protocol::Http, Protocol::Tcp] {
        let mesh = mesh(objects(protocol, policy.clone())).await;
        let (snapshot, outbound) = compiled(&mesh, "reviews.shop.svc.cluster.local:80");
        let cluster = snapshot.clusters.first().expect("one cluster");
        assert_eq!(cluster.balancer, Balancer::RoundRobin);
        assert_eq!((cluster.connect_timeout, cluster.idle_timeout), (Duration::from_secs(3), Duration::from_secs(90)));
        let limits = cluster.limits;
        assert_eq!((limits.max_connections, limits.max_pending, limits.max_requests), (11, 12, 13));
        assert_eq!((cluster.budget.percent, cluster.budget.min_per_second), (10.0, 5));
        assert_eq!(cluster.failover_threshold_percent, 60);
        let mut priorities: Vec<_> = cluster.endpoints.list.iter().map(|endpoint| endpoint.priority).collect();
        priorities.sort_unstable();
        assert_eq!(priorities, [0, 1], "one in our zone, one in our region");
        let Some(routes) = &outbound.routes else { continue };
        let route = routes.hosts().first().and_then(|host| host.routes.first()).expect("one route");
        assert!(matches!(route.action, Action::Cluster(_)));
        assert_eq!(route.timeout, Some(Duration::from_secs(7)));
        let retry = &route.retry;
        assert_eq!((retry.limit, retry.per_try_timeout), (4, Some(Duration::from_secs(2))));
        assert_eq!((retry.backoff_base, retry.backoff_max), (Duration::from_millis(10), Duration::from_secs(1)));
        assert!(retry.on.connect_failure && retry.on.reset);
        assert_eq!(
            (retry.on.headers.as_slice(), retry.on.grpc.as_slice()),
            (["x-again".into()].as_slice(), [14].as_slice())
        );
        for status in [409, 429, 431, 500, 503, 599] {
            assert!(retry.on.statuses.iter().any(|(low, high)| (*low..=*high).contains(&status)), "{status}");
        }
    }
}

#[tokio::test]
async fn without_policy_nothing_surprising_happens() {
    let mesh = mesh(objects(Protocol::Http, Policy::default())).await;
    let (snapshot, outbound) = compiled(&mesh, "reviews.shop.svc.cluster.local:80");
    let cluster = snapshot.clusters.first().expect("one cluster");
    assert_eq!((cluster.balancer, cluster.connect_timeout), (Balancer::LeastRequest, Duration::from_secs(10)));
    assert_eq!(cluster.limits.max_requests, 10_000);
    let routes = outbound.routes.as_ref().expect("it is HTTP");
    let route = routes.hosts().first().and_then(|host| host.routes.first()).expect("one route");
    assert_eq!((route.timeout, route.retry.limit), (None, 2));
    let on = &route.retry.on;
    assert!(on.connect_failure && on.refused_stream && on.reset_before_request && !on.reset);
    assert!(on.statuses.is_empty() && on.grpc.is_empty() && on.headers.is_empty());
}

#[tokio::test]
async fn the_own_listener_follows_the_mtls_mode() {
    let modes = [("strict", MtlsMode::Strict), ("permissive", MtlsMode::Permissive), ("disable", MtlsMode::Disable)];
    for protocol in [Protocol::Auto, Protocol::Http, Protocol::Grpc, Protocol::Tcp, Protocol::Tls] {
        for (name, mode) in modes {
            let mesh = mesh(objects(protocol, policy(&[("mtls", name)]))).await;
            let mut store = Store::new();
            ask(&mesh, &mut store, "inbound/shop/reviews");
            let snapshot = store.snapshot(std::iter::empty()).unwrap_or_default();
            let inbound = snapshot.inbound.expect("the workload is known");
            let port = inbound.port(8080);
            assert_eq!((port.mtls, port.protocol.as_str()), (mode, protocol.name()));
            assert_eq!((&*port.service, &*port.namespace), ("reviews", "shop"));
            assert_eq!(inbound.port(9).mtls, MtlsMode::Permissive, "undeclared ports follow the namespace");
        }
    }
}

#[tokio::test]
async fn what_does_not_exist_is_said_to_be_absent() {
    let mesh = mesh(objects(Protocol::Http, Policy::default())).await;
    let mut store = Store::new();
    for name in ["nobody.shop.svc.cluster.local:80", "reviews.shop.svc.cluster.local:81", "10.96.0.99:80"] {
        ask(&mesh, &mut store, name);
    }
    assert!(store.snapshot(std::iter::empty()).is_none(), "nothing to compile");
}
