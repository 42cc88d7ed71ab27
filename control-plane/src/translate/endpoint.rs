//! Endpoints of a service port, ranked by distance from the client.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use tulle_proto::envoy::config::core::v3::{HealthStatus, Locality as WireLocality, Metadata};
use tulle_proto::envoy::config::endpoint::v3::cluster_load_assignment::Policy as AssignmentPolicy;
use tulle_proto::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint as WireEndpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint,
};
use tulle_proto::names::{META_IDENTITY, META_NAMESPACE, META_WORKLOAD};

use super::input::{Naming, Subject};
use super::scope::{ClientKind, Scope};
use super::{cluster, wire};
use crate::model::policy::FailoverLevel;
use crate::model::{Health, Locality};
use crate::registry::{Account, Endpoint, Spread};

/// Metadata key Envoy looks at to choose a transport socket.
const TRANSPORT_SOCKET_MATCH: &str = "envoy.transport_socket_match";

/// The endpoints of one port, as clients of one kind in one locality see them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct EndpointInput {
    name: Arc<str>,
    envoy: bool,
    spread: Spread,
    /// The client's; the empty one where distance does not count, so that clients everywhere share the resource.
    from: Locality,
    /// Whether endpoints that are meant for the client's zone come before all levels.
    hinted: bool,
    endpoints: Arc<[Endpoint]>,
    /// Identities of the accounts among the endpoints.
    identities: BTreeMap<Account, Arc<str>>,
}

pub(super) fn input(scope: &Scope, naming: &Naming, name: Arc<str>, subject: &Subject) -> EndpointInput {
    let endpoints = usable(scope.client, &subject.endpoints);
    let mut spread = subject.spread.clone();
    // A client that does not know its zone has no distances; cutting it off from endpoints would be worse.
    if scope.locality.zone.is_empty() {
        spread.levels.clear();
    }
    let hinted = endpoints.iter().any(|e| e.health == Health::Ready && e.is_for(&scope.locality.zone));
    let everywhere = spread.levels.is_empty() && !hinted;
    let from = if everywhere { Locality::default() } else { scope.locality.clone() };
    let identity = |account: &Account| Some((account.clone(), naming.identity(account)?));
    EndpointInput {
        name,
        envoy: scope.client == ClientKind::Envoy,
        spread,
        from,
        hinted,
        endpoints,
        identities: subject.accounts.iter().filter_map(identity).collect(),
    }
}

/// The endpoints as a client of this kind can use them. Tulle's proxy sends requests to endpoints that are draining when
/// no other is left; other clients do so only when these are said to be healthy. A gRPC client shares its calls between
/// localities by weights, in which endpoints without calls may not count.
fn usable(client: ClientKind, endpoints: &Arc<[Endpoint]>) -> Arc<[Endpoint]> {
    if client == ClientKind::Tulle {
        return endpoints.clone();
    }
    let has = |health| endpoints.iter().any(|endpoint| endpoint.health == health);
    let last = if has(Health::Ready) { Health::Ready } else { Health::Draining };
    let all = endpoints.iter().filter(|endpoint| client == ClientKind::Envoy || endpoint.health == last);
    all.map(|endpoint| match endpoint.health == last {
        true => Endpoint { health: Health::Ready, ..endpoint.clone() },
        false => endpoint.clone(),
    })
    .collect()
}

impl EndpointInput {
    pub(super) fn build(&self) -> ClusterLoadAssignment {
        let mut groups: BTreeMap<(usize, &Locality), Vec<&Endpoint>> = BTreeMap::new();
        for endpoint in &*self.endpoints {
            if let Some(level) = self.level(endpoint) {
                groups.entry((level, &endpoint.locality)).or_default().push(endpoint);
            }
        }
        // Clients refuse priorities with gaps: levels are numbered by those that have endpoints.
        let mut levels: Vec<_> = groups.keys().map(|(level, _)| *level).collect();
        levels.dedup();
        let priority = |level| levels.iter().position(|l| *l == level).and_then(|p| u32::try_from(p).ok()).unwrap_or(0);
        let endpoints = groups.iter().map(|((level, locality), members)| LocalityLbEndpoints {
            locality: Some(WireLocality {
                region: locality.region.to_string(),
                zone: locality.zone.to_string(),
                ..WireLocality::default()
            }),
            priority: priority(*level),
            load_balancing_weight: Some(wire::number(members.iter().fold(0, |sum, e| e.weight.saturating_add(sum)))),
            lb_endpoints: members.iter().map(|endpoint| self.endpoint(endpoint)).collect(),
            ..LocalityLbEndpoints::default()
        });
        ClusterLoadAssignment {
            cluster_name: self.name.to_string(),
            endpoints: endpoints.collect(),
            policy: (self.hinted || !self.spread.levels.is_empty()).then(|| AssignmentPolicy {
                // The factor at which `threshold` percent healthy count as enough.
                overprovisioning_factor: Some(wire::number(10_000_u32.div_ceil(self.spread.threshold.max(1)))),
                ..AssignmentPolicy::default()
            }),
            ..ClusterLoadAssignment::default()
        }
    }

    /// How far an endpoint is, the nearest first; none when nothing reaches it. What is not meant for the client's zone
    /// stays within reach: a hint that is wrong costs a longer way, not a request.
    fn level(&self, endpoint: &Endpoint) -> Option<usize> {
        if self.hinted && endpoint.is_for(&self.from.zone) {
            return Some(0);
        }
        level(&self.spread, &self.from, &endpoint.locality).map(|level| level.saturating_add(1))
    }

    fn endpoint(&self, endpoint: &Endpoint) -> LbEndpoint {
        let health = match endpoint.health {
            Health::Ready => HealthStatus::Healthy,
            Health::Draining => HealthStatus::Draining,
            Health::Unready => HealthStatus::Unhealthy,
        };
        let address = SocketAddr::new(endpoint.address, endpoint.port.number());
        LbEndpoint {
            health_status: health.into(),
            load_balancing_weight: Some(wire::number(endpoint.weight)),
            metadata: self.metadata(endpoint),
            host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(WireEndpoint {
                address: Some(wire::address(address)),
                ..WireEndpoint::default()
            })),
        }
    }

    fn metadata(&self, endpoint: &Endpoint) -> Option<Metadata> {
        let identity = endpoint.account.as_ref().and_then(|account| self.identities.get(account));
        let mut pairs = Vec::new();
        if let Some(identity) = identity {
            pairs.push((META_IDENTITY, &**identity));
        }
        if let Some(workload) = &endpoint.workload {
            pairs.push((META_WORKLOAD, &*workload.name));
            pairs.push((META_NAMESPACE, &*workload.namespace));
        }
        if pairs.is_empty() {
            return None;
        }
        let mut metadata = wire::metadata(pairs);
        if self.envoy && identity.is_some() {
            let socket = wire::fields([cluster::TLS_MODE]);
            metadata.filter_metadata.insert(TRANSPORT_SOCKET_MATCH.to_owned(), socket);
        }
        Some(metadata)
    }
}

/// How far `to` is from `from`, as an index into the levels in use; none when no level reaches it.
fn level(spread: &Spread, from: &Locality, to: &Locality) -> Option<usize> {
    if spread.levels.is_empty() {
        return Some(0);
    }
    spread.levels.iter().position(|level| match level {
        // Not every endpoint's region is known: slices name zones alone.
        FailoverLevel::Zone => from.zone == to.zone && (from.region == to.region || to.region.is_empty()),
        FailoverLevel::Region => from.region == to.region,
        FailoverLevel::Any => true,
    })
}
