//! Resources -> `Snapshot`: parse, don't validate. `Store` holds what was accepted, compiled; a
//! resource is taken whole or refused whole, and a refused one leaves its last good version in force. Pure: no IO, no
//! clock. Called by `xds`, and by tests that compile what the control plane translated.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::unreachable
)]

/// Reading single fields.
pub(crate) mod fields;

/// Numbers for cluster names.
mod ids;

/// The workload's own ports.
mod inbound;

/// What an outbound name leads to.
mod listener;

/// Routes.
mod route;

/// Conditions of a route.
mod matcher;

/// When to try again.
mod retry;

/// What a route changes of requests and replies.
mod changes;

/// Destinations.
mod cluster;

/// Where a destination is.
mod endpoint;

/// Trust bundles.
mod secret;

/// DNS names.
mod name;

/// Address ranges of the mesh.
mod ranges;

/// All accepted resources -> one snapshot.
mod assemble;

#[cfg(test)]
pub(crate) mod samples;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use prost::Message;
use tulle_identity::svid::TrustBundle;
use tulle_proto::envoy::config::cluster::v3::Cluster as ClusterResource;
use tulle_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use tulle_proto::envoy::config::listener::v3::Listener;
use tulle_proto::envoy::config::route::v3::RouteConfiguration;
use tulle_proto::envoy::extensions::transport_sockets::tls::v3::Secret;
use tulle_proto::own::{AddressRanges, Name as NameResource};
use tulle_proto::{Any, ResourceType, names};

use super::ClusterId;
use super::Snapshot;
use super::cluster::Cluster;
use super::listener::{Inbound, Outbound};
use super::names::Names;
use super::ranges::Ranges;
use super::reject::{Fault, Rejected};
use cluster::ClusterSpec;
use endpoint::Assignment;
use ids::Ids;
use listener::{ListenerSpec, RouteSource};
use route::RoutesSpec;

/// Largest encoded resource that is looked at. An assignment of 10,000 endpoints has about 1.5 MiB.
pub const MAX_RESOURCE_BYTES: usize = 4 << 20;

/// Accepted resources.
#[derive(Debug)]
pub struct Store {
    ids: Ids,
    bundle: Option<Arc<TrustBundle>>,
    inbound: Option<Arc<Inbound>>,
    ranges: Option<Arc<Ranges>>,
    listeners: HashMap<Arc<str>, ListenerEntry>,
    routes: HashMap<Arc<str>, RoutesSpec>,
    clusters: HashMap<Arc<str>, ClusterEntry>,
    endpoints: HashMap<Arc<str>, Assignment>,
    names: HashMap<Arc<str>, Arc<[IpAddr]>>,
    /// Fills the slots of numbers that are not in use.
    unused: Arc<Cluster>,
    /// Endpoints may have loopback addresses.
    loopback: bool,
    /// A listener leads to other clusters than it did.
    moved: bool,
    last: Snapshot,
    last_names: Names,
}

#[derive(Debug)]
struct ListenerEntry {
    spec: ListenerSpec,
    /// What the last snapshot said; stays until everything the current `spec` needs has arrived.
    published: Option<Published>,
}

#[derive(Debug)]
struct Published {
    outbound: Arc<Outbound>,
    clusters: Arc<[ClusterId]>,
}

#[derive(Debug)]
struct ClusterEntry {
    spec: ClusterSpec,
    /// The cluster with its endpoints; none until both have arrived, the earlier version until the new one is whole.
    built: Option<Arc<Cluster>>,
    /// `spec` is newer than `built`.
    fresh: bool,
}

impl Store {
    /// An empty store, of a proxy whose endpoints may be on its own machine.
    pub fn new() -> Self {
        Self::with_loopback(true)
    }

    /// An empty store; `loopback` says whether endpoints may have loopback addresses. In a cluster they may not: these
    /// are the proxy's own pod.
    pub fn with_loopback(loopback: bool) -> Self {
        Self {
            loopback,
            ids: Ids::default(),
            bundle: None,
            inbound: None,
            ranges: None,
            listeners: HashMap::new(),
            routes: HashMap::new(),
            clusters: HashMap::new(),
            endpoints: HashMap::new(),
            names: HashMap::new(),
            unused: Arc::new(cluster::nonexistent(&"".into())),
            moved: false,
            last: Snapshot::default(),
            last_names: Names::default(),
        }
    }

    /// Takes a resource in, in place of the version it had. Visible from the next [`Store::snapshot`] on.
    ///
    /// # Errors
    /// When the resource is not understood in full; then nothing of it is kept.
    pub fn accept(&mut self, kind: ResourceType, name: &Arc<str>, resource: &Any) -> Result<(), Rejected> {
        self.try_accept(kind, name, resource).map_err(|fault| Rejected { kind, name: fields::printable(name), fault })
    }

    fn try_accept(&mut self, kind: ResourceType, name: &Arc<str>, resource: &Any) -> Result<(), Fault> {
        match kind {
            ResourceType::Secret => {
                let message: Secret = decode(kind, name, resource, |m: &Secret| &m.name)?;
                self.bundle = Some(secret::compile(&message)?);
            }
            ResourceType::Cluster => {
                let message = decode(kind, name, resource, |m: &ClusterResource| &m.name)?;
                let spec = cluster::compile(&message, self.loopback)?;
                let built = self.clusters.remove(name).and_then(|entry| entry.built);
                self.clusters.insert(Arc::clone(name), ClusterEntry { spec, built, fresh: true });
            }
            ResourceType::Endpoint => {
                let message = decode(kind, name, resource, |m: &ClusterLoadAssignment| &m.cluster_name)?;
                self.endpoints.insert(Arc::clone(name), endpoint::compile(&message, self.loopback)?);
            }
            ResourceType::Listener => {
                let message = decode(kind, name, resource, |m: &Listener| &m.name)?;
                if name.starts_with(names::INBOUND_PREFIX) {
                    self.inbound = Some(Arc::new(inbound::compile(&message)?));
                } else {
                    let spec = listener::compile(&message, &mut self.ids)?;
                    let published = self.listeners.remove(name).and_then(|entry| entry.published);
                    self.listeners.insert(Arc::clone(name), ListenerEntry { spec, published });
                }
            }
            ResourceType::Route => {
                let message = decode(kind, name, resource, |m: &RouteConfiguration| &m.name)?;
                let spec = route::compile(&message, &mut self.ids)?;
                self.routes.insert(Arc::clone(name), spec);
            }
            ResourceType::Name => {
                let message = decode(kind, name, resource, |m: &NameResource| &m.name)?;
                self.names.insert(Arc::clone(name), name::compile(&message)?);
            }
            ResourceType::Ranges => {
                let message = decode(kind, name, resource, |m: &AddressRanges| &m.name)?;
                let ranges = ranges::compile(&message)?;
                if self.ranges.as_deref() != Some(&ranges) {
                    self.ranges = Some(Arc::new(ranges));
                }
            }
        }
        Ok(())
    }

    /// The control plane says that there is no such resource.
    ///
    /// A name goes at once, and so does a listener, but for the workload's own, which serves until it is replaced. Routes, a cluster or
    /// endpoints that are in use stay as they were until nothing refers to them (Envoy: their absence is no deletion);
    /// such that were never there count as empty, so that the rest of a service need not wait for them.
    pub fn gone(&mut self, kind: ResourceType, name: &Arc<str>) {
        match kind {
            ResourceType::Secret => {}
            // A control plane that knows no ranges: nothing is held back. Those that are known stay.
            ResourceType::Ranges => {
                self.ranges.get_or_insert_default();
            }
            ResourceType::Listener => {
                self.listeners.remove(name);
            }
            ResourceType::Name => {
                self.names.remove(name);
            }
            ResourceType::Route => {
                self.routes.entry(Arc::clone(name)).or_insert_with(|| RoutesSpec::nonexistent(name));
            }
            ResourceType::Cluster => {
                self.clusters.entry(Arc::clone(name)).or_insert_with(|| ClusterEntry {
                    spec: ClusterSpec { cluster: cluster::nonexistent(name), assignment: None },
                    built: None,
                    fresh: true,
                });
            }
            ResourceType::Endpoint => {
                self.endpoints.entry(Arc::clone(name)).or_default();
            }
        }
    }

    /// Calls `need` with every resource that the listener `name` leads to, as far as that is known: what it refers to
    /// now, and what the published snapshot still uses. False: there is no such listener yet.
    pub fn needs(&self, name: &str, mut need: impl FnMut(ResourceType, &Arc<str>)) -> bool {
        let Some(entry) = self.listeners.get(name) else { return false };
        let mut clusters: Vec<ClusterId> = entry.spec.opaque.into_iter().collect();
        if let Some(published) = &entry.published {
            clusters.extend(published.clusters.iter());
        }
        match &entry.spec.routes {
            Some(RouteSource::Inline(spec)) => clusters.extend(spec.clusters.iter()),
            Some(RouteSource::Named(routes)) => {
                need(ResourceType::Route, routes);
                match self.routes.get(routes) {
                    Some(spec) => clusters.extend(spec.clusters.iter()),
                    // By convention the cluster has the name of its routes: asking now saves a round trip.
                    None => self.needs_of_cluster(routes, &mut need),
                }
            }
            None => {}
        }
        for id in clusters {
            if let Some(cluster) = self.ids.name(id) {
                self.needs_of_cluster(cluster, &mut need);
            }
        }
        true
    }

    fn needs_of_cluster(&self, name: &Arc<str>, need: &mut impl FnMut(ResourceType, &Arc<str>)) {
        need(ResourceType::Cluster, name);
        match self.clusters.get(name) {
            Some(ClusterEntry { spec: ClusterSpec { assignment: Some(assignment), .. }, .. }) => {
                need(ResourceType::Endpoint, assignment);
            }
            Some(_) => {}
            None => need(ResourceType::Endpoint, name),
        }
    }

    /// Drops everything that `keep` does not want.
    pub fn retain(&mut self, keep: impl Fn(ResourceType, &str) -> bool) {
        self.listeners.retain(|name, _| keep(ResourceType::Listener, name));
        self.routes.retain(|name, _| keep(ResourceType::Route, name));
        self.clusters.retain(|name, _| keep(ResourceType::Cluster, name));
        self.endpoints.retain(|name, _| keep(ResourceType::Endpoint, name));
        self.names.retain(|name, _| keep(ResourceType::Name, name));
    }

    /// Whether a listener leads to other clusters since this was asked last, so that [`Store::needs`] says less.
    pub const fn take_moved(&mut self) -> bool {
        std::mem::replace(&mut self.moved, false)
    }

    /// Whether an address belongs to the mesh, or may, since its ranges are not known yet.
    pub fn is_of_the_mesh(&self, address: IpAddr) -> bool {
        self.ranges.as_ref().is_none_or(|ranges| ranges.contains(address))
    }

    /// The trust bundle, when one has arrived.
    pub const fn bundle(&self) -> Option<&Arc<TrustBundle>> {
        self.bundle.as_ref()
    }
}

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
}

/// Decodes a resource and checks that it is of the type and name that it came under.
fn decode<M: prost::Name + Message + Default>(
    kind: ResourceType,
    name: &str,
    resource: &Any,
    inner: impl Fn(&M) -> &String,
) -> Result<M, Fault> {
    if resource.type_url != kind.url() {
        return Err(Fault::new("", format!("is a {}", fields::printable(&resource.type_url))));
    }
    if resource.value.len() > MAX_RESOURCE_BYTES {
        return Err(Fault::new("", format!("is larger than {MAX_RESOURCE_BYTES} bytes")));
    }
    let message = M::decode(resource.value.clone()).map_err(|e| Fault::new("", format!("does not decode: {e}")))?;
    let own = inner(&message);
    if own != name {
        return Err(Fault::new("name", format!("is `{}`, not the name it came under", fields::printable(own))));
    }
    Ok(message)
}
