//! A workload instance: one process (or pod) with addresses, an identity and labels that services select.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::endpoint::{Health, Locality};
use super::name::{Key, Labels, Port};
use super::protocol::Protocol;

/// One instance of an application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Namespace and name of the instance.
    pub key: Key,
    /// When it was created.
    pub created: Option<Arc<str>>,
    /// What services select it by.
    pub labels: Labels,
    /// Its addresses: one, or one of each family; none while a pod waits for them.
    pub addresses: Vec<IpAddr>,
    /// Account it runs as; with namespace and trust domain it is the identity.
    pub service_account: Arc<str>,
    /// Owner (a Deployment, say) for telemetry and the name of the inbound listener.
    pub owner: Arc<str>,
    /// Ports of the application by name.
    pub ports: Vec<WorkloadPort>,
    /// Where it runs.
    pub locality: Locality,
    /// Share of traffic relative to its siblings, at least 1.
    pub weight: u32,
    /// A proxy of the mesh is beside it, so that it is dialled with mutual TLS.
    pub meshed: bool,
    /// Ports its proxy leaves to the application, so that they are dialled as if it were not there.
    pub uncaptured: Vec<RangeInclusive<u16>>,
    /// Whether it takes requests.
    pub health: Health,
    /// The uid of the pod it is, in a cluster. The cluster writes EndpointSlices for its pods, so that services that
    /// select it have it from there.
    pub pod: Option<Arc<str>>,
}

impl Workload {
    /// Whether its proxy answers at `port`.
    pub fn is_meshed_at(&self, port: Port) -> bool {
        self.meshed && !self.uncaptured.iter().any(|ports| ports.contains(&port.number()))
    }
}

/// A port the application listens at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadPort {
    /// Name a service's `targetPort` may use; may be empty.
    pub name: Arc<str>,
    /// Its number.
    pub port: Port,
    /// Protocol, where the port says so.
    pub protocol: Option<Protocol>,
}
