//! Manifests as types of the client library. Each object is parsed by itself, so that one that makes no sense spoils
//! nothing else. What an API server admits is no promise about numbers: it takes ports of any size in an EndpointSlice.

use std::borrow::Cow;
use std::fmt::Debug;

use kube::api::{ApiResource, ObjectMeta};
use kube::core::DynamicResourceScope;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::tree;
use crate::model::Key;
use crate::source::object::{
    EndpointSliceManifest, GrantManifest, GrpcRouteManifest, HttpRouteManifest, NamespaceManifest, NodeManifest,
    PodManifest, ServiceManifest, WorkloadManifest,
};

/// A kind that is watched.
pub(super) trait Manifest: DeserializeOwned + Clone + Debug + Send + Sync + 'static {
    const GROUP: &'static str;
    const VERSION: &'static str;
    const KIND: &'static str;
    const PLURAL: &'static str;
    /// Nothing but metadata is asked for.
    const METADATA_ONLY: bool = false;
}

macro_rules! manifest {
    ($type:ty, $group:literal, $version:literal, $kind:literal, $plural:literal, $metadata_only:literal) => {
        impl Manifest for $type {
            const GROUP: &'static str = $group;
            const VERSION: &'static str = $version;
            const KIND: &'static str = $kind;
            const PLURAL: &'static str = $plural;
            const METADATA_ONLY: bool = $metadata_only;
        }
    };
}

manifest!(NamespaceManifest, "", "v1", "Namespace", "namespaces", true);
manifest!(ServiceManifest, "", "v1", "Service", "services", false);
manifest!(EndpointSliceManifest, "discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", false);
manifest!(WorkloadManifest, "tulle.io", "v1alpha1", "Workload", "workloads", false);
manifest!(HttpRouteManifest, "gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes", false);
manifest!(GrpcRouteManifest, "gateway.networking.k8s.io", "v1", "GRPCRoute", "grpcroutes", false);
// Every release of the Gateway API serves this version of it.
manifest!(GrantManifest, "gateway.networking.k8s.io", "v1beta1", "ReferenceGrant", "referencegrants", false);
manifest!(PodManifest, "", "v1", "Pod", "pods", false);
manifest!(NodeManifest, "", "v1", "Node", "nodes", true);

/// An object of the API.
#[derive(Clone, Debug)]
pub(super) struct Watched<T> {
    meta: ObjectMeta,
    /// What it says, or why it says nothing that makes sense.
    pub(super) manifest: Result<T, String>,
}

impl<T> Watched<T> {
    /// Namespace and name; an object without a namespace has its name twice.
    pub(super) fn key(&self) -> Key {
        let name = self.meta.name.as_deref().unwrap_or_default();
        Key::new(self.meta.namespace.as_deref().unwrap_or(name), name)
    }
}

impl<'de, T: Manifest> Deserialize<'de> for Watched<T> {
    /// Takes any JSON: an object that makes no sense is one with a reason, and never the end of a list or watch.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = tree::bounded(deserializer)?;
        let meta = identity(&value);
        Ok(Self { meta, manifest: T::deserialize(value).map_err(|error| error.to_string()) })
    }
}

/// What the client library reads of an object, as far as it is there.
fn identity(object: &Value) -> ObjectMeta {
    let text = |name: &str| object.pointer(name).and_then(Value::as_str).map(str::to_owned);
    ObjectMeta {
        name: text("/metadata/name"),
        namespace: text("/metadata/namespace"),
        resource_version: text("/metadata/resourceVersion"),
        ..ObjectMeta::default()
    }
}

/// The kind, as the client library wants it.
pub(super) fn resource<T: Manifest>() -> ApiResource {
    let api_version = if T::GROUP.is_empty() { T::VERSION.to_owned() } else { format!("{}/{}", T::GROUP, T::VERSION) };
    ApiResource {
        group: T::GROUP.to_owned(),
        version: T::VERSION.to_owned(),
        api_version,
        kind: T::KIND.to_owned(),
        plural: T::PLURAL.to_owned(),
    }
}

impl<T: Manifest> kube::Resource for Watched<T> {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        resource.kind.as_str().into()
    }

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        resource.group.as_str().into()
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        resource.version.as_str().into()
    }

    fn api_version(resource: &ApiResource) -> Cow<'_, str> {
        resource.api_version.as_str().into()
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        resource.plural.as_str().into()
    }

    fn metadata_api() -> bool {
        T::METADATA_ONLY
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}
