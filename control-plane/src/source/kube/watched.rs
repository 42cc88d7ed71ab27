//! Manifests as types of the client library. Only what the model needs is parsed: managed fields and the rest are
//! skipped in the reader and never held.

use std::borrow::Cow;
use std::fmt::Debug;

use kube::api::{ApiResource, ObjectMeta};
use kube::core::DynamicResourceScope;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use crate::model::Key;
use crate::source::object::{
    EndpointSliceManifest, GrantManifest, GrpcRouteManifest, HttpRouteManifest, Meta, NamespaceManifest, NodeManifest,
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
    /// The API does not vouch for the shape of the objects, as for kinds that are added to it.
    const UNCHECKED: bool = false;

    fn meta(&self) -> &Meta;
}

macro_rules! manifest {
    ($type:ty, $group:literal, $version:literal, $kind:literal, $plural:literal, $metadata_only:literal, $unchecked:literal) => {
        impl Manifest for $type {
            const GROUP: &'static str = $group;
            const VERSION: &'static str = $version;
            const KIND: &'static str = $kind;
            const PLURAL: &'static str = $plural;
            const METADATA_ONLY: bool = $metadata_only;
            const UNCHECKED: bool = $unchecked;

            fn meta(&self) -> &Meta {
                &self.metadata
            }
        }
    };
}

manifest!(NamespaceManifest, "", "v1", "Namespace", "namespaces", true, false);
manifest!(ServiceManifest, "", "v1", "Service", "services", false, false);
manifest!(EndpointSliceManifest, "discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", false, false);
manifest!(WorkloadManifest, "tulle.io", "v1alpha1", "Workload", "workloads", false, true);
manifest!(HttpRouteManifest, "gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes", false, true);
manifest!(GrpcRouteManifest, "gateway.networking.k8s.io", "v1", "GRPCRoute", "grpcroutes", false, true);
// Every release of the Gateway API serves this version of it.
manifest!(GrantManifest, "gateway.networking.k8s.io", "v1beta1", "ReferenceGrant", "referencegrants", false, true);
manifest!(PodManifest, "", "v1", "Pod", "pods", false, false);
manifest!(NodeManifest, "", "v1", "Node", "nodes", true, false);

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

/// Enough to name an object whose rest makes no sense.
#[derive(Deserialize)]
struct Named {
    metadata: Meta,
}

impl<'de, T: Manifest> Deserialize<'de> for Watched<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !T::UNCHECKED {
            let manifest = T::deserialize(deserializer)?;
            return Ok(Self { meta: identity(manifest.meta()), manifest: Ok(manifest) });
        }
        let value = serde_json::Value::deserialize(deserializer)?;
        let meta = identity(&Named::deserialize(&value).map_err(serde::de::Error::custom)?.metadata);
        Ok(Self { meta, manifest: T::deserialize(value).map_err(|error| error.to_string()) })
    }
}

/// What the client library reads of an object.
fn identity(meta: &Meta) -> ObjectMeta {
    ObjectMeta {
        name: Some(meta.name().to_owned()),
        namespace: meta.namespace().map(str::to_owned),
        resource_version: meta.resource_version().map(str::to_owned),
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
