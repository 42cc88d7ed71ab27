//! Endpoints of a cluster.

use std::net::SocketAddr;
use std::sync::Arc;

use tulle_identity::spiffe::SpiffeId;

/// All endpoints of a cluster, of every priority, in the order the control plane gave them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// The endpoints; the balancer speaks of them by index.
    pub list: Vec<Arc<Endpoint>>,
}

/// One address that serves a cluster.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Where to connect.
    pub address: SocketAddr,
    /// Whether it may be picked.
    pub health: Health,
    /// Share of traffic relative to its peers; at least 1.
    pub weight: u32,
    /// 0 is used first; the next one when too few of it are fit to serve.
    pub priority: u32,
    /// Who must answer there. None: the endpoint is not meshed and is dialled without TLS.
    pub identity: Option<SpiffeId>,
    /// Workload name, for telemetry; empty when unknown.
    pub workload: Arc<str>,
    /// Namespace of the workload, for telemetry; empty when unknown.
    pub namespace: Arc<str>,
    /// Zone, for telemetry and tests of failover; empty when unknown.
    pub zone: Arc<str>,
}

/// Health as the control plane sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Health {
    /// Ready.
    Healthy,
    /// Going away but still serving: picked only when nothing is healthy.
    Draining,
    /// Not ready.
    Unhealthy,
}
