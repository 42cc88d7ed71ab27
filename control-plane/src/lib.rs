//! The control plane: source -> registry -> translate -> xds, with identity beside it.

/// Flags and environment.
pub mod settings;

/// Every metric.
pub mod metrics;

/// The wall clock and deadlines by it.
mod clock;

/// The vocabulary: what a mesh is.
pub mod model;

/// Where objects come from.
pub mod source;

/// The single writer of the mesh.
pub mod registry;

/// From the mesh to resources.
pub mod translate;

/// What is wrong with a directory of manifests.
pub mod validate;

/// What one identity may have.
pub mod quota;

/// Who calls.
mod caller;

/// The aggregated discovery service.
mod xds;

/// Certificates.
mod identity;

/// The gRPC listeners.
mod server;

/// What is written into a cluster.
mod status;

/// Health, metrics, debug pages.
mod admin;

/// Wiring.
pub mod app;

/// From arguments to exit code.
pub mod cli;

/// What the fuzz targets run.
#[cfg(feature = "fuzz")]
pub mod fuzz;
