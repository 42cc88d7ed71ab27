//! The whole immutable configuration of the path: `Snapshot` and what it is made of.
//!
//! A request reads one snapshot and never a second one. Everything a resource says is resolved when it is compiled:
//! names become indices, texts become values, so that the path neither parses nor looks up by name.

/// Endpoints of a cluster, in failover order.
pub mod endpoint;

/// Destinations: balancing, limits, timeouts.
pub mod cluster;

/// What routes change of requests and replies.
pub mod changes;

/// HTTP routes of a listener.
pub mod route;

/// What is accepted: services the workload dials, and its own ports.
pub mod listener;

/// DNS names of the mesh.
pub mod names;

/// Which addresses belong to the mesh.
pub mod ranges;

/// A resource that was refused, and why.
pub mod reject;

/// Resources -> snapshot.
pub mod compile;

/// The one place where a snapshot becomes visible.
pub mod publish;

/// How the path asks for a destination it does not know yet.
pub mod demand;

/// Facts that readiness is made of.
pub mod status;

/// Flags and environment -> settings of this process.
pub mod bootstrap;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use cluster::Cluster;
use listener::{Inbound, Outbound};
use ranges::Ranges;

/// One configuration, whole and consistent.
///
/// Invariants: every [`ClusterId`] in it is an index into `clusters`; a listener is present only when its routes,
/// clusters and endpoints are.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Counts up with every snapshot of this process; 0 is the empty one.
    pub generation: u64,
    /// Services by the name they were asked for: `reviews.shop.svc.cluster.local:80` or `10.96.0.12:80`.
    pub by_name: HashMap<Arc<str>, Known>,
    /// The same by address, for captured connections.
    pub by_addr: HashMap<SocketAddr, Known>,
    /// Every cluster; a [`ClusterId`] is an index. A slot that no service refers to holds a cluster without a name.
    pub clusters: Vec<Arc<Cluster>>,
    /// The workload's own ports; none until the control plane has said.
    pub inbound: Option<Arc<Inbound>>,
    /// Addresses of the mesh; none until the control plane has said.
    pub ranges: Option<Arc<Ranges>>,
}

/// What is known of a destination. A name that was never asked for has no entry.
#[derive(Clone, Debug)]
pub enum Known {
    /// A service or workload of the mesh.
    Service(Arc<Outbound>),
    /// The control plane said there is no such service; the entry goes away after the negative TTL.
    Absent,
}

/// Index of a cluster in its snapshot; meaningless in another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClusterId(pub u32);

impl Snapshot {
    /// The cluster of an id of this snapshot.
    pub fn cluster(&self, id: ClusterId) -> Option<&Arc<Cluster>> {
        self.clusters.get(id.0 as usize)
    }

    /// Whether a destination of which nothing is known may be passed through: it is an address outside of the mesh's
    /// ranges. Before these are known, none may.
    pub fn is_beyond_the_mesh(&self, address: IpAddr) -> bool {
        self.ranges.as_ref().is_some_and(|ranges| !ranges.contains(address))
    }

    /// What is known of a destination; none when it was never asked for.
    pub fn known(&self, key: &demand::DemandKey) -> Option<&Known> {
        match key {
            demand::DemandKey::Addr(address) => self.by_addr.get(address),
            demand::DemandKey::Name(name) => self.by_name.get(name),
            // DNS is not on the path: see `names`.
            demand::DemandKey::Host(_) => None,
        }
    }
}
