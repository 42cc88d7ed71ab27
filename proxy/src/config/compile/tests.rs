//! What compiles to what, and what is refused and how.

use std::time::Duration;

use tulle_proto::envoy::config::cluster::v3 as cds;
use tulle_proto::envoy::config::core::v3 as core;
use tulle_proto::envoy::config::endpoint::v3 as eds;
use tulle_proto::envoy::config::listener::v3 as lds;
use tulle_proto::envoy::config::route::v3 as rds;
use tulle_proto::google::protobuf as google;

use super::samples::*;
use super::*;
use crate::base::protocol::Protocol;
use crate::config::Known;
use crate::config::cluster::{HttpVersion, Policy};
use crate::config::endpoint::Health;
use crate::config::listener::MtlsMode;
use crate::config::route::{Action, Domain, PathMatch, RouteTable, ValueMatch};

const NAME: &str = "reviews.shop.svc.cluster.local:80";

fn put<M: prost::Name>(store: &mut Store, kind: ResourceType, name: &str, message: &M) -> Result<(), String> {
    store.accept(kind, &name.into(), &any(message)).map_err(|rejected| rejected.to_string())
}

/// A store that holds all of the service `NAME`.
fn service(protocol: &str) -> Store {
    let mut store = Store::new();
    put(&mut store, ResourceType::Cluster, NAME, &cluster(NAME)).unwrap();
    put(&mut store, ResourceType::Endpoint, NAME, &endpoints(NAME, &["10.0.0.1:8080"])).unwrap();
    put(&mut store, ResourceType::Listener, NAME, &listener(NAME, NAME, protocol)).unwrap();
    put(&mut store, ResourceType::Route, NAME, &routes(NAME, vec![route_to(NAME)])).unwrap();
    store
}

fn snapshot(store: &mut Store) -> Snapshot {
    store.snapshot(std::iter::empty()).expect("something changed")
}

fn outbound(snapshot: &Snapshot, name: &str) -> Option<Arc<Outbound>> {
    match snapshot.by_name.get(name)? {
        Known::Service(outbound) => Some(Arc::clone(outbound)),
        Known::Absent => None,
    }
}

fn table(config: &RouteConfiguration) -> Result<Arc<RouteTable>, String> {
    route::compile(config, &mut Ids::default()).map(|spec| spec.table).map_err(|fault| fault.to_string())
}

/// The reason why `NAME` with one changed route is refused.
fn refused_route(change: impl FnOnce(&mut rds::RouteMatch, &mut rds::RouteAction)) -> String {
    let mut route = route_to(NAME);
    let mut action = match route.action.take() {
        Some(rds::route::Action::Route(action)) => action,
        other => panic!("{other:?}"),
    };
    change(route.r#match.as_mut().unwrap(), &mut action);
    route.action = Some(rds::route::Action::Route(action));
    table(&routes(NAME, vec![route])).expect_err("it is accepted")
}

#[test]
fn protocols_come_from_the_shape_of_a_listener() {
    let shapes = [
        ("auto", Protocol::Auto, true, true),
        ("http", Protocol::Http, true, false),
        ("http2", Protocol::Http2, true, false),
        ("grpc", Protocol::Grpc, true, false),
        ("tcp", Protocol::Tcp, false, true),
        ("tls", Protocol::Tls, false, true),
    ];
    for (name, protocol, routed, opaque) in shapes {
        let outbound = outbound(&snapshot(&mut service(name)), NAME).expect(name);
        assert_eq!(outbound.protocol, protocol);
        assert_eq!((outbound.routes.is_some(), outbound.opaque.is_some()), (routed, opaque), "{name}");
    }
}

#[test]
fn a_cluster_says_how_to_reach_it() {
    let mut message = cluster(NAME);
    message.lb_policy = cds::cluster::LbPolicy::LeastRequest.into();
    message.connect_timeout = Some(google::Duration { seconds: 10, nanos: 0 });
    message.circuit_breakers = Some(cds::CircuitBreakers {
        thresholds: vec![cds::circuit_breakers::Thresholds {
            max_pending_requests: Some(google::UInt32Value { value: 7 }),
            retry_budget: Some(cds::circuit_breakers::thresholds::RetryBudget {
                budget_percent: Some(tulle_proto::envoy::r#type::v3::Percent { value: 12.5 }),
                min_retry_concurrency: Some(google::UInt32Value { value: 4 }),
                ..Default::default()
            }),
            ..Default::default()
        }],
        ..Default::default()
    });
    let mut store = service("http");
    put(&mut store, ResourceType::Cluster, NAME, &message).unwrap();
    let snapshot = snapshot(&mut store);
    let cluster = &snapshot.clusters[0];
    assert_eq!(
        (cluster.balancer, cluster.http, cluster.protocol),
        (Policy::LeastRequest, HttpVersion::AsDownstream, Protocol::Http)
    );
    assert_eq!(cluster.connect_timeout, Duration::from_secs(10));
    assert_eq!(cluster.idle_timeout, Duration::from_secs(300));
    assert_eq!((cluster.limits.max_connections, cluster.limits.max_pending), (10_000, 7));
    assert_eq!((cluster.budget.percent, cluster.budget.min_per_second), (12.5, 4));
    assert_eq!((&*cluster.service, &*cluster.namespace), ("reviews", "shop"));
}

#[test]
fn endpoints_keep_priority_weight_health_and_identity() {
    let id = "spiffe://cluster.local/ns/shop/sa/reviews";
    let entry = |at: &str, health: core::HealthStatus| eds::LbEndpoint {
        health_status: health.into(),
        load_balancing_weight: Some(google::UInt32Value { value: 3 }),
        metadata: metadata(&[("identity", id), ("workload", "reviews-v1"), ("namespace", "shop")]),
        ..lb_endpoint(at)
    };
    let group = |priority, zone: &str, lb_endpoints| eds::LocalityLbEndpoints {
        priority,
        locality: Some(core::Locality { zone: zone.into(), ..Default::default() }),
        lb_endpoints,
        ..Default::default()
    };
    let assignment = ClusterLoadAssignment {
        endpoints: vec![
            group(0, "a", vec![entry("10.0.0.1:80", core::HealthStatus::Healthy), lb_endpoint("[fd00::1]:80")]),
            group(
                1,
                "b",
                vec![
                    entry("10.0.0.2:80", core::HealthStatus::Draining),
                    entry("10.0.0.1:80", core::HealthStatus::Unhealthy),
                ],
            ),
        ],
        ..Default::default()
    };
    let list = endpoint::compile(&assignment, false).unwrap().endpoints.list.clone();
    assert_eq!(list.len(), 3, "an address counts once");
    let (first, plain, second) = (&list[0], &list[1], &list[2]);
    assert_eq!(first.identity.as_ref().unwrap().as_str(), id);
    assert_eq!((first.weight, first.priority, first.health, &*first.zone), (3, 0, Health::Healthy, "a"));
    assert_eq!((&*first.workload, &*first.namespace), ("reviews-v1", "shop"));
    assert_eq!((plain.weight, plain.health, &plain.identity), (1, Health::Healthy, &None));
    assert_eq!((second.priority, second.health, &*second.zone), (1, Health::Draining, "b"));
}

#[test]
fn an_assignment_says_when_to_spill_over() {
    let mut store = service("http");
    assert_eq!(snapshot(&mut store).clusters[0].failover_threshold_percent, 70);
    for (factor, percent) in [(143, 70), (200, 50), (100, 100), (0, 100)] {
        let mut assignment = endpoints(NAME, &["10.0.0.1:8080"]);
        assignment.policy = Some(eds::cluster_load_assignment::Policy {
            overprovisioning_factor: Some(google::UInt32Value { value: factor }),
            ..Default::default()
        });
        put(&mut store, ResourceType::Endpoint, NAME, &assignment).unwrap();
        let now = store.snapshot(std::iter::empty());
        assert_eq!(now.map_or(percent, |now| now.clusters[0].failover_threshold_percent), percent);
    }
}

#[test]
fn bad_endpoints_are_refused_with_their_path() {
    let refusal = |entry: eds::LbEndpoint| {
        let mut assignment = endpoints(NAME, &["10.0.0.1:80"]);
        assignment.endpoints[0].lb_endpoints.push(entry);
        endpoint::compile(&assignment, false).unwrap_err().to_string()
    };
    let unparsable = eds::LbEndpoint { metadata: metadata(&[("identity", "reviews")]), ..lb_endpoint("10.0.0.2:80") };
    assert!(
        refusal(unparsable).starts_with("endpoints[0].lb_endpoints[1].metadata[tulle.io].identity is no SPIFFE id")
    );
    assert_eq!(refusal(eds::LbEndpoint::default()), "endpoints[0].lb_endpoints[1].endpoint is missing");
    assert_eq!(refusal(lb_endpoint("0.0.0.0:80")), "endpoints[0].lb_endpoints[1].endpoint.address is missing");
    let unknown = eds::LbEndpoint { health_status: 77, ..lb_endpoint("10.0.0.2:80") };
    assert!(refusal(unknown).contains("health_status"));
}

#[test]
fn routes_compile_to_matchers_actions_and_retries() {
    let mut config = routes(NAME, vec![route_to(NAME), route_to(NAME)]);
    config.virtual_hosts[0].domains = vec!["Reviews.Shop:80".into(), "*.example.com".into()];
    let first = &mut config.virtual_hosts[0].routes[0];
    let condition = first.r#match.as_mut().unwrap();
    condition.path_specifier = Some(rds::route_match::PathSpecifier::PathSeparatedPrefix("/v2".into()));
    condition.headers = vec![rds::HeaderMatcher {
        name: "X-Canary".into(),
        header_match_specifier: Some(rds::header_matcher::HeaderMatchSpecifier::PresentMatch(false)),
        ..Default::default()
    }];
    let weight = |name: &str, value| rds::weighted_cluster::ClusterWeight {
        name: name.into(),
        weight: Some(google::UInt32Value { value }),
        ..Default::default()
    };
    first.action = Some(rds::route::Action::Route(rds::RouteAction {
        cluster_specifier: Some(rds::route_action::ClusterSpecifier::WeightedClusters(rds::WeightedCluster {
            clusters: vec![weight("a:80", 90), weight("b:80", 10), weight("c:80", 0)],
            ..Default::default()
        })),
        retry_policy: Some(rds::RetryPolicy {
            retry_on: "retriable-status-codes, unavailable,5xx,retriable-headers".into(),
            retriable_headers: vec![rds::HeaderMatcher { name: "X-Retry".into(), ..Default::default() }],
            retriable_status_codes: vec![504, 429, 503],
            per_try_timeout: Some(google::Duration { seconds: 0, nanos: 250_000_000 }),
            ..Default::default()
        }),
        ..Default::default()
    }));
    let table = table(&config).unwrap();
    let host = &table.hosts()[0];
    assert_eq!(host.domains, [Domain::Exact("reviews.shop:80".into()), Domain::Suffix(".example.com".into())]);
    let (first, second) = (&host.routes[0], &host.routes[1]);
    assert_eq!(first.matcher.path, PathMatch::Segments("/v2".into()));
    let header = &first.matcher.headers[0];
    assert_eq!((&*header.name, &header.value, header.invert), ("x-canary", &ValueMatch::Present, true));
    assert!(matches!(&first.action, Action::Weighted { clusters, total: 100 } if clusters.len() == 2));
    assert_eq!(first.timeout, Some(Duration::from_secs(15)), "Envoy's default where none is given");
    assert_eq!(first.retry.on.headers, ["x-retry".into()]);
    assert_eq!(first.retry.on.statuses, [(429, 429), (503, 504), (500, 599)]);
    assert_eq!((first.retry.on.grpc.as_slice(), first.retry.limit), ([14].as_slice(), 1));
    assert_eq!(first.retry.per_try_timeout, Some(Duration::from_millis(250)));
    assert_eq!(second.matcher.path, PathMatch::Any);
    assert_eq!(second.timeout, None, "zero stands for none");
    assert!(second.retry.on.connect_failure && second.retry.on.refused_stream && second.retry.on.reset_before_request);
    assert!(!second.retry.on.reset && second.retry.on.statuses.is_empty());
}

#[test]
fn routes_that_would_have_to_be_ignored_in_part_are_refused() {
    let at = |field: &str| format!("virtual_hosts[0].routes[0].{field}");
    assert_eq!(refused_route(|condition, _| condition.path_specifier = None), at("match.path_specifier is missing"));
    assert_eq!(
        refused_route(|condition, _| condition.query_parameters.push(rds::QueryParameterMatcher::default())),
        at("match.query_parameters[0].name is missing")
    );
    assert_eq!(refused_route(|_, action| action.cluster_specifier = None), at("route.cluster is missing"));
    assert_eq!(
        refused_route(|_, action| action.hash_policy.push(rds::route_action::HashPolicy::default())),
        at("route.hash_policy is not supported by this proxy")
    );
    assert_eq!(
        refused_route(|_, action| action.timeout = Some(google::Duration { seconds: -1, nanos: 0 })),
        at("route.timeout is negative")
    );
    assert_eq!(
        refused_route(|_, action| action.retry_policy.as_mut().unwrap().retry_on = "sometimes\n".into()),
        at("route.retry_policy.retry_on names the unknown condition `sometimes`")
    );
    let mut twice = routes(NAME, vec![]);
    twice.virtual_hosts.push(twice.virtual_hosts[0].clone());
    assert_eq!(table(&twice).unwrap_err(), "virtual_hosts[1].domains[0] is served by an earlier virtual host as well");
}

#[test]
fn clusters_that_demand_what_is_not_done_are_refused() {
    let refusal = |change: fn(&mut cds::Cluster)| {
        let mut message = cluster(NAME);
        change(&mut message);
        cluster::compile(&message, false).unwrap_err().to_string()
    };
    assert_eq!(
        refusal(|c| c.transport_socket = Some(Default::default())),
        "transport_socket is not supported by this proxy"
    );
    assert_eq!(refusal(|c| c.eds_cluster_config = None), "eds_cluster_config is missing");
    assert_eq!(
        refusal(|c| c.lb_policy = cds::cluster::LbPolicy::Maglev.into()),
        "lb_policy is none of ROUND_ROBIN, LEAST_REQUEST, RANDOM"
    );
    assert_eq!(
        refusal(|c| c.cluster_discovery_type =
            Some(cds::cluster::ClusterDiscoveryType::Type(cds::cluster::DiscoveryType::LogicalDns.into()))),
        "type is neither EDS nor STATIC"
    );
}

#[test]
fn listeners_that_lead_nowhere_are_refused() {
    let refusal = |change: fn(&mut Listener)| {
        let mut message = listener(NAME, NAME, "auto");
        change(&mut message);
        listener::compile(&message, &mut Ids::default()).unwrap_err().to_string()
    };
    assert_eq!(
        refusal(|l| (l.api_listener, l.filter_chains) = (None, Vec::new())),
        "has neither api_listener nor filter_chains"
    );
    assert_eq!(
        refusal(|l| l.filter_chains[0].filters = vec![tcp_filter("")]),
        "filter_chains[0].filters[0].cluster is missing"
    );
    assert_eq!(
        refusal(|l| l.api_listener = Some(lds::ApiListener { api_listener: Some(packed(&manager(by_name("")))) })),
        "api_listener.rds.route_config_name is missing"
    );
    assert!(
        refusal(|l| l.filter_chains[0].filters = vec![filter(packed(&cluster(NAME)))])
            .contains("is a type.googleapis.com")
    );
    assert_eq!(
        refusal(|l| l.metadata = metadata(&[("protocol", "carrier-pigeon")])),
        "metadata[tulle.io].protocol is not a known protocol"
    );
}

#[test]
fn the_own_listener_says_per_port_who_may_connect() {
    let chains = vec![
        inbound_chain(8080, true, "http"),
        inbound_chain(8080, false, "http"),
        inbound_chain(9090, true, "grpc"),
        inbound_chain(5432, false, "tcp"),
    ];
    let compiled = inbound::compile(&inbound("inbound/shop/reviews", chains)).unwrap();
    let port = |number| {
        let port = compiled.port(number);
        (port.protocol, port.mtls)
    };
    assert_eq!(port(8080), (Protocol::Http, MtlsMode::Permissive));
    assert_eq!(port(9090), (Protocol::Grpc, MtlsMode::Strict));
    assert_eq!(port(5432), (Protocol::Tcp, MtlsMode::Disable));
    assert_eq!(port(1), (Protocol::Auto, MtlsMode::Permissive));
    assert_eq!(&*compiled.port(8080).service, "reviews");
}

#[test]
fn an_own_listener_that_would_widen_access_is_refused() {
    let refusal = |chains: Vec<lds::FilterChain>| {
        inbound::compile(&inbound("inbound/shop/reviews", chains)).unwrap_err().to_string()
    };
    let mut without_tls = inbound_chain(80, true, "http");
    without_tls.transport_socket = None;
    assert_eq!(refusal(vec![without_tls]), "filter_chains[0].transport_socket is missing");
    let mut anyone = inbound_chain(80, true, "http");
    let lax = tulle_proto::envoy::extensions::transport_sockets::tls::v3::DownstreamTlsContext::default();
    anyone.transport_socket.as_mut().unwrap().config_type =
        Some(core::transport_socket::ConfigType::TypedConfig(packed(&lax)));
    assert_eq!(refusal(vec![anyone]), "filter_chains[0].transport_socket.require_client_certificate is not true");
    let mut elsewhere = inbound_chain(80, false, "tcp");
    elsewhere.filters = vec![tcp_filter("local:81")];
    assert_eq!(refusal(vec![elsewhere]), "filter_chains[0].filters[0] leads elsewhere than to local:80");
    assert_eq!(
        refusal(vec![inbound_chain(80, false, "http"), inbound_chain(80, false, "http")]),
        "filter_chains[1].filter_chain_match matches port 80 a second time"
    );
    assert_eq!(
        refusal(vec![inbound_chain(80, true, "http"), inbound_chain(80, false, "tcp")]),
        "filter_chains of port 80 contradict each other"
    );
    let mut no_default = inbound("inbound/shop/reviews", Vec::new());
    no_default.default_filter_chain = None;
    assert_eq!(inbound::compile(&no_default).unwrap_err().to_string(), "default_filter_chain is missing");
}

#[test]
fn a_service_shows_only_when_all_of_it_is_there() {
    let parts: [(ResourceType, Any); 4] = [
        (ResourceType::Listener, any(&listener(NAME, NAME, "http"))),
        (ResourceType::Route, any(&routes(NAME, vec![route_to(NAME)]))),
        (ResourceType::Cluster, any(&cluster(NAME))),
        (ResourceType::Endpoint, any(&endpoints(NAME, &[]))),
    ];
    // Whatever comes last, nothing shows before it.
    for last in 0..parts.len() {
        let mut store = Store::new();
        for (index, (kind, part)) in parts.iter().enumerate() {
            if index != last {
                store.accept(*kind, &NAME.into(), part).unwrap();
            }
        }
        if let Some(snapshot) = store.snapshot(std::iter::empty()) {
            assert!(outbound(&snapshot, NAME).is_none(), "without part {last}");
        }
        let (kind, part) = &parts[last];
        store.accept(*kind, &NAME.into(), part).unwrap();
        assert!(outbound(&snapshot(&mut store), NAME).is_some(), "with part {last}");
    }
}

#[test]
fn a_new_version_waits_for_its_clusters_while_the_old_one_serves() {
    let mut store = service("http");
    let before = snapshot(&mut store);
    let old = outbound(&before, NAME).unwrap();
    put(&mut store, ResourceType::Route, NAME, &routes(NAME, vec![route_to("v2:80")])).unwrap();
    let mut needed = Vec::new();
    assert!(store.needs(NAME, |kind, name| needed.push((kind, name.to_string()))));
    for cluster in [NAME, "v2:80"] {
        assert!(needed.contains(&(ResourceType::Cluster, cluster.into())), "{needed:?}");
        assert!(needed.contains(&(ResourceType::Endpoint, cluster.into())), "{needed:?}");
    }
    put(&mut store, ResourceType::Cluster, "v2:80", &cluster("v2:80")).unwrap();
    if let Some(snapshot) = store.snapshot(std::iter::empty()) {
        assert!(Arc::ptr_eq(&outbound(&snapshot, NAME).unwrap(), &old));
    }
    put(&mut store, ResourceType::Endpoint, "v2:80", &endpoints("v2:80", &["10.0.0.9:80"])).unwrap();
    let after = snapshot(&mut store);
    let new = outbound(&after, NAME).unwrap();
    assert!(!Arc::ptr_eq(&new, &old));
    let Action::Cluster(id) = new.routes.as_ref().unwrap().hosts()[0].routes[0].action else { panic!() };
    assert_eq!(&*after.cluster(id).unwrap().name, "v2:80");
}

#[test]
fn what_did_not_change_stays_the_same_value() {
    let mut store = service("http");
    let before = snapshot(&mut store);
    assert!(store.snapshot(std::iter::empty()).is_none(), "nothing changed");
    put(&mut store, ResourceType::Cluster, NAME, &cluster(NAME)).unwrap();
    assert!(store.snapshot(std::iter::empty()).is_none(), "the same cluster again");
    put(&mut store, ResourceType::Endpoint, NAME, &endpoints(NAME, &["10.0.0.2:8080"])).unwrap();
    let after = snapshot(&mut store);
    assert!(Arc::ptr_eq(&outbound(&before, NAME).unwrap(), &outbound(&after, NAME).unwrap()));
    assert!(!Arc::ptr_eq(&before.clusters[0], &after.clusters[0]));
}

#[test]
fn a_refused_resource_leaves_its_last_good_version() {
    let mut store = service("http");
    let before = snapshot(&mut store);
    let mut bad = endpoints(NAME, &["10.0.0.2:8080"]);
    bad.endpoints[0].lb_endpoints.push(eds::LbEndpoint::default());
    let refusal = put(&mut store, ResourceType::Endpoint, NAME, &bad).unwrap_err();
    assert_eq!(refusal, format!("eds {NAME}: endpoints[0].lb_endpoints[1].endpoint is missing"));
    assert!(store.snapshot(std::iter::empty()).is_none());
    assert_eq!(before.clusters[0].endpoints.list.len(), 1);
}

#[test]
fn resources_under_a_wrong_name_type_or_size_are_refused() {
    let mut store = Store::new();
    let refusal = put(&mut store, ResourceType::Cluster, "other:80", &cluster(NAME)).unwrap_err();
    assert_eq!(refusal, format!("cds other:80: name is `{NAME}`, not the name it came under"));
    let refusal = put(&mut store, ResourceType::Listener, NAME, &cluster(NAME)).unwrap_err();
    assert!(refusal.contains("is a type.googleapis.com/envoy.config.cluster.v3.Cluster"), "{refusal}");
    let garbage = Any { type_url: ResourceType::Route.url().into(), value: vec![0xff; 9].into() };
    let refusal = store.accept(ResourceType::Route, &NAME.into(), &garbage).unwrap_err().to_string();
    assert!(refusal.contains("does not decode"), "{refusal}");
    let large = Any { type_url: ResourceType::Route.url().into(), value: vec![0; MAX_RESOURCE_BYTES + 1].into() };
    let refusal = store.accept(ResourceType::Route, &NAME.into(), &large).unwrap_err().to_string();
    assert!(refusal.contains("is larger than"), "{refusal}");
    let mut secret = bundle("nonsense");
    secret.name = "ROOTCA".into();
    let refusal = put(&mut store, ResourceType::Secret, "ROOTCA", &secret).unwrap_err();
    assert!(refusal.contains("validation_context.trusted_ca is no trust bundle"), "{refusal}");
}

#[test]
fn a_removed_listener_goes_and_what_it_alone_used_with_it() {
    let mut store = service("http");
    snapshot(&mut store);
    // Clusters and endpoints that are in use outlive their removal.
    store.gone(ResourceType::Cluster, &NAME.into());
    store.gone(ResourceType::Endpoint, &NAME.into());
    store.gone(ResourceType::Route, &NAME.into());
    assert!(store.snapshot(std::iter::empty()).is_none());
    store.gone(ResourceType::Listener, &NAME.into());
    store.retain(|_, _| false);
    let name: Arc<str> = NAME.into();
    let snapshot = store.snapshot(std::iter::once(&name)).unwrap();
    assert!(matches!(snapshot.by_name.get(NAME), Some(Known::Absent)));
    assert!(snapshot.clusters.iter().all(|cluster| cluster.name.is_empty()));
}

#[test]
fn parts_that_never_existed_count_as_empty() {
    let mut store = Store::new();
    put(&mut store, ResourceType::Listener, NAME, &listener(NAME, NAME, "auto")).unwrap();
    for kind in [ResourceType::Route, ResourceType::Cluster] {
        store.gone(kind, &NAME.into());
    }
    let snapshot = snapshot(&mut store);
    let outbound = outbound(&snapshot, NAME).expect("nothing more to wait for");
    assert!(outbound.routes.as_ref().unwrap().hosts().is_empty());
    assert!(snapshot.cluster(outbound.opaque.unwrap()).unwrap().endpoints.list.is_empty());
}

#[test]
fn addresses_lead_to_services() {
    let mut store = service("http");
    let mut with_address = listener(NAME, NAME, "http");
    with_address.address = address("10.96.0.12:80");
    put(&mut store, ResourceType::Listener, NAME, &with_address).unwrap();
    let asked = "10.96.0.13:80";
    put(&mut store, ResourceType::Listener, asked, &listener(asked, NAME, "http")).unwrap();
    let gone: Arc<str> = "10.96.0.14:80".into();
    let snapshot = store.snapshot(std::iter::once(&gone)).unwrap();
    let at = |address: &str| snapshot.by_addr.get(&address.parse().unwrap());
    assert!(matches!(at("10.96.0.12:80"), Some(Known::Service(outbound)) if &*outbound.name == NAME));
    assert!(matches!(at(asked), Some(Known::Service(outbound)) if &*outbound.name == asked));
    assert!(matches!(at(&gone), Some(Known::Absent)));
    assert!(at("10.96.0.15:80").is_none());
}
