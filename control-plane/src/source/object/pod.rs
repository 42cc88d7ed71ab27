//! `v1 Pod` and `v1 Node`: a pod is a workload instance whose zone and region are its node's.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use serde::Deserialize;

use super::at::{At, Number, address};
use super::meta::Meta;
use super::workload::DEFAULT_ACCOUNT;
use crate::model::workload::WorkloadPort;
use crate::model::{Health, Kind, Locality, Problem, Protocol, Workload};

/// Container of the proxy.
const PROXY: &str = "tulle-proxy";

/// Annotation the injector leaves on a pod it gave a proxy.
const INJECTED: &str = "tulle.io/inject-status";

/// Annotation with the name of the pod's owner.
const OWNER: &str = "tulle.io/workload";

/// Annotation with the ports of a pod that its redirect rules leave alone.
const UNCAPTURED: &str = "tulle.io/skip-inbound-ports";

/// A Pod as an API writes it.
#[derive(Clone, Debug, Deserialize)]
pub(in crate::source) struct PodManifest {
    pub(in crate::source) metadata: Meta,
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    node_name: Option<String>,
    service_account_name: Option<String>,
    #[serde(default)]
    host_network: bool,
    #[serde(default)]
    containers: Vec<Container>,
    init_containers: Option<Vec<Container>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    name: String,
    restart_policy: Option<String>,
    ports: Option<Vec<ContainerPort>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerPort {
    name: Option<String>,
    container_port: Number,
    protocol: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<PodIp>>,
    conditions: Option<Vec<Condition>>,
}

#[derive(Clone, Debug, Deserialize)]
struct PodIp {
    ip: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Condition {
    r#type: String,
    status: String,
}

/// A pod as a workload, but for its locality.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::source) struct Pod {
    pub(in crate::source) workload: Arc<Workload>,
    /// The node it runs on, once it has one.
    pub(in crate::source) node: Option<Arc<str>>,
}

/// A pod; none when it is none of a mesh's business: it has ended, so that its address may be another's, or it has no
/// network of its own.
///
/// # Errors
/// When its name is not one.
pub(in crate::source) fn pod(at: &At<'_>, manifest: &PodManifest) -> Result<Option<Pod>, Problem> {
    let PodManifest { metadata, spec, status } = manifest;
    if spec.host_network || matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return Ok(None);
    }
    let object = metadata.reference(at, Kind::Workload)?;
    let containers = || spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let workload = Workload {
        created: metadata.created(),
        labels: metadata.labels(),
        addresses: addresses(at, status),
        service_account: spec.service_account_name.as_deref().unwrap_or(DEFAULT_ACCOUNT).into(),
        owner: metadata.annotation(OWNER).map_or_else(|| object.key.name.clone(), Into::into),
        ports: spec.ports(),
        locality: Locality::default(),
        weight: 1,
        meshed: containers().any(|container| container.name == PROXY) && metadata.annotation(INJECTED).is_some(),
        uncaptured: metadata.annotation(UNCAPTURED).map(ports).unwrap_or_default(),
        health: match () {
            () if metadata.ends() => Health::Draining,
            () if status.ready() => Health::Ready,
            () => Health::Unready,
        },
        pod: Some(metadata.uid().unwrap_or_default()),
        key: object.key,
    };
    Ok(Some(Pod { workload: Arc::new(workload), node: spec.node_name.as_deref().map(Into::into) }))
}

/// Ports and ranges of ports with commas between, `9090,8000-8010`. The injector refused a pod where one is neither.
fn ports(list: &str) -> Vec<RangeInclusive<u16>> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    };
    list.split(',').filter_map(range).collect()
}

impl Spec {
    /// Ports of everything that runs as long as the pod does, without the proxy's own.
    fn ports(&self) -> Vec<WorkloadPort> {
        let stays = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
        let sidecars = self.init_containers.iter().flatten().filter(stays);
        let containers = self.containers.iter().chain(sidecars).filter(|container| container.name != PROXY);
        let tcp = |port: &&ContainerPort| port.protocol.as_deref().is_none_or(|transport| transport == "TCP");
        let ports = containers.flat_map(|container| container.ports.iter().flatten().filter(tcp));
        let port = |written: &ContainerPort| {
            let name = written.name.as_deref().unwrap_or_default();
            let port = written.container_port.port().ok()?;
            Some(WorkloadPort { name: name.into(), port, protocol: Protocol::declared(None, name) })
        };
        ports.filter_map(port).collect()
    }
}

impl Status {
    fn ready(&self) -> bool {
        self.conditions.iter().flatten().any(|condition| condition.r#type == "Ready" && condition.status == "True")
    }
}

/// The addresses; one that is none, or leads elsewhere than to the pod, is left out: no endpoint is made of it.
fn addresses(at: &At<'_>, status: &Status) -> Vec<IpAddr> {
    let all = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str()).chain(status.pod_ip.as_deref());
    let mut addresses = Vec::new();
    for address in all.filter_map(address).filter(|ip| at.unfit(*ip).is_none()) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

/// A Node as an API writes it.
#[derive(Clone, Debug, Deserialize)]
pub(in crate::source) struct NodeManifest {
    pub(in crate::source) metadata: Meta,
}

/// Where the pods of a node run.
/// Source: the well-known labels of the Kubernetes reference.
pub(in crate::source) fn node(manifest: &NodeManifest) -> Locality {
    let label = |key| manifest.metadata.label(key).unwrap_or_default();
    Locality::new(label("topology.kubernetes.io/region"), label("topology.kubernetes.io/zone"))
}
