//! Fixed counters of one worker, for what happens before a label set is known or has none.

use super::counters::{ByReason, Counter, Gauge};
use super::labels::Direction;
use crate::base::failure::Reason;

/// What the first bytes of a connection turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detected {
    /// HTTP/1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// TLS of a mesh peer.
    MeshTls,
    /// The application's own TLS.
    Tls,
    /// Something else.
    Opaque,
    /// Nothing that could be told within the deadline: taken as opaque.
    Timeout,
}

impl Detected {
    /// All, in the order of their discriminants.
    pub(super) const ALL: [Self; 6] = [Self::Http1, Self::Http2, Self::MeshTls, Self::Tls, Self::Opaque, Self::Timeout];

    /// The label value.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::MeshTls => "mesh_tls",
            Self::Tls => "tls",
            Self::Opaque => "opaque",
            Self::Timeout => "timeout",
        }
    }
}

/// What became of a retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryOutcome {
    /// It gave a reply that is not retried.
    Success,
    /// It failed as well.
    Failure,
}

impl RetryOutcome {
    /// Both, in the order of their discriminants.
    pub(super) const ALL: [Self; 2] = [Self::Success, Self::Failure];

    /// The label value.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
        }
    }
}

/// Counters of one worker that are not bound to a label set. Only that worker writes them.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Events {
    /// Connections to endpoints that are open, parked ones included.
    pub upstream_connections: Gauge,
    /// Requests that wait for a connection to an endpoint.
    pub upstream_pending: Gauge,
    /// Retries that were due but not made because the budget was used up.
    pub retry_budget_exhausted: Counter,
    /// Endpoints that were left alone because they kept failing.
    pub ejections: Counter,
    /// Errors of `accept(2)`.
    pub accept_errors: Counter,
    /// Generation of the snapshot the worker's view shows.
    pub generation: Gauge,
    pub(super) opened: [Counter; 2],
    pub(super) closed: [Counter; 2],
    pub(super) failures: [ByReason; 2],
    pub(super) handshakes: [ByReason; 2],
    pub(super) detected: [Counter; 6],
    pub(super) retries: [Counter; 2],
    pub(super) access_dropped: Counter,
}

impl Events {
    /// A downstream connection was accepted.
    pub fn downstream_opened(&self, direction: Direction) {
        bump(&self.opened, direction as usize);
    }

    /// A downstream connection is closed.
    pub fn downstream_closed(&self, direction: Direction) {
        bump(&self.closed, direction as usize);
    }

    /// A connection ended before it was known whom it is for, or was refused.
    pub fn connection_failed(&self, direction: Direction, reason: Reason) {
        if let Some(failures) = self.failures.get(direction as usize) {
            failures.increment(Some(reason));
        }
    }

    /// A TLS handshake is over: accepted ones are inbound, dialled ones outbound. None: it went well.
    pub fn tls_handshake(&self, direction: Direction, failure: Option<Reason>) {
        if let Some(handshakes) = self.handshakes.get(direction as usize) {
            handshakes.increment(failure);
        }
    }

    /// A protocol was detected.
    pub fn protocol_detected(&self, detected: Detected) {
        bump(&self.detected, detected as usize);
    }

    /// A retry was made.
    pub fn retried(&self, outcome: RetryOutcome) {
        bump(&self.retries, outcome as usize);
    }
}

fn bump(counters: &[Counter], at: usize) {
    if let Some(counter) = counters.get(at) {
        counter.increment();
    }
}
