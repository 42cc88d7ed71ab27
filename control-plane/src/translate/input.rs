//! What resources are made of. Every input derives `Hash` and `Eq`, and building a resource takes nothing else.

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;

use tulle_identity::spiffe::{SpiffeId, TrustDomain};
use tulle_proto::{Any, ResourceType};

use super::cluster::ClusterInput;
use super::endpoint::EndpointInput;
use super::inbound::InboundInput;
use super::listener::ListenerInput;
use super::name::NameInput;
use super::outbound::{HttpListenerInput, RoutesInput, TcpListenerInput};
use super::ranges::RangesInput;
use super::route::RouteInput;
use super::rules::RulesInput;
use super::{Scope, cluster, endpoint, listener, route};
use crate::model::{Health, Key, Policy, Port, Protocol};
use crate::registry::{Account, Endpoint, Mesh, POD_PREFIX, Spread};

/// The input of any resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Input {
    Listener(ListenerInput),
    Inbound(InboundInput),
    OutboundHttp(HttpListenerInput),
    OutboundTcp(TcpListenerInput),
    Route(RouteInput),
    Routes(RoutesInput),
    Cluster(Box<ClusterInput>),
    Endpoint(EndpointInput),
    Name(NameInput),
    Ranges(RangesInput),
}

/// How services and identities are called here.
#[derive(Clone, Debug)]
pub(super) struct Naming {
    pub(super) domain: Arc<str>,
    pub(super) trust_domain: TrustDomain,
}

/// A service port, or a port of one workload instance: what a set of resources is about.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    /// Name of the cluster, its endpoints and its routes.
    pub(super) cluster: Arc<str>,
    pub(super) service: Option<Key>,
    pub(super) namespace: Arc<str>,
    pub(super) port: Port,
    pub(super) protocol: Protocol,
    pub(super) address: Option<SocketAddr>,
    pub(super) policy: Policy,
    pub(super) spread: Spread,
    pub(super) endpoints: Arc<[Endpoint]>,
    pub(super) accounts: Arc<BTreeSet<Account>>,
    /// Routes of the Gateway API, as this client uses them.
    pub(super) rules: Option<RulesInput>,
}

impl Input {
    /// The input of the resource of type `ty`, called `name`, about `subject`. None for secrets, names and ranges, which have no port.
    pub(super) fn of(
        ty: ResourceType,
        scope: &Scope,
        naming: &Naming,
        name: Arc<str>,
        subject: &Subject,
    ) -> Option<Self> {
        match ty {
            ResourceType::Secret | ResourceType::Name | ResourceType::Ranges => None,
            ResourceType::Listener => Some(Self::Listener(listener::input(name, subject))),
            ResourceType::Route => Some(Self::Route(route::input(scope.client, name, subject))),
            ResourceType::Cluster => Some(Self::Cluster(Box::new(cluster::input(scope.client, naming, name, subject)))),
            ResourceType::Endpoint => Some(Self::Endpoint(endpoint::input(scope, naming, name, subject))),
        }
    }

    /// Builds and encodes the resource.
    pub(super) fn build(&self) -> Any {
        match self {
            Self::Listener(input) => Any::pack(&input.build()),
            Self::Inbound(input) => Any::pack(&input.build()),
            Self::OutboundHttp(input) => Any::pack(&input.build()),
            Self::OutboundTcp(input) => Any::pack(&input.build()),
            Self::Route(input) => Any::pack(&input.build()),
            Self::Routes(input) => Any::pack(&input.build()),
            Self::Cluster(input) => Any::pack(&input.build()),
            Self::Endpoint(input) => Any::pack(&input.build()),
            Self::Name(input) => Any::pack(&input.build()),
            Self::Ranges(input) => Any::pack(&input.build()),
        }
    }

    /// A hash over all of the input and the release that builds from it. It stands for the content: the encoded bytes
    /// cannot, because metadata maps come out in any order.
    pub(super) fn version(&self) -> Arc<str> {
        let mut hasher = rapidhash::fast::RapidHasher::default_const();
        env!("CARGO_PKG_VERSION").hash(&mut hasher);
        self.hash(&mut hasher);
        format!("{:016x}", hasher.finish()).into()
    }
}

impl Naming {
    /// `NAME.NAMESPACE.svc.DOMAIN`.
    pub(super) fn host(&self, key: &Key) -> String {
        format!("{}.{}.svc.{}", key.name, key.namespace, self.domain)
    }

    /// `NAME.NAMESPACE.svc.DOMAIN:PORT`, the one name of a service port's resources.
    pub(super) fn port(&self, key: &Key, port: Port) -> Arc<str> {
        format!("{}:{port}", self.host(key)).into()
    }

    /// The SPIFFE id of an account. None when its names cannot be part of one: nothing in the mesh can have it then.
    pub(super) fn identity(&self, account: &Account) -> Option<Arc<str>> {
        let id = SpiffeId::workload(&self.trust_domain, &account.namespace, &account.service_account).ok()?;
        Some(id.as_str().into())
    }
}

/// A port of one workload instance, dialled by the instance's own address.
pub(super) fn pod(mesh: &Mesh, key: &Key, address: SocketAddr) -> Option<Subject> {
    let port = Port::new(address.port())?;
    let workload = &mesh.workload(key)?.workload;
    let owner = Key { namespace: key.namespace.clone(), name: workload.owner.clone() };
    let declared = mesh.inbound(&owner).and_then(|inbound| inbound.ports.get(&port));
    let policy = mesh.namespace_policy(&key.namespace);
    let undeclared = || policy.protocol_of(port, None, &policy);
    // Who dials an instance by its own address wants that one, ready or not.
    let endpoint = Endpoint {
        health: Health::Ready,
        ..Endpoint::of(workload, address.ip(), port, mesh.is_contested(address.ip()))
    };
    Some(Subject {
        cluster: format!("{POD_PREFIX}{address}").into(),
        service: declared.and_then(|port| port.service.clone()),
        namespace: key.namespace.clone(),
        port,
        protocol: declared.map_or_else(undeclared, |port| port.protocol),
        address: Some(address),
        spread: Spread { levels: Vec::new(), threshold: policy.failover_threshold() },
        policy,
        accounts: Arc::new(endpoint.account.iter().cloned().collect()),
        endpoints: [endpoint].into(),
        rules: None,
    })
}
