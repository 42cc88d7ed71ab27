//! The address ranges of the mesh in the session: asked for first, kept, and what silence means inside them.

use std::net::SocketAddr;

use tokio::time::Instant;
use tulle_proto::ResourceType::{Listener, Ranges};
use tulle_proto::names::ADDRESS_RANGES;
use tulle_proto::own;

use super::super::session::{Outcome, Session};
use super::vectors::{TTL, connected, receive, requests};
use super::{removal, resource, response};
use crate::config::demand::DemandKey;
use crate::config::{Known, Snapshot};

fn message(ranges: &[(&[u8], u32)]) -> own::AddressRanges {
    let range = |(address, prefix_length): &(&[u8], u32)| own::AddressRange {
        address: address.to_vec().into(),
        prefix_length: *prefix_length,
    };
    own::AddressRanges { name: ADDRESS_RANGES.into(), ranges: ranges.iter().map(range).collect() }
}

fn told(session: &mut Session, nonce: &str, ranges: &[(&[u8], u32)]) -> Outcome {
    session.receive(response(Ranges, nonce, vec![resource(ADDRESS_RANGES, nonce, &message(ranges))]), Instant::now())
}

fn snapshot(session: &mut Session) -> Snapshot {
    session.snapshot().expect("a new snapshot")
}

fn passes(snapshot: &Snapshot, address: &str) -> bool {
    snapshot.is_beyond_the_mesh(address.parse().unwrap())
}

#[test]
fn hostile_07_before_the_ranges_are_known_no_address_is_beyond_the_mesh() {
    let mut session = connected(&[]);
    assert!(!passes(&Snapshot::default(), "203.0.113.1"));
    assert_eq!(told(&mut session, "1", &[(&[10, 96, 0, 0], 12), (&[0xfd; 16], 128)]), Outcome::Acked);
    let known = snapshot(&mut session);
    for inside in ["10.96.0.1", "10.111.255.255", "::ffff:10.96.0.1"] {
        assert!(!passes(&known, inside), "{inside}");
    }
    for beyond in ["10.112.0.0", "203.0.113.1", "2001:db8::1"] {
        assert!(passes(&known, beyond), "{beyond}");
    }
    assert!(session.take_unsaved(), "the last-good file gets them");
}

#[test]
fn hostile_07_bad_ranges_are_refused_and_the_last_good_ones_stay() {
    let mut session = connected(&[]);
    told(&mut session, "1", &[(&[10, 0, 0, 0], 8)]);
    snapshot(&mut session);
    for (bad, reason) in [
        ((&[10, 0, 0][..], 8), "ranges[0].address is neither 4 nor 16 bytes long"),
        ((&[10, 0, 0, 0][..], 33), "ranges[0].prefix_length is longer than the address"),
        ((&[10, 0, 0, 0][..], 300), "ranges[0].prefix_length is longer than the address"),
        ((&[10, 0, 0, 1][..], 8), "ranges[0].address has bits behind its prefix"),
    ] {
        let outcome = told(&mut session, "2", &[bad]);
        assert_eq!(outcome, Outcome::Nacked(format!("ranges {ADDRESS_RANGES}: {reason}")));
        assert!(session.snapshot().is_none());
    }
    receive(&mut session, removal(Ranges, "3", &[ADDRESS_RANGES]));
    assert!(session.snapshot().is_none(), "a removal opens nothing");
    // A control plane that never had any is not Tulle's: it is as if there were no mesh.
    let mut other = connected(&[]);
    receive(&mut other, removal(Ranges, "1", &[ADDRESS_RANGES]));
    assert!(passes(&snapshot(&mut other), "10.0.0.1"));
}

#[test]
fn hostile_07_a_restart_keeps_the_ranges() {
    let mut before = connected(&[]);
    told(&mut before, "1", &[(&[10, 0, 0, 0], 8)]);
    let saved = own::LastGood { resources: before.saved(), ..Default::default() };
    let mut after = connected(&[]);
    after.disconnect();
    after.restore(saved, Instant::now());
    let known = snapshot(&mut after);
    assert!(!passes(&known, "10.1.2.3") && passes(&known, "203.0.113.1"));
}

/// "No such service" is an answer for as long as it may be asked again. In an outage it cannot, and something may have
/// appeared meanwhile.
#[tokio::test(start_paused = true)]
async fn hostile_07_no_such_service_lapses_in_an_outage_inside_the_mesh_only() {
    let mut session = connected(&[]);
    told(&mut session, "1", &[(&[10, 0, 0, 0], 8)]);
    let (inside, beyond): (SocketAddr, SocketAddr) =
        ("10.96.0.12:80".parse().unwrap(), "203.0.113.1:80".parse().unwrap());
    for address in [inside, beyond] {
        session.demand(&DemandKey::Addr(address), Instant::now());
    }
    requests(&mut session);
    receive(&mut session, removal(Listener, "2", &["10.96.0.12:80", "203.0.113.1:80"]));
    let known = snapshot(&mut session);
    assert!([inside, beyond].iter().all(|address| matches!(known.by_addr[address], Known::Absent)));
    session.disconnect();
    let until = session.next_expiry().expect("the address inside");
    assert!(until <= Instant::now() + TTL);
    session.expire(until);
    let known = snapshot(&mut session);
    assert!(!known.by_addr.contains_key(&inside), "not known any more");
    assert!(matches!(known.by_addr[&beyond], Known::Absent), "nothing of the mesh can be there");
    assert_eq!(session.next_expiry(), None);
    // Asked for again with everything else.
    session.connect();
    let asked = requests(&mut session).join("; ");
    assert!(asked.contains("+10.96.0.12:80"), "{asked}");
}
