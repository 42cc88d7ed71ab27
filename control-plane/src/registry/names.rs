//! Resource names, taken apart: what in the mesh a name stands for.

use std::net::{IpAddr, SocketAddr};

use tulle_proto::names::{ADDRESS_RANGES, INBOUND_PREFIX};

use super::mesh::{AddressOwner, Mesh};
use crate::model::{Key, Port};

/// Prefix of the resources of a workload dialled by its own address.
pub(crate) const POD_PREFIX: &str = "pod/";

/// Name of Envoy's HTTP listener and of its routes, which hold all services.
pub(crate) const OUTBOUND: &str = "outbound";

/// What a resource name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A port of a service, by name or by cluster IP.
    Service(Key, Port),
    /// A service as a whole, by its DNS name.
    Host(Key),
    /// A port of a workload instance, by its address.
    Pod(Key, IpAddr, Port),
    /// The inbound listener of an owner's instances.
    Inbound(Key),
    /// The address ranges of the mesh.
    Ranges,
    /// The set of everything.
    All,
}

/// What `name` stands for in `mesh`. None when nothing there has that name. The domain of a service name is not looked
/// at: translate knows it.
pub(crate) fn target(mesh: &Mesh, name: &str) -> Option<Target> {
    if name == OUTBOUND || name == "*" {
        return Some(Target::All);
    }
    if name == ADDRESS_RANGES {
        return Some(Target::Ranges);
    }
    if let Some(rest) = name.strip_prefix(INBOUND_PREFIX) {
        let (namespace, owner) = rest.split_once('/')?;
        return Some(Target::Inbound(Key::new(namespace, owner)));
    }
    if let Some(rest) = name.strip_prefix(POD_PREFIX) {
        let address: SocketAddr = rest.parse().ok()?;
        return pod(mesh, address);
    }
    if let Ok(address) = name.parse::<SocketAddr>() {
        return match mesh.owner_of(address.ip())? {
            AddressOwner::Service(key) => Some(Target::Service(key.clone(), Port::new(address.port())?)),
            AddressOwner::Workload(_) => pod(mesh, address),
        };
    }
    let (host, port) = match name.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (name, None),
    };
    let mut labels = host.splitn(4, '.');
    let (service, namespace, svc) = (labels.next()?, labels.next()?, labels.next()?);
    (svc == "svc").then_some(())?;
    let key = Key::new(namespace, service);
    Some(match port {
        Some(port) => Target::Service(key, port.parse().ok()?),
        None => Target::Host(key),
    })
}

fn pod(mesh: &Mesh, address: SocketAddr) -> Option<Target> {
    match mesh.owner_of(address.ip())? {
        AddressOwner::Workload(key) => Some(Target::Pod(key.clone(), address.ip(), Port::new(address.port())?)),
        AddressOwner::Service(_) => None,
    }
}
