//! What the fuzz target of the discovery session runs: a control plane that says anything, in any order.
#![expect(clippy::missing_panics_doc, reason = "a panic is how a target reports")]

use std::time::Duration;

use prost::Message as _;
use prost::bytes::Bytes;
use tokio::time::Instant;
use tulle_proto::discovery::{DeltaDiscoveryResponse, Resource};
use tulle_proto::envoy::config::core::v3::Node;
use tulle_proto::own::LastGood;
use tulle_proto::{Any, ResourceType, names};

use super::session::{Config, Outcome, Session};
use crate::config::demand::DemandKey;

/// What is said by index, so that bytes come to the point; the first is the workload's own listener.
const NAMES: [&str; 4] =
    ["inbound/shop/web", "reviews.shop.svc.cluster.local:80", "10.96.0.12:80", names::TRUST_BUNDLE];

/// Steps of one session, each `[what] [length, two bytes] [content]`: a resource of a type and name (`what` below
/// 24), a removal (below 48), a demand, a whole response, a lost stream, time that passes.
///
/// Each response has exactly one answer with its nonce; nothing is asked for twice; and what is held is accepted
/// again by a proxy that starts from it.
pub fn session(mut bytes: &[u8]) {
    let mut session = Session::new(config());
    let mut now = Instant::now();
    session.connect();
    drain(&mut session, None);
    while let Some((what, content, rest)) = step(bytes) {
        bytes = rest;
        match what {
            0..48 => receive(&mut session, spoken(what, content), now),
            48..60 => {
                if let Ok(name) = std::str::from_utf8(content) {
                    let key = if what < 54 { DemandKey::Name(name.into()) } else { DemandKey::Host(name.into()) };
                    session.demand(&key, now);
                }
            }
            60..64 => {
                session.demand(&DemandKey::Name(name(what).into()), now);
            }
            64..80 => {
                if let Ok(response) = DeltaDiscoveryResponse::decode(content) {
                    receive(&mut session, response, now);
                }
            }
            80..90 => {
                session.disconnect();
                assert!(!session.has_request(), "nothing is asked without a stream");
                session.connect();
            }
            _ => {
                now = now.checked_add(Duration::from_secs(u64::from(what))).unwrap_or(now);
                session.expire(now);
            }
        }
        drain(&mut session, None);
        let _ = session.snapshot();
        drain(&mut session, None);
    }
    restarts(&session);
}

fn config() -> Config {
    let [inbound, ..] = NAMES;
    Config {
        node: Node::default(),
        loopback: false,
        inbound: inbound.into(),
        permanent: vec!["reviews.shop.svc.cluster.local:80".into()],
        absent_ttl: Duration::from_secs(10),
        idle_after: Duration::from_secs(100),
    }
}

/// The next step, and the rest.
fn step(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let ([what, high, low], rest) = bytes.split_first_chunk()?;
    let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*what, content, rest))
}

/// A response about one name.
fn spoken(what: u8, content: &[u8]) -> DeltaDiscoveryResponse {
    let types = ResourceType::ALL;
    let url = types.get(usize::from(what / 4) % types.len()).map(|kind| kind.url()).unwrap_or_default();
    let nonce = "n".to_owned();
    let response = DeltaDiscoveryResponse { type_url: url.to_owned(), nonce, ..Default::default() };
    if what >= 24 {
        return DeltaDiscoveryResponse { removed_resources: vec![name(what).to_owned()], ..response };
    }
    let body = Any { type_url: url.to_owned(), value: Bytes::copy_from_slice(content) };
    let resource =
        Resource { name: name(what).to_owned(), version: "1".to_owned(), resource: Some(body), ..Default::default() };
    DeltaDiscoveryResponse { resources: vec![resource], ..response }
}

fn name(what: u8) -> &'static str {
    NAMES.get(usize::from(what) % NAMES.len()).copied().unwrap_or_default()
}

fn receive(session: &mut Session, response: DeltaDiscoveryResponse, now: Instant) {
    let nonce = response.nonce.clone();
    let acked = session.receive(response, now) == Outcome::Acked;
    drain(session, Some((&nonce, acked)));
}

/// Takes all requests; `answer`: the first of them has this nonce, and says so.
fn drain(session: &mut Session, answer: Option<(&str, bool)>) {
    if let Some((nonce, acked)) = answer {
        let first = session.next_request().unwrap_or_default();
        assert_eq!((first.response_nonce.as_str(), first.error_detail.is_none()), (nonce, acked), "the answer");
    }
    let mut left = 64;
    while let Some(request) = session.next_request() {
        assert!(request.response_nonce.is_empty(), "one answer for one response");
        assert!(left > 0, "requests without end");
        left -= 1;
    }
}

/// A proxy that starts from what was saved holds all of it.
fn restarts(session: &Session) {
    let mut names: Vec<_> = session.saved().into_iter().map(|saved| saved.name).collect();
    let mut again = Session::new(config());
    again.restore(LastGood { resources: session.saved(), ..Default::default() }, Instant::now());
    let mut held: Vec<_> = again.saved().into_iter().map(|saved| saved.name).collect();
    names.sort_unstable();
    held.sort_unstable();
    assert_eq!(held, names, "what a restarted proxy holds");
    let _ = again.snapshot();
}
