//! `discovery.k8s.io/v1 EndpointSlice`.

use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;

use super::Converted;
use super::at::{At, Located, Number};
use super::meta::Meta;
use crate::model::endpoint::{SliceEndpoint, SlicePort};
use crate::model::{EndpointSlice, Health, Kind, Locality, Object, ObjectRef, Problem, Protocol, Severity};

/// Label that names the service a slice belongs to.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// An EndpointSlice as written.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::source) struct EndpointSliceManifest {
    pub(in crate::source) metadata: Meta,
    address_type: Option<Located<String>>,
    #[serde(default)]
    endpoints: Option<Vec<EndpointManifest>>,
    #[serde(default)]
    ports: Option<Vec<PortManifest>>,
}

#[derive(Clone, Debug, Deserialize)]
struct EndpointManifest {
    addresses: Vec<Located<String>>,
    conditions: Option<Conditions>,
    zone: Option<String>,
    hints: Option<Hints>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Hints {
    for_zones: Option<Vec<ForZone>>,
}

#[derive(Clone, Debug, Deserialize)]
struct ForZone {
    name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PortManifest {
    name: Option<String>,
    port: Option<Number>,
    protocol: Option<String>,
    app_protocol: Option<String>,
}

pub(in crate::source) fn endpoint_slice(at: &At<'_>, manifest: &EndpointSliceManifest) -> Result<Converted, Problem> {
    let object = manifest.metadata.reference(at, Kind::EndpointSlice)?;
    let unused = |field: &str, reason: &str| Converted {
        object: None,
        problems: vec![Problem::new(Severity::Info, object.clone(), field, reason)],
    };
    let Some(service) = manifest.metadata.label(SERVICE_LABEL) else {
        return Ok(unused("metadata.labels", "it belongs to no service: it has no label kubernetes.io/service-name"));
    };
    if manifest.address_type.as_ref().is_some_and(|ty| ty.as_str() == "FQDN") {
        return Ok(unused("addressType", "endpoints that are names are not supported: the slice is left alone"));
    }
    let mut endpoints = Vec::new();
    for endpoint in manifest.endpoints.iter().flatten() {
        let health = endpoint.conditions.as_ref().map_or(Health::Ready, Conditions::health);
        let locality = Locality::new("", endpoint.zone.as_deref().unwrap_or_default());
        let hints = endpoint.hints.iter().flat_map(|hints| &hints.for_zones).flatten();
        let for_zones: Arc<[_]> = hints.map(|hint| Arc::from(hint.name.as_str())).collect();
        for text in &endpoint.addresses {
            let address = address(at, &object, text)?;
            let (locality, for_zones) = (locality.clone(), for_zones.clone());
            endpoints.push(SliceEndpoint { address, health, locality, for_zones });
        }
    }
    let slice = EndpointSlice {
        created: manifest.metadata.created(),
        service: service.into(),
        ports: ports(at, &object, manifest)?,
        endpoints,
        key: object.key,
    };
    Ok(Converted { object: Some(Object::EndpointSlice(Arc::new(slice))), problems: Vec::new() })
}

impl Conditions {
    /// Unknown readiness counts as ready, unknown serving as what ready is, and a terminating endpoint may serve until it
    /// does not.
    /// Source: `EndpointConditions` in the Kubernetes API reference.
    fn health(&self) -> Health {
        let ready = self.ready.unwrap_or(true);
        match (ready, self.serving.unwrap_or(ready), self.terminating.unwrap_or(false)) {
            (_, true, true) => Health::Draining,
            (true, _, false) => Health::Ready,
            (..) => Health::Unready,
        }
    }
}

fn address(at: &At<'_>, object: &ObjectRef, text: &Located<String>) -> Result<IpAddr, Problem> {
    let wrong = |reason: String| at.error(object, "endpoints.addresses", &text.at, reason).example("10.1.2.3");
    let address =
        super::at::address(text).ok_or_else(|| wrong(format!("\"{}\" is not an IP address", text.as_str())))?;
    at.unfit(address).map_or(Ok(address), |reason| Err(wrong(reason)))
}

fn ports(at: &At<'_>, object: &ObjectRef, manifest: &EndpointSliceManifest) -> Result<Vec<SlicePort>, Problem> {
    let mut ports = Vec::new();
    let tcp = |port: &&PortManifest| port.protocol.as_deref().is_none_or(|transport| transport == "TCP");
    for written in manifest.ports.iter().flatten().filter(tcp) {
        // A port without a number is 'all ports', which no service refers to.
        let Some(number) = &written.port else {
            continue;
        };
        let port = number.port().map_err(|reason| at.error(object, "ports.port", &number.at, reason))?;
        let name = written.name.as_deref().unwrap_or_default();
        let protocol = Protocol::declared(written.app_protocol.as_deref(), name);
        ports.push(SlicePort { name: name.into(), port, protocol });
    }
    Ok(ports)
}
