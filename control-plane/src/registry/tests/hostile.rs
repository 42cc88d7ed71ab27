//! What objects of one tenant may do to those of another: nothing. Numbers are those of the classes in
//! `docs/security.md`.

use super::*;
use crate::model::{Kind, ObjectRef, Route};
use crate::registry::{Account, AddressOwner};

/// A pod with a proxy, created when `created` says.
fn pod(namespace: &str, name: &str, address: &str, created: &str) -> Workload {
    Workload {
        key: Key::new(namespace, name),
        created: Some(created.into()),
        pod: Some(name.into()),
        ..workload(name, address)
    }
}

/// A Workload of the namespace `evil` that says nobody is meshed at its address.
fn evil(address: &str) -> Workload {
    Workload {
        key: Key::new("evil", "claim"),
        created: Some("2020-01-01T00:00:00Z".into()),
        meshed: false,
        ..workload("claim", address)
    }
}

fn from_cluster(workload: Workload) -> Item {
    item("kubernetes", Object::Workload(Arc::new(workload)))
}

fn owner(mesh: &Mesh, address: &str) -> Option<AddressOwner> {
    mesh.owner_of(address.parse().unwrap()).cloned()
}

fn accounts(mesh: &Mesh, namespace: &str, name: &str) -> Vec<Option<Account>> {
    let view = mesh.service(&Key::new(namespace, name)).unwrap();
    view.ports[0].endpoints.iter().map(|endpoint| endpoint.account.clone()).collect()
}

fn web() -> Account {
    Account { namespace: "shop".into(), service_account: "web".into() }
}

const NOW: &str = "2026-01-01T00:00:00Z";
const LATER: &str = "2026-02-01T00:00:00Z";

#[test]
fn hostile_01_a_pod_owns_its_address_whatever_a_workload_claimed_before() {
    let mut bench = Bench { writer: Writer::default() };
    bench.upsert(of_service(Service { selector: Labels::new(), ..service("web") }));
    bench.upsert(of_slice(&[("10.1.0.1", Health::Ready, None)]));
    let before = bench.upsert(from_cluster(evil("10.1.0.1")));
    assert_eq!(owner(&before, "10.1.0.1"), Some(AddressOwner::Workload(Key::new("evil", "claim"))));
    let mesh = bench.upsert(from_cluster(pod("shop", "web-1", "10.1.0.1", NOW)));
    assert_eq!(owner(&mesh, "10.1.0.1"), Some(AddressOwner::Workload(Key::new("shop", "web-1"))));
    assert_eq!(accounts(&mesh, "shop", "web"), [Some(web())], "the slice has the pod's identity");
    assert!(!mesh.is_contested("10.1.0.1".parse().unwrap()), "a weaker claim changes nothing");
    let [problem] = mesh.problems() else { panic!("{:?}", mesh.problems()) };
    assert_eq!(problem.object.as_ref().unwrap().to_string(), "Workload evil/claim", "the loser is told");
    assert_eq!(&*problem.reason, "10.1.0.1 is an address of Pod shop/web-1");
    // A pod that terminates keeps it until it is gone.
    let ending = Workload { health: Health::Draining, ..pod("shop", "web-1", "10.1.0.1", NOW) };
    let mesh = bench.upsert(from_cluster(ending));
    assert_eq!(accounts(&mesh, "shop", "web"), [Some(web())]);
    // Its address in use again is the newer pod's, and the other way round as well.
    let again = Workload { service_account: "new".into(), ..pod("bank", "vault-1", "10.1.0.1", LATER) };
    let mesh = bench.upsert(from_cluster(again));
    assert_eq!(owner(&mesh, "10.1.0.1"), Some(AddressOwner::Workload(Key::new("bank", "vault-1"))));
    let mesh = bench.upsert(from_cluster(pod("shop", "web-1", "10.1.0.1", NOW)));
    assert_eq!(owner(&mesh, "10.1.0.1"), Some(AddressOwner::Workload(Key::new("bank", "vault-1"))), "the newest pod");
}

#[test]
fn hostile_01_a_service_owns_its_cluster_ip_whatever_a_workload_claimed_before() {
    let mut bench = Bench { writer: Writer::default() };
    bench.upsert(from_cluster(evil("10.96.0.1")));
    let mesh = bench.upsert(of_service(service("web")));
    assert_eq!(owner(&mesh, "10.96.0.1"), Some(AddressOwner::Service(Key::new("shop", "web"))));
    assert_eq!(mesh.problems()[0].object.as_ref().unwrap().to_string(), "Workload evil/claim");
    // A Service that names the address of a pod does not get it, nor does DNS say so.
    let mesh = bench.upsert(from_cluster(pod("bank", "vault-1", "10.96.0.1", LATER)));
    assert_eq!(owner(&mesh, "10.96.0.1"), Some(AddressOwner::Workload(Key::new("bank", "vault-1"))));
    assert_eq!(mesh.service(&Key::new("shop", "web")).unwrap().service.cluster_ips, Vec::<std::net::IpAddr>::new());
    let mesh = bench.remove(from_cluster(pod("bank", "vault-1", "10.96.0.1", LATER)));
    assert_eq!(mesh.service(&Key::new("shop", "web")).unwrap().service.cluster_ips.len(), 1, "and has it back");
}

#[test]
fn hostile_01_an_endpoint_is_its_holders_and_follows_every_change_of_it() {
    let mut bench = Bench { writer: Writer::default() };
    // The attacker's own Service, with a Workload it selects at the address of a pod that comes later.
    let own = Service { key: Key::new("evil", "web"), cluster_ips: Vec::new(), ..service("web") };
    bench.upsert(of_service(own));
    let mesh = bench.upsert(from_cluster(evil("10.1.0.1")));
    assert_eq!(accounts(&mesh, "evil", "web"), [None]);
    let mesh = bench.upsert(from_cluster(pod("shop", "web-1", "10.1.0.1", NOW)));
    assert_eq!(accounts(&mesh, "evil", "web"), [], "it lost the address, so it is no endpoint");
    // A slice of another namespace may name the pod, and has its identity.
    let slice = EndpointSlice {
        key: Key::new("evil", "slice"),
        created: None,
        service: "web".into(),
        ports: vec![SlicePort { name: "http".into(), port: port(8080), protocol: None }],
        endpoints: vec![SliceEndpoint {
            address: "10.1.0.1".parse().unwrap(),
            health: Health::Ready,
            locality: Locality::default(),
            for_zones: Arc::default(),
        }],
    };
    let of = |slice: EndpointSlice| item("evil.yaml", Object::EndpointSlice(Arc::new(slice)));
    let mesh = bench.upsert(of(slice.clone()));
    assert_eq!(accounts(&mesh, "evil", "web"), [Some(web())]);
    // It may not name a cluster IP: what is behind it would be called in plain.
    bench.upsert(of_service(service("victim")));
    let mut virtual_one = slice;
    virtual_one.endpoints[0].address = "10.96.0.1".parse().unwrap();
    let mesh = bench.upsert(of(virtual_one));
    assert_eq!(accounts(&mesh, "evil", "web"), []);
    let told = mesh.problems().iter().find(|problem| problem.reason.contains("cluster IP of Service shop/victim"));
    assert_eq!(told.unwrap().object.as_ref().unwrap().kind, Kind::EndpointSlice);
}

#[test]
fn hostile_01_two_workloads_at_one_address_never_make_it_plain() {
    let mut bench = Bench { writer: Writer::default() };
    bench.upsert(from_cluster(evil("10.9.0.1")));
    let mesh = bench.upsert(from_cluster(workload("vm", "10.9.0.1")));
    // The older one has it, but since the other is meshed nobody is called in plain there.
    assert_eq!(owner(&mesh, "10.9.0.1"), Some(AddressOwner::Workload(Key::new("evil", "claim"))));
    assert!(mesh.is_contested("10.9.0.1".parse().unwrap()));
    assert_eq!(mesh.changed_at(Eds, "pod/10.9.0.1:8080"), mesh.version, "clients are told");
    assert_eq!(mesh.problems()[0].object.as_ref().unwrap().to_string(), "Workload shop/vm");
    let mesh = bench.remove(from_cluster(workload("vm", "10.9.0.1")));
    assert!(!mesh.is_contested("10.9.0.1".parse().unwrap()));
    // Both families of a dual-stack instance are judged each by itself.
    let dual =
        Workload { addresses: vec!["10.9.0.2".parse().unwrap(), "fd00::2".parse().unwrap()], ..evil("10.9.0.2") };
    bench.upsert(from_cluster(dual));
    let mesh = bench.upsert(from_cluster(pod("shop", "web-1", "fd00::2", NOW)));
    assert_eq!(owner(&mesh, "fd00::2"), Some(AddressOwner::Workload(Key::new("shop", "web-1"))));
    assert_eq!(owner(&mesh, "10.9.0.2"), Some(AddressOwner::Workload(Key::new("evil", "claim"))));
}

#[test]
fn hostile_01_a_workload_does_not_replace_the_pod_of_its_name() {
    let mut bench = Bench { writer: Writer::default() };
    let named = Workload { key: Key::new("shop", "web-0"), ..evil("10.9.0.9") };
    bench.writer.apply(1, Delta::Upsert(from_cluster(named)));
    let mesh = bench.upsert(from_cluster(pod("shop", "web-0", "10.1.0.1", LATER)));
    assert!(mesh.workload(&Key::new("shop", "web-0")).unwrap().workload.pod.is_some());
    assert_eq!(owner(&mesh, "10.9.0.9"), None);
    assert!(mesh.problems().iter().any(|problem| problem.reason.contains("defined twice")));
}

fn route(namespace: &str, kind: Kind, created: &str) -> Item {
    let object = ObjectRef { kind, key: Key::new(namespace, format!("{kind}").to_lowercase()) };
    let text = format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: r, namespace: {namespace}}}\n\
         spec: {{parentRefs: [{{group: '', kind: Service, name: web, namespace: shop}}], rules: [{{}}]}}\n"
    );
    let (items, problems) = crate::source::file::parse(&text);
    assert_eq!(problems, []);
    let Object::Route(read) = &items[0].object else { panic!("no route") };
    let file = format!("{object}.yaml");
    let route = Route { created: Some(created.into()), object, ..Route::clone(read) };
    item(&file, Object::Route(Arc::new(route)))
}

fn in_force(mesh: &Mesh) -> Vec<String> {
    let view = mesh.service(&Key::new("shop", "web")).unwrap();
    let mut routes: Vec<_> = view.ports[0].routes.iter().map(|route| route.object.to_string()).collect();
    routes.sort();
    routes
}

#[test]
fn hostile_11_routes_of_another_namespace_turn_nothing_off() {
    let mut bench = Bench::new();
    bench.upsert(route("shop", Kind::HttpRoute, LATER));
    let mesh = bench.upsert(route("evil", Kind::GrpcRoute, NOW));
    assert_eq!(in_force(&mesh), ["GRPCRoute evil/grpcroute", "HTTPRoute shop/httproute"]);
    let accepted = |mesh: &Mesh| mesh.routes().all(|view| view.verdicts.iter().all(|verdict| verdict.accepted.holds));
    assert!(accepted(&mesh), "neither is in the way of the other");
    // Within one namespace the older kind still counts, for producers and for consumers.
    let mesh = bench.upsert(route("shop", Kind::GrpcRoute, NOW));
    assert_eq!(in_force(&mesh), ["GRPCRoute evil/grpcroute", "GRPCRoute shop/grpcroute"]);
    assert!(!accepted(&mesh));
    let mesh = bench.upsert(route("evil", Kind::HttpRoute, "2019-01-01T00:00:00Z"));
    assert_eq!(in_force(&mesh), ["GRPCRoute shop/grpcroute", "HTTPRoute evil/httproute"]);
}

#[test]
fn hostile_15_the_stricter_mode_is_in_force_whoever_asks_for_it() {
    let with = |mtls| Policy { mtls, ..Policy::default() };
    let (disable, permissive, strict) = (Some(Mtls::Disable), Some(Mtls::Permissive), Some(Mtls::Strict));
    let cases = [
        (None, strict, permissive, Mtls::Strict, 1),
        (None, strict, disable, Mtls::Strict, 1),
        (None, permissive, disable, Mtls::Permissive, 1),
        (None, None, disable, Mtls::Disable, 0),
        (None, None, None, Mtls::Permissive, 0),
        (None, permissive, strict, Mtls::Strict, 0),
        (strict, None, None, Mtls::Strict, 0),
        (strict, permissive, permissive, Mtls::Strict, 2),
        (permissive, None, disable, Mtls::Permissive, 1),
        (permissive, disable, None, Mtls::Permissive, 1),
    ];
    for (floor, namespace, own, expected, problems) in cases {
        let mut bench = Bench { writer: Writer::new(floor) };
        bench.upsert(of_workload(workload("web-1", "10.1.0.1")));
        bench.upsert(of_namespace(with(namespace)));
        let mesh = bench.upsert(of_service(Service { policy: with(own), ..service("web") }));
        let inbound = mesh.inbound(&Key::new("shop", "web")).unwrap();
        let case = format!("{floor:?} {namespace:?} {own:?}");
        assert_eq!(inbound.ports[&port(8080)].mtls, expected, "{case}");
        assert_eq!(mesh.problems().len(), problems, "{case}: {:?}", mesh.problems());
        // What no Service names has the namespace's mode, and the mesh's.
        assert_eq!(inbound.mtls, floor.into_iter().chain(namespace).max().unwrap_or_default(), "{case}");
    }
}
