//! References of routes: to the Services they are for, and to those that requests go to.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Asked;
use crate::model::route::{Backend, Parent, To};
use crate::model::{Key, Port, Problem};
use crate::source::object::at::{Located, Number};

/// Group of a parent that names none.
/// Source: Gateway API, `ParentReference.group`.
const GROUP: &str = "gateway.networking.k8s.io";

/// Largest weight.
/// Source: Gateway API, `BackendRef.weight`.
const MAX_WEIGHT: i64 = 1_000_000;

/// A reference to a parent, as written.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ParentManifest {
    group: Option<String>,
    kind: Option<String>,
    namespace: Option<String>,
    name: String,
    section_name: Option<String>,
    port: Option<Number>,
}

/// A reference to a destination, as written.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct BackendManifest {
    group: Option<String>,
    kind: Option<String>,
    namespace: Option<String>,
    name: Located<String>,
    port: Option<Number>,
    weight: Option<Number>,
    filters: Option<Vec<IgnoredAny>>,
}

/// A parent whose other fields cannot be read.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct NamedParent {
    group: Option<String>,
    kind: Option<String>,
    namespace: Option<String>,
    name: String,
}

/// A parent, as far as it can be read.
#[derive(Clone, Debug)]
pub(super) enum WrittenParent {
    /// All of it.
    Read(ParentManifest),
    /// What it names, and what is wrong with the rest.
    Wrong(NamedParent, String),
}

/// The parents that are Services; a Gateway is another one's to serve. A parent that is wrong stays, with its fault.
pub(super) fn parents(asked: &Asked<'_>, written: &[WrittenParent], faults: &mut Vec<Problem>) -> Vec<Parent> {
    let parent = |(index, written): (usize, &WrittenParent)| {
        let asked = asked.item(index);
        let (found, problem) = match written {
            WrittenParent::Read(written) => parent(&asked, written)?,
            WrittenParent::Wrong(NamedParent { group, kind, namespace, name }, reason) => {
                let named = ParentManifest {
                    group: group.clone(),
                    kind: kind.clone(),
                    namespace: namespace.clone(),
                    name: name.clone(),
                    section_name: None,
                    port: None,
                };
                let (found, problem) = parent(&asked, &named)?;
                (found, problem.or_else(|| Some(asked.fault(reason.as_str()))))
            }
        };
        let fault = problem.as_ref().map(|problem| Arc::from(super::said(problem)));
        faults.extend(problem);
        Some(Parent { fault, ..found })
    };
    written.iter().enumerate().filter_map(parent).collect()
}

/// A parent that is a Service, or was meant to be one, and what is wrong with it.
fn parent(asked: &Asked<'_>, written: &ParentManifest) -> Option<(Parent, Option<Problem>)> {
    if written.kind.as_deref() != Some("Service") {
        return None;
    }
    let group = written.group.as_deref().unwrap_or(GROUP);
    let mut problem = None;
    if !matches!(group, "" | "core") {
        // Services of other groups are another controller's; this group has none.
        if group != GROUP {
            return None;
        }
        let what = if written.group.is_none() { "group is missing, which means" } else { "group is" };
        let reason = format!("{what} {GROUP}, which has no Service: the route is not in force for it");
        problem = Some(asked.part("group").fault(reason).example("\"\""));
    }
    let port = match written.port.as_ref().map(|port| number(asked, port)).transpose() {
        Ok(port) => port,
        Err(wrong) => {
            problem = problem.or(Some(wrong));
            None
        }
    };
    let namespace = written.namespace.as_deref().unwrap_or(&asked.object.key.namespace);
    let parent = Parent {
        service: Key::new(namespace, written.name.as_str()),
        namespace: written.namespace.as_deref().map(Into::into),
        port,
        section: written.section_name.as_deref().map(Into::into),
        group: (!matches!(group, "" | "core")).then(|| group.into()),
        fault: None,
    };
    Some((parent, problem))
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
            Some(weight) => {
                let number = u32::try_from(**weight).ok().filter(|_| **weight <= MAX_WEIGHT);
                let reason = || format!("a weight is from 0 to {MAX_WEIGHT}");
                number.ok_or_else(|| asked.part("weight").wrong(weight, reason()).example("90"))?
            }
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

fn number(asked: &Asked<'_>, port: &Number) -> Result<Port, Problem> {
    port.port().map_err(|reason| asked.part("port").wrong(port, reason).example("80"))
}
