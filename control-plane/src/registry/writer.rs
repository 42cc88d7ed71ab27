//! The writer: takes in what sources say and keeps the newest mesh. Sans-IO; the task around it is in `mod.rs`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use tulle_proto::ResourceType;
use tulle_proto::names::ADDRESS_RANGES;

use super::addresses::AddressEntry;
use super::index::{Claim, ClaimSource, Dirty, Index};
use super::merge;
use super::mesh::{AddressOwner, InboundView, Mesh, NamespaceView, ServiceView, WorkloadView};
use super::ranges::{Holder, Seen};
use super::routes;
use super::store::{SourceId, Store};
use super::topics::{Changes, Topic};
use crate::model::policy::Mtls;
use crate::model::{Delta, Key, Kind, ObjectRef, Problem, Severity};

/// Applies deltas and builds meshes.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    store: Store,
    index: Index,
    dirty: Dirty,
    mesh: Mesh,
    /// Problems by source; those of joins by what was joined.
    reported: BTreeMap<SourceId, Vec<Problem>>,
    of_namespaces: BTreeMap<Arc<str>, Vec<Problem>>,
    of_services: BTreeMap<Key, Vec<Problem>>,
    of_owners: BTreeMap<Key, Vec<Problem>>,
    of_addresses: BTreeMap<IpAddr, Vec<Problem>>,
    of_routes: BTreeMap<ObjectRef, Vec<Problem>>,
    /// Addresses in use, for the ranges they lie in.
    seen: Seen,
    /// What the build under way touches.
    touched: Vec<Topic>,
}

impl Writer {
    /// A writer of a mesh in which no mTLS mode is weaker than `mtls_floor`.
    pub(crate) fn new(mtls_floor: Option<Mtls>) -> Self {
        Self { index: Index::new(mtls_floor), ..Self::default() }
    }

    /// Takes in one step of a source. Nothing is built before [`Self::build`].
    pub(crate) fn apply(&mut self, source: SourceId, delta: Delta) {
        let changes = match delta {
            Delta::Reset(items) => self.store.reset(source, items),
            Delta::Upsert(item) => self.store.upsert(source, item).into_iter().collect(),
            Delta::Remove(origin, reference) => self.store.remove(source, origin, reference).into_iter().collect(),
            Delta::Problems(problems) => {
                self.reported.insert(source, problems);
                Vec::new()
            }
        };
        for change in changes {
            self.index.apply(change, &mut self.dirty);
        }
    }

    /// Builds what the steps since the last call touched, and returns the mesh of now, and what it touched.
    pub(crate) fn build(&mut self) -> (Arc<Mesh>, Changes) {
        let dirty = std::mem::take(&mut self.dirty);
        self.mesh.version = self.mesh.version.saturating_add(1);
        for namespace in &dirty.namespaces {
            let policy = Arc::new(self.index.policy(namespace));
            let in_force = self.index.mtls(namespace, None);
            let asked = policy.mtls.filter(|asked| *asked < in_force);
            let object = || ObjectRef {
                kind: Kind::Namespace,
                key: Key { namespace: namespace.clone(), name: namespace.clone() },
            };
            let problems = asked.map(|asked| merge::weaker(object(), asked, in_force)).into_iter().collect();
            keep(&mut self.of_namespaces, namespace, problems);
            let version = self.mesh.version;
            let view = self.namespace(namespace);
            if view.policy != policy {
                (view.policy, view.policy_changed) = (policy, version);
                let workloads = self.index.workloads.get(namespace).into_iter().flat_map(BTreeMap::values);
                self.touched.extend(workloads.flat_map(|w| &w.addresses).map(|address| Topic::address(*address)));
            }
        }
        for key in &dirty.workloads {
            self.build_workload(key);
        }
        for key in &dirty.services {
            self.build_service(key);
        }
        for owner in &dirty.owners {
            self.build_inbound(owner);
        }
        for address in &dirty.addresses {
            self.build_address(*address);
        }
        self.build_ranges();
        for route in &dirty.routes {
            self.build_route(route);
        }
        let index = &self.index;
        self.mesh.namespaces.retain(|name, view| !view.is_empty() || index.namespaces.contains_key(name));
        self.mesh.problems = self.problems().into();
        (Arc::new(self.mesh.clone()), Changes::of(std::mem::take(&mut self.touched)))
    }

    fn namespace(&mut self, name: &Arc<str>) -> &mut NamespaceView {
        Arc::make_mut(self.mesh.namespaces.entry(name.clone()).or_default())
    }

    fn build_workload(&mut self, key: &Key) {
        let version = self.mesh.version;
        let workload = self.index.workloads.get(&key.namespace).and_then(|w| w.get(&key.name)).cloned();
        let workloads = &mut self.namespace(&key.namespace).workloads;
        match workload {
            Some(workload) if workloads.get(&key.name).is_some_and(|old| old.workload == workload) => {}
            Some(workload) => {
                workloads.insert(key.name.clone(), Arc::new(WorkloadView { workload, changed: version }));
            }
            None => {
                workloads.remove(&key.name);
                self.mesh.removed = version;
            }
        }
    }

    fn build_service(&mut self, key: &Key) {
        let version = self.mesh.version;
        let service = self.index.services.get(&key.namespace).and_then(|s| s.get(&key.name));
        self.touched.push(Topic::service(key));
        self.touched.extend(service.iter().flat_map(|s| &s.cluster_ips).map(|address| Topic::address(*address)));
        let mut problems = Vec::new();
        let new = service.map(|service| merge::service(&self.index, service, &mut problems));
        keep(&mut self.of_services, key, problems);
        let old = self.mesh.service(key).cloned();
        match (old, new) {
            (old, Some(mut new)) => {
                let mut touched = Touched::default();
                date(old.as_deref(), &mut new, version, &mut touched);
                if old.is_some_and(|old| old.ports.iter().any(|port| new.port(port.port).is_none())) {
                    self.mesh.removed = version;
                }
                touched.note(&mut self.mesh, version);
                self.namespace(&key.namespace).services.insert(key.name.clone(), Arc::new(new));
            }
            (Some(_), None) => {
                self.namespace(&key.namespace).services.remove(&key.name);
                Touched::all().note(&mut self.mesh, version);
                self.mesh.removed = version;
            }
            (None, None) => {}
        }
    }

    fn build_inbound(&mut self, owner: &Key) {
        let version = self.mesh.version;
        let mut problems = Vec::new();
        let new = merge::inbound(&self.index, owner, &mut problems);
        keep(&mut self.of_owners, owner, problems);
        let old = self.mesh.inbound(owner).cloned();
        if let (Some(old), Some(new)) = (&old, &new)
            && old.ports == new.ports
            && old.mtls == new.mtls
        {
            return;
        }
        self.touched.push(Topic::inbound(owner));
        // What is spoken at an instance's own address is known from here, too.
        let addresses = self.index.instances(owner).flat_map(|workload| &workload.addresses);
        self.touched.extend(addresses.map(|address| Topic::address(*address)));
        match (old, new) {
            (_, Some(new)) => {
                let view = Arc::new(InboundView { changed: version, ..new });
                self.namespace(&owner.namespace).inbound.insert(owner.name.clone(), view);
            }
            (Some(_), None) => {
                self.namespace(&owner.namespace).inbound.remove(&owner.name);
                self.mesh.removed = version;
            }
            (None, None) => {}
        }
    }

    fn build_address(&mut self, address: IpAddr) {
        self.touched.push(Topic::address(address));
        let version = self.mesh.version;
        let claims = self.index.claims.get(&address);
        let first = claims.and_then(|claims| claims.first());
        let mut problems = Vec::new();
        if let Some(first) = first {
            let losers = claims.into_iter().flatten().skip(1);
            problems.extend(losers.map(|claim| address_conflict(address, claim, first)));
        }
        let contested = self.index.holder(address).is_some_and(|holder| holder.contested);
        let owner = first.map(|claim| (claim.owner.clone(), contested));
        keep(&mut self.of_addresses, &address, problems);
        let old = self.mesh.addresses.get(address).map(|entry| (entry.owner.clone(), entry.contested));
        if old == owner {
            return;
        }
        if old.is_some() {
            self.mesh.removed = version;
        }
        self.seen.set(address, owner.as_ref().map(|(owner, _)| self.holder(owner)));
        let entry = owner.map(|(owner, contested)| AddressEntry { owner, since: version, contested });
        self.mesh.addresses.set(address, entry);
    }

    fn holder(&self, owner: &AddressOwner) -> Holder {
        match owner {
            AddressOwner::Service(_) => Holder::Service,
            AddressOwner::Workload(key) => {
                let workload = self.index.workloads.get(&key.namespace).and_then(|all| all.get(&key.name));
                if workload.is_some_and(|workload| workload.pod.is_some()) { Holder::Pod } else { Holder::Host }
            }
        }
    }

    fn build_ranges(&mut self) {
        let ranges = self.seen.take_ranges().filter(|ranges| **ranges != *self.mesh.ranges);
        let Some(ranges) = ranges else { return };
        self.mesh.ranges = ranges.into();
        self.mesh.ranges_changed = self.mesh.version;
        self.touched.push(Topic::of(ADDRESS_RANGES));
    }

    fn build_route(&mut self, object: &ObjectRef) {
        let mut problems = Vec::new();
        let new = self.index.routes.get(object).map(|route| routes::verdicts(&self.index, route, &mut problems));
        keep(&mut self.of_routes, object, problems);
        let routes = &mut self.namespace(&object.key.namespace).routes;
        let at = (object.kind, object.key.name.clone());
        match new {
            Some(new) if routes.get(&at).is_some_and(|old| **old == new) => {}
            Some(new) => {
                routes.insert(at, Arc::new(new));
            }
            None => {
                routes.remove(&at);
            }
        }
    }

    fn problems(&self) -> Vec<Problem> {
        let joined = self
            .of_namespaces
            .values()
            .chain(self.of_services.values())
            .chain(self.of_owners.values())
            .chain(self.of_addresses.values());
        let joined = joined.chain(self.of_routes.values());
        let mut problems: Vec<_> = self.reported.values().chain(joined).flatten().cloned().collect();
        for problem in &mut problems {
            if let (None, Some(object)) = (&problem.place, &problem.object) {
                problem.place = self.store.place(object);
            }
        }
        problems.extend(self.store.problems());
        problems.sort_by(|a, b| (&a.place, &a.object, &a.field).cmp(&(&b.place, &b.object, &b.field)));
        problems.dedup();
        problems
    }
}

/// Types of resource that a step touched.
#[derive(Default)]
struct Touched {
    spec: bool,
    accounts: bool,
    endpoints: bool,
}

impl Touched {
    const fn all() -> Self {
        Self { spec: true, accounts: true, endpoints: true }
    }

    fn note(&self, mesh: &mut Mesh, version: u64) {
        for (ty, changed) in ResourceType::ALL.iter().zip(&mut mesh.changed) {
            let touched = match ty {
                ResourceType::Secret | ResourceType::Name | ResourceType::Ranges => false,
                ResourceType::Cluster => self.spec || self.accounts,
                ResourceType::Endpoint => self.endpoints,
                ResourceType::Listener | ResourceType::Route => self.spec,
            };
            if touched {
                *changed = version;
            }
        }
    }
}

/// Sets the versions in `new`: those of `old` for what is the same, `version` for what is not.
fn date(old: Option<&ServiceView>, new: &mut ServiceView, version: u64, touched: &mut Touched) {
    let same_spec = old.is_some_and(|old| same_spec(old, new));
    let same_spread = old.is_some_and(|old| old.spread == new.spread);
    (new.changed, new.spread_changed) = (version, version);
    if let Some(old) = old {
        new.changed = if same_spec { old.changed } else { version };
        new.spread_changed = if same_spread { old.spread_changed } else { version };
    }
    touched.spec |= !same_spec;
    touched.endpoints |= !same_spread;
    for port in &mut new.ports {
        let old = old.and_then(|old| old.port(port.port));
        (port.endpoints_changed, port.accounts_changed) = match old {
            Some(old) if old.endpoints == port.endpoints => (old.endpoints_changed, old.accounts_changed),
            Some(old) if old.accounts == port.accounts => (version, old.accounts_changed),
            Some(_) | None => (version, version),
        };
        touched.endpoints |= port.endpoints_changed == version;
        touched.accounts |= port.accounts_changed == version;
    }
}

/// Whether listeners, routes and clusters of the two are made of the same.
fn same_spec(a: &ServiceView, b: &ServiceView) -> bool {
    let ports =
        |view: &ServiceView| view.ports.iter().map(|p| (p.port, p.protocol, p.routes.clone())).collect::<Vec<_>>();
    a.policy == b.policy && a.service.cluster_ips == b.service.cluster_ips && ports(a) == ports(b)
}

fn keep<K: Ord + Clone>(all: &mut BTreeMap<K, Vec<Problem>>, key: &K, problems: Vec<Problem>) {
    if problems.is_empty() {
        all.remove(key);
    } else {
        all.insert(key.clone(), problems);
    }
}

fn address_conflict(address: IpAddr, loser: &Claim, winner: &Claim) -> Problem {
    let (object, field) = match (&loser.owner, &loser.source) {
        (AddressOwner::Service(key), _) => (ObjectRef { kind: Kind::Service, key: key.clone() }, "spec.clusterIP"),
        (AddressOwner::Workload(key), ClaimSource::Pod(_) | ClaimSource::TerminatingPod(_)) => {
            (ObjectRef { kind: Kind::Workload, key: key.clone() }, "status.podIPs")
        }
        (AddressOwner::Workload(key), _) => (ObjectRef { kind: Kind::Workload, key: key.clone() }, "spec.addresses"),
    };
    let (AddressOwner::Service(key) | AddressOwner::Workload(key)) = &winner.owner;
    let kind = winner.source.name();
    let older = if kind == loser.source.name() && kind != "Pod" { "the older " } else { "" };
    let reason = format!("{address} is an address of {older}{kind} {key}");
    Problem::new(Severity::Error, object, field, reason)
}
