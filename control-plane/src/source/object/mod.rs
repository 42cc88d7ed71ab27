//! The kinds of object, as they are written, and their conversion to the model: one pure function for each kind, used by
//! every source.
//!
//! Fields of Kubernetes' kinds that Tulle does not use are not looked at, known or not: a newer Kubernetes may have
//! them. Fields of Tulle's own kinds must be known.

mod at;
mod endpoint_slice;
mod gateway;
mod meta;
mod pod;
mod service;
mod workload;

use std::sync::Arc;

use crate::model::{Kind, Namespace, Object, Problem};
use meta::Meta;

pub(super) use at::{At, LastGood, Located};
pub(super) use endpoint_slice::{EndpointSliceManifest, endpoint_slice};
pub(super) use gateway::{
    Exact, GrantManifest, GrpcRouteManifest, HttpRouteManifest, RouteManifest, RuleShape, grant, grpc_route, http_route,
};
pub(super) use pod::{NodeManifest, Pod, PodManifest, node, pod};
pub(super) use service::{ServiceManifest, service};
pub(super) use workload::{WorkloadManifest, workload};

/// An object, unless Tulle has no use for it, and what is wrong with it though it is usable.
#[derive(Debug, Default)]
pub(super) struct Converted {
    pub(super) object: Option<Object>,
    pub(super) problems: Vec<Problem>,
}

/// `v1 Namespace`.
#[derive(Clone, Debug, serde::Deserialize)]
pub(super) struct NamespaceManifest {
    pub(super) metadata: Meta,
}

pub(super) fn namespace(at: &At<'_>, manifest: &NamespaceManifest, last: LastGood<'_>) -> Result<Converted, Problem> {
    let object = manifest.metadata.reference(at, Kind::Namespace)?;
    let last = if let Some(Object::Namespace(last)) = last(&object) { Some(last.policy.clone()) } else { None };
    let (policy, problems) = manifest.metadata.policy(at, &object, last.as_ref());
    let namespace = Namespace { key: object.key, created: manifest.metadata.created(), policy };
    Ok(Converted { object: Some(Object::Namespace(Arc::new(namespace))), problems })
}
