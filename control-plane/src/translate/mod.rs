//! Mesh to resources: pure and ordered. What a resource is made of is gathered into an input first, and the input is
//! the cache key, so that a cached resource can never be less than what it depends on.

mod cache;
mod cluster;
mod endpoint;
mod inbound;
mod input;
mod listener;
mod matches;
mod name;
mod outbound;
mod ranges;
mod route;
mod rules;
mod scope;
mod secret;
mod wire;

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use tulle_identity::spiffe::TrustDomain;
use tulle_proto::{Any, ResourceType, names};

pub use scope::{ClientKind, Scope};
pub use secret::secret;

use crate::registry::{Mesh, OUTBOUND, POD_PREFIX, PortView, ServiceView, Target, target};
use cache::Cache;
use input::{Input, Naming, Subject};
use ranges::RangesInput;

/// A resource as it goes out, shared by every stream it goes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// Its name: the one it was asked for.
    pub name: Arc<str>,
    /// A hash, in hex, over everything the body is made of. Equal in every replica of one release.
    pub version: Arc<str>,
    /// The encoded body.
    pub body: Any,
}

/// Translates a mesh for each client. One for the process: clients of a kind share what it has cached.
pub struct Translator {
    naming: Naming,
    /// The address ranges of the mesh, where they are configured; else the mesh has them.
    ranges: Option<Arc<[IpNet]>>,
    cache: Cache,
}

impl fmt::Debug for Translator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Translator").field("naming", &self.naming).finish_non_exhaustive()
    }
}

impl Translator {
    /// A translator for services named `NAME.NAMESPACE.svc.<domain>` and identities in `trust_domain`.
    pub fn new(domain: &str, trust_domain: TrustDomain) -> Self {
        Self { naming: Naming { domain: domain.into(), trust_domain }, ranges: None, cache: Cache::default() }
    }

    /// The same, which tells proxies `ranges` instead of those that the addresses of the mesh lie in; none: no change.
    #[must_use]
    pub fn with_ranges(mut self, ranges: &[IpNet]) -> Self {
        let mut ranges = IpNet::aggregate(&ranges.to_vec());
        ranges.sort_unstable();
        self.ranges = (!ranges.is_empty()).then(|| ranges.into());
        self
    }

    /// The resource of type `ty` called `name`, as the client in `scope` sees it. None when there is no such thing;
    /// always none for secrets, which [`secret`] makes.
    pub fn resource(&self, mesh: &Mesh, scope: &Scope, ty: ResourceType, name: &str) -> Option<Resource> {
        let input = self.input(mesh, scope, ty, name)?;
        Some(self.cache.get(name, input))
    }

    /// All resources of type `ty` for a client that subscribes to everything, ordered by service.
    pub fn all(&self, mesh: &Mesh, scope: &Scope, ty: ResourceType) -> Vec<Resource> {
        let envoy = scope.client == ClientKind::Envoy;
        if envoy && ty == ResourceType::Listener {
            return outbound::listeners(mesh, scope, &self.naming).map(|(name, i)| self.cache.get(&name, i)).collect();
        }
        if envoy && ty == ResourceType::Route {
            return self.resource(mesh, scope, ty, OUTBOUND).into_iter().collect();
        }
        let ports = mesh.services().flat_map(|view| view.ports.iter().map(move |port| (view, port)));
        ports
            .filter_map(|(view, port)| {
                let name = self.naming.port(&view.service.key, port.port);
                let input = Input::of(ty, scope, &self.naming, name.clone(), &self.service(scope, view, port, None))?;
                Some(self.cache.get(&name, input))
            })
            .collect()
    }

    fn input(&self, mesh: &Mesh, scope: &Scope, ty: ResourceType, name: &str) -> Option<Input> {
        match target(mesh, name)? {
            Target::Inbound(owner) => {
                let view = mesh.inbound(&owner)?;
                let named = name == names::inbound_listener(&owner.namespace, &owner.name);
                (ty == ResourceType::Listener && named).then(|| inbound::input(name.into(), &owner, view))
            }
            Target::Pod(key, address, port) => {
                let address = SocketAddr::new(address, port.number());
                let listener = ty == ResourceType::Listener;
                // Listeners are asked for by the bare address; all else by the name the listener has for it.
                let canonical = if listener { address.to_string() } else { format!("{POD_PREFIX}{address}") };
                if name != canonical {
                    return None;
                }
                let subject = input::pod(mesh, &key, address)?;
                Input::of(ty, scope, &self.naming, name.into(), &subject)
            }
            Target::Host(key) => {
                let view = mesh.service(&key)?;
                let named = ty == ResourceType::Name && name == self.naming.host(&key);
                named.then(|| Input::Name(name::input(name.into(), view)))
            }
            Target::Ranges => (ty == ResourceType::Ranges).then(|| {
                let ranges = self.ranges.as_ref().unwrap_or(&mesh.ranges);
                Input::Ranges(RangesInput { name: name.into(), ranges: ranges.clone() })
            }),
            Target::Service(key, port) => {
                let view = mesh.service(&key)?;
                let port = view.port(port)?;
                let by_address: Option<SocketAddr> = name.parse().ok();
                match by_address {
                    Some(_) if ty != ResourceType::Listener => return None,
                    None if *name != *self.naming.port(&key, port.port) => return None,
                    Some(_) | None => {}
                }
                if let (ClientKind::Envoy, Some(address), false) = (scope.client, by_address, port.protocol.is_http()) {
                    return Some(outbound::tcp_listener(view, port, address, &self.naming));
                }
                let subject = self.service(scope, view, port, by_address.map(|a| a.ip()));
                Input::of(ty, scope, &self.naming, name.into(), &subject)
            }
            Target::All if name == OUTBOUND && scope.client == ClientKind::Envoy => match ty {
                ResourceType::Listener => Some(outbound::http_listener(scope)),
                ResourceType::Route => Some(outbound::routes(mesh, scope, &self.naming)),
                ResourceType::Secret
                | ResourceType::Cluster
                | ResourceType::Endpoint
                | ResourceType::Name
                | ResourceType::Ranges => None,
            },
            Target::All => None,
        }
    }

    /// What the resources of a service port are about; `address` is the one the client dials, if it named one.
    fn service(&self, scope: &Scope, view: &ServiceView, port: &PortView, address: Option<IpAddr>) -> Subject {
        let key = &view.service.key;
        let address = address.or_else(|| view.service.cluster_ips.first().copied());
        Subject {
            cluster: self.naming.port(key, port.port),
            service: Some(key.clone()),
            namespace: key.namespace.clone(),
            port: port.port,
            protocol: port.protocol,
            address: address.map(|ip| SocketAddr::new(ip, port.port.number())),
            policy: view.policy.clone(),
            spread: view.spread.clone(),
            endpoints: port.endpoints.clone(),
            accounts: port.accounts.clone(),
            rules: rules::input(scope, &self.naming, port),
        }
    }
}
