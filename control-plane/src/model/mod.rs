//! The vocabulary: what a mesh is, as plain values.
//!
//! No type of Kubernetes, of a manifest file or of the wire is known here. Sources build these values, the
//! registry joins them, translate reads the result.

pub mod annotations;
pub mod delta;
pub mod endpoint;
pub mod grant;
pub mod name;
pub mod namespace;
pub mod policy;
pub mod problem;
pub mod protocol;
pub mod ranges;
pub mod route;
pub mod service;
pub mod workload;

mod values;

pub use delta::{Delta, Object};
pub use endpoint::{EndpointSlice, Health, Locality};
pub use grant::Grant;
pub use name::{Key, Kind, Labels, ObjectRef, Origin, Port};
pub use namespace::Namespace;
pub use policy::Policy;
pub use problem::{Problem, Severity};
pub use protocol::Protocol;
pub use route::Route;
pub use service::Service;
pub use workload::Workload;
