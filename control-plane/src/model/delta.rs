//! What a source tells the registry.

use std::sync::Arc;

use super::name::{Kind, ObjectRef, Origin};
use super::problem::Problem;
use super::{EndpointSlice, Grant, Namespace, Route, Service, Workload};

/// One object of a mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A namespace and its defaults.
    Namespace(Arc<Namespace>),
    /// A service.
    Service(Arc<Service>),
    /// Endpoints of a service, written by hand or by Kubernetes.
    EndpointSlice(Arc<EndpointSlice>),
    /// A workload instance.
    Workload(Arc<Workload>),
    /// Where requests to a service go.
    Route(Arc<Route>),
    /// Whose routes may use services of another namespace.
    Grant(Arc<Grant>),
}

impl Object {
    /// Its kind, namespace and name.
    pub fn reference(&self) -> ObjectRef {
        let (kind, key) = match self {
            Self::Namespace(o) => (Kind::Namespace, &o.key),
            Self::Service(o) => (Kind::Service, &o.key),
            Self::EndpointSlice(o) => (Kind::EndpointSlice, &o.key),
            Self::Workload(o) => (Kind::Workload, &o.key),
            Self::Route(o) => return o.object.clone(),
            Self::Grant(o) => (Kind::ReferenceGrant, &o.key),
        };
        ObjectRef { kind, key: key.clone() }
    }

    /// When it was created, in RFC 3339 as Kubernetes writes it, so that text order is time order.
    pub fn created(&self) -> Option<&Arc<str>> {
        match self {
            Self::Namespace(o) => o.created.as_ref(),
            Self::Service(o) => o.created.as_ref(),
            Self::EndpointSlice(o) => o.created.as_ref(),
            Self::Workload(o) => o.created.as_ref(),
            Self::Route(o) => o.created.as_ref(),
            Self::Grant(o) => o.created.as_ref(),
        }
    }
}

/// An object and where it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Where it was read.
    pub origin: Origin,
    /// The object.
    pub object: Object,
}

/// One step of a source. A source sends `Reset` first and once more whenever it lost track; its other steps are
/// relative to that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delta {
    /// The whole set of the source: what it had before and is not in here is gone.
    Reset(Vec<Item>),
    /// A new object, or a new value of one with the same origin and reference.
    Upsert(Item),
    /// The object is gone from this origin.
    Remove(Origin, ObjectRef),
    /// All problems the source knows of now; replaces those it reported before.
    Problems(Vec<Problem>),
}
