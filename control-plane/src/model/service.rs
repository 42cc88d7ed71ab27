//! A service: a name, addresses and ports that stand for a set of endpoints.

use std::net::IpAddr;
use std::sync::Arc;

use super::name::{Key, Labels, Port};
use super::policy::Policy;
use super::protocol::Protocol;

/// A service with endpoints of its own (not an `ExternalName`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub key: Key,
    /// When it was created.
    pub created: Option<Arc<str>>,
    /// Labels its workloads have, in the same namespace; empty when endpoints come from EndpointSlices alone.
    pub selector: Labels,
    /// Virtual addresses; none for a headless service.
    pub cluster_ips: Vec<IpAddr>,
    /// TCP ports, at least one, no number twice.
    pub ports: Vec<ServicePort>,
    /// Clients prefer endpoints close to them (`spec.trafficDistribution`).
    pub prefer_close: bool,
    /// Endpoints take requests before they are ready (`spec.publishNotReadyAddresses`).
    pub publish_unready: bool,
    /// Annotations; what is unset is decided by the namespace.
    pub policy: Policy,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name; may be empty when it is the only one.
    pub name: Arc<str>,
    /// The number clients dial.
    pub port: Port,
    /// The number or name endpoints listen at.
    pub target: TargetPort,
    /// Protocol by `appProtocol` or by the port's name.
    pub protocol: Option<Protocol>,
}

/// Where the application listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// At this port on every endpoint.
    Number(Port),
    /// At the port each workload gives this name.
    Name(Arc<str>),
}
