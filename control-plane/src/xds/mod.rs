//! The aggregated discovery service: what proxies, Envoys and proxyless gRPC clients are told, and when.
//!
//! One task per stream. It looks at the newest mesh whenever it may send, so nothing is queued for a slow client.
//! Rank 4: reads the registry through translate; knows nothing of sources or of signing.

/// The state of one stream, without IO.
pub(crate) mod session;

/// What one client sees of the newest mesh.
mod world;

/// Who a client says it is, checked against who it is.
mod node;

/// How many clients may receive their first configuration at once.
mod admission;

/// Who is told of what.
mod interest;

/// The clients connected now.
mod proxies;

/// One stream: requests, the newest mesh and the client's readiness to receive, brought together.
mod stream;

/// The gRPC service.
mod service;

pub(crate) use admission::Admission;
pub(crate) use interest::Interest;
pub(crate) use proxies::{Proxies, ProxyReport};
pub(crate) use service::{Ads, Shared};
