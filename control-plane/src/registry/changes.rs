//! When what a resource is made of last changed: lets a stream skip every resource that cannot have changed.

use std::net::SocketAddr;

use tulle_proto::ResourceType;

use super::mesh::{Mesh, ServiceView};
use super::names::{POD_PREFIX, Target, target};
use crate::model::{Key, Port};

impl Mesh {
    /// The version of the mesh at which what the resource `name` is made of last changed. `name` is as it is asked
    /// for: `fqdn:port`, `IP:port`, `pod/IP:port`, `inbound/NAMESPACE/OWNER`, `fqdn`; `outbound` and `*` stand for the set of
    /// all services' resources of the type.
    ///
    /// For a name that nothing has, it is when anything last went away (0: never): later than the true version at
    /// times, never earlier, and without a memory of every name that ever was.
    pub fn changed_at(&self, ty: ResourceType, name: &str) -> u64 {
        let found = match target(self, name) {
            Some(Target::All) => Some(self.changed_of(ty)),
            Some(Target::Ranges) if ty == ResourceType::Ranges => Some(self.ranges_changed),
            Some(Target::Service(key, port)) => self.service_changed(ty, &key, port),
            Some(Target::Host(key)) if ty == ResourceType::Name => self.service(&key).map(|view| host_changed(view)),
            Some(Target::Pod(key, ..)) => self.pod_changed(ty, &key),
            Some(Target::Inbound(owner)) if ty == ResourceType::Listener => self.inbound(&owner).map(|i| i.changed),
            Some(Target::Inbound(_) | Target::Host(_) | Target::Ranges) | None => None,
        };
        let Some(found) = found else {
            return self.removed;
        };
        found.max(self.address_changed(name))
    }

    fn changed_of(&self, ty: ResourceType) -> u64 {
        ResourceType::ALL.iter().zip(self.changed).find(|(t, _)| **t == ty).map_or(0, |(_, version)| version)
    }

    fn service_changed(&self, ty: ResourceType, key: &Key, port: Port) -> Option<u64> {
        let view = self.service(key)?;
        let port = view.port(port)?;
        match ty {
            ResourceType::Listener | ResourceType::Route => Some(view.changed),
            ResourceType::Cluster => Some(view.changed.max(port.accounts_changed)),
            ResourceType::Endpoint => Some(view.spread_changed.max(port.endpoints_changed)),
            ResourceType::Secret | ResourceType::Name | ResourceType::Ranges => None,
        }
    }

    fn pod_changed(&self, ty: ResourceType, key: &Key) -> Option<u64> {
        let view = self.workload(key)?;
        let owner = Key { namespace: key.namespace.clone(), name: view.workload.owner.clone() };
        let inbound = self.inbound(&owner).map_or(0, |i| i.changed);
        match ty {
            ResourceType::Endpoint => Some(view.changed),
            // Which protocol a port has is known from the inbound side.
            ResourceType::Cluster | ResourceType::Listener | ResourceType::Route => {
                let policy = self.namespaces.get(&key.namespace).map_or(0, |ns| ns.policy_changed);
                Some(view.changed.max(inbound).max(policy))
            }
            ResourceType::Secret | ResourceType::Name | ResourceType::Ranges => None,
        }
    }

    /// When the address in `name`, if it has one, came to its owner.
    fn address_changed(&self, name: &str) -> u64 {
        let address = name.strip_prefix(POD_PREFIX).unwrap_or(name).parse::<SocketAddr>().ok();
        address.and_then(|a| self.addresses.get(a.ip())).map_or(0, |entry| entry.since)
    }
}

/// When the addresses of a service last changed: those of its endpoints count only where it has none of its own.
fn host_changed(view: &ServiceView) -> u64 {
    let endpoints = view.ports.iter().map(|port| port.endpoints_changed).max();
    let endpoints = endpoints.filter(|_| view.service.cluster_ips.is_empty()).unwrap_or(0);
    view.changed.max(endpoints)
}
