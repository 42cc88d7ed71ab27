//! The session without a socket: what it says to what it hears.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tulle_proto::ResourceType;
use tulle_proto::ResourceType::{Cluster, Endpoint, Listener, Route, Secret};
use tulle_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};
use tulle_proto::envoy::config::core::v3 as core;
use tulle_proto::envoy::config::endpoint::v3 as eds;
use tulle_proto::own::LastGood;

use super::super::session::{Config, Demanded, MAX_WANTED, Outcome, Session};
use super::{INBOUND, NAME, removal, resource, response, service};
use crate::config::compile::samples;
use crate::config::demand::DemandKey;
use crate::config::{Known, Snapshot};

pub(super) const TTL: Duration = Duration::from_secs(10);

const IDLE: Duration = Duration::from_secs(1200);

fn session(permanent: &[&str]) -> Session {
    Session::new(Config {
        node: core::Node { id: "web.shop".into(), ..Default::default() },
        inbound: INBOUND.into(),
        loopback: false,
        permanent: permanent.iter().map(|name| (*name).into()).collect(),
        absent_ttl: TTL,
        idle_after: IDLE,
    })
}

pub(super) fn connected(permanent: &[&str]) -> Session {
    let mut session = session(permanent);
    session.connect();
    requests(&mut session);
    session
}

/// A request in short: type, `+` subscribed, `-` unsubscribed, held versions, ACK or NACK of a nonce.
fn short(request: &DeltaDiscoveryRequest) -> String {
    let mut text = ResourceType::from_url(&request.type_url).map_or_else(|| "?".to_owned(), |kind| kind.to_string());
    for name in &request.resource_names_subscribe {
        text += &format!(" +{name}");
    }
    for name in &request.resource_names_unsubscribe {
        text += &format!(" -{name}");
    }
    let mut held: Vec<_> = request.initial_resource_versions.iter().collect();
    held.sort();
    for (name, version) in held {
        text += &format!(" {name}={version}");
    }
    if !request.response_nonce.is_empty() || request.error_detail.is_some() {
        text += if request.error_detail.is_some() { " NACK " } else { " ACK " };
        text += &request.response_nonce;
    }
    text
}

pub(super) fn requests(session: &mut Session) -> Vec<String> {
    std::iter::from_fn(|| session.next_request()).map(|request| short(&request)).collect()
}

pub(super) fn receive(session: &mut Session, response: DeltaDiscoveryResponse) -> Outcome {
    session.receive(response, Instant::now())
}

fn all(session: &mut Session, responses: Vec<DeltaDiscoveryResponse>) {
    for response in responses {
        assert_eq!(receive(session, response), Outcome::Acked);
    }
}

fn known<'s>(snapshot: &'s Snapshot, name: &str) -> &'s str {
    match snapshot.by_name.get(name) {
        Some(Known::Service(_)) => "service",
        Some(Known::Absent) => "absent",
        None => "unknown",
    }
}

#[test]
fn a_stream_begins_with_the_own_listener_and_the_trust_bundle() {
    let mut session = session(&[]);
    assert_eq!(session.next_request(), None, "nothing is said without a stream");
    session.connect();
    let first = session.next_request().unwrap();
    assert_eq!(first.node.as_ref().unwrap().id, "web.shop");
    assert_eq!(short(&first), "sds +ROOTCA");
    let second = session.next_request().unwrap();
    assert_eq!(second.node, None);
    assert_eq!(short(&second), format!("lds +{INBOUND}"));
    assert_eq!(requests(&mut session), ["ranges +mesh"]);
}

#[test]
fn a_name_asks_for_all_its_parts_at_once_and_shows_when_they_are_there() {
    let mut session = connected(&[]);
    assert_eq!(session.demand(&DemandKey::Name(NAME.into()), Instant::now()), Demanded::New);
    assert_eq!(session.demand(&DemandKey::Name(NAME.into()), Instant::now()), Demanded::Known);
    let expected = ["cds", "eds", "lds", "rds"].map(|kind| format!("{kind} +{NAME}"));
    assert_eq!(requests(&mut session), expected);
    for response in service("1") {
        assert!(session.snapshot().is_none_or(|snapshot| known(&snapshot, NAME) == "unknown"));
        assert_eq!(receive(&mut session, response), Outcome::Acked);
    }
    assert_eq!(requests(&mut session), ["cds ACK c", "eds ACK e", "lds ACK l", "rds ACK r"]);
    assert_eq!(known(&session.snapshot().unwrap(), NAME), "service");
}

#[test]
fn an_address_asks_for_its_listener_then_for_what_that_names() {
    let mut session = connected(&[]);
    session.demand(&DemandKey::Name("10.96.0.12:80".into()), Instant::now());
    assert_eq!(requests(&mut session), ["lds +10.96.0.12:80"]);
    let listener = samples::listener("10.96.0.12:80", NAME, "http");
    receive(&mut session, response(Listener, "1", vec![resource("10.96.0.12:80", "7", &listener)]));
    let expected = ["lds ACK 1".to_owned(), format!("cds +{NAME}"), format!("eds +{NAME}"), format!("rds +{NAME}")];
    assert_eq!(requests(&mut session), expected);
    for response in service("1").into_iter().filter(|response| response.type_url != Listener.url()) {
        receive(&mut session, response);
    }
    let snapshot = session.snapshot().unwrap();
    assert_eq!(known(&snapshot, "10.96.0.12:80"), "service");
    assert!(snapshot.by_addr.contains_key(&"10.96.0.12:80".parse().unwrap()));
}

#[test]
fn routes_to_other_clusters_change_the_subscription_once_published() {
    let mut session = connected(&[NAME]);
    all(&mut session, service("1"));
    session.snapshot().unwrap();
    requests(&mut session);
    let moved = samples::routes(NAME, vec![samples::route_to("v2:80")]);
    receive(&mut session, response(Route, "2", vec![resource(NAME, "2", &moved)]));
    // Make before break: the old cluster stays subscribed while the new one is on its way.
    assert_eq!(requests(&mut session), ["rds ACK 2", "cds +v2:80", "eds +v2:80"]);
    receive(&mut session, response(Cluster, "3", vec![resource("v2:80", "1", &samples::cluster("v2:80"))]));
    let endpoints = samples::endpoints("v2:80", &["10.0.0.2:80"]);
    receive(&mut session, response(Endpoint, "4", vec![resource("v2:80", "1", &endpoints)]));
    session.snapshot().unwrap();
    let unsubscribed: Vec<String> = requests(&mut session).into_iter().filter(|text| text.contains(" -")).collect();
    assert_eq!(unsubscribed, [format!("cds -{NAME}"), format!("eds -{NAME}")]);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_does_not_exist_is_absent_for_a_while() {
    let mut session = connected(&[]);
    let name: Arc<str> = "10.1.2.3:443".into();
    session.demand(&DemandKey::Name(name.clone()), Instant::now());
    requests(&mut session);
    receive(&mut session, removal(Listener, "1", &[&name]));
    assert_eq!(requests(&mut session), ["lds ACK 1"]);
    assert_eq!(known(&session.snapshot().unwrap(), &name), "absent");
    let until = session.next_expiry().unwrap();
    session.expire(until - Duration::from_millis(1));
    assert_eq!(session.demand(&DemandKey::Name(name.clone()), Instant::now()), Demanded::Known, "still believed");
    session.expire(until);
    assert_eq!(requests(&mut session), [format!("lds -{name}")]);
    assert_eq!(known(&session.snapshot().unwrap(), &name), "unknown");
    assert_eq!(session.demand(&DemandKey::Name(name.clone()), Instant::now()), Demanded::New, "asked for again");
    assert_eq!(requests(&mut session), [format!("lds +{name}")]);
    assert_eq!(session.next_expiry(), None);
}

#[test]
fn an_absent_service_is_no_longer_asked_for_in_parts_until_it_appears() {
    let mut session = connected(&[NAME]);
    receive(&mut session, removal(Listener, "1", &[NAME]));
    let expected = ["lds ACK 1".to_owned(), format!("cds -{NAME}"), format!("eds -{NAME}"), format!("rds -{NAME}")];
    assert_eq!(requests(&mut session), expected);
    assert_eq!(known(&session.snapshot().unwrap(), NAME), "absent");
    assert_eq!(session.next_expiry(), None, "configured destinations stay subscribed");
    let listener = resource(NAME, "1", &samples::listener(NAME, NAME, "http"));
    receive(&mut session, response(Listener, "2", vec![listener]));
    let expected = ["lds ACK 2".to_owned(), format!("cds +{NAME}"), format!("eds +{NAME}"), format!("rds +{NAME}")];
    assert_eq!(requests(&mut session), expected);
    all(&mut session, service("1"));
    assert_eq!(known(&session.snapshot().unwrap(), NAME), "service");
}

#[test]
fn absence_holds_while_the_control_plane_is_away() {
    let mut session = connected(&[]);
    receive(&mut session, removal(ResourceType::Ranges, "0", &["mesh"]));
    let name: Arc<str> = "10.1.2.3:443".into();
    session.demand(&DemandKey::Name(name.clone()), Instant::now());
    requests(&mut session);
    receive(&mut session, removal(Listener, "1", &[&name]));
    session.snapshot();
    session.disconnect();
    assert_eq!(session.next_expiry(), None);
    session.expire(Instant::now() + TTL * 10);
    assert_eq!(session.demand(&DemandKey::Name(name), Instant::now()), Demanded::Known);
}

#[test]
fn reconnecting_tells_what_is_held() {
    let mut session = connected(&[]);
    session.demand(&DemandKey::Name(NAME.into()), Instant::now());
    requests(&mut session);
    all(&mut session, service("5"));
    session.snapshot();
    session.disconnect();
    assert_eq!(requests(&mut session), Vec::<String>::new());
    session.connect();
    let first = session.next_request().unwrap();
    assert!(first.node.is_some());
    let expected = [
        format!("cds +{NAME} {NAME}=5"),
        format!("eds +{NAME} {NAME}=5"),
        format!("lds +{INBOUND} +{NAME} {NAME}=5"),
        format!("rds +{NAME} {NAME}=5"),
        "ranges +mesh".to_owned(),
    ];
    assert_eq!(requests(&mut session), expected);
    assert!(session.snapshot().is_none(), "nothing changed by it");
}

#[test]
fn one_bad_resource_is_refused_and_blocks_no_other() {
    let mut session = connected(&[NAME, "other.shop.svc.cluster.local:80"]);
    all(&mut session, service("1"));
    session.snapshot();
    requests(&mut session);
    let mut bad = samples::endpoints(NAME, &["10.0.0.2:80"]);
    bad.endpoints[0].lb_endpoints.push(eds::LbEndpoint::default());
    let good = samples::endpoints("other.shop.svc.cluster.local:80", &["10.0.0.3:80"]);
    let mixed = vec![resource(NAME, "2", &bad), resource("other.shop.svc.cluster.local:80", "2", &good)];
    let outcome = receive(&mut session, response(Endpoint, "9", mixed));
    let reason = format!("eds {NAME}: endpoints[0].lb_endpoints[1].endpoint is missing");
    assert_eq!(outcome, Outcome::Nacked(reason.clone()));
    let nack = session.next_request().unwrap();
    assert_eq!((nack.response_nonce.as_str(), nack.type_url.as_str()), ("9", Endpoint.url()));
    let detail = nack.error_detail.unwrap();
    assert_eq!((detail.code, detail.message), (3, reason));
    session.disconnect();
    session.connect();
    let eds: Vec<String> = requests(&mut session).into_iter().filter(|text| text.starts_with("eds")).collect();
    let held =
        [format!("other.shop.svc.cluster.local:80=2 {NAME}=1"), format!("{NAME}=1 other.shop.svc.cluster.local:80=2")];
    assert!(held.iter().any(|held| eds[0].ends_with(held.as_str())), "{eds:?}: the last good version is held");
}

#[test]
fn a_hostile_control_plane_is_refused() {
    let mut session = connected(&[NAME]);
    all(&mut session, service("1"));
    session.snapshot();
    requests(&mut session);
    let endpoints = || resource(NAME, "2", &samples::endpoints(NAME, &["10.6.6.6:80"]));
    let mut contradiction = removal(Endpoint, "n", &[NAME]);
    contradiction.resources.push(endpoints());
    let hostile = [
        (response(Endpoint, "n", vec![endpoints(), endpoints()]), "is named twice in one response"),
        (contradiction, "is named twice in one response"),
        (removal(Listener, "n", &[NAME, NAME]), "is named twice in one response"),
        (response(Endpoint, "", vec![endpoints()]), "response has no nonce"),
        (
            DeltaDiscoveryResponse {
                type_url: "type.googleapis.com/evil\n".into(),
                nonce: "n".into(),
                ..Default::default()
            },
            "`type.googleapis.com/evil?` is not one",
        ),
        (response(Endpoint, "n", vec![Resource { name: NAME.into(), ..Default::default() }]), "resource is missing"),
        (
            response(Endpoint, "n", vec![resource(NAME, "2", &samples::cluster(NAME))]),
            "is a type.googleapis.com/envoy.config.cluster.v3.Cluster",
        ),
    ];
    for (response, reason) in hostile {
        match receive(&mut session, response) {
            Outcome::Nacked(text) => assert!(text.contains(reason), "{text}"),
            Outcome::Acked => panic!("took what {reason}"),
        }
        assert!(session.snapshot().is_none(), "the last good version stays");
    }
    // What nobody asked for is not kept.
    receive(&mut session, response(Cluster, "n", vec![resource("evil:80", "1", &samples::cluster("evil:80"))]));
    assert!(session.saved().iter().all(|saved| saved.name != "evil:80"));
    // Nor does an empty response take anything away.
    assert_eq!(receive(&mut session, response(Cluster, "n", Vec::new())), Outcome::Acked);
    assert!(session.snapshot().is_none());
}

#[test]
fn a_nack_has_a_bounded_text() {
    let names: Vec<String> = (0..1000).map(|n| format!("svc-{n}.shop.svc.cluster.local:80")).collect();
    let permanent: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut session = connected(&permanent);
    let bad = names.iter().map(|name| Resource { name: name.clone(), ..Default::default() }).collect();
    let Outcome::Nacked(text) = receive(&mut session, response(Listener, "1", bad)) else { panic!() };
    assert!(text.len() < 4200 && text.ends_with(" ..."), "{}", text.len());
}

#[test]
fn the_own_listener_outlives_its_removal() {
    let mut session = connected(&[]);
    let own = samples::inbound(INBOUND, vec![samples::inbound_chain(8080, true, "http")]);
    receive(&mut session, response(Listener, "1", vec![resource(INBOUND, "1", &own)]));
    assert!(session.snapshot().unwrap().inbound.is_some());
    receive(&mut session, removal(Listener, "2", &[INBOUND]));
    assert!(session.snapshot().is_none());
}

#[test]
fn removed_services_go_and_their_parts_are_given_back() {
    let mut session = connected(&[]);
    session.demand(&DemandKey::Name(NAME.into()), Instant::now());
    all(&mut session, service("1"));
    session.snapshot();
    requests(&mut session);
    for kind in [Cluster, Endpoint, Route] {
        receive(&mut session, removal(kind, "n", &[NAME]));
        assert!(session.snapshot().is_none(), "{kind}: in use until the listener goes");
    }
    receive(&mut session, removal(Listener, "n", &[NAME]));
    assert_eq!(known(&session.snapshot().unwrap(), NAME), "absent");
    assert!(session.saved().is_empty());
}

#[test]
fn what_was_saved_is_restored_without_a_control_plane() {
    let mut before = connected(&[]);
    before.demand(&DemandKey::Name(NAME.into()), Instant::now());
    all(&mut before, service("3"));
    before.demand(&DemandKey::Name("10.9.9.9:1".into()), Instant::now());
    assert!(before.take_unsaved());
    assert!(!before.take_unsaved());
    let mut resources = before.saved();
    resources.push(tulle_proto::own::SavedResource { name: "junk".into(), ..Default::default() });

    let mut after = session(&[]);
    after.restore(LastGood { resources, ..Default::default() }, Instant::now());
    assert_eq!(known(&after.snapshot().unwrap(), NAME), "service");
    after.connect();
    let lds: Vec<String> = requests(&mut after).into_iter().filter(|text| text.starts_with("lds")).collect();
    assert_eq!(lds, [format!("lds +{INBOUND} +{NAME} {NAME}=3")]);
}

#[test]
fn what_nobody_uses_is_forgotten_and_what_is_used_stays() {
    const ADDRESS: &str = "10.96.0.12:80";
    let mut session = connected(&["kept.shop.svc.cluster.local:80"]);
    let start = Instant::now();
    // Two names of one cluster, and one that nobody ever answered for.
    for name in [NAME, ADDRESS, "10.9.9.9:1"] {
        assert_eq!(session.demand(&DemandKey::Name(name.into()), start), Demanded::New);
    }
    all(&mut session, service("1"));
    let listener = samples::listener(ADDRESS, NAME, "http");
    all(&mut session, vec![response(Listener, "2", vec![resource(ADDRESS, "7", &listener)])]);
    requests(&mut session);
    session.snapshot();
    let used = || vec![Arc::from(NAME)];
    let minute = |n: u32| start + Duration::from_secs(60) * n;
    assert_eq!(session.used(used(), minute(15)), 0);
    // Asked for again lately: also without an answer it stays.
    assert_eq!(session.demand(&DemandKey::Name("10.9.9.9:1".into()), minute(15)), Demanded::Known);
    assert_eq!(session.used(vec![], minute(34)), 0, "used 19 minutes ago");
    session.disconnect();
    assert_eq!(session.used(vec![], minute(60)), 0, "nobody could tell it again");
    session.connect();
    requests(&mut session);
    assert_eq!(session.used(used(), minute(60)), 1);
    assert_eq!(requests(&mut session), ["lds -10.9.9.9:1"]);
    assert_eq!(session.used(vec![], minute(80)), 2);
    let expected =
        [format!("cds -{NAME}"), format!("eds -{NAME}"), format!("lds -{ADDRESS} -{NAME}"), format!("rds -{NAME}")];
    assert_eq!(requests(&mut session), expected);
    let snapshot = session.snapshot().unwrap();
    assert_eq!((known(&snapshot, NAME), known(&snapshot, ADDRESS)), ("unknown", "unknown"));
    assert!(session.take_unsaved(), "the last-good file forgets it too");
    assert_eq!(session.demand(&DemandKey::Name(NAME.into()), minute(81)), Demanded::New, "and is asked for again");
    assert_eq!(session.used(vec![], minute(900)), 1, "but what is configured stays");
}

#[test]
fn demands_are_bounded_and_names_checked() {
    let mut session = connected(&[]);
    for name in ["", "*", "a b:80", "a\n:80", &"x".repeat(400)] {
        assert_eq!(session.demand(&DemandKey::Name(name.into()), Instant::now()), Demanded::Refused, "{name:?}");
    }
    for n in 0..MAX_WANTED {
        assert_eq!(session.demand(&DemandKey::Name(format!("10.0.0.1:{n}").into()), Instant::now()), Demanded::New);
    }
    assert_eq!(session.demand(&DemandKey::Name("10.0.0.2:1".into()), Instant::now()), Demanded::Refused);
    assert_eq!(session.demand(&DemandKey::Name("10.0.0.1:1".into()), Instant::now()), Demanded::Known);
    let burst = session.next_request().unwrap();
    assert_eq!(burst.resource_names_subscribe.len(), MAX_WANTED, "one request for a burst");
}

#[test]
fn the_trust_bundle_is_taken_from_its_secret_only() {
    let mut session = connected(&[]);
    assert!(session.bundle().is_none());
    let outcome =
        receive(&mut session, response(Secret, "1", vec![resource("ROOTCA", "1", &samples::bundle("nonsense"))]));
    assert!(matches!(outcome, Outcome::Nacked(text) if text.starts_with("sds ROOTCA: validation_context.trusted_ca")));
    assert!(session.bundle().is_none());
}

proptest::proptest! {
    /// Whatever bytes come under whatever type: no panic, and a snapshot that keeps its promises.
    #[test]
    fn arbitrary_and_mutilated_resources_never_panic(
        kind in 0..ResourceType::ALL.len(),
        claimed in 0..ResourceType::ALL.len(),
        flips in proptest::collection::vec((0usize..400, proptest::num::u8::ANY), 0..8),
        cut in 0usize..600,
    ) {
        let mut session = connected(&[NAME]);
        all(&mut session, service("1"));
        let mut responses = service("2");
        responses.push(response(Secret, "s", vec![resource("ROOTCA", "1", &samples::bundle("x"))]));
        let own = samples::inbound(INBOUND, vec![samples::inbound_chain(80, true, "http")]);
        responses.push(response(Listener, "o", vec![resource(INBOUND, "1", &own)]));
        for mut response in responses {
            for resource in &mut response.resources {
                let any = resource.resource.as_mut().unwrap();
                let mut bytes = any.value.to_vec();
                for (at, byte) in &flips {
                    if let Some(target) = bytes.get_mut(*at) {
                        *target = *byte;
                    }
                }
                bytes.truncate(cut.max(1));
                any.value = bytes.into();
                if kind == claimed {
                    any.type_url = ResourceType::ALL[claimed].url().into();
                }
            }
            receive(&mut session, response);
        }
        if let Some(snapshot) = session.snapshot() {
            for known in snapshot.by_name.values() {
                if let Known::Service(outbound) = known {
                    proptest::prop_assert!(outbound.opaque.is_none_or(|id| snapshot.cluster(id).is_some()));
                }
            }
        }
    }
}
