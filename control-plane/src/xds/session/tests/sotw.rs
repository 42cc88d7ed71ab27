//! The state-of-the-world variant.

use tulle_proto::ResourceType::{self, Cluster, Endpoint, Listener, Route};
use tulle_proto::discovery::{DiscoveryRequest as Request, DiscoveryResponse as Response};
use tulle_proto::google::rpc::Status;

use super::{Script, strings};
use crate::xds::session::{Heard, MAX_NAMES, Refused, Session, Sotw};

/// A session and its client.
#[derive(Default)]
struct Peer {
    session: Sotw,
}

impl Peer {
    fn first(&mut self, ty: ResourceType, names: &[&str]) {
        self.resume(ty, names, "");
    }

    fn resume(&mut self, ty: ResourceType, names: &[&str], version: &str) {
        let request = Request { version_info: version.into(), ..subscribe(ty, names) };
        assert_eq!(self.session.on_request(request), Ok(Heard::Subscribe));
    }

    /// Accepts a response and says which names are wanted from now on.
    fn ack(&mut self, response: &Response, names: &[&str]) -> Heard {
        let request = Request {
            type_url: response.type_url.clone(),
            version_info: response.version_info.clone(),
            response_nonce: response.nonce.clone(),
            resource_names: strings(names),
            ..Request::default()
        };
        self.session.on_request(request).unwrap()
    }

    fn nack(&mut self, response: &Response, names: &[&str], reason: &str) -> Heard {
        let request = Request {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            resource_names: strings(names),
            error_detail: Some(Status { code: 3, message: reason.into(), ..Status::default() }),
            ..Request::default()
        };
        self.session.on_request(request).unwrap()
    }

    fn next(&mut self, world: &Script) -> Option<Response> {
        self.session.next(world).map(|sent| sent.response)
    }
}

fn subscribe(ty: ResourceType, names: &[&str]) -> Request {
    Request { type_url: ty.url().into(), resource_names: strings(names), ..Request::default() }
}

/// Short type and number of resources.
fn shape(response: Option<&Response>) -> Option<(ResourceType, usize)> {
    response.map(|response| (ResourceType::from_url(&response.type_url).unwrap(), response.resources.len()))
}

#[test]
fn a_wildcard_is_the_whole_set_each_time() {
    for names in [&[][..], &["*"]] {
        let mut world = Script::new(&[(Cluster, "a", "1"), (Cluster, "b", "1")]);
        let mut peer = Peer::default();
        peer.first(Cluster, names);
        let first = peer.next(&world).unwrap();
        assert_eq!(shape(Some(&first)), Some((Cluster, 2)));
        assert_eq!(peer.ack(&first, names), Heard::Ack(Cluster));
        assert_eq!(peer.next(&world), None);
        world.tick().put(Cluster, "b", "2");
        let second = peer.next(&world).unwrap();
        assert_eq!(second.resources.len(), 2, "also what did not change");
        assert_ne!(first.version_info, second.version_info);
        peer.ack(&second, names);
        world.tick().remove(Cluster, "a");
        let third = peer.next(&world).unwrap();
        assert_eq!(third.resources.len(), 1, "what is missing is removed");
        peer.ack(&third, names);
        world.tick().put(Cluster, "b", "2");
        assert_eq!(peer.next(&world), None, "nothing changed in truth");
    }
}

#[test]
fn an_empty_wildcard_is_answered() {
    let mut peer = Peer::default();
    peer.first(Listener, &[]);
    assert_eq!(shape(peer.next(&Script::new(&[])).as_ref()), Some((Listener, 0)));
}

#[test]
fn named_listeners_are_a_full_set_and_an_empty_list_then_means_none() {
    let mut world = Script::new(&[(Listener, "a", "1"), (Listener, "b", "1"), (Listener, "c", "1")]);
    let mut peer = Peer::default();
    peer.first(Listener, &["a", "nobody"]);
    let first = peer.next(&world).unwrap();
    assert_eq!(first.resources.len(), 1);
    peer.ack(&first, &["a", "b", "nobody"]);
    let second = peer.next(&world).unwrap();
    assert_eq!(second.resources.len(), 2, "the whole subscribed set");
    peer.ack(&second, &[]);
    world.tick().put(Listener, "a", "2");
    assert_eq!(peer.next(&world), None, "no wildcard once names were given");
}

#[test]
fn endpoints_are_sent_as_they_change() {
    let mut world = Script::new(&[(Endpoint, "a", "1"), (Endpoint, "b", "1")]);
    let mut peer = Peer::default();
    peer.first(Endpoint, &["a"]);
    let first = peer.next(&world).unwrap();
    assert_eq!(first.resources.len(), 1);
    peer.ack(&first, &["a", "b"]);
    let second = peer.next(&world).unwrap();
    assert_eq!(second.resources.len(), 1, "only the new name");
    peer.ack(&second, &["a", "b"]);
    world.tick().put(Endpoint, "a", "2");
    let third = peer.next(&world).unwrap();
    assert_eq!(third.resources.len(), 1);
    peer.ack(&third, &["a", "b"]);
    world.tick().remove(Endpoint, "a");
    assert_eq!(peer.next(&world), None, "an absent one says nothing");
    peer.ack(&third, &["b"]);
    peer.ack(&third, &["b", "a"]);
    world.tick().put(Endpoint, "a", "2");
    assert_eq!(shape(peer.next(&world).as_ref()), Some((Endpoint, 1)), "back");
}

#[test]
fn a_name_dropped_and_wanted_again_is_sent_again() {
    let world = Script::new(&[(Route, "a", "1"), (Route, "b", "1")]);
    let mut peer = Peer::default();
    peer.first(Route, &["a", "b"]);
    let first = peer.next(&world).unwrap();
    peer.ack(&first, &["a"]);
    assert_eq!(peer.next(&world), None);
    peer.ack(&first, &["a", "b"]);
    assert_eq!(shape(peer.next(&world).as_ref()), Some((Route, 1)));
}

#[test]
fn a_stale_nonce_is_ignored_with_everything_in_it() {
    let mut world = Script::new(&[(Route, "a", "1"), (Route, "b", "1")]);
    let mut peer = Peer::default();
    peer.first(Route, &["a"]);
    let first = peer.next(&world).unwrap();
    peer.ack(&first, &["a"]);
    world.tick().put(Route, "a", "2");
    let second = peer.next(&world).unwrap();
    assert_eq!(peer.ack(&first, &["a", "b"]), Heard::Subscribe);
    assert_eq!(peer.next(&world), None, "the second is outstanding");
    assert_eq!(peer.ack(&second, &["a", "b"]), Heard::Ack(Route));
    assert_eq!(shape(peer.next(&world).as_ref()), Some((Route, 1)));
}

#[test]
fn a_refused_set_is_not_sent_again_until_it_changes() {
    let mut world = Script::new(&[(Listener, "a", "bad")]);
    let mut peer = Peer::default();
    peer.first(Listener, &[]);
    let bad = peer.next(&world).unwrap();
    let heard = peer.nack(&bad, &[], "no");
    assert_eq!(heard, Heard::Nack { ty: Listener, names: vec!["a".into()], reason: "no".into() });
    assert_eq!(peer.next(&world), None);
    world.tick().put(Listener, "a", "bad");
    assert_eq!(peer.next(&world), None);
    world.tick().put(Listener, "a", "good");
    assert_eq!(shape(peer.next(&world).as_ref()), Some((Listener, 1)));
}

#[test]
fn a_wildcard_reconnect_with_the_same_version_is_sent_nothing() {
    let world = Script::new(&[(Cluster, "a", "1"), (Cluster, "b", "1"), (Endpoint, "a", "1")]);
    let mut peer = Peer::default();
    peer.first(Cluster, &[]);
    let clusters = peer.next(&world).unwrap();
    peer.first(Endpoint, &["a"]);
    let endpoints = peer.next(&world).unwrap();

    let mut again = Peer::default();
    again.resume(Cluster, &[], &clusters.version_info);
    assert_eq!(again.next(&world), None);
    again.resume(Endpoint, &["a"], &endpoints.version_info);
    assert_eq!(shape(again.next(&world).as_ref()), Some((Endpoint, 1)), "names are always answered");

    let moved = Script::new(&[(Cluster, "a", "2"), (Cluster, "b", "1")]);
    let mut again = Peer::default();
    again.resume(Cluster, &[], &clusters.version_info);
    assert_eq!(shape(again.next(&moved).as_ref()), Some((Cluster, 2)));
}

#[test]
fn a_changed_cluster_gets_its_endpoints_again() {
    let mut world =
        Script::new(&[(Cluster, "a", "1"), (Cluster, "b", "1"), (Endpoint, "a", "1"), (Endpoint, "b", "1")]);
    let mut peer = Peer::default();
    peer.first(Cluster, &[]);
    let clusters = peer.next(&world).unwrap();
    peer.ack(&clusters, &[]);
    peer.first(Endpoint, &["a", "b"]);
    let endpoints = peer.next(&world).unwrap();
    peer.ack(&endpoints, &["a", "b"]);
    world.tick().put(Cluster, "a", "2");
    assert_eq!(shape(peer.next(&world).as_ref()), Some((Cluster, 2)));
    assert_eq!(shape(peer.next(&world).as_ref()), Some((Endpoint, 1)));
}

#[test]
fn a_set_that_only_shrinks_goes_last() {
    let mut world = Script::new(&[(Cluster, "a", "1"), (Cluster, "b", "1"), (Listener, "a", "1"), (Route, "r", "1")]);
    let mut peer = Peer::default();
    for (ty, names) in [(Cluster, &[][..]), (Listener, &[]), (Route, &["r"])] {
        peer.first(ty, names);
        let response = peer.next(&world).unwrap();
        peer.ack(&response, names);
    }
    world.tick().remove(Cluster, "b").remove(Listener, "a").put(Route, "r", "2");
    let order: Vec<_> = std::iter::from_fn(|| peer.next(&world)).map(|response| shape(Some(&response))).collect();
    assert_eq!(order, [Some((Route, 1)), Some((Listener, 0)), Some((Cluster, 1))]);
}

#[test]
fn bounds_end_the_stream() {
    let mut peer = Peer::default();
    let long = "x".repeat(513);
    assert_eq!(peer.session.on_request(subscribe(Route, &[&long])), Err(Refused::BadName(513)));
    let names: Vec<String> = (0..=MAX_NAMES).map(|n| format!("n{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(peer.session.on_request(subscribe(Route, &names)), Err(Refused::TooManyNames));
}

#[test]
fn mend_20_endpoints_are_sent_in_responses_that_fit() {
    let mut world = Script::new(&[]);
    let names: Vec<String> = (0..5).map(|number| format!("service-{number}")).collect();
    for name in &names {
        world.put_sized(Endpoint, name, "1", 1 << 20);
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut peer = Peer::default();
    peer.first(Endpoint, &names);
    let mut sent = 0;
    while let Some(response) = peer.next(&world) {
        let bytes: usize = response.resources.iter().map(|resource| resource.value.len()).sum();
        assert!((1..=3 << 20).contains(&bytes), "{bytes}");
        sent += response.resources.len();
        assert_eq!(peer.next(&world), None, "the next one waits for the answer");
        assert_eq!(peer.ack(&response, &names), Heard::Ack(Endpoint));
    }
    assert_eq!(sent, 5);
}
