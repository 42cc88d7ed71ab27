//! A namespace: the defaults of what is in it.

use std::sync::Arc;

use super::name::Key;
use super::policy::Policy;

/// A namespace. Absent ones are as good as present ones without annotations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its name, in both places.
    pub key: Key,
    /// When it was created.
    pub created: Option<Arc<str>>,
    /// Defaults for its services and workloads.
    pub policy: Policy,
}
