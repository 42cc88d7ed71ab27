//! References of routes: to the Services they are for, and to those that requests go to.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Asked;
use crate::model::route::{Backend, Parent, To};
use crate::model::{Key, Port, Problem};
use crate::source::object::at::Located;

/// Largest weight.
/// Source: Gateway API, `BackendRef.weight`.
const MAX_WEIGHT: u32 = 1_000_000;

/// A reference to a parent, as written.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ParentManifest {
    group: Option<String>,
    kind: Option<String>,
    namespace: Option<String>,
    name: String,
    section_name: Option<String>,
    port: Option<Located<u16>>,
}

/// A reference to a destination, as written.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BackendManifest {
    group: Option<String>,
    kind: Option<String>,
    namespace: Option<String>,
    name: Located<String>,
    port: Option<Located<u16>>,
    weight: Option<Located<u32>>,
    filters: Option<Vec<IgnoredAny>>,
}

/// The parents that are Services; a Gateway is another one's to serve.
pub(super) fn parents(asked: &Asked<'_>, written: &[ParentManifest]) -> Result<Vec<Parent>, Problem> {
    let mut parents = Vec::new();
    for (index, written) in written.iter().enumerate() {
        if written.kind.as_deref() != Some("Service") || !matches!(written.group.as_deref(), Some("" | "core")) {
            continue;
        }
        let namespace = written.namespace.as_deref().unwrap_or(&asked.object.key.namespace);
        let port = written.port.as_ref().map(|port| number(&asked.item(index), port)).transpose()?;
        parents.push(Parent {
            service: Key::new(namespace, written.name.as_str()),
            namespace: written.namespace.as_deref().map(Into::into),
            port,
            section: written.section_name.as_deref().map(Into::into),
        });
    }
    Ok(parents)
}

/// Where requests go.
pub(super) fn backends(asked: &Asked<'_>, written: Option<&Vec<BackendManifest>>) -> Result<Vec<Backend>, Problem> {
    let asked = asked.part("backendRefs");
    let mut backends = Vec::new();
    for (index, written) in written.into_iter().flatten().enumerate() {
        let asked = asked.item(index);
        if written.filters.as_ref().is_some_and(|filters| !filters.is_empty()) {
            let reason = "filters of a single destination are not supported: they belong to the rule";
            return Err(asked.part("filters").fault(reason));
        }
        let weight = match &written.weight {
            Some(weight) if **weight > MAX_WEIGHT => {
                let reason = format!("a weight is from 0 to {MAX_WEIGHT}");
                return Err(asked.part("weight").wrong(weight, reason).example("90"));
            }
            Some(weight) => **weight,
            None => 1,
        };
        backends.push(Backend { to: to(&asked, written)?, weight });
    }
    Ok(backends)
}

fn to(asked: &Asked<'_>, written: &BackendManifest) -> Result<To, Problem> {
    let kind = written.kind.as_deref().unwrap_or("Service");
    let group = written.group.as_deref().unwrap_or_default();
    if kind != "Service" || !matches!(group, "" | "core") {
        let group = if group.is_empty() { "core" } else { group };
        return Ok(To::Unknown(format!("{kind} of {group}").into()));
    }
    let Some(port) = &written.port else {
        let reason = "a Service is named with the port that requests go to";
        return Err(asked.part("port").wrong(&written.name, reason).example("port: 80"));
    };
    let namespace = written.namespace.as_deref().unwrap_or(&asked.object.key.namespace);
    Ok(To::Service(Key::new(namespace, written.name.as_str()), number(asked, port)?))
}

fn number(asked: &Asked<'_>, port: &Located<u16>) -> Result<Port, Problem> {
    Port::new(**port).ok_or_else(|| asked.part("port").wrong(port, "0 is not a port").example("80"))
}
