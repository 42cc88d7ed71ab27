//! Destinations: one cluster is one service port, or one workload port.

use std::sync::Arc;
use std::time::Duration;

use super::endpoint::Endpoints;
use crate::base::protocol::Protocol;

/// A destination and how to reach it.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// `reviews.shop.svc.cluster.local:80`, `pod/10.244.1.7:80`.
    pub name: Arc<str>,
    /// Service name, for telemetry; empty when unknown.
    pub service: Arc<str>,
    /// Namespace of the service, for telemetry; empty when unknown.
    pub namespace: Arc<str>,
    /// Declared protocol, for telemetry.
    pub protocol: Protocol,
    /// HTTP version spoken to the endpoints.
    pub http: HttpVersion,
    /// How an endpoint is chosen.
    pub balancer: Policy,
    /// Longest time for a TCP connection and its TLS handshake, together.
    pub connect_timeout: Duration,
    /// An HTTP/1 connection that is not used for this long is closed; also the idle timeout of opaque connections.
    pub idle_timeout: Duration,
    /// Circuit breakers.
    pub limits: Limits,
    /// Bound on retries over all requests to this cluster.
    pub budget: RetryBudget,
    /// A priority is passed over, in part, when fewer than this share of its endpoints is healthy; 0..=100.
    pub failover_threshold_percent: u32,
    /// When an endpoint that keeps failing is left alone.
    pub outlier: Option<Outlier>,
    /// Where to.
    pub endpoints: Arc<Endpoints>,
}

/// HTTP version towards the endpoints of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HttpVersion {
    /// The one the request came with.
    AsDownstream,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Balancing policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// The less busy of two random endpoints.
    LeastRequest,
    /// In turn.
    RoundRobin,
    /// At random.
    Random,
}

/// Circuit breakers of a cluster, for the whole process; each worker enforces its share, at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections.
    pub max_connections: u32,
    /// Requests that wait for a connection.
    pub max_pending: u32,
    /// Requests in flight.
    pub max_requests: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_connections: 10_000, max_pending: 10_000, max_requests: 10_000 }
    }
}

/// When an endpoint that keeps failing is left alone; each worker learns alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outlier {
    /// Failed requests in a row, of whatever kind; 0: they do not count.
    pub server_errors: u32,
    /// Requests in a row that got no answer, or 502, 503 or 504; 0: they do not count.
    pub gateway_errors: u32,
    /// The first time away; each time in a row is longer by as much.
    pub base: Duration,
    /// The longest time away.
    pub longest: Duration,
    /// Share of the endpoints that may be away at once.
    pub max_percent: u32,
}

/// How many retries may be under way, as a share of the requests under way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryBudget {
    /// Percent of requests that may be retries.
    pub percent: f64,
    /// Retries per second that are always allowed.
    pub min_per_second: u32,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { percent: 20.0, min_per_second: 3 }
    }
}
