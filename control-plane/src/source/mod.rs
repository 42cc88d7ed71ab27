//! Sources: where objects come from. Each runs beside the registry and hands it deltas; none of them knows it.

/// Kubernetes objects as they are written, and their conversion to the model: what the sources share.
mod object;

/// A directory of manifests.
pub mod file;

/// The API of a cluster.
pub mod kube;
