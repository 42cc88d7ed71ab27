//! DNS names in the session: asked for, answered, moved, gone, kept.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tulle_proto::ResourceType::Name;
use tulle_proto::own;

use super::super::session::{Demanded, MAX_WANTED, Outcome, Session};
use super::vectors::{TTL, connected, receive, requests};
use super::{removal, resource, response};
use crate::config::demand::DemandKey;
use crate::config::names::KnownName;

const HOST: &str = "reviews.shop.svc.cluster.local";

fn name(addresses: &[&[u8]]) -> own::Name {
    own::Name { name: HOST.into(), addresses: addresses.iter().map(|bytes| bytes.to_vec().into()).collect() }
}

fn asked() -> Session {
    let mut session = connected(&[]);
    assert_eq!(session.demand(&DemandKey::Host(HOST.into()), Instant::now()), Demanded::New);
    assert_eq!(requests(&mut session), [format!("names +{HOST}")]);
    session
}

fn addresses(of: &[&str]) -> Option<KnownName> {
    Some(KnownName::Addresses(of.iter().map(|text| text.parse::<IpAddr>().unwrap()).collect()))
}

fn known(session: &mut Session) -> Option<KnownName> {
    session.names().expect("the names changed").known.get(HOST).cloned()
}

#[test]
fn a_name_is_asked_for_once_and_its_addresses_are_published() {
    let mut session = asked();
    assert_eq!(session.demand(&DemandKey::Host(HOST.into()), Instant::now()), Demanded::Known);
    let both = name(&[&[10, 96, 0, 1], &[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]]);
    receive(&mut session, response(Name, "1", vec![resource(HOST, "1", &both)]));
    assert_eq!(known(&mut session), addresses(&["10.96.0.1", "fd00::1"]));
    assert!(session.snapshot().is_none_or(|snapshot| snapshot.by_name.is_empty()), "no business of the path");
    assert_eq!(requests(&mut session), ["names ACK 1"]);
    receive(&mut session, response(Name, "2", vec![resource(HOST, "2", &name(&[]))]));
    assert_eq!(known(&mut session), addresses(&[]));
    assert_eq!(session.names(), None, "nothing new");
}

#[test]
fn a_bad_address_is_refused_and_the_last_good_ones_stay() {
    let mut session = asked();
    receive(&mut session, response(Name, "1", vec![resource(HOST, "1", &name(&[&[10, 96, 0, 1]]))]));
    assert_eq!(known(&mut session), addresses(&["10.96.0.1"]));
    let outcome = session.receive(response(Name, "2", vec![resource(HOST, "2", &name(&[&[1, 2, 3]]))]), Instant::now());
    assert_eq!(outcome, Outcome::Nacked(format!("names {HOST}: addresses[0] is neither 4 nor 16 bytes long")));
    assert_eq!(session.names(), None);
}

#[tokio::test(start_paused = true)]
async fn an_absent_name_lapses_while_connected_only() {
    let mut session = asked();
    receive(&mut session, removal(Name, "1", &[HOST]));
    assert_eq!(known(&mut session), Some(KnownName::Absent));
    let until = session.next_expiry().unwrap();
    session.disconnect();
    session.expire(until + TTL);
    assert_eq!(session.names(), None, "nobody could say better");
    session.connect();
    requests(&mut session);
    session.expire(until + Duration::from_millis(1));
    assert_eq!(known(&mut session), None);
    assert_eq!(requests(&mut session), [format!("names -{HOST}")]);
}

#[test]
fn a_name_nobody_asks_for_is_forgotten_and_makes_room() {
    let mut session = asked();
    receive(&mut session, response(Name, "1", vec![resource(HOST, "1", &name(&[&[10, 96, 0, 1]]))]));
    requests(&mut session);
    session.names();
    let start = Instant::now();
    let minute = |n: u32| start + Duration::from_secs(60) * n;
    // Names that nobody answers for.
    let host = |n: usize| DemandKey::Host(format!("n{n}.shop.svc.cluster.local").into());
    for n in 1..MAX_WANTED {
        assert_eq!(session.demand(&host(n), start), Demanded::New);
    }
    requests(&mut session);
    assert_eq!(session.demand(&host(MAX_WANTED), minute(19)), Demanded::Refused, "they are bounded");
    assert_eq!(session.demand(&DemandKey::Host(HOST.into()), minute(19)), Demanded::Known);
    assert_eq!(session.used(vec![], minute(19)), 0);
    session.disconnect();
    assert_eq!(session.used(vec![], minute(21)), 0, "nobody could tell them again");
    session.connect();
    requests(&mut session);
    assert_eq!(session.used(vec![], minute(21)), MAX_WANTED - 1);
    assert_eq!(session.demand(&host(MAX_WANTED), minute(21)), Demanded::New);
    requests(&mut session);
    assert_eq!(session.names(), None, "what was asked for 2 minutes ago is known");
    assert_eq!(session.used(vec![], minute(40)), 1);
    assert_eq!(requests(&mut session), [format!("names -{HOST}")]);
    assert_eq!(known(&mut session), None);
    assert!(session.take_unsaved(), "the last-good file forgets it too");
}

#[test]
fn what_was_known_is_known_again_after_a_restart() {
    let mut before = asked();
    receive(&mut before, response(Name, "1", vec![resource(HOST, "7", &name(&[&[10, 96, 0, 1]]))]));
    let saved = own::LastGood { resources: before.saved(), ..Default::default() };
    let mut after = connected(&[]);
    after.disconnect();
    after.restore(saved, Instant::now());
    assert_eq!(known(&mut after), addresses(&["10.96.0.1"]));
    after.connect();
    let asked: Arc<str> = requests(&mut after).join("; ").into();
    assert!(asked.contains(&format!("names +{HOST}")), "{asked}");
}
