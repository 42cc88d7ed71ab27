//! Joins the objects of one service, or of one owner, into what readers see. Pure: index in, view and problems out.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::index::{Index, owner_of};
use super::mesh::{Account, Endpoint, InboundPort, InboundView, PortView, ServiceView, Spread};
use super::routes;
use crate::model::endpoint::SliceEndpoint;
use crate::model::policy::{FailoverLevel, Mtls};
use crate::model::service::{ServicePort, TargetPort};
use crate::model::{EndpointSlice, Health, Key, Kind, ObjectRef, Port, Problem, Protocol, Service, Severity, Workload};

/// A service with its endpoints. The versions in it are zero.
pub(super) fn service(index: &Index, service: &Arc<Service>, problems: &mut Vec<Problem>) -> ServiceView {
    let namespace = index.policy(&service.key.namespace);
    let mut policy = service.policy.or(&namespace);
    let mtls = index.mtls(&service.key.namespace, service.policy.mtls);
    policy.mtls = policy.mtls.map(|_| mtls);
    if let Some(asked) = service.policy.mtls.filter(|asked| *asked < mtls) {
        let object = ObjectRef { kind: Kind::Service, key: service.key.clone() };
        problems.push(weaker(object, asked, mtls));
    }
    let spread = Spread { levels: levels(service, policy.failover.as_deref()), threshold: policy.failover_threshold() };
    let port = |port: &ServicePort| {
        let mut endpoints = endpoints(index, service, port, problems);
        if policy.failover.is_some() || !all_hinted(&endpoints) {
            endpoints.iter_mut().for_each(|endpoint| endpoint.for_zones = Arc::default());
        }
        PortView {
            port: port.port,
            protocol: service.policy.protocol_of(port.port, port.protocol, &namespace),
            accounts: Arc::new(endpoints.iter().filter_map(|e| e.account.clone()).collect()),
            endpoints: endpoints.into(),
            routes: routes::bind(index, service, port),
            endpoints_changed: 0,
            accounts_changed: 0,
        }
    };
    let ports: Vec<PortView> = service.ports.iter().map(port).collect();
    for port in &ports {
        routes::overlaps(service, &port.routes, problems);
    }
    ServiceView { service: with_own_addresses(index, service), policy, spread, ports, changed: 0, spread_changed: 0 }
}

/// A problem for an annotation that asks for less than the namespace or the mesh does.
pub(super) fn weaker(object: ObjectRef, asked: Mtls, in_force: Mtls) -> Problem {
    let by = if object.kind == Kind::Namespace { "the mesh asks" } else { "its namespace or the mesh asks" };
    let reason = format!("{} is weaker than {}, which {by} for; {1} stays in force", asked.name(), in_force.name());
    Problem::new(Severity::Warning, object, "metadata.annotations[tulle.io/mtls]", reason)
}

/// The service, without the cluster IPs that somebody else holds: neither DNS nor a route names them.
fn with_own_addresses(index: &Index, service: &Arc<Service>) -> Arc<Service> {
    let own = |address: &IpAddr| index.service_at(*address) == Some(&service.key);
    if service.cluster_ips.iter().all(own) {
        return service.clone();
    }
    let cluster_ips = service.cluster_ips.iter().copied().filter(own).collect();
    Arc::new(Service { cluster_ips, ..Service::clone(service) })
}

/// The levels of failover: the annotation, else what `spec.trafficDistribution` asks for. A lone `any` is all alike.
fn levels(service: &Service, annotated: Option<&[FailoverLevel]>) -> Vec<FailoverLevel> {
    match annotated {
        Some([FailoverLevel::Any]) => Vec::new(),
        Some(levels) => levels.to_vec(),
        None if service.prefer_close => vec![FailoverLevel::Zone, FailoverLevel::Region, FailoverLevel::Any],
        None => Vec::new(),
    }
}

/// Whether each endpoint that takes requests is meant for some zones. If not, hints are being written or taken back, and
/// following some of them would leave out the others.
/// Source: the Kubernetes reference, "Topology Aware Routing", safeguards.
fn all_hinted(endpoints: &[Endpoint]) -> bool {
    endpoints.iter().all(|endpoint| endpoint.health != Health::Ready || !endpoint.for_zones.is_empty())
}

/// Endpoints of one port: of workloads the service selects, then of its slices, where they add an address.
fn endpoints(index: &Index, service: &Service, port: &ServicePort, problems: &mut Vec<Problem>) -> Vec<Endpoint> {
    let mut found = BTreeMap::new();
    let mut unnamed = 0_usize;
    let selected = index.selected(&service.key.namespace, &service.selector);
    for workload in selected.filter(|workload| workload.pod.is_none()) {
        let Some(target) = target_port(workload, &port.target) else {
            unnamed = unnamed.saturating_add(1);
            continue;
        };
        for address in &workload.addresses {
            // An address that several claim is an endpoint of its holder alone.
            let holder = index.holder(*address).filter(|holder| holder.workload.key == workload.key);
            if let Some(holder) = holder {
                found.insert((*address, target), Endpoint::of(workload, *address, target, holder.contested));
            }
        }
    }
    if let (TargetPort::Name(name), 1..) = (&port.target, unnamed) {
        let reason = format!("{unnamed} of the workloads it selects have no port named \"{name}\"");
        let object = ObjectRef { kind: Kind::Service, key: service.key.clone() };
        problems.push(Problem::new(
            Severity::Warning,
            object,
            &format!("spec.ports[{}].targetPort", port.port),
            reason,
        ));
    }
    let mut sliced: BTreeMap<_, Endpoint> = BTreeMap::new();
    for slice in index.slices.get(&service.key).into_iter().flat_map(BTreeMap::values) {
        for slice_port in slice.ports.iter().filter(|p| p.name == port.name) {
            for endpoint in &slice.endpoints {
                if let Some(owner) = index.service_at(endpoint.address) {
                    problems.push(virtual_endpoint(slice, endpoint.address, owner));
                    continue;
                }
                let new = of_slice(index, endpoint, slice_port.port);
                // An address may be in two slices while it moves from one to the other. It serves when one says so.
                // Source: the Kubernetes reference, "EndpointSlices", duplicate endpoints.
                match sliced.entry((endpoint.address, slice_port.port)) {
                    Entry::Vacant(entry) => {
                        entry.insert(new);
                    }
                    Entry::Occupied(mut entry) if usable(new.health) > usable(entry.get().health) => {
                        entry.insert(new);
                    }
                    Entry::Occupied(_) => {}
                }
            }
        }
    }
    for (at, endpoint) in sliced {
        found.entry(at).or_insert(endpoint);
    }
    let mut endpoints: Vec<_> = found.into_values().collect();
    one_family(index, service, &mut endpoints);
    if service.publish_unready {
        for endpoint in endpoints.iter_mut().filter(|e| e.health == Health::Unready) {
            endpoint.health = Health::Ready;
        }
    }
    endpoints
}

/// How much an endpoint may be used; more is greater.
const fn usable(health: Health) -> u8 {
    match health {
        Health::Ready => 2,
        Health::Draining => 1,
        Health::Unready => 0,
    }
}

/// Leaves an instance with addresses of both families as one endpoint: in the family of the service's first address, as the
/// cluster's own balancing has it, or for a headless service in that of the instance's own first.
fn one_family(index: &Index, service: &Service, endpoints: &mut Vec<Endpoint>) {
    let wanted = |workload: &Workload| {
        let first = service.cluster_ips.first().or_else(|| workload.addresses.first());
        first.is_some_and(IpAddr::is_ipv6)
    };
    let instance = |endpoint: &Endpoint| {
        index.holder(endpoint.address).map(|holder| holder.workload).filter(|workload| workload.addresses.len() > 1)
    };
    let reached: BTreeSet<Key> = endpoints
        .iter()
        .filter_map(|endpoint| Some((endpoint, instance(endpoint)?)))
        .filter(|(endpoint, workload)| endpoint.address.is_ipv6() == wanted(workload))
        .map(|(_, workload)| workload.key.clone())
        .collect();
    endpoints.retain(|endpoint| {
        let other = instance(endpoint).filter(|workload| endpoint.address.is_ipv6() != wanted(workload));
        other.is_none_or(|workload| !reached.contains(&workload.key))
    });
}

/// A cluster IP as an endpoint would be dialled in plain, whatever is behind it. Kubernetes has no such endpoints either.
fn virtual_endpoint(slice: &EndpointSlice, address: IpAddr, owner: &Key) -> Problem {
    let object = ObjectRef { kind: Kind::EndpointSlice, key: slice.key.clone() };
    let reason = format!("{address} is a cluster IP of Service {owner}, which cannot be an endpoint; it is left out");
    Problem::new(Severity::Error, object, "endpoints.addresses", reason)
}

/// An endpoint of a slice: whose it is and how it is called is told by who holds the address, not by the slice.
fn of_slice(index: &Index, endpoint: &SliceEndpoint, port: Port) -> Endpoint {
    let holder = index.holder(endpoint.address);
    let workload = holder.map(|holder| holder.workload);
    // A slice names no region.
    let locality = match workload.map(|workload| &workload.locality) {
        Some(known) if endpoint.locality.zone.is_empty() || endpoint.locality.zone == known.zone => known.clone(),
        Some(_) | None => endpoint.locality.clone(),
    };
    Endpoint {
        address: endpoint.address,
        port,
        health: endpoint.health,
        weight: workload.map_or(1, |w| w.weight),
        locality,
        for_zones: endpoint.for_zones.clone(),
        account: holder.and_then(|holder| Account::of(holder.workload, port, holder.contested)),
        workload: workload.map(|w| owner_of(w)),
    }
}

fn target_port(workload: &Workload, target: &TargetPort) -> Option<Port> {
    match target {
        TargetPort::Number(port) => Some(*port),
        TargetPort::Name(name) => workload.ports.iter().find(|p| p.name == *name).map(|p| p.port),
    }
}

/// What the instances of an owner accept: ports of the services that select them, then ports they declare themselves.
/// None when the owner has no instance.
pub(super) fn inbound(index: &Index, owner: &Key, problems: &mut Vec<Problem>) -> Option<InboundView> {
    let namespace = index.policy(&owner.namespace);
    let undeclared = index.mtls(&owner.namespace, None);
    let mut ports = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut none = true;
    for workload in index.instances(owner) {
        none = false;
        // Replicas are alike; what is alike is looked at once.
        let own: Vec<_> = workload.ports.iter().map(|p| (p.name.clone(), p.port)).collect();
        if !seen.insert((workload.labels.clone(), own)) {
            continue;
        }
        let mut services: Vec<_> = index.selecting(workload).collect();
        services.sort_by_key(|s| (s.created.is_none(), s.created.clone(), s.key.clone()));
        for service in services {
            for port in &service.ports {
                if let Some(target) = target_port(workload, &port.target) {
                    let protocol = service.policy.protocol_of(port.port, port.protocol, &namespace);
                    let mtls = index.mtls(&owner.namespace, service.policy.mtls);
                    let new = InboundPort { protocol, mtls, service: Some(service.key.clone()) };
                    join(&mut ports, target, new, problems);
                }
            }
        }
        for port in &workload.ports {
            let declared = port.protocol.or(namespace.protocol);
            let protocol = declared.unwrap_or_else(|| Protocol::undeclared(port.port));
            ports.entry(port.port).or_insert_with(|| InboundPort { protocol, mtls: undeclared, service: None });
        }
    }
    (!none).then_some(InboundView { ports, mtls: undeclared, changed: 0 })
}

/// Adds what a service says of a port: the strictest mTLS mode of all counts. Ports of different protocols that lead to one
/// target port arrive there alike, so that the first bytes of each connection must tell.
fn join(ports: &mut BTreeMap<Port, InboundPort>, port: Port, new: InboundPort, problems: &mut Vec<Problem>) {
    let Some(known) = ports.get_mut(&port) else {
        ports.insert(port, new);
        return;
    };
    known.mtls = known.mtls.max(new.mtls);
    if known.protocol == new.protocol {
        return;
    }
    if let (Some(older), Some(newer)) = (&known.service, new.service)
        && *older != newer
    {
        let reason = format!(
            "it declares {} at port {port} of its workloads, and Service {older} declares {}: the first bytes of each \
             connection decide there",
            new.protocol, known.protocol
        );
        let object = ObjectRef { kind: Kind::Service, key: newer };
        problems.push(Problem::new(Severity::Warning, object, "spec.ports", reason));
    }
    let opaque = !known.protocol.is_http() && !new.protocol.is_http();
    known.protocol = if opaque { Protocol::Tcp } else { Protocol::Auto };
}
