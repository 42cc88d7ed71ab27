//! A control plane that says what the test tells it: incremental discovery and certificate signing over the real
//! transport, with everything it was asked kept for the test to see.
//!
//! ```no_run
//! # async fn example() {
//! use std::sync::Arc;
//! use tulle_testing::certs::Ca;
//! use tulle_testing::control::{Control, Inbound, Mtls, Service};
//! let control = Control::start(Arc::new(Ca::new())).await;
//! control.publish(&Service::http("reviews.shop.svc.cluster.local:80").endpoint("127.0.0.1:9080", None));
//! control.publish_inbound(&Inbound::new("shop", "productpage").port(8080, "http", Mtls::Strict));
//! // ... start a proxy with control.addr(), then:
//! control.acknowledged("reviews.shop.svc.cluster.local:80").await;
//! # }
//! ```

pub mod resources;

mod delta;

mod serve;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prost::Name;
use tokio::sync::watch;
use tulle_proto::discovery::{DeltaDiscoveryRequest, Resource};
use tulle_proto::{Any, ResourceType, envoy};

pub use resources::{Endpoint, Inbound, Mtls, Service};

use crate::certs::Ca;
use crate::wait;

/// What it holds and has seen; shared with its streams.
#[derive(Debug)]
pub(crate) struct State {
    world: Mutex<World>,
    /// Raised with every change of the world.
    changed: watch::Sender<u64>,
    ca: Option<Arc<Ca>>,
}

#[derive(Debug, Default)]
struct World {
    resources: HashMap<(ResourceType, String), Resource>,
    silent: Vec<(ResourceType, String)>,
    refuse_certificates: bool,
    certificate_ttl: Option<Duration>,
    certificates: Vec<String>,
    requests: Vec<Asked>,
    refused: Vec<Refused>,
    /// Version last acknowledged on any stream; `None` for an acknowledged absence.
    acknowledged: HashMap<(ResourceType, String), Option<String>>,
    streams: usize,
    open_streams: usize,
}

/// A request of a client, as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Which stream it came on, from 0 in the order they were opened.
    pub stream: usize,
    /// `authorization` of the call.
    pub authorization: Option<String>,
    /// The request.
    pub request: DeltaDiscoveryRequest,
}

/// A response a client refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Type of the resources.
    pub kind: ResourceType,
    /// Names in the refused response.
    pub names: Vec<String>,
    /// What the client says is wrong with them.
    pub reason: String,
}

/// A scripted control plane; dropping it closes its listener and its streams.
#[derive(Debug)]
pub struct Control {
    addr: SocketAddr,
    state: Arc<State>,
    server: Option<serve::Server>,
}

impl Control {
    /// Starts one that serves TLS as the control plane of `ca`, and signs for callers with a token of it. It holds
    /// nothing but the trust bundle.
    pub async fn start(ca: Arc<Ca>) -> Self {
        let bundle = resources::trust_bundle(&ca.bundle_pem());
        let control = Self::start_with(Some(ca)).await;
        control.set(ResourceType::Secret, tulle_proto::names::TRUST_BUNDLE, &bundle);
        control
    }

    /// Starts one without TLS that signs nothing, for foreign clients.
    pub async fn plaintext() -> Self {
        Self::start_with(None).await
    }

    async fn start_with(ca: Option<Arc<Ca>>) -> Self {
        let state = Arc::new(State { world: Mutex::default(), changed: watch::Sender::new(0), ca });
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = serve::Server::start(any_port, Arc::clone(&state)).await;
        Self { addr: server.addr(), state, server: Some(server) }
    }

    /// Where it listens, or did before it was stopped.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The authority it signs with.
    pub fn ca(&self) -> Option<&Ca> {
        self.state.ca.as_deref()
    }

    /// Sets a resource; subscribers get it when its bytes differ from before.
    pub fn set<M: Name>(&self, kind: ResourceType, name: &str, resource: &M) {
        self.set_any(kind, name, Any { type_url: kind.url().to_owned(), value: resource.encode_to_vec().into() });
    }

    /// Sets a resource to any bytes, valid or not.
    pub fn set_any(&self, kind: ResourceType, name: &str, body: Any) {
        let mut hasher = DefaultHasher::new();
        body.hash(&mut hasher);
        let version = format!("{:016x}", hasher.finish());
        let resource = Resource { name: name.to_owned(), version, resource: Some(body), ..Resource::default() };
        self.change(|world| {
            world.silent.retain(|silent| (silent.0, silent.1.as_str()) != (kind, name));
            world.resources.insert((kind, name.to_owned()), resource);
        });
    }

    /// Removes a resource; subscribers are told.
    pub fn remove(&self, kind: ResourceType, name: &str) {
        self.change(|world| {
            world.resources.remove(&(kind, name.to_owned()));
        });
    }

    /// Sets the four resources of a service.
    pub fn publish(&self, service: &Service) {
        let name = service.name();
        self.set(ResourceType::Cluster, name, &service.cluster());
        self.set(ResourceType::Endpoint, name, &service.endpoints());
        self.set(ResourceType::Route, name, &service.routes());
        self.set(ResourceType::Listener, name, &service.listener());
        for address in service.addresses() {
            let listener = envoy::config::listener::v3::Listener { name: address.clone(), ..service.listener() };
            self.set(ResourceType::Listener, address, &listener);
        }
    }

    /// Removes the resources of a service.
    pub fn withdraw(&self, service: &Service) {
        for kind in [ResourceType::Listener, ResourceType::Route, ResourceType::Cluster, ResourceType::Endpoint] {
            self.remove(kind, service.name());
        }
        for address in service.addresses() {
            self.remove(ResourceType::Listener, address);
        }
    }

    /// Sets the inbound listener of a workload.
    pub fn publish_inbound(&self, inbound: &Inbound) {
        self.set(ResourceType::Listener, &inbound.name(), &inbound.listener());
    }

    /// Says nothing about a name, not even that it does not exist, until it is set.
    pub fn keep_silent(&self, kind: ResourceType, name: &str) {
        self.change(|world| world.silent.push((kind, name.to_owned())));
    }

    /// From now on refuses to sign, or signs again.
    pub fn refuse_certificates(&self, refuse: bool) {
        self.change(|world| world.refuse_certificates = refuse);
    }

    /// Lifetime of certificates, in place of the one asked for.
    pub fn certificate_ttl(&self, ttl: Duration) {
        self.change(|world| world.certificate_ttl = Some(ttl));
    }

    /// Ids certificates were signed for, in order.
    pub fn certificates(&self) -> Vec<String> {
        self.state.world().certificates.clone()
    }

    /// Every discovery request so far, of all streams.
    pub fn requests(&self) -> Vec<Asked> {
        self.state.world().requests.clone()
    }

    /// Every refused response so far.
    pub fn refused(&self) -> Vec<Refused> {
        self.state.world().refused.clone()
    }

    /// Streams opened so far.
    pub fn streams(&self) -> usize {
        self.state.world().streams
    }

    /// Streams open now.
    pub fn open_streams(&self) -> usize {
        self.state.world().open_streams
    }

    /// Waits until a client asks for `name` of `kind`, and gives the request.
    pub async fn asked_for(&self, kind: ResourceType, name: &str) -> Asked {
        wait::until_some(&format!("a subscription to {kind} `{name}`"), || {
            let wanted = |asked: &&Asked| {
                let names = &asked.request.resource_names_subscribe;
                asked.request.type_url == kind.url() && names.iter().any(|n| n == name)
            };
            self.state.world().requests.iter().find(wanted).cloned()
        })
        .await
    }

    /// Waits until some client has accepted every resource called `name` in the version they have now.
    pub async fn acknowledged(&self, name: &str) {
        wait::until(&format!("`{name}` to be accepted; refused so far: {:?}", self.refused()), || {
            let world = self.state.world();
            let mut current = world.resources.iter().filter(|((_, n), _)| n == name).peekable();
            current.peek().is_some()
                && current.all(|(key, resource)| world.acknowledged.get(key) == Some(&Some(resource.version.clone())))
        })
        .await;
    }

    /// Waits until some client has taken note that `name` of `kind` does not exist.
    pub async fn absence_acknowledged(&self, kind: ResourceType, name: &str) {
        let key = (kind, name.to_owned());
        let what = format!("the absence of {kind} `{name}` to be accepted");
        wait::until(&what, || self.state.world().acknowledged.get(&key) == Some(&None)).await;
    }

    /// Waits for the first refused response behind the first `before` ones.
    pub async fn refusal(&self, before: usize) -> Refused {
        wait::until_some("a response to be refused", || self.refused().get(before).cloned()).await
    }

    /// Goes away: the listener and all streams close. What it holds stays for [`Control::restart`].
    pub async fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop().await;
        }
        self.state.world().open_streams = 0;
    }

    /// Comes back at the same address. What was acknowledged before is forgotten.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.state.world().acknowledged.clear();
        self.server = Some(serve::Server::start(self.addr, Arc::clone(&self.state)).await);
    }

    fn change(&self, change: impl FnOnce(&mut World)) {
        change(&mut self.state.world());
        self.state.changed.send_modify(|generation| *generation += 1);
    }
}

impl State {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
