//! The incremental variant.

use tulle_proto::ResourceType::{self, Cluster, Endpoint, Listener, Route, Secret};
use tulle_proto::discovery::{DeltaDiscoveryRequest as Request, DeltaDiscoveryResponse as Response};
use tulle_proto::google::rpc::Status;

use super::{Script, strings};
use crate::xds::session::{Delta, Heard, MAX_NAMES, MAX_UNANSWERED, Refused, Session};

/// A session and its client, which answers when told to.
#[derive(Default)]
struct Peer {
    session: Delta,
}

impl Peer {
    fn ask(&mut self, ty: ResourceType, names: &[&str]) -> Result<Heard, Refused> {
        self.session.on_request(subscribe(ty, names))
    }

    fn drop(&mut self, ty: ResourceType, names: &[&str]) {
        let request =
            Request { type_url: ty.url().into(), resource_names_unsubscribe: strings(names), ..Request::default() };
        assert_eq!(self.session.on_request(request), Ok(Heard::Subscribe));
    }

    fn reconnect(ty: ResourceType, names: &[&str], held: &[(&str, &str)]) -> Self {
        let mut peer = Self::default();
        let held = held.iter().map(|(name, version)| (name.to_string(), version.to_string())).collect();
        let request = Request { initial_resource_versions: held, ..subscribe(ty, names) };
        peer.session.on_request(request).unwrap();
        peer
    }

    fn next(&mut self, world: &Script) -> Option<Response> {
        self.session.next(world).map(|sent| sent.response)
    }

    /// The next response as text, accepted at once.
    fn take(&mut self, world: &Script) -> String {
        let Some(response) = self.next(world) else { return String::new() };
        self.ack(&response);
        show(&response)
    }

    fn ack(&mut self, response: &Response) {
        let ty = ResourceType::from_url(&response.type_url).unwrap();
        assert_eq!(self.session.on_request(answer(response, None)), Ok(Heard::Ack(ty)));
    }

    fn nack(&mut self, response: &Response, reason: &str) -> Heard {
        self.session.on_request(answer(response, Some(reason))).unwrap()
    }
}

fn subscribe(ty: ResourceType, names: &[&str]) -> Request {
    Request { type_url: ty.url().into(), resource_names_subscribe: strings(names), ..Request::default() }
}

fn answer(response: &Response, error: Option<&str>) -> Request {
    Request {
        type_url: response.type_url.clone(),
        response_nonce: response.nonce.clone(),
        error_detail: error.map(|message| Status { code: 3, message: message.to_owned(), ..Status::default() }),
        ..Request::default()
    }
}

/// `cds a@1 b@2 -c`
fn show(response: &Response) -> String {
    let mut text = ResourceType::from_url(&response.type_url).unwrap().short().to_owned();
    for resource in &response.resources {
        text += &format!(" {}@{}", resource.name, resource.version);
    }
    for name in &response.removed_resources {
        text += &format!(" -{name}");
    }
    text
}

#[test]
fn names_are_answered_at_once_also_those_that_do_not_exist() {
    let world = Script::new(&[(Listener, "a:80", "1")]);
    let mut peer = Peer::default();
    peer.ask(Listener, &["a:80", "nobody:80"]).unwrap();
    assert_eq!(peer.take(&world), "lds a:80@1 -nobody:80");
    assert_eq!(peer.take(&world), "");
}

#[test]
fn a_name_that_comes_to_exist_is_sent_and_later_removed() {
    let mut world = Script::new(&[]);
    let mut peer = Peer::default();
    peer.ask(Listener, &["a:80"]).unwrap();
    assert_eq!(peer.take(&world), "lds -a:80");
    world.tick().put(Listener, "a:80", "1");
    assert_eq!(peer.take(&world), "lds a:80@1");
    world.tick().put(Listener, "other", "1");
    assert_eq!(peer.take(&world), "", "not subscribed");
    world.tick().remove(Listener, "a:80");
    assert_eq!(peer.take(&world), "lds -a:80");
    world.tick().remove(Listener, "a:80");
    assert_eq!(peer.take(&world), "", "said already");
    world.tick().put(Listener, "a:80", "1");
    assert_eq!(peer.take(&world), "lds a:80@1", "back, as before");
}

#[test]
fn a_change_that_changes_nothing_is_not_sent() {
    let mut world = Script::new(&[(Endpoint, "a", "1")]);
    let mut peer = Peer::default();
    peer.ask(Endpoint, &["a"]).unwrap();
    assert_eq!(peer.take(&world), "eds a@1");
    world.tick().put(Endpoint, "a", "1");
    assert_eq!(peer.take(&world), "");
}

#[test]
fn the_latest_version_wins_while_an_answer_is_outstanding() {
    let mut world = Script::new(&[(Endpoint, "a", "1")]);
    let mut peer = Peer::default();
    peer.ask(Endpoint, &["a"]).unwrap();
    let first = peer.next(&world).unwrap();
    for version in ["2", "3", "4"] {
        world.tick().put(Endpoint, "a", version);
        assert_eq!(peer.next(&world), None, "one at a time");
    }
    peer.ack(&first);
    assert_eq!(peer.take(&world), "eds a@4");
    assert_eq!(peer.take(&world), "");
}

#[test]
fn a_question_overtakes_an_outstanding_answer() {
    let world = Script::new(&[(Listener, "a", "1"), (Listener, "b", "1")]);
    let mut peer = Peer::default();
    peer.ask(Listener, &["a"]).unwrap();
    let first = peer.next(&world).unwrap();
    peer.ask(Listener, &["b"]).unwrap();
    assert_eq!(peer.next(&world).as_ref().map(show).as_deref(), Some("lds b@1"));
    peer.ack(&first);
}

#[test]
fn questions_without_answers_are_bounded() {
    let world = Script::new(&[]);
    let mut peer = Peer::default();
    let mut last = None;
    for n in 0..MAX_UNANSWERED {
        peer.ask(Listener, &[&format!("n{n}")]).unwrap();
        last = peer.next(&world);
        assert!(last.is_some());
    }
    peer.ask(Listener, &["more"]).unwrap();
    assert_eq!(peer.next(&world), None);
    peer.ack(&last.unwrap());
    assert_eq!(peer.take(&world), "lds -more");
}

#[test]
fn a_refused_version_is_not_sent_again_until_it_changes() {
    let mut world = Script::new(&[(Route, "a", "1"), (Route, "b", "1")]);
    let mut peer = Peer::default();
    peer.ask(Route, &["a", "b"]).unwrap();
    assert_eq!(peer.take(&world), "rds a@1 b@1");
    world.tick().put(Route, "a", "bad");
    let bad = peer.next(&world).unwrap();
    let heard = peer.nack(&bad, "no such filter");
    assert_eq!(heard, Heard::Nack { ty: Route, names: vec!["a".into()], reason: "no such filter".into() });
    assert_eq!(peer.take(&world), "", "not again");
    world.tick().put(Route, "b", "2");
    assert_eq!(peer.take(&world), "rds b@2", "the others go on");
    world.tick().put(Route, "a", "good");
    assert_eq!(peer.take(&world), "rds a@good");
    let report = serde_json::to_value(peer.session.report()).unwrap();
    assert_eq!(report["rds"]["nacked"]["reason"], "no such filter");
    assert_eq!(report["rds"]["names"][0]["version"], "good");
}

#[test]
fn a_reconnect_gets_only_what_changed() {
    let world = Script::new(&[(Cluster, "same", "1"), (Cluster, "changed", "2")]);
    let held = [("same", "1"), ("changed", "1"), ("gone", "1")];
    let mut peer = Peer::reconnect(Cluster, &["same", "changed", "gone"], &held);
    assert_eq!(peer.take(&world), "cds changed@2 -gone");
    assert_eq!(peer.take(&world), "");
    let mut peer = Peer::reconnect(Cluster, &["same"], &[("same", "1")]);
    assert_eq!(peer.take(&world), "", "nothing unchanged is sent again");
}

#[test]
fn asking_again_is_answered_again() {
    let world = Script::new(&[(Endpoint, "a", "1")]);
    let mut peer = Peer::default();
    peer.ask(Endpoint, &["a"]).unwrap();
    assert_eq!(peer.take(&world), "eds a@1");
    peer.ask(Endpoint, &["a"]).unwrap();
    assert_eq!(peer.take(&world), "eds a@1");
    peer.drop(Endpoint, &["a"]);
    peer.ask(Endpoint, &["a"]).unwrap();
    assert_eq!(peer.take(&world), "eds a@1");
}

#[test]
fn what_is_unsubscribed_is_not_sent() {
    let mut world = Script::new(&[(Endpoint, "a", "1")]);
    let mut peer = Peer::default();
    peer.ask(Endpoint, &["a"]).unwrap();
    assert_eq!(peer.take(&world), "eds a@1");
    peer.drop(Endpoint, &["a", "never-subscribed"]);
    world.tick().put(Endpoint, "a", "2");
    assert_eq!(peer.take(&world), "");
}

#[test]
fn wildcards_explicit_and_legacy() {
    for names in [&["*"][..], &[]] {
        let mut world = Script::new(&[(Cluster, "a", "1"), (Cluster, "b", "1")]);
        let mut peer = Peer::default();
        peer.ask(Cluster, names).unwrap();
        assert_eq!(peer.take(&world), "cds a@1 b@1");
        world.tick().put(Cluster, "b", "2").put(Cluster, "c", "1").remove(Cluster, "a");
        assert_eq!(peer.take(&world), "cds b@2 c@1");
        assert_eq!(peer.take(&world), "cds -a", "removals last");
        assert_eq!(peer.take(&world), "");
        peer.drop(Cluster, &["*"]);
        world.tick().put(Cluster, "b", "3");
        assert_eq!(peer.take(&world), "");
    }
}

#[test]
fn an_empty_wildcard_is_answered_and_other_types_have_no_legacy_one() {
    let world = Script::new(&[(Endpoint, "a", "1")]);
    let mut peer = Peer::default();
    peer.ask(Listener, &[]).unwrap();
    assert_eq!(peer.take(&world), "lds", "empty, so that the client knows");
    peer.ask(Endpoint, &[]).unwrap();
    assert_eq!(peer.take(&world), "");
    peer.drop(Cluster, &["left-over"]);
    assert_eq!(peer.take(&world), "", "a request that says something is no wildcard");
}

#[test]
fn a_wildcard_reconnect_gets_only_what_changed() {
    let world = Script::new(&[(Cluster, "a", "1"), (Cluster, "b", "2")]);
    let mut peer = Peer::reconnect(Cluster, &["*"], &[("a", "1"), ("b", "1"), ("gone", "1")]);
    assert_eq!(peer.take(&world), "cds b@2");
    assert_eq!(peer.take(&world), "cds -gone");
    let mut peer = Peer::reconnect(Cluster, &[], &[("a", "1"), ("b", "2")]);
    assert_eq!(peer.take(&world), "");
}

#[test]
fn a_name_beside_a_wildcard_outlives_neither() {
    let world = Script::new(&[(Cluster, "a", "1")]);
    let mut peer = Peer::default();
    peer.ask(Cluster, &["*", "a", "x"]).unwrap();
    assert_eq!(peer.take(&world), "cds a@1 -x");
    peer.drop(Cluster, &["a", "x"]);
    assert_eq!(peer.take(&world), "cds a@1", "the wildcard still covers it");
    assert_eq!(peer.take(&world), "cds -x", "and not this");
}

#[test]
fn types_go_out_make_before_break() {
    let types = [Secret, Cluster, Endpoint, Listener, Route];
    let mut world = Script::new(&[]);
    let mut peer = Peer::default();
    for ty in types {
        world.put(ty, "a", "1");
    }
    for ty in types.into_iter().rev() {
        peer.ask(ty, &["a", "b"]).unwrap();
    }
    for ty in types {
        assert_eq!(peer.take(&world), format!("{ty} a@1 -b"));
    }
    world.tick();
    for ty in types {
        world.remove(ty, "a").put(ty, "b", "1");
    }
    for ty in types {
        assert_eq!(peer.take(&world), format!("{ty} b@1"));
    }
    for ty in types.into_iter().rev() {
        assert_eq!(peer.take(&world), format!("{ty} -a"));
    }
}

#[test]
fn a_later_type_waits_for_an_earlier_one_that_is_held_up() {
    let mut world = Script::new(&[(Cluster, "a", "1"), (Route, "a", "1")]);
    let mut peer = Peer::default();
    peer.ask(Cluster, &["a"]).unwrap();
    peer.ask(Route, &["a"]).unwrap();
    let clusters = peer.next(&world).unwrap();
    assert_eq!(peer.take(&world), "rds a@1");
    world.tick().put(Cluster, "a", "2").put(Route, "a", "2");
    assert_eq!(peer.take(&world), "", "the route may name what the cluster's change brings");
    peer.ack(&clusters);
    assert_eq!(peer.take(&world), "cds a@2");
    assert_eq!(peer.take(&world), "rds a@2");
}

#[test]
fn large_answers_are_split() {
    let mut world = Script::new(&[]);
    for name in ["a", "b", "c"] {
        world.put_sized(Endpoint, name, "1", 2 * 1024 * 1024);
        world.put_sized(Cluster, name, "1", 2 * 1024 * 1024);
    }
    let mut peer = Peer::default();
    peer.ask(Endpoint, &["a", "b", "c"]).unwrap();
    assert_eq!(peer.take(&world), "eds a@1 b@1");
    assert_eq!(peer.take(&world), "eds c@1");
    peer.ask(Cluster, &["*"]).unwrap();
    assert_eq!(peer.take(&world), "cds a@1 b@1");
    assert_eq!(peer.take(&world), "cds c@1");
    assert_eq!(peer.take(&world), "");
}

#[test]
fn bounds_end_the_stream() {
    let mut peer = Peer::default();
    assert_eq!(peer.ask(Cluster, &["x".repeat(513).as_str()]), Err(Refused::BadName(513)));
    assert_eq!(peer.ask(Cluster, &[""]), Err(Refused::BadName(0)));
    let names: Vec<String> = (0..=MAX_NAMES).map(|n| format!("n{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(peer.ask(Cluster, names.get(..MAX_NAMES).unwrap()), Ok(Heard::Subscribe));
    assert_eq!(peer.ask(Route, &["another-type"]), Ok(Heard::Subscribe));
    assert_eq!(peer.ask(Cluster, &["one-more"]), Err(Refused::TooManyNames));
}

#[test]
fn stale_nonces_and_unknown_types_change_nothing() {
    let world = Script::new(&[(Route, "a", "1")]);
    let mut peer = Peer::default();
    peer.ask(Route, &["a"]).unwrap();
    let response = peer.next(&world).unwrap();
    peer.ack(&response);
    assert_eq!(peer.nack(&response, "late"), Heard::Subscribe, "answered already");
    let unknown = Request { type_url: "type.googleapis.com/x.Y".into(), ..subscribe(Route, &["b"]) };
    assert_eq!(peer.session.on_request(unknown), Ok(Heard::UnknownType("type.googleapis.com/x.Y".into())));
    assert_eq!(peer.take(&world), "");
}

#[test]
fn a_long_reason_is_cut_between_characters() {
    let world = Script::new(&[(Route, "a", "1")]);
    let mut peer = Peer::default();
    peer.ask(Route, &["a"]).unwrap();
    let response = peer.next(&world).unwrap();
    let Heard::Nack { reason, .. } = peer.nack(&response, &"ä€".repeat(1000)) else { panic!("not a refusal") };
    assert!(reason.len() <= 1024 && reason.len() > 1000);
}
