//! The kinds of object, as they are written in manifests, and their conversion to the model.
//!
//! Fields of Kubernetes' kinds that Tulle does not use are not looked at, known or not: a newer Kubernetes may have
//! them. Fields of Tulle's own kinds must be known.

mod endpoint_slice;
mod meta;
mod service;
mod workload;

use std::sync::Arc;

use super::documents::{Document, LastGood};
use crate::model::{Kind, Namespace, Object, Problem};
use meta::Meta;

pub(super) use endpoint_slice::endpoint_slice;
pub(super) use service::service;
pub(super) use workload::workload;

/// An object, unless Tulle has no use for it, and what is wrong with it though it is usable.
#[derive(Debug, Default)]
pub(super) struct Converted {
    pub(super) object: Option<Object>,
    pub(super) problems: Vec<Problem>,
}

/// `v1 Namespace`.
#[derive(Debug, serde::Deserialize)]
pub(super) struct NamespaceManifest {
    metadata: Meta,
}

pub(super) fn namespace(
    document: &Document<'_>,
    manifest: &NamespaceManifest,
    last: LastGood<'_>,
) -> Result<Converted, Problem> {
    let object = manifest.metadata.reference(document, Kind::Namespace)?;
    let last = match last(&object) {
        Some(Object::Namespace(namespace)) => Some(namespace.policy.clone()),
        Some(Object::Service(_) | Object::EndpointSlice(_) | Object::Workload(_)) | None => None,
    };
    let (policy, problems) = manifest.metadata.policy(document, &object, last.as_ref());
    let namespace = Namespace { key: object.key, created: manifest.metadata.created(), policy };
    Ok(Converted { object: Some(Object::Namespace(Arc::new(namespace))), problems })
}
