//! `gateway.networking.k8s.io/v1 ReferenceGrant`, and `v1beta1`, which says the same.

use std::sync::Arc;

use serde::Deserialize;

use crate::model::{Grant, Kind, Object, Problem};
use crate::source::object::Converted;
use crate::source::object::at::At;
use crate::source::object::meta::Meta;

/// Group of routes.
const GROUP: &str = "gateway.networking.k8s.io";

/// A ReferenceGrant as written.
#[derive(Clone, Debug, Deserialize)]
pub(in crate::source) struct GrantManifest {
    pub(in crate::source) metadata: Meta,
    #[serde(default)]
    spec: Spec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Spec {
    from: Vec<FromManifest>,
    to: Vec<ToManifest>,
}

#[derive(Clone, Debug, Deserialize)]
struct FromManifest {
    group: String,
    kind: String,
    namespace: String,
}

#[derive(Clone, Debug, Deserialize)]
struct ToManifest {
    group: String,
    kind: String,
    name: Option<String>,
}

pub(in crate::source) fn grant(at: &At<'_>, manifest: &GrantManifest) -> Result<Converted, Problem> {
    let object = manifest.metadata.reference(at, Kind::ReferenceGrant)?;
    let route = |from: &FromManifest| {
        let kind = match (from.group.as_str(), from.kind.as_str()) {
            (GROUP, "HTTPRoute") => Kind::HttpRoute,
            (GROUP, "GRPCRoute") => Kind::GrpcRoute,
            _ => return None,
        };
        Some((kind, Arc::from(from.namespace.as_str())))
    };
    let service = |to: &&ToManifest| matches!(to.group.as_str(), "" | "core") && to.kind == "Service";
    // An empty name is as good as none.
    let name = |to: &ToManifest| to.name.as_deref().filter(|name| !name.is_empty()).map(Arc::from);
    let grant = Grant {
        created: manifest.metadata.created(),
        from: manifest.spec.from.iter().filter_map(route).collect(),
        to: manifest.spec.to.iter().filter(service).map(name).collect(),
        key: object.key,
    };
    Ok(Converted { object: Some(Object::Grant(Arc::new(grant))), problems: Vec::new() })
}
