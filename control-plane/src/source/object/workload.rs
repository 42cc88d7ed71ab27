//! `tulle.io/v1alpha1 Workload`: unknown fields are refused, so that a slip of the pen is found here and not in
//! traffic.

use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;
use tulle_identity::spiffe::{SpiffeId, TrustDomain};

use super::Converted;
use super::at::{At, Located, Number};
use super::meta::Meta;
use crate::model::workload::WorkloadPort;
use crate::model::{Health, Key, Kind, Locality, Object, ObjectRef, Problem, Protocol, Workload};

/// Largest weight: as much as Envoy and gRPC clients can add up over a thousand endpoints.
const MAX_WEIGHT: u32 = 10_000;

/// Account of workloads that name none, as in Kubernetes.
pub(super) const DEFAULT_ACCOUNT: &str = "default";

/// A Workload as written.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::source) struct WorkloadManifest {
    #[serde(rename = "apiVersion")]
    _api_version: Option<IgnoredAny>,
    #[serde(rename = "kind")]
    _kind: Option<IgnoredAny>,
    pub(in crate::source) metadata: Meta,
    spec: Spec,
    /// Written by the control plane, read by nobody here.
    #[serde(rename = "status")]
    _status: Option<IgnoredAny>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    addresses: Located<Vec<Located<String>>>,
    service_account: Option<Located<String>>,
    workload: Option<Located<String>>,
    #[serde(default)]
    ports: Vec<PortManifest>,
    region: Option<String>,
    zone: Option<String>,
    weight: Option<Number>,
    meshed: Option<bool>,
    #[serde(default)]
    health: HealthManifest,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PortManifest {
    name: Option<String>,
    port: Number,
    protocol: Option<String>,
    app_protocol: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum HealthManifest {
    #[default]
    Ready,
    Unready,
    Draining,
}

pub(in crate::source) fn workload(at: &At<'_>, manifest: &WorkloadManifest) -> Result<Converted, Problem> {
    let object = manifest.metadata.reference(at, Kind::Workload)?;
    let spec = &manifest.spec;
    let weight = match &spec.weight {
        Some(weight) => {
            let wrong = || at.error(&object, "spec.weight", &weight.at, format!("a weight is from 1 to {MAX_WEIGHT}"));
            let number = u32::try_from(**weight).ok().filter(|number| (1..=MAX_WEIGHT).contains(number));
            number.ok_or_else(wrong)?
        }
        None => 1,
    };
    let workload = Workload {
        created: manifest.metadata.created(),
        labels: manifest.metadata.labels(),
        addresses: addresses(at, &object, &spec.addresses)?,
        service_account: account(at, &object, spec.service_account.as_ref())?,
        owner: spec.workload.as_ref().map_or_else(|| object.key.name.clone(), |owner| owner.as_str().into()),
        ports: ports(at, &object, &spec.ports)?,
        locality: Locality::new(spec.region.as_deref().unwrap_or_default(), spec.zone.as_deref().unwrap_or_default()),
        weight,
        meshed: spec.meshed.unwrap_or(true),
        uncaptured: Vec::new(),
        pod: None,
        health: match spec.health {
            HealthManifest::Ready => Health::Ready,
            HealthManifest::Unready => Health::Unready,
            HealthManifest::Draining => Health::Draining,
        },
        key: Key { namespace: object.key.namespace, name: object.key.name },
    };
    Ok(Converted { object: Some(Object::Workload(Arc::new(workload))), problems: Vec::new() })
}

fn addresses(at: &At<'_>, object: &ObjectRef, written: &Located<Vec<Located<String>>>) -> Result<Vec<IpAddr>, Problem> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for text in &**written {
        let wrong =
            |reason: String| at.error(object, "spec.addresses", &text.at, reason).example("[10.1.2.3, \"fd00::3\"]");
        let address =
            super::at::address(text).ok_or_else(|| wrong(format!("\"{}\" is not an IP address", text.as_str())))?;
        if let Some(reason) = at.unfit(address) {
            return Err(wrong(reason));
        }
        if addresses.iter().any(|known| known.is_ipv4() == address.is_ipv4()) {
            return Err(wrong("a workload has one address of each family at most".to_owned()));
        }
        addresses.push(address);
    }
    if addresses.is_empty() {
        let problem = at.error(object, "spec.addresses", &written.at, "a workload has at least one address");
        return Err(problem.example("[10.1.2.3]"));
    }
    Ok(addresses)
}

/// The account, which has to be one an identity can be made of.
fn account(at: &At<'_>, object: &ObjectRef, written: Option<&Located<String>>) -> Result<Arc<str>, Problem> {
    let account = written.map_or(DEFAULT_ACCOUNT, |text| text.as_str());
    // Which trust domain is of no matter here: any one does.
    let id = TrustDomain::parse("any").and_then(|any| SpiffeId::workload(&any, &object.key.namespace, account));
    match (id, written) {
        (Ok(_), _) => Ok(account.into()),
        (Err(error), Some(text)) => {
            let reason = format!("no identity can be made of it: {error}");
            Err(at.error(object, "spec.serviceAccount", &text.at, reason))
        }
        (Err(error), None) => {
            let reason = format!("no identity can be made of it: {error}");
            Err(Problem::new(crate::model::Severity::Error, object.clone(), "metadata.namespace", reason))
        }
    }
}

fn ports(at: &At<'_>, object: &ObjectRef, written: &[PortManifest]) -> Result<Vec<WorkloadPort>, Problem> {
    let mut ports = Vec::new();
    for (index, written) in written.iter().enumerate() {
        let field = format!("spec.ports[{index}].port");
        let port = written.port.port().map_err(|reason| at.error(object, &field, &written.port.at, reason))?;
        if written.protocol.as_deref().is_some_and(|transport| transport != "TCP") {
            continue;
        }
        let name = written.name.as_deref().unwrap_or_default();
        let protocol = Protocol::declared(written.app_protocol.as_deref(), name);
        ports.push(WorkloadPort { name: name.into(), port, protocol });
    }
    Ok(ports)
}
