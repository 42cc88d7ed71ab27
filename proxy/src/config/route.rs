//! HTTP routes of a listener.

use std::sync::Arc;
use std::time::Duration;

use super::ClusterId;

/// All routes of a listener, by host.
#[derive(Debug, Default)]
pub struct RouteTable {
    /// Name of the route configuration.
    pub name: Arc<str>,
    /// Virtual hosts, in the order given.
    pub hosts: Vec<VirtualHost>,
}

/// Routes for some hosts.
#[derive(Debug)]
pub struct VirtualHost {
    /// Name, for telemetry.
    pub name: Arc<str>,
    /// Hosts it serves. Exact beats longest suffix wildcard beats any.
    pub domains: Vec<Domain>,
    /// First match wins.
    pub routes: Vec<Route>,
}

/// A host pattern. Texts are lower case, without port unless `:port` was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Domain {
    /// `reviews.shop`, `reviews.shop:80`.
    Exact(Box<str>),
    /// `*.example.com`, kept as `.example.com`.
    Suffix(Box<str>),
    /// `*`.
    Any,
}

/// What to do with requests that match.
#[derive(Debug)]
pub struct Route {
    /// Name, for telemetry; empty when it has none.
    pub name: Arc<str>,
    /// Which requests.
    pub matcher: Matcher,
    /// Where they go.
    pub action: Action,
    /// Longest time from the end of the request's head to the end of the reply; none by default.
    pub timeout: Option<Duration>,
    /// When to try again.
    pub retry: RetryPolicy,
}

/// Which requests a route takes: all conditions hold.
#[derive(Debug, Default)]
pub struct Matcher {
    /// Condition on the path, without the query.
    pub path: PathMatch,
    /// Conditions on header fields; names are lower case. The pseudo-header `:method` stands for the method.
    pub headers: Vec<HeaderMatch>,
}

/// A condition on the path.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum PathMatch {
    /// All.
    #[default]
    Any,
    /// Exactly this path.
    Exact(Box<str>),
    /// Begins with these characters.
    Prefix(Box<str>),
    /// Begins with these whole segments (Gateway API `PathPrefix`).
    Segments(Box<str>),
}

/// A condition on one header field.
#[derive(Debug, PartialEq, Eq)]
pub struct HeaderMatch {
    /// Lower-case name.
    pub name: Box<str>,
    /// What its value must be.
    pub value: ValueMatch,
    /// Turns the condition round.
    pub invert: bool,
}

/// A condition on a value.
#[derive(Debug, PartialEq, Eq)]
pub enum ValueMatch {
    /// The field is there.
    Present,
    /// Exactly this.
    Exact(Box<str>),
    /// Begins with this.
    Prefix(Box<str>),
    /// Ends with this.
    Suffix(Box<str>),
    /// Contains this.
    Contains(Box<str>),
}

/// Where requests go.
#[derive(Debug)]
pub enum Action {
    /// To one cluster.
    Cluster(ClusterId),
    /// To one of several, at random by weight; the weights sum to `total`, which is not 0.
    Weighted {
        /// Clusters and weights.
        clusters: Vec<(ClusterId, u32)>,
        /// Sum of the weights.
        total: u32,
    },
    /// To the local application (inbound).
    Local,
    /// Answered here with this status.
    Respond(u16),
}

/// When a request is tried again, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Conditions.
    pub on: RetryOn,
    /// Retries after the first attempt.
    pub limit: u32,
    /// Longest time of one attempt; none by default.
    pub per_try_timeout: Option<Duration>,
    /// First pause between attempts; doubles, with full jitter.
    pub backoff_base: Duration,
    /// Longest pause.
    pub backoff_max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            on: RetryOn::default(),
            limit: 2,
            per_try_timeout: None,
            backoff_base: Duration::from_millis(25),
            backoff_max: Duration::from_millis(250),
        }
    }
}

/// What is worth another attempt. What provably did not reach the application is retried for every method; the
/// rest only for safe methods (RFC 9110 section 9.2.1) unless `methods` says more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryOn {
    /// The connection could not be made.
    pub connect_failure: bool,
    /// HTTP/2 REFUSED_STREAM, or a stream above the last one of a GOAWAY.
    pub refused_stream: bool,
    /// A reused idle connection was closed before any byte of the reply.
    pub reset_before_request: bool,
    /// The upstream reset or closed before the head of the reply.
    pub reset: bool,
    /// Reply statuses, as inclusive ranges.
    pub statuses: Vec<(u16, u16)>,
    /// gRPC statuses in a reply without body.
    pub grpc: Vec<u8>,
}

impl Default for RetryOn {
    fn default() -> Self {
        Self {
            connect_failure: true,
            refused_stream: true,
            reset_before_request: true,
            reset: false,
            statuses: Vec::new(),
            grpc: Vec::new(),
        }
    }
}
