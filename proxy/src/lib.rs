//! Tulle's sidecar proxy.
//!
//! The modules below are in the order a connection meets them; `docs/ARCHITECTURE.md` draws the same path.
//! A module imports only modules of a strictly lower rank (`tests/architecture.rs` holds the table).

/// Vocabulary: addresses, protocols, failures.
pub mod base;

/// The immutable configuration a request reads.
pub mod config;

/// Shutting down without breaking what is under way.
pub mod drain;

/// Metrics and access log.
pub mod telemetry;

/// Threads, listeners, accepting and shutting down.
pub mod runtime;

/// Where a captured connection was going.
pub mod orig_dst;

/// What a connection speaks, from its first bytes.
pub mod detect;

/// TLS of the path, and the keys it uses.
pub mod tls;

/// Which route a request takes.
pub mod route;

/// Which endpoint a request goes to.
pub mod balance;

/// Connections to endpoints.
pub mod connect;

/// Bytes both ways between two streams.
pub mod relay;

/// The connection to the control plane.
mod control_plane;

/// Discovery: resources in, snapshots out.
pub mod xds;

/// This workload's certificate.
pub mod identity;

/// Configuration, metrics and commands over HTTP, for people and probes.
pub mod admin;
