//! The snapshot as JSON: structs of our own that borrow it, so that what users see does not change with our types.

/// Routes of a listener.
mod route;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use super::metrics::health_name;
use crate::config::cluster::{Cluster, HttpVersion, Policy};
use crate::config::endpoint::Endpoint;
use crate::config::listener::{Inbound, InboundPort, MtlsMode, Outbound};
use crate::config::{Known, Snapshot};
use route::Routes;

/// The whole snapshot.
#[derive(Debug, Serialize)]
pub(super) struct View<'s> {
    version: &'static str,
    generation: u64,
    /// Services and workloads by the name they were asked for.
    by_name: BTreeMap<&'s str, Destination<'s>>,
    /// Name of the listener for each captured address; none: the address is nothing of the mesh.
    by_address: BTreeMap<SocketAddr, Option<&'s str>>,
    clusters: BTreeMap<&'s str, ClusterView<'s>>,
    inbound: Option<InboundView<'s>>,
    /// Addresses of the mesh; none: not known yet, so that every address may be one.
    ranges: Option<Vec<String>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Destination<'s> {
    Absent,
    #[serde(untagged)]
    Listener(ListenerView<'s>),
}

#[derive(Debug, Serialize)]
struct ListenerView<'s> {
    name: &'s str,
    protocol: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    opaque_cluster: Option<&'s str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    routes: Option<Routes<'s>>,
}

#[derive(Debug, Serialize)]
struct ClusterView<'s> {
    service: &'s str,
    namespace: &'s str,
    protocol: &'static str,
    http: &'static str,
    balancer: &'static str,
    connect_timeout_seconds: f64,
    idle_timeout_seconds: f64,
    max_connections: u32,
    max_pending: u32,
    max_requests: u32,
    retry_budget_percent: f64,
    retry_budget_min_per_second: u32,
    failover_threshold_percent: u32,
    endpoints: Vec<EndpointView<'s>>,
}

#[derive(Debug, Serialize)]
struct EndpointView<'s> {
    address: SocketAddr,
    health: &'static str,
    weight: u32,
    priority: u32,
    /// Who must answer there; none: not meshed, dialled without TLS.
    identity: Option<&'s str>,
    workload: &'s str,
    namespace: &'s str,
    zone: &'s str,
}

#[derive(Debug, Serialize)]
struct InboundView<'s> {
    ports: BTreeMap<u16, PortView<'s>>,
    default: PortView<'s>,
}

#[derive(Debug, Serialize)]
struct PortView<'s> {
    protocol: &'static str,
    mtls: &'static str,
    service: &'s str,
    namespace: &'s str,
}

/// The view of a snapshot.
pub(super) fn view(snapshot: &Snapshot) -> View<'_> {
    let by_name = snapshot.by_name.iter().map(|(name, known)| (&**name, destination(snapshot, known)));
    View {
        version: env!("CARGO_PKG_VERSION"),
        generation: snapshot.generation,
        by_name: by_name.collect(),
        by_address: snapshot.by_addr.iter().map(|(address, known)| (*address, listener_name(known))).collect(),
        clusters: snapshot.clusters.iter().map(|cluster| (&*cluster.name, cluster_view(cluster))).collect(),
        inbound: snapshot.inbound.as_deref().map(inbound),
        ranges: snapshot.ranges.as_deref().map(|ranges| ranges.list.iter().map(ToString::to_string).collect()),
    }
}

fn listener_name(known: &Known) -> Option<&str> {
    match known {
        Known::Service(outbound) => Some(&outbound.name),
        Known::Absent => None,
    }
}

fn destination<'s>(snapshot: &'s Snapshot, known: &'s Known) -> Destination<'s> {
    match known {
        Known::Service(outbound) => Destination::Listener(listener(snapshot, outbound)),
        Known::Absent => Destination::Absent,
    }
}

fn listener<'s>(snapshot: &'s Snapshot, outbound: &'s Outbound) -> ListenerView<'s> {
    ListenerView {
        name: &outbound.name,
        protocol: outbound.protocol.as_str(),
        opaque_cluster: outbound.opaque.and_then(|id| snapshot.cluster(id)).map(|cluster| &*cluster.name),
        routes: outbound.routes.as_deref().map(|table| route::routes(snapshot, table)),
    }
}

fn cluster_view(cluster: &Cluster) -> ClusterView<'_> {
    ClusterView {
        service: &cluster.service,
        namespace: &cluster.namespace,
        protocol: cluster.protocol.as_str(),
        http: match cluster.http {
            HttpVersion::AsDownstream => "as_downstream",
            HttpVersion::Http1 => "http1",
            HttpVersion::Http2 => "http2",
        },
        balancer: match cluster.balancer {
            Policy::LeastRequest => "least-request",
            Policy::RoundRobin => "round-robin",
            Policy::Random => "random",
        },
        connect_timeout_seconds: seconds(cluster.connect_timeout),
        idle_timeout_seconds: seconds(cluster.idle_timeout),
        max_connections: cluster.limits.max_connections,
        max_pending: cluster.limits.max_pending,
        max_requests: cluster.limits.max_requests,
        retry_budget_percent: cluster.budget.percent,
        retry_budget_min_per_second: cluster.budget.min_per_second,
        failover_threshold_percent: cluster.failover_threshold_percent,
        endpoints: cluster.endpoints.list.iter().map(|endpoint| endpoint_view(endpoint)).collect(),
    }
}

fn endpoint_view(endpoint: &Endpoint) -> EndpointView<'_> {
    EndpointView {
        address: endpoint.address,
        health: health_name(endpoint.health),
        weight: endpoint.weight,
        priority: endpoint.priority,
        identity: endpoint.identity.as_ref().map(|id| id.as_str()),
        workload: &endpoint.workload,
        namespace: &endpoint.namespace,
        zone: &endpoint.zone,
    }
}

fn inbound(inbound: &Inbound) -> InboundView<'_> {
    InboundView {
        ports: inbound.ports.iter().map(|(number, rules)| (*number, port(rules))).collect(),
        default: port(&inbound.default),
    }
}

fn port(rules: &InboundPort) -> PortView<'_> {
    PortView {
        protocol: rules.protocol.as_str(),
        mtls: match rules.mtls {
            MtlsMode::Strict => "strict",
            MtlsMode::Permissive => "permissive",
            MtlsMode::Disable => "disable",
        },
        service: &rules.service,
        namespace: &rules.namespace,
    }
}

const fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
