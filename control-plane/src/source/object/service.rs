//! `v1 Service`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer};

use super::Converted;
use super::at::{At, LastGood, Located, Number};
use super::meta::Meta;
use crate::model::service::{ServicePort, TargetPort};
use crate::model::{Kind, Object, ObjectRef, Port, Problem, Protocol, Service, Severity};

/// A Service as written.
#[derive(Clone, Debug, Deserialize)]
pub(in crate::source) struct ServiceManifest {
    pub(in crate::source) metadata: Meta,
    #[serde(default)]
    spec: Spec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    r#type: Option<String>,
    selector: Option<BTreeMap<String, String>>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<Located<String>>,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Option<Vec<Located<String>>>,
    ports: Option<Vec<PortManifest>>,
    traffic_distribution: Option<String>,
    publish_not_ready_addresses: Option<bool>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PortManifest {
    name: Option<String>,
    port: Number,
    protocol: Option<String>,
    app_protocol: Option<String>,
    target_port: Option<Located<NumberOrName>>,
}

/// `8080` or `web`: a number in an API, either in a file.
#[derive(Clone, Debug)]
struct NumberOrName(String);

impl<'de> Deserialize<'de> for NumberOrName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = NumberOrName;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port number or name")
            }

            fn visit_str<E>(self, text: &str) -> Result<NumberOrName, E> {
                Ok(NumberOrName(text.to_owned()))
            }

            fn visit_u64<E>(self, number: u64) -> Result<NumberOrName, E> {
                Ok(NumberOrName(number.to_string()))
            }

            fn visit_i64<E>(self, number: i64) -> Result<NumberOrName, E> {
                Ok(NumberOrName(number.to_string()))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

pub(in crate::source) fn service(
    at: &At<'_>,
    manifest: &ServiceManifest,
    last: LastGood<'_>,
) -> Result<Converted, Problem> {
    let object = manifest.metadata.reference(at, Kind::Service)?;
    let spec = &manifest.spec;
    // An alias of DNS: its clients dial what it stands for, which is in the mesh or not by itself.
    if spec.r#type.as_deref() == Some("ExternalName") {
        return Ok(Converted::default());
    }
    let last = if let Some(Object::Service(last)) = last(&object) { Some(last.policy.clone()) } else { None };
    let (policy, mut problems) = manifest.metadata.policy(at, &object, last.as_ref());
    let ports = ports(at, &object, spec, &mut problems)?;
    if ports.is_empty() {
        let reason = "it has no TCP port, so there is nothing for a mesh to do";
        problems.push(Problem::new(Severity::Info, object, "spec.ports", reason));
        return Ok(Converted { object: None, problems });
    }
    let selector = spec.selector.iter().flatten();
    let service = Service {
        created: manifest.metadata.created(),
        selector: selector.map(|(k, v)| (k.as_str().into(), v.as_str().into())).collect(),
        cluster_ips: cluster_ips(at, &object, spec)?,
        ports,
        prefer_close: spec.traffic_distribution.as_deref().is_some_and(|value| value.starts_with("Prefer")),
        publish_unready: spec.publish_not_ready_addresses.unwrap_or(false),
        policy,
        key: object.key,
    };
    Ok(Converted { object: Some(Object::Service(Arc::new(service))), problems })
}

/// The addresses; none for a headless service, and for one that was given none yet.
fn cluster_ips(at: &At<'_>, object: &ObjectRef, spec: &Spec) -> Result<Vec<IpAddr>, Problem> {
    let written: Vec<_> = match &spec.cluster_ips {
        Some(all) if !all.is_empty() => all.iter().map(|ip| ("spec.clusterIPs", ip)).collect(),
        Some(_) | None => spec.cluster_ip.iter().map(|ip| ("spec.clusterIP", ip)).collect(),
    };
    let mut addresses = Vec::new();
    for (field, text) in written.into_iter().filter(|(_, text)| !["None", ""].contains(&text.as_str())) {
        let address = super::at::address(text).ok_or_else(|| {
            let reason = format!("\"{}\" is not an IP address", text.as_str());
            at.error(object, field, &text.at, reason).example("10.96.0.12")
        })?;
        addresses.push(address);
    }
    Ok(addresses)
}

fn ports(
    at: &At<'_>,
    object: &ObjectRef,
    spec: &Spec,
    problems: &mut Vec<Problem>,
) -> Result<Vec<ServicePort>, Problem> {
    let mut ports: Vec<ServicePort> = Vec::new();
    for (index, written) in spec.ports.iter().flatten().enumerate() {
        let field = |name: &str| format!("spec.ports[{index}].{name}");
        if let Some(transport) = written.protocol.as_deref().filter(|transport| *transport != "TCP") {
            let reason = format!("{transport} ports are not supported: they are left alone");
            problems.push(Problem::new(Severity::Info, object.clone(), &field("protocol"), reason));
            continue;
        }
        let port = written.port.port().map_err(|reason| at.error(object, &field("port"), &written.port.at, reason))?;
        if ports.iter().any(|known| known.port == port) {
            let reason = format!("port {port} is in the list twice");
            return Err(at.error(object, &field("port"), &written.port.at, reason));
        }
        let name = written.name.as_deref().unwrap_or_default();
        let target = target(written, port).map_err(|reason| {
            let location = written.target_port.as_ref().map_or(&written.port.at, |target| &target.at);
            at.error(object, &field("targetPort"), location, reason)
        })?;
        let protocol = Protocol::declared(written.app_protocol.as_deref(), name);
        ports.push(ServicePort { name: name.into(), port, target, protocol });
    }
    Ok(ports)
}

fn target(written: &PortManifest, port: Port) -> Result<TargetPort, String> {
    match &written.target_port {
        None => Ok(TargetPort::Number(port)),
        Some(text) if text.0.bytes().all(|b| b.is_ascii_digit() || b == b'-') => {
            text.0.parse().map(TargetPort::Number).map_err(|_| format!("\"{}\" is not a port", text.0))
        }
        Some(name) => Ok(TargetPort::Name(name.0.as_str().into())),
    }
}
