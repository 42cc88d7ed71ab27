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

/// app -> network: the whole path of a connection.
mod outbound;

/// network -> app: the whole path of a connection.
mod inbound;

/// One connection: the socket, what was read of it, and its TLS.
mod conn;

/// Where a captured connection was going.
pub mod orig_dst;

/// What a connection speaks, from its first bytes.
pub mod detect;

/// TLS of the path, and the keys it uses.
pub mod tls;

/// HTTP connections: requests off them, replies back.
mod http;

/// Opaque connections.
mod tcp;

/// One request: route, attempts, reply.
mod forward;

/// How long a connection may live.
mod lifetime;

/// All state of one core.
mod worker;

/// What one core makes of a snapshot.
mod view;

/// Which route a request takes.
pub mod route;

/// Which endpoint a request goes to.
pub mod balance;

/// Connections kept for reuse.
mod pool;

/// Opening connections.
pub mod connect;

/// HTTP on the wire.
mod codec;

/// The only place that starts a task on a worker thread.
mod spawn;

/// Bytes both ways between two streams.
pub mod relay;

/// The connection to the control plane.
mod control_plane;

/// Discovery: resources in, snapshots out.
pub mod xds;

/// DNS for the workload.
pub mod dns;

/// This workload's certificate.
pub mod identity;

/// Configuration, metrics and commands over HTTP, for people and probes.
pub mod admin;

/// Logging of the process.
pub mod logging;

/// Builds and starts everything.
pub mod app;

/// Waiting for readiness.
mod wait;

/// From arguments to exit code.
pub mod cli;

/// What the fuzz targets run.
#[cfg(feature = "fuzz")]
pub mod fuzz;
