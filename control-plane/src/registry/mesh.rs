//! The mesh: one immutable, merged picture of everything, and when each part of it last changed.
//!
//! A new mesh shares every namespace, service and workload that did not change with the one before it. Readers hold
//! an `Arc<Mesh>` and take no lock.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use tulle_proto::ResourceType;

use super::addresses::Addresses;
use super::routes::{BoundRoute, RouteView};
use crate::model::policy::{FailoverLevel, Mtls};
use crate::model::{Health, Key, Kind, Locality, Policy, Port, Problem, Protocol, Service, Workload};

/// One published state of the mesh.
#[derive(Clone, Default)]
pub struct Mesh {
    /// Counts published states, from 1; 0 is the empty mesh before the first one.
    pub version: u64,
    pub(super) namespaces: BTreeMap<Arc<str>, Arc<NamespaceView>>,
    pub(super) addresses: Addresses,
    pub(super) problems: Arc<[Problem]>,
    /// The ranges in which the addresses lie, in order, and when they last changed.
    pub(crate) ranges: Arc<[IpNet]>,
    pub(super) ranges_changed: u64,
    /// When something last went away. Names that are not found changed then, at the latest.
    pub(super) removed: u64,
    /// When the set of all services' resources of a type last changed, in the order of [`ResourceType::ALL`].
    pub(super) changed: [u64; ResourceType::ALL.len()],
}

/// A namespace with what is in it.
#[derive(Clone, Default)]
pub(crate) struct NamespaceView {
    pub(crate) policy: Arc<Policy>,
    pub(crate) services: BTreeMap<Arc<str>, Arc<ServiceView>>,
    pub(crate) workloads: BTreeMap<Arc<str>, Arc<WorkloadView>>,
    pub(crate) policy_changed: u64,
    /// By owner.
    pub(crate) inbound: BTreeMap<Arc<str>, Arc<InboundView>>,
    /// By kind and name.
    pub(crate) routes: BTreeMap<(Kind, Arc<str>), Arc<RouteView>>,
}

impl NamespaceView {
    pub(super) fn is_empty(&self) -> bool {
        self.services.is_empty() && self.workloads.is_empty() && self.inbound.is_empty() && self.routes.is_empty()
    }
}

/// A service joined with its namespace's defaults and its endpoints.
#[derive(Clone, Debug)]
pub struct ServiceView {
    /// The service as written.
    pub service: Arc<Service>,
    /// Its policy, with the namespace's defaults in it.
    pub policy: Policy,
    /// Where endpoints are taken from, nearest first.
    pub spread: Spread,
    /// Its ports with their endpoints, in the order written.
    pub ports: Vec<PortView>,
    /// When anything but endpoints and failover last changed.
    pub(crate) changed: u64,
    /// When failover last changed.
    pub(crate) spread_changed: u64,
}

/// A port of a service.
#[derive(Clone, Debug)]
pub struct PortView {
    /// The number clients dial.
    pub port: Port,
    /// What is spoken there.
    pub protocol: Protocol,
    /// Endpoints, ordered by address, no address and port twice. Either every ready one is meant for some zones, or none.
    pub endpoints: Arc<[Endpoint]>,
    /// Identities the endpoints have.
    pub accounts: Arc<BTreeSet<Account>>,
    /// The routes in force, the oldest first, and of one kind in each namespace; without any all requests go to the endpoints.
    pub routes: Arc<[BoundRoute]>,
    pub(crate) endpoints_changed: u64,
    pub(crate) accounts_changed: u64,
}

/// How a service's endpoints are ranked by distance.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Spread {
    /// Levels that are used, nearest first; empty: all endpoints alike.
    pub levels: Vec<FailoverLevel>,
    /// Healthy share, in percent, below which traffic spills to the next level.
    pub threshold: u32,
}

/// An address and port that serve requests.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: Port,
    /// Whether it takes requests.
    pub health: Health,
    /// Share of traffic relative to its siblings, at least 1.
    pub weight: u32,
    /// Where it runs.
    pub locality: Locality,
    /// Zones whose clients it is meant for. Empty where that does not count: see [`PortView::endpoints`].
    pub for_zones: Arc<[Arc<str>]>,
    /// Identity it has in the mesh; none when it is not meshed.
    pub account: Option<Account>,
    /// Owner of the workload, for telemetry, where the address belongs to one.
    pub workload: Option<Key>,
}

impl Endpoint {
    /// The endpoint `workload` is at one of its addresses and ports; `contested` as for [`Account::of`].
    pub(crate) fn of(workload: &Workload, address: IpAddr, port: Port, contested: bool) -> Self {
        Self {
            address,
            port,
            health: workload.health,
            weight: workload.weight,
            locality: workload.locality.clone(),
            for_zones: Arc::default(),
            account: Account::of(workload, port, contested),
            workload: Some(Key { namespace: workload.key.namespace.clone(), name: workload.owner.clone() }),
        }
    }

    /// Whether it is meant for clients in `zone`.
    pub(crate) fn is_for(&self, zone: &str) -> bool {
        self.for_zones.iter().any(|meant| **meant == *zone)
    }
}

impl Account {
    /// The identity that answers at a port of a workload, when a proxy of the mesh does. A contested address has one in
    /// any case: the handshake fails when somebody else answers, and nothing is sent in plain.
    pub(crate) fn of(workload: &Workload, port: Port, contested: bool) -> Option<Self> {
        (contested || workload.is_meshed_at(port)).then(|| Self {
            namespace: workload.key.namespace.clone(),
            service_account: workload.service_account.clone(),
        })
    }
}

/// What an identity is made of, beside the trust domain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Account {
    /// Namespace of the workload.
    pub namespace: Arc<str>,
    /// Its service account.
    pub service_account: Arc<str>,
}

/// A workload instance and when it last changed.
#[derive(Clone, Debug)]
pub struct WorkloadView {
    /// The workload as written.
    pub workload: Arc<Workload>,
    pub(crate) changed: u64,
}

/// What the proxies of one owner's instances accept.
#[derive(Clone, Debug)]
pub struct InboundView {
    /// Declared application ports.
    pub ports: BTreeMap<Port, InboundPort>,
    /// mTLS mode of ports that are not declared.
    pub mtls: Mtls,
    pub(crate) changed: u64,
}

/// An application port of a workload.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InboundPort {
    /// What is spoken there.
    pub protocol: Protocol,
    /// What is accepted there.
    pub mtls: Mtls,
    /// The service it is a port of, the oldest of several; none for a port only the workload declares.
    pub service: Option<Key>,
}

impl Mesh {
    /// Everything that is wrong with the objects this mesh is made of, ordered by place.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// All services, by namespace and name.
    pub fn services(&self) -> impl Iterator<Item = &Arc<ServiceView>> {
        self.namespaces.values().flat_map(|ns| ns.services.values())
    }

    /// All workloads, by namespace and name.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<WorkloadView>> {
        self.namespaces.values().flat_map(|ns| ns.workloads.values())
    }

    /// All routes whose parents are services, by namespace, kind and name.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<RouteView>> {
        self.namespaces.values().flat_map(|ns| ns.routes.values())
    }

    /// The service with this key.
    pub fn service(&self, key: &Key) -> Option<&Arc<ServiceView>> {
        self.namespaces.get(&key.namespace)?.services.get(&key.name)
    }

    /// The workload with this key.
    pub fn workload(&self, key: &Key) -> Option<&Arc<WorkloadView>> {
        self.namespaces.get(&key.namespace)?.workloads.get(&key.name)
    }

    /// Every namespace that is there or has something in it.
    pub fn namespace_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.namespaces.keys()
    }

    /// What instances of `owner` accept.
    pub fn inbound(&self, owner: &Key) -> Option<&Arc<InboundView>> {
        self.namespaces.get(&owner.namespace)?.inbound.get(&owner.name)
    }

    /// Defaults of a namespace, for what has no service of its own.
    pub fn namespace_policy(&self, namespace: &str) -> Policy {
        self.namespaces.get(namespace).map(|ns| Policy::clone(&ns.policy)).unwrap_or_default()
    }

    /// Who has this address.
    pub fn owner_of(&self, address: IpAddr) -> Option<&AddressOwner> {
        self.addresses.get(address).map(|entry| &entry.owner)
    }

    /// Whether a meshed workload claims this address with the same right as its owner.
    pub(crate) fn is_contested(&self, address: IpAddr) -> bool {
        self.addresses.get(address).is_some_and(|entry| entry.contested)
    }
}

impl ServiceView {
    /// The view of `port`.
    pub fn port(&self, port: Port) -> Option<&PortView> {
        self.ports.iter().find(|p| p.port == port)
    }
}

impl fmt::Debug for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mesh")
            .field("version", &self.version)
            .field("services", &self.services().count())
            .field("workloads", &self.workloads().count())
            .field("problems", &self.problems.len())
            .finish_non_exhaustive()
    }
}

/// Who has an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressOwner {
    /// It is a cluster IP of this service.
    Service(Key),
    /// It is an address of this workload instance.
    Workload(Key),
}

impl AddressOwner {
    /// The workload instance, where it is one.
    pub(super) const fn workload(&self) -> Option<&Key> {
        match self {
            Self::Workload(key) => Some(key),
            Self::Service(_) => None,
        }
    }
}
