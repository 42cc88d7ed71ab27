//! All accepted resources -> one snapshot. A service is visible only when its listener, routes, clusters and endpoints
//! are all there; while a new version of it is incomplete the earlier one stays (make before break). Values that did
//! not change are the same `Arc` as in the snapshot before, so that a reader can tell by pointer.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::unreachable
)]

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use super::endpoint::Assignment;
use super::listener::RouteSource;
use super::{ListenerEntry, Published, Store};
use crate::config::cluster::Cluster;
use crate::config::listener::Outbound;
use crate::config::route::RouteTable;
use crate::config::{ClusterId, Known, Snapshot};

impl Store {
    /// The snapshot of everything that is complete, with `absent` names marked as such; none when nothing changed
    /// since the last one. Its generation is the publisher's business.
    pub fn snapshot<'a>(&mut self, absent: impl Iterator<Item = &'a Arc<str>>) -> Option<Snapshot> {
        self.build_clusters();
        let names: Vec<Arc<str>> = self.listeners.keys().cloned().collect();
        for name in &names {
            if let Some(mut entry) = self.listeners.remove(name) {
                if let Some(published) = self.publishable(name, &entry) {
                    self.moved |= entry.published.is_some_and(|before| before.clusters != published.clusters);
                    entry.published = Some(published);
                }
                self.listeners.insert(Arc::clone(name), entry);
            }
        }
        self.sweep();
        let (by_name, by_addr) = self.known(absent);
        let snapshot = Snapshot {
            generation: 0,
            by_name,
            by_addr,
            clusters: self.ids.slots().map(|name| Arc::clone(self.cluster(name))).collect(),
            inbound: self.inbound.clone(),
            ranges: self.ranges.clone(),
        };
        if same(&snapshot, &self.last) {
            return None;
        }
        self.last = copy(&snapshot);
        Some(snapshot)
    }

    /// Joins clusters with their endpoints where either changed.
    fn build_clusters(&mut self) {
        for entry in self.clusters.values_mut() {
            let cluster = &entry.spec.cluster;
            let (endpoints, threshold) = match &entry.spec.assignment {
                None => (&cluster.endpoints, cluster.failover_threshold_percent),
                Some(name) => match self.endpoints.get(name) {
                    Some(Assignment { endpoints, threshold_percent }) => {
                        (endpoints, threshold_percent.unwrap_or(cluster.failover_threshold_percent))
                    }
                    None => continue,
                },
            };
            let current =
                entry.built.as_ref().is_some_and(|built| !entry.fresh && Arc::ptr_eq(&built.endpoints, endpoints));
            if !current {
                let built = Cluster {
                    endpoints: Arc::clone(endpoints),
                    failover_threshold_percent: threshold,
                    ..cluster.clone()
                };
                if entry.built.as_deref() != Some(&built) {
                    entry.built = Some(Arc::new(built));
                }
                entry.fresh = false;
            }
        }
    }

    /// What a listener publishes now; none while something it needs is missing.
    fn publishable(&self, name: &Arc<str>, entry: &ListenerEntry) -> Option<Published> {
        let (routes, routed): (Option<&Arc<RouteTable>>, &[ClusterId]) = match &entry.spec.routes {
            None => (None, &[]),
            Some(RouteSource::Inline(spec)) => (Some(&spec.table), &spec.clusters),
            Some(RouteSource::Named(routes)) => {
                let spec = self.routes.get(routes)?;
                (Some(&spec.table), &spec.clusters)
            }
        };
        let clusters: Arc<[ClusterId]> = routed.iter().copied().chain(entry.spec.opaque).collect();
        let ready = |id: &ClusterId| self.ids.name(*id).is_some_and(|name| self.built(name).is_some());
        if !clusters.iter().all(ready) {
            return None;
        }
        let outbound = Outbound {
            name: Arc::clone(name),
            protocol: entry.spec.protocol,
            routes: routes.map(Arc::clone),
            opaque: entry.spec.opaque,
        };
        let outbound = match &entry.published {
            Some(before) if same_outbound(&before.outbound, &outbound) => Arc::clone(&before.outbound),
            Some(_) | None => Arc::new(outbound),
        };
        Some(Published { outbound, clusters })
    }

    fn built(&self, name: &str) -> Option<&Arc<Cluster>> {
        self.clusters.get(name)?.built.as_ref()
    }

    fn cluster(&self, name: Option<&Arc<str>>) -> &Arc<Cluster> {
        name.and_then(|name| self.built(name)).unwrap_or(&self.unused)
    }

    /// Frees the numbers of clusters that nothing refers to any more.
    fn sweep(&mut self) {
        let mut used = HashSet::new();
        for entry in self.listeners.values() {
            used.extend(entry.spec.opaque);
            if let Some(RouteSource::Inline(spec)) = &entry.spec.routes {
                used.extend(spec.clusters.iter());
            }
            if let Some(published) = &entry.published {
                used.extend(published.clusters.iter());
            }
        }
        used.extend(self.routes.values().flat_map(|spec| spec.clusters.iter()));
        self.ids.sweep(|id| used.contains(&id));
    }

    fn known<'a>(
        &self,
        absent: impl Iterator<Item = &'a Arc<str>>,
    ) -> (HashMap<Arc<str>, Known>, HashMap<SocketAddr, Known>) {
        let mut by_name = HashMap::with_capacity(self.listeners.len());
        let mut by_addr: HashMap<SocketAddr, Known> = HashMap::with_capacity(self.listeners.len());
        for name in absent {
            by_name.insert(Arc::clone(name), Known::Absent);
            if let Ok(address) = name.parse() {
                by_addr.insert(address, Known::Absent);
            }
        }
        for (name, entry) in &self.listeners {
            let Some(published) = &entry.published else { continue };
            by_name.insert(Arc::clone(name), Known::Service(Arc::clone(&published.outbound)));
            if let Ok(address) = name.parse() {
                by_addr.insert(address, Known::Service(Arc::clone(&published.outbound)));
            }
        }
        self.learn_addresses(&mut by_addr);
        (by_name, by_addr)
    }

    /// A service asked for by name tells its address too, which saves asking for that. Names that were asked for by
    /// address win; of two services that claim one address the first by name does.
    fn learn_addresses(&self, by_addr: &mut HashMap<SocketAddr, Known>) {
        let mut claims: HashMap<SocketAddr, &Arc<Outbound>> = HashMap::new();
        for entry in self.listeners.values() {
            let (Some(published), Some(address)) = (&entry.published, entry.spec.address) else { continue };
            let claim = claims.entry(address).or_insert(&published.outbound);
            if published.outbound.name < claim.name {
                *claim = &published.outbound;
            }
        }
        for (address, outbound) in claims {
            let known = by_addr.entry(address).or_insert(Known::Absent);
            if matches!(known, Known::Absent) {
                *known = Known::Service(Arc::clone(outbound));
            }
        }
    }
}

fn same_outbound(a: &Outbound, b: &Outbound) -> bool {
    let same_routes = match (&a.routes, &b.routes) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    };
    same_routes && a.name == b.name && a.protocol == b.protocol && a.opaque == b.opaque
}

fn copy(snapshot: &Snapshot) -> Snapshot {
    Snapshot {
        generation: 0,
        by_name: snapshot.by_name.clone(),
        by_addr: snapshot.by_addr.clone(),
        clusters: snapshot.clusters.clone(),
        inbound: snapshot.inbound.clone(),
        ranges: snapshot.ranges.clone(),
    }
}

fn same(a: &Snapshot, b: &Snapshot) -> bool {
    let same_inbound = match (&a.inbound, &b.inbound) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    };
    same_inbound
        && a.ranges == b.ranges
        && a.clusters.len() == b.clusters.len()
        && a.clusters.iter().zip(&b.clusters).all(|(a, b)| Arc::ptr_eq(a, b))
        && same_map(&a.by_name, &b.by_name)
        && same_map(&a.by_addr, &b.by_addr)
}

fn same_map<K: Eq + std::hash::Hash>(a: &HashMap<K, Known>, b: &HashMap<K, Known>) -> bool {
    let same = |a: &Known, b: &Known| match (a, b) {
        (Known::Absent, Known::Absent) => true,
        (Known::Service(a), Known::Service(b)) => Arc::ptr_eq(a, b),
        (Known::Absent, Known::Service(_)) | (Known::Service(_), Known::Absent) => false,
    };
    a.len() == b.len() && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| same(value, other)))
}
