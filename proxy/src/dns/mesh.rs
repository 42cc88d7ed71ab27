//! What discovery knows of names, asked for and waited for; and how the mesh's own answers look.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, SOA};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::sync::watch;
use tokio::time::timeout;

use super::expand::{Candidate, Zone};
use super::message::Answer;
use crate::config::demand::{Demand, DemandKey};
use crate::config::names::{KnownName, Names};
use crate::config::status::Status;

/// Lifetime of the mesh's answers: the one Kubernetes' own DNS gives. Asking again costs a message within the pod.
const TTL_SECONDS: u32 = 5;

/// Names of the mesh.
#[derive(Debug)]
pub(super) struct Mesh {
    zone: Zone,
    /// The cluster's domain, whose zone the mesh answers for.
    domain: Name,
    names: watch::Receiver<Arc<Names>>,
    demand: Demand,
    status: Status,
    /// Longest wait for the control plane's word on a name.
    wait: Duration,
}

impl Mesh {
    /// Names of `zone`, of the cluster `domain`; `wait` at most for each that is not known yet.
    pub(super) fn new(zone: Zone, domain: &str, sources: super::Deps) -> Self {
        let domain = Name::from_ascii(format!("{}.", domain.trim_matches('.'))).unwrap_or_else(|_| Name::root());
        let super::Deps { bootstrap, names, demand, status } = sources;
        Self { zone, domain, names, demand, status, wait: bootstrap.demand_wait }
    }

    /// What is known now.
    pub(super) fn names(&self) -> Arc<Names> {
        self.names.borrow().clone()
    }

    /// The mesh's answer to a question for `name` and `kind`; none: the question is not for the mesh.
    ///
    /// A type that services have no records of is answered as such where clients wait for it; others are for the
    /// nameservers, which may know more.
    pub(super) async fn answer(&self, name: &Name, kind: RecordType) -> Option<Answer> {
        if ![RecordType::A, RecordType::AAAA, RecordType::HTTPS, RecordType::SVCB, RecordType::ANY].contains(&kind) {
            return None;
        }
        let text = name.to_lowercase().to_ascii();
        let text = text.trim_end_matches('.');
        let candidates = self.zone.candidates(text);
        // All of them at once, so that there is one round trip.
        for candidate in &candidates {
            self.demand.want(DemandKey::Host(Arc::clone(&candidate.name)));
        }
        for candidate in candidates {
            if let Some(addresses) = self.meant(&candidate).await {
                return Some(self.records(
                    name,
                    (*candidate.name != *text).then_some(&*candidate.name),
                    kind,
                    &addresses,
                ));
            }
        }
        None
    }

    async fn meant(&self, candidate: &Candidate) -> Option<Arc<[IpAddr]>> {
        let addresses = self.addresses(&candidate.name).await?;
        let other = match &candidate.unless {
            Some(unless) => self.addresses(unless).await,
            None => None,
        };
        other.is_none().then_some(addresses)
    }

    /// Addresses of a service; none when the mesh has none of that name, or did not say so in time. While the control
    /// plane is away, what is not known stays unknown and is not waited for.
    async fn addresses(&self, name: &Arc<str>) -> Option<Arc<[IpAddr]>> {
        let mut names = self.names.clone();
        let there = |names: &Arc<Names>| names.known.contains_key(name);
        if !there(&names.borrow()) {
            self.demand.want(DemandKey::Host(Arc::clone(name)));
            if self.status.facts().connected {
                // Late is as good as never: the nameservers are asked instead, and the next question finds it.
                let _ = timeout(self.wait, names.wait_for(there)).await;
            }
        }
        match names.borrow().known.get(name) {
            Some(KnownName::Addresses(addresses)) => Some(Arc::clone(addresses)),
            Some(KnownName::Absent) | None => None,
        }
    }

    fn records(&self, name: &Name, service: Option<&str>, kind: RecordType, addresses: &[IpAddr]) -> Answer {
        let mut answer = Answer { authoritative: true, ..Answer::empty(ResponseCode::NoError) };
        let mut owner = name.clone();
        if let Some(full) = service.and_then(|full| Name::from_ascii(format!("{full}.")).ok()) {
            answer.answers.push(Record::from_rdata(owner, TTL_SECONDS, RData::CNAME(CNAME(full.clone()))));
            owner = full;
        }
        let mut data: Vec<RData> = addresses
            .iter()
            .filter_map(|address| match (address, kind) {
                (IpAddr::V4(v4), RecordType::A | RecordType::ANY) => Some(RData::A(A(*v4))),
                (IpAddr::V6(v6), RecordType::AAAA | RecordType::ANY) => Some(RData::AAAA(AAAA(*v6))),
                _ => None,
            })
            .collect();
        if data.is_empty() {
            answer.authorities.push(self.zone_record());
        }
        shuffle(&mut data);
        answer.answers.extend(data.into_iter().map(|data| Record::from_rdata(owner.clone(), TTL_SECONDS, data)));
        answer
    }

    /// Says how long an answer without records holds. Source: RFC 2308, section 3.
    fn zone_record(&self) -> Record {
        let server = |label: &str| Name::from_ascii(label).and_then(|name| name.append_domain(&self.domain));
        let (server, admin) = (server("ns.dns").unwrap_or_default(), server("hostmaster").unwrap_or_default());
        let soa = SOA::new(server, admin, 1, 7200, 1800, 86400, TTL_SECONDS);
        Record::from_rdata(self.domain.clone(), TTL_SECONDS, RData::SOA(soa))
    }
}

/// Clients take the first address: each should be first as often.
fn shuffle<T>(items: &mut [T]) {
    for end in (1..items.len()).rev() {
        items.swap(end, rand::random_range(0..=end));
    }
}
