//! Puts the proxy beside a workload: the webhook that adds the sidecar to pods, and the redirect rules that lead a
//! pod's TCP traffic through it.
//!
//! [`decide`] says whether, [`patch`] says how; both are pure. [`redirect`] holds what the init container `tulle-init`
//! does.

/// The list of annotations.
pub mod annotations;

/// Values of annotations.
pub mod values;

/// Flags and environment.
pub mod settings;

/// Reading a pod.
pub mod pod;

/// Whether a pod gets a proxy, and why.
pub mod decide;

/// What a pod with a proxy looks like.
pub mod patch;

/// Manifests in, manifests out.
pub mod manifests;

/// Redirect rules.
pub mod redirect;

/// Annotations and labels of an object, checked.
pub mod validate;

/// What AdmissionReviews say.
mod review;

/// Every metric.
pub mod metrics;

/// Events for the owners of pods.
mod events;

/// The serving certificate.
mod cert;

/// What the injector keeps in the cluster.
mod cluster;

/// The pages that the API server asks.
mod webhook;

/// Connections.
mod serve;

/// How a process is asked to end.
mod signals;

/// Wiring.
pub mod app;

/// From arguments to exit code.
pub mod cli;

/// The init container.
pub mod init;

/// The CNI plugin.
pub mod cni;

/// What the fuzz targets run.
#[cfg(feature = "fuzz")]
pub mod fuzz;
