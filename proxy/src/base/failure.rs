//! What failed, whose fault it was, and what the other side is told: one table over `Reason`.
//!
//! The reason is the same word in the `tulle-reason` header, the access log, the metric label and the CLI.

use std::fmt;

/// Why a request or connection did not go the ordinary way. The names are an API (docs/reference/reasons.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Reason {
    /// No route matches the request.
    NoRoute,
    /// The destination has no endpoints at all.
    NoEndpoints,
    /// The destination has endpoints, none of them fit to serve.
    NoHealthyEndpoints,
    /// Connecting took longer than the connect timeout.
    ConnectTimeout,
    /// The endpoint refused the connection.
    ConnectRefused,
    /// Connecting failed in another way.
    ConnectFailed,
    /// The TLS handshake failed.
    TlsHandshake,
    /// The peer proved to be somebody else.
    IdentityMismatch,
    /// A certificate is past its end.
    CertExpired,
    /// A policy forbids it.
    DeniedByPolicy,
    /// The caller could not be authenticated.
    AuthnFailed,
    /// A rate limit is used up.
    RateLimited,
    /// This proxy protects itself.
    Overload,
    /// The cluster's connection limit is reached.
    MaxConnections,
    /// Too many requests wait for a connection.
    MaxPending,
    /// The cluster's limit of concurrent requests is reached.
    MaxRequests,
    /// A retry was due but the budget was used up.
    RetryBudget,
    /// The request's deadline passed.
    RequestTimeout,
    /// One attempt's deadline passed.
    PerTryTimeout,
    /// Nothing moved for the idle timeout.
    IdleTimeout,
    /// The upstream reset the stream or connection.
    UpstreamReset,
    /// The upstream closed before the reply was complete.
    UpstreamClosed,
    /// The downstream went away.
    DownstreamClosed,
    /// The request breaks its protocol's rules.
    BadRequest,
    /// The request's head is larger than the limit.
    HeadersTooLarge,
    /// The client took too long to say what it wants.
    HeaderTimeout,
    /// The client sends more of what costs it nothing than it may.
    Flood,
    /// The upstream's reply breaks its protocol's rules.
    ProtocolError,
    /// The destination is not known and only known ones are allowed.
    UnknownDestination,
    /// No configuration has been received: none since the proxy started, or none for a destination that may be meshed.
    NoConfig,
    /// The connection would come back to this proxy.
    Loop,
    /// The proxy is shutting down.
    Draining,
    /// A fault was injected on purpose.
    FaultInjected,
}

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The client's.
    Downstream,
    /// The endpoint's.
    Upstream,
    /// This proxy's, or its configuration's.
    Us,
}

/// One row of the reason table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The word users meet.
    pub name: &'static str,
    /// Whose fault it is.
    pub side: Side,
    /// HTTP status of a reply we make; 0: no reply is made, the connection or stream is reset.
    pub status: u16,
    /// gRPC status of such a reply.
    pub grpc: u8,
}

const fn row(name: &'static str, side: Side, status: u16, grpc: u8) -> Row {
    Row { name, side, status, grpc }
}

impl Reason {
    /// Number of reasons; their discriminants are `0..COUNT`.
    pub const COUNT: usize = 33;

    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; Self::COUNT] = [
        Self::NoRoute,
        Self::NoEndpoints,
        Self::NoHealthyEndpoints,
        Self::ConnectTimeout,
        Self::ConnectRefused,
        Self::ConnectFailed,
        Self::TlsHandshake,
        Self::IdentityMismatch,
        Self::CertExpired,
        Self::DeniedByPolicy,
        Self::AuthnFailed,
        Self::RateLimited,
        Self::Overload,
        Self::MaxConnections,
        Self::MaxPending,
        Self::MaxRequests,
        Self::RetryBudget,
        Self::RequestTimeout,
        Self::PerTryTimeout,
        Self::IdleTimeout,
        Self::UpstreamReset,
        Self::UpstreamClosed,
        Self::DownstreamClosed,
        Self::BadRequest,
        Self::HeadersTooLarge,
        Self::HeaderTimeout,
        Self::Flood,
        Self::ProtocolError,
        Self::UnknownDestination,
        Self::NoConfig,
        Self::Loop,
        Self::Draining,
        Self::FaultInjected,
    ];

    /// Everything known about a reason.
    pub const fn row(self) -> Row {
        use Side::{Downstream, Upstream, Us};
        // gRPC: 3 invalid argument, 4 deadline exceeded, 7 permission denied, 8 resource exhausted, 13 internal,
        // 14 unavailable, 16 unauthenticated, 1 cancelled, 12 unimplemented.
        match self {
            Self::NoRoute => row("no_route", Us, 404, 12),
            Self::NoEndpoints => row("no_endpoints", Us, 503, 14),
            Self::NoHealthyEndpoints => row("no_healthy_endpoints", Upstream, 503, 14),
            Self::ConnectTimeout => row("connect_timeout", Upstream, 503, 14),
            Self::ConnectRefused => row("connect_refused", Upstream, 503, 14),
            Self::ConnectFailed => row("connect_failed", Upstream, 503, 14),
            Self::TlsHandshake => row("tls_handshake", Upstream, 503, 14),
            Self::IdentityMismatch => row("identity_mismatch", Upstream, 503, 14),
            Self::CertExpired => row("cert_expired", Us, 503, 14),
            Self::DeniedByPolicy => row("denied_by_policy", Downstream, 403, 7),
            Self::AuthnFailed => row("authn_failed", Downstream, 401, 16),
            Self::RateLimited => row("rate_limited", Downstream, 429, 8),
            Self::Overload => row("overload", Us, 503, 14),
            Self::MaxConnections => row("max_connections", Us, 503, 14),
            Self::MaxPending => row("max_pending", Us, 503, 14),
            Self::MaxRequests => row("max_requests", Us, 503, 14),
            Self::RetryBudget => row("retry_budget", Us, 503, 14),
            Self::RequestTimeout => row("request_timeout", Upstream, 504, 4),
            Self::PerTryTimeout => row("per_try_timeout", Upstream, 504, 4),
            Self::IdleTimeout => row("idle_timeout", Upstream, 504, 14),
            Self::UpstreamReset => row("upstream_reset", Upstream, 502, 14),
            Self::UpstreamClosed => row("upstream_closed", Upstream, 502, 14),
            Self::DownstreamClosed => row("downstream_closed", Downstream, 0, 1),
            Self::BadRequest => row("bad_request", Downstream, 400, 13),
            Self::HeadersTooLarge => row("headers_too_large", Downstream, 431, 8),
            Self::HeaderTimeout => row("header_timeout", Downstream, 408, 4),
            Self::Flood => row("flood", Downstream, 0, 8),
            // The application has answered: UNAVAILABLE would let clients call it again.
            Self::ProtocolError => row("protocol_error", Upstream, 502, 13),
            Self::UnknownDestination => row("unknown_destination", Us, 502, 14),
            Self::NoConfig => row("no_config", Us, 503, 14),
            Self::Loop => row("loop", Us, 508, 14),
            Self::Draining => row("draining", Us, 503, 14),
            Self::FaultInjected => row("fault_injected", Us, 503, 14),
        }
    }

    /// The reason of a name, as a peer proxy sends it.
    pub fn from_name(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str().as_bytes() == name)
    }

    /// Whether a peer proxy that answers with this reason says that its application has not seen the request.
    pub const fn spared_the_application(self) -> bool {
        matches!(
            self,
            Self::ConnectTimeout
                | Self::ConnectRefused
                | Self::ConnectFailed
                | Self::Overload
                | Self::MaxConnections
                | Self::MaxPending
                | Self::MaxRequests
                | Self::Draining
        )
    }

    /// Whether it says that the peer could not be reached: it is left alone for a moment. A refused stream or a closed
    /// idle connection says no such thing.
    pub const fn is_unreachable(self) -> bool {
        matches!(
            self,
            Self::ConnectTimeout
                | Self::ConnectRefused
                | Self::ConnectFailed
                | Self::TlsHandshake
                | Self::IdentityMismatch
                | Self::CertExpired
        )
    }

    /// The word users meet.
    pub const fn as_str(self) -> &'static str {
        self.row().name
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether the same request may be sent once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The application may have seen it.
    Never,
    /// It may have been sent to the application, on a connection that was going away: repeated only when a repetition
    /// does no harm (RFC 9110 section 9.2.2).
    IfIdempotent,
    /// It provably did not reach the application.
    Safe,
}

/// One failure of a request or connection, as it crosses a stage boundary.
#[derive(Debug)]
pub struct Failure {
    /// Why.
    pub reason: Reason,
    /// Whether it may be tried again.
    pub retry: Retry,
    /// What the lower layer said, for the log.
    pub source: Option<Box<dyn std::error::Error>>,
}

impl Failure {
    /// A failure that must not be retried.
    pub const fn new(reason: Reason) -> Self {
        Self { reason, retry: Retry::Never, source: None }
    }

    /// A failure of something that provably did not reach the application.
    pub const fn safe(reason: Reason) -> Self {
        Self { reason, retry: Retry::Safe, source: None }
    }

    /// A failure that may be retried when a repetition does no harm.
    pub const fn if_idempotent(reason: Reason) -> Self {
        Self { reason, retry: Retry::IfIdempotent, source: None }
    }

    /// Adds what the lower layer said.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error>>) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl Failure {
    /// A connection that was there before ended before any byte of a reply: its peer closed it for being idle. That is
    /// nobody's failure, and a fresh connection cures it.
    pub fn is_stale(&self) -> bool {
        self.reason == Reason::UpstreamClosed && self.retry != Retry::Never
    }

    /// Whether the connection was there and the request provably was not processed on it: its stream was refused, or the
    /// connection ended first (RFC 9113 sections 6.8 and 8.7). That is nobody's failure: the request is sent again.
    pub fn is_unprocessed(&self) -> bool {
        self.retry == Retry::Safe && matches!(self.reason, Reason::UpstreamReset | Reason::UpstreamClosed)
    }

    /// Whether it speaks against the endpoint: it could not be reached, did not answer, or broke off. A refused stream
    /// and a closed idle connection do not.
    pub fn blames_endpoint(&self) -> bool {
        let broke = matches!(
            self.reason,
            Reason::UpstreamReset | Reason::UpstreamClosed | Reason::PerTryTimeout | Reason::ProtocolError
        );
        self.reason.is_unreachable() || broke && self.retry == Retry::Never
    }
}

impl From<Reason> for Failure {
    fn from(reason: Reason) -> Self {
        Self::new(reason)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Some(source) => write!(f, "{}: {source}", self.reason),
            None => self.reason.fmt(f),
        }
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn count_covers_every_reason() {
        assert_eq!(Reason::FaultInjected as usize + 1, Reason::COUNT);
        assert!(Reason::ALL.iter().enumerate().all(|(at, reason)| *reason as usize == at));
    }
}
