//! `/debug/mesh`: the newest mesh. `/debug/proxies`: per stream, what was sent, accepted and refused.

use std::sync::Arc;

use axum::Json;
use axum::extract;
use serde::Serialize;

use super::State;
use crate::model::{Health, Problem};
use crate::registry::{Endpoint, Mesh, ServiceView, WorkloadView};
use crate::xds::ProxyReport;

pub(super) async fn mesh(extract::State(state): extract::State<Arc<State>>) -> Json<MeshDump> {
    Json(MeshDump::of(&state.registry.subscribe().borrow().clone()))
}

pub(super) async fn proxies(extract::State(state): extract::State<Arc<State>>) -> Json<Vec<ProxyReport>> {
    Json(state.proxies.report().await)
}

/// The mesh as people read it.
#[derive(Debug, Serialize)]
pub(super) struct MeshDump {
    version: u64,
    services: Vec<ServiceDump>,
    workloads: Vec<WorkloadDump>,
    problems: Vec<ProblemDump>,
}

#[derive(Debug, Serialize)]
struct ServiceDump {
    /// `NAMESPACE/NAME`.
    service: String,
    addresses: Vec<String>,
    ports: Vec<PortDump>,
}

#[derive(Debug, Serialize)]
struct PortDump {
    port: String,
    protocol: String,
    endpoints: Vec<EndpointDump>,
}

#[derive(Debug, Serialize)]
struct EndpointDump {
    address: String,
    health: &'static str,
    weight: u32,
    zone: Arc<str>,
    for_zones: Arc<[Arc<str>]>,
    /// Service account as `NAMESPACE/NAME`, when the endpoint is meshed.
    account: Option<String>,
    workload: Option<String>,
}

#[derive(Debug, Serialize)]
struct WorkloadDump {
    /// `NAMESPACE/NAME`.
    workload: String,
    owner: Arc<str>,
    service_account: Arc<str>,
    addresses: Vec<String>,
    meshed: bool,
    health: &'static str,
}

#[derive(Debug, Serialize)]
struct ProblemDump {
    severity: String,
    object: Option<String>,
    /// The whole, as one line.
    text: String,
}

impl MeshDump {
    fn of(mesh: &Mesh) -> Self {
        Self {
            version: mesh.version,
            services: mesh.services().map(|service| ServiceDump::of(service)).collect(),
            workloads: mesh.workloads().map(|workload| WorkloadDump::of(workload)).collect(),
            problems: mesh.problems().iter().map(ProblemDump::of).collect(),
        }
    }
}

impl ServiceDump {
    fn of(view: &ServiceView) -> Self {
        let ports = view.ports.iter().map(|port| PortDump {
            port: port.port.to_string(),
            protocol: port.protocol.to_string(),
            endpoints: port.endpoints.iter().map(EndpointDump::of).collect(),
        });
        Self {
            service: view.service.key.to_string(),
            addresses: view.service.cluster_ips.iter().map(ToString::to_string).collect(),
            ports: ports.collect(),
        }
    }
}

impl EndpointDump {
    fn of(endpoint: &Endpoint) -> Self {
        let Endpoint { address, port, health: condition, weight, locality, for_zones, account, workload } = endpoint;
        Self {
            address: if address.is_ipv6() { format!("[{address}]:{port}") } else { format!("{address}:{port}") },
            health: health(*condition),
            weight: *weight,
            zone: locality.zone.clone(),
            for_zones: for_zones.clone(),
            account: account.as_ref().map(|a| format!("{}/{}", a.namespace, a.service_account)),
            workload: workload.as_ref().map(ToString::to_string),
        }
    }
}

impl WorkloadDump {
    fn of(view: &WorkloadView) -> Self {
        let workload = &view.workload;
        Self {
            workload: workload.key.to_string(),
            owner: workload.owner.clone(),
            service_account: workload.service_account.clone(),
            addresses: workload.addresses.iter().map(ToString::to_string).collect(),
            meshed: workload.meshed,
            health: health(workload.health),
        }
    }
}

impl ProblemDump {
    fn of(problem: &Problem) -> Self {
        Self {
            severity: problem.severity.to_string(),
            object: problem.object.as_ref().map(ToString::to_string),
            text: problem.to_string(),
        }
    }
}

const fn health(health: Health) -> &'static str {
    match health {
        Health::Ready => "ready",
        Health::Draining => "draining",
        Health::Unready => "unready",
    }
}
