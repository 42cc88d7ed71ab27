//! A ReferenceGrant: whose routes in other namespaces may send requests to Services of this one.

use std::sync::Arc;

use super::name::{Key, Kind};

/// A ReferenceGrant, as far as it is about routes and Services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Namespace and name.
    pub key: Key,
    /// When it was created.
    pub created: Option<Arc<str>>,
    /// Kind and namespace of the routes that may.
    pub from: Vec<(Kind, Arc<str>)>,
    /// Names of the Services they may use; none: all of the namespace.
    pub to: Vec<Option<Arc<str>>>,
}

impl Grant {
    /// Whether a route of this kind and namespace may use the Service called `service`.
    pub fn permits(&self, kind: Kind, namespace: &str, service: &str) -> bool {
        self.from.iter().any(|(from, of)| *from == kind && **of == *namespace)
            && self.to.iter().any(|to| to.as_ref().is_none_or(|name| **name == *service))
    }
}
