//! The objects that count, indexed by what joins them: by namespace, label, owner, address, service. It belongs to
//! the writer; what readers see is built from it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use super::mesh::AddressOwner;
use super::routes::RouteTable;
use super::store::Change;
use crate::model::name::selects;
use crate::model::policy::Mtls;
use crate::model::service::ServicePort;
use crate::model::{
    EndpointSlice, Health, Key, Labels, Namespace, Object, ObjectRef, Policy, Protocol, Service, Workload,
};

/// A claim to an address; the smallest holds it. Decision 009: the kind of source decides before the age.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claim {
    pub(super) source: ClaimSource,
    pub(super) owner: AddressOwner,
}

/// Where a claim comes from. Whoever writes a Workload chooses its addresses, so it comes last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ClaimSource {
    /// The cluster gave the pod its address. The newest pod first: an address in use again is the newer pod's.
    Pod(Reverse<Option<Arc<str>>>),
    /// A pod that is terminating.
    TerminatingPod(Reverse<Option<Arc<str>>>),
    /// A cluster IP; the oldest first.
    Service(Age),
    /// An address somebody wrote down; the oldest first.
    Workload(Age),
}

/// Smaller is older; without a creation time an object is younger than all that have one.
type Age = (bool, Option<Arc<str>>);

/// Who holds an address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holder<'i> {
    pub(super) workload: &'i Arc<Workload>,
    /// A meshed workload claims the address with the same right: nobody may be called in plain there.
    pub(super) contested: bool,
}

/// Namespace, label and value.
type LabelOf = (Arc<str>, Arc<str>, Arc<str>);

/// All indexes.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// The least strict mTLS mode in the mesh.
    mtls_floor: Option<Mtls>,
    pub(super) namespaces: BTreeMap<Arc<str>, Arc<Namespace>>,
    pub(super) services: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Arc<Service>>>,
    pub(super) workloads: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Arc<Workload>>>,
    /// Slices by the service they belong to, then by their own name.
    pub(super) slices: BTreeMap<Key, BTreeMap<Arc<str>, Arc<EndpointSlice>>>,
    pub(super) claims: HashMap<IpAddr, BTreeSet<Claim>>,
    pub(super) routes: RouteTable,
    /// Names of workloads by namespace and label.
    labels: HashMap<LabelOf, BTreeSet<Arc<str>>>,
    /// Names of workloads by owner.
    owners: BTreeMap<Key, BTreeSet<Arc<str>>>,
    /// Services whose slices hold an address; counted, since several slices may.
    slice_addresses: HashMap<IpAddr, BTreeMap<Key, u32>>,
}

/// What has to be built anew after a step.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    pub(super) namespaces: BTreeSet<Arc<str>>,
    pub(super) services: BTreeSet<Key>,
    pub(super) owners: BTreeSet<Key>,
    pub(super) workloads: BTreeSet<Key>,
    pub(super) addresses: BTreeSet<IpAddr>,
    pub(super) routes: BTreeSet<ObjectRef>,
}

impl Index {
    /// Empty indexes of a mesh in which no mTLS mode is weaker than `mtls_floor`.
    pub(super) fn new(mtls_floor: Option<Mtls>) -> Self {
        Self { mtls_floor, ..Self::default() }
    }

    /// Applies one change and marks what it touches.
    pub(super) fn apply(&mut self, change: Change, dirty: &mut Dirty) {
        let key = change.reference.key;
        if let Some(old) = change.old {
            self.touch(&old, dirty);
            self.take(&old, &key);
        }
        if let Some(new) = change.new {
            self.put(&new, &key);
            self.touch(&new, dirty);
        }
    }

    fn take(&mut self, object: &Object, key: &Key) {
        match object {
            Object::Namespace(_) => {
                self.namespaces.remove(&key.name);
            }
            Object::Service(service) => {
                take_nested(&mut self.services, &key.namespace, &key.name);
                self.unclaim(&service.cluster_ips, &service_claim(service));
            }
            Object::EndpointSlice(slice) => {
                let service = service_of(slice);
                take_nested(&mut self.slices, &service, &key.name);
                for endpoint in &slice.endpoints {
                    release(&mut self.slice_addresses, endpoint.address, &service);
                }
            }
            Object::Workload(workload) => {
                take_nested(&mut self.workloads, &key.namespace, &key.name);
                self.unclaim(&workload.addresses, &workload_claim(workload));
                take_member(&mut self.owners, &owner_of(workload), &key.name);
                for (label, value) in &workload.labels {
                    let at = (key.namespace.clone(), label.clone(), value.clone());
                    if let Some(names) = self.labels.get_mut(&at) {
                        names.remove(&key.name);
                        if names.is_empty() {
                            self.labels.remove(&at);
                        }
                    }
                }
            }
            Object::Route(route) => self.routes.take(route),
            Object::Grant(grant) => self.routes.take_grant(grant),
        }
    }

    fn put(&mut self, object: &Object, key: &Key) {
        match object {
            Object::Namespace(namespace) => {
                self.namespaces.insert(key.name.clone(), namespace.clone());
            }
            Object::Service(service) => {
                self.services.entry(key.namespace.clone()).or_default().insert(key.name.clone(), service.clone());
                self.claim(&service.cluster_ips, &service_claim(service));
            }
            Object::EndpointSlice(slice) => {
                let service = service_of(slice);
                for endpoint in &slice.endpoints {
                    let services = self.slice_addresses.entry(endpoint.address).or_default();
                    *services.entry(service.clone()).or_default() += 1;
                }
                self.slices.entry(service).or_default().insert(key.name.clone(), slice.clone());
            }
            Object::Workload(workload) => {
                self.workloads.entry(key.namespace.clone()).or_default().insert(key.name.clone(), workload.clone());
                self.claim(&workload.addresses, &workload_claim(workload));
                self.owners.entry(owner_of(workload)).or_default().insert(key.name.clone());
                for (label, value) in &workload.labels {
                    let at = (key.namespace.clone(), label.clone(), value.clone());
                    self.labels.entry(at).or_default().insert(key.name.clone());
                }
            }
            Object::Route(route) => self.routes.put(route),
            Object::Grant(grant) => self.routes.put_grant(grant),
        }
    }

    /// Marks what `object` has a part in, while it is in the index.
    fn touch(&self, object: &Object, dirty: &mut Dirty) {
        match object {
            Object::Namespace(namespace) => self.touch_namespace(&namespace.key.name, dirty),
            Object::Service(service) => {
                dirty.services.insert(service.key.clone());
                self.touch_addresses(&service.cluster_ips, dirty);
                let selected = self.selected(&service.key.namespace, &service.selector);
                dirty.owners.extend(selected.map(|workload| owner_of(workload)));
                self.routes.touch_service(&service.key, dirty);
            }
            Object::EndpointSlice(slice) => {
                dirty.services.insert(service_of(slice));
            }
            Object::Workload(workload) => {
                dirty.workloads.insert(workload.key.clone());
                dirty.owners.insert(owner_of(workload));
                self.touch_addresses(&workload.addresses, dirty);
                dirty.services.extend(self.selecting(workload).map(|service| service.key.clone()));
            }
            Object::Route(route) => self.routes.touch(route, dirty),
            Object::Grant(grant) => self.routes.touch_grants(&grant.key.namespace, dirty),
        }
    }

    /// Marks what depends on who holds these addresses: the services with slices that name them, and those of every
    /// other claimant.
    fn touch_addresses(&self, addresses: &[IpAddr], dirty: &mut Dirty) {
        dirty.addresses.extend(addresses);
        let of_slices = addresses.iter().filter_map(|address| self.slice_addresses.get(address));
        dirty.services.extend(of_slices.flat_map(BTreeMap::keys).cloned());
        let contested =
            addresses.iter().filter_map(|address| self.claims.get(address)).filter(|claims| claims.len() > 1);
        for claim in contested.flatten() {
            match &claim.owner {
                AddressOwner::Service(key) => {
                    dirty.services.insert(key.clone());
                }
                AddressOwner::Workload(key) => {
                    let workload = self.workload(key).into_iter();
                    dirty.services.extend(workload.flat_map(|w| self.selecting(w)).map(|service| service.key.clone()));
                }
            }
        }
    }

    fn touch_namespace(&self, namespace: &Arc<str>, dirty: &mut Dirty) {
        dirty.namespaces.insert(namespace.clone());
        for service in self.services.get(namespace).into_iter().flat_map(BTreeMap::values) {
            dirty.services.insert(service.key.clone());
            // What is spoken at a port may be the namespace's to say.
            self.routes.touch_service(&service.key, dirty);
        }
        for workload in self.workloads.get(namespace).into_iter().flat_map(BTreeMap::values) {
            dirty.owners.insert(owner_of(workload));
        }
    }

    /// The service with this key.
    pub(super) fn service(&self, key: &Key) -> Option<&Arc<Service>> {
        self.services.get(&key.namespace)?.get(&key.name)
    }

    /// What is spoken at a port of a service.
    pub(super) fn protocol(&self, service: &Service, port: &ServicePort) -> Protocol {
        service.policy.protocol_of(port.port, port.protocol, &self.policy(&service.key.namespace))
    }

    /// The workloads of a namespace that a selector selects, by name.
    pub(super) fn selected(&self, namespace: &Arc<str>, selector: &Labels) -> impl Iterator<Item = &Arc<Workload>> {
        let posting = |(label, value): (&Arc<str>, &Arc<str>)| {
            self.labels.get(&(namespace.clone(), label.clone(), value.clone()))
        };
        // The rarest label first; a label nobody has selects nobody.
        let postings: Option<Vec<_>> = selector.iter().map(posting).collect();
        let names = postings.and_then(|p| p.into_iter().min_by_key(|names| names.len()));
        let workloads = self.workloads.get(namespace);
        names.into_iter().flatten().filter_map(move |name| workloads?.get(name)).filter({
            let selector = selector.clone();
            move |workload| selects(&selector, &workload.labels)
        })
    }

    /// The services that select a workload, by name.
    pub(super) fn selecting(&self, workload: &Workload) -> impl Iterator<Item = &Arc<Service>> {
        let services = self.services.get(&workload.key.namespace).into_iter().flat_map(BTreeMap::values);
        services.filter(|service| selects(&service.selector, &workload.labels))
    }

    /// The instances of an owner, by name.
    pub(super) fn instances(&self, owner: &Key) -> impl Iterator<Item = &Arc<Workload>> {
        let workloads = self.workloads.get(&owner.namespace);
        self.owners.get(owner).into_iter().flatten().filter_map(move |name| workloads?.get(name))
    }

    /// The workload with this key.
    fn workload(&self, key: &Key) -> Option<&Arc<Workload>> {
        self.workloads.get(&key.namespace)?.get(&key.name)
    }

    /// The workload that holds an address.
    pub(super) fn holder(&self, address: IpAddr) -> Option<Holder<'_>> {
        let claims = self.claims.get(&address)?;
        let first = claims.first()?;
        let AddressOwner::Workload(key) = &first.owner else { return None };
        let equal = claims.iter().skip(1).filter(|claim| claim.source.is_of_kind(&first.source));
        let contested = equal.filter_map(|claim| claim.owner.workload()).filter_map(|key| self.workload(key));
        Some(Holder { workload: self.workload(key)?, contested: { contested }.any(|workload| workload.meshed) })
    }

    /// The service whose cluster IP an address is.
    pub(super) fn service_at(&self, address: IpAddr) -> Option<&Key> {
        match &self.claims.get(&address)?.first()?.owner {
            AddressOwner::Service(key) => Some(key),
            AddressOwner::Workload(_) => None,
        }
    }

    /// The mTLS mode of a namespace, or of a Service in it that asks for `own`. The one place that decides it.
    pub(super) fn mtls(&self, namespace: &Arc<str>, own: Option<Mtls>) -> Mtls {
        let of_namespace = self.namespaces.get(namespace).and_then(|namespace| namespace.policy.mtls);
        Mtls::strictest([self.mtls_floor, of_namespace, own])
    }

    /// Defaults of a namespace.
    pub(super) fn policy(&self, namespace: &Arc<str>) -> Policy {
        self.namespaces.get(namespace).map(|ns| ns.policy.clone()).unwrap_or_default()
    }

    fn claim(&mut self, addresses: &[IpAddr], claim: &Claim) {
        for address in addresses {
            self.claims.entry(*address).or_default().insert(claim.clone());
        }
    }

    fn unclaim(&mut self, addresses: &[IpAddr], claim: &Claim) {
        for address in addresses {
            if let Some(claims) = self.claims.get_mut(address) {
                claims.remove(claim);
                if claims.is_empty() {
                    self.claims.remove(address);
                }
            }
        }
    }
}

/// The owner of a workload, which names its inbound listener.
pub(super) fn owner_of(workload: &Workload) -> Key {
    Key { namespace: workload.key.namespace.clone(), name: workload.owner.clone() }
}

fn service_of(slice: &EndpointSlice) -> Key {
    Key { namespace: slice.key.namespace.clone(), name: slice.service.clone() }
}

fn service_claim(service: &Service) -> Claim {
    Claim { source: ClaimSource::Service(age(&service.created)), owner: AddressOwner::Service(service.key.clone()) }
}

fn workload_claim(workload: &Workload) -> Claim {
    let created = workload.created.clone();
    let source = match (&workload.pod, workload.health) {
        (Some(_), Health::Draining) => ClaimSource::TerminatingPod(Reverse(created)),
        (Some(_), Health::Ready | Health::Unready) => ClaimSource::Pod(Reverse(created)),
        (None, _) => ClaimSource::Workload(age(&created)),
    };
    Claim { source, owner: AddressOwner::Workload(workload.key.clone()) }
}

fn age(created: &Option<Arc<str>>) -> Age {
    (created.is_none(), created.clone())
}

impl ClaimSource {
    fn is_of_kind(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }

    /// What it is called in a problem.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Pod(_) | Self::TerminatingPod(_) => "Pod",
            Self::Service(_) => "Service",
            Self::Workload(_) => "Workload",
        }
    }
}

fn take_nested<K: Ord, V>(map: &mut BTreeMap<K, BTreeMap<Arc<str>, V>>, outer: &K, inner: &Arc<str>) {
    if let Some(nested) = map.get_mut(outer) {
        nested.remove(inner);
        if nested.is_empty() {
            map.remove(outer);
        }
    }
}

fn take_member(map: &mut BTreeMap<Key, BTreeSet<Arc<str>>>, key: &Key, member: &Arc<str>) {
    if let Some(members) = map.get_mut(key) {
        members.remove(member);
        if members.is_empty() {
            map.remove(key);
        }
    }
}

fn release(map: &mut HashMap<IpAddr, BTreeMap<Key, u32>>, address: IpAddr, service: &Key) {
    let Some(services) = map.get_mut(&address) else {
        return;
    };
    if let Some(count) = services.get_mut(service) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            services.remove(service);
        }
    }
    if services.is_empty() {
        map.remove(&address);
    }
}
