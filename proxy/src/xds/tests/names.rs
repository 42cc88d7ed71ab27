//! DNS names in the session: asked for, answered, moved, gone, kept.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tulle_proto::ResourceType::Name;
use tulle_proto::own;

use super::super::session::{Demanded, Outcome, Session};
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
