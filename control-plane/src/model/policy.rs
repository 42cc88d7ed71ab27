//! Policy of a service: every setting is optional here; what is unset is decided by the namespace, then by the
//! defaults, which are written once, in the accessors below.

use std::collections::BTreeMap;
use std::time::Duration;

use super::name::Port;
use super::protocol::Protocol;

/// The annotations of one object, parsed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Policy {
    /// Protocol of every port.
    pub protocol: Option<Protocol>,
    /// Protocol of single ports, by service port.
    pub port_protocols: BTreeMap<Port, Protocol>,
    /// How an endpoint is picked.
    pub load_balancer: Option<LoadBalancer>,
    /// Time to connect to an endpoint.
    pub connect_timeout: Option<Duration>,
    /// Time for a whole request with its retries; zero is none.
    pub timeout: Option<Duration>,
    /// Time for one attempt; zero is none.
    pub per_try_timeout: Option<Duration>,
    /// Time without a byte in either direction; zero is none.
    pub idle_timeout: Option<Duration>,
    /// What is tried again.
    pub retry_on: Option<Vec<RetryOn>>,
    /// Attempts after the first.
    pub retry_limit: Option<u32>,
    /// Share of traffic that may be retries.
    pub retry_budget: Option<RetryBudget>,
    /// Pause before a retry.
    pub retry_backoff: Option<Backoff>,
    /// Connections to the service, per proxy.
    pub max_connections: Option<u32>,
    /// Requests waiting for a connection, per proxy.
    pub max_pending: Option<u32>,
    /// Requests in flight, per proxy.
    pub max_requests: Option<u32>,
    /// Where endpoints are taken from, nearest first.
    pub failover: Option<Vec<FailoverLevel>>,
    /// Healthy share, in percent, below which traffic spills to the next level.
    pub failover_threshold: Option<u32>,
    /// When an endpoint that keeps failing is left alone.
    pub outlier: Option<Outlier>,
    /// What the inbound side accepts.
    pub mtls: Option<Mtls>,
}

/// Joins two optional settings, field by field.
macro_rules! first_set {
    ($own:ident, $default:ident, $($field:ident),+) => {
        Policy {
            port_protocols: $own.port_protocols.clone(),
            $($field: $own.$field.clone().or_else(|| $default.$field.clone()),)+
        }
    };
}

impl Policy {
    /// These settings, and those of `default` where there are none. Protocols of single ports are never inherited,
    /// and the default protocol is left to [`Self::protocol_of`], because what a port declares goes before it.
    #[must_use]
    pub fn or(&self, default: &Self) -> Self {
        let own = self;
        let mut joined = first_set!(
            own,
            default,
            protocol,
            load_balancer,
            connect_timeout,
            timeout,
            per_try_timeout,
            idle_timeout,
            retry_on,
            retry_limit,
            retry_budget,
            retry_backoff,
            max_connections,
            max_pending,
            max_requests,
            failover,
            failover_threshold,
            outlier,
            mtls
        );
        joined.protocol = self.protocol;
        joined
    }

    /// Protocol of `port`: its annotation, the annotation for all ports, what the port declares, the namespace's
    /// annotation, then what is known of the port number.
    pub fn protocol_of(&self, port: Port, declared: Option<Protocol>, namespace: &Self) -> Protocol {
        let own = self.port_protocols.get(&port).copied().or(self.protocol);
        own.or(declared).or(namespace.protocol).unwrap_or_else(|| Protocol::undeclared(port))
    }

    /// Default: least-request.
    pub fn load_balancer(&self) -> LoadBalancer {
        self.load_balancer.unwrap_or_default()
    }

    /// Default: 10 s.
    pub fn connect_timeout(&self) -> Duration {
        self.connect_timeout.unwrap_or(Duration::from_secs(10))
    }

    /// Default: what provably did not reach the application.
    pub fn retry_on(&self) -> Vec<RetryOn> {
        let default = [RetryOn::ConnectFailure, RetryOn::RefusedStream, RetryOn::ResetBeforeRequest];
        self.retry_on.clone().unwrap_or_else(|| default.to_vec())
    }

    /// Default: 2.
    pub fn retry_limit(&self) -> u32 {
        self.retry_limit.unwrap_or(2)
    }

    /// Default: 20 % of requests in flight, and 3 in any case.
    pub fn retry_budget(&self) -> RetryBudget {
        self.retry_budget.unwrap_or(RetryBudget { percent: 20, min: 3 })
    }

    /// Default: 25 ms, doubling up to 250 ms.
    pub fn retry_backoff(&self) -> Backoff {
        self.retry_backoff.unwrap_or(Backoff { base: Duration::from_millis(25), max: Duration::from_millis(250) })
    }

    /// Default: 10 000.
    pub fn max_connections(&self) -> u32 {
        self.max_connections.unwrap_or(10_000)
    }

    /// Default: 10 000.
    pub fn max_pending(&self) -> u32 {
        self.max_pending.unwrap_or(10_000)
    }

    /// Default: 10 000.
    pub fn max_requests(&self) -> u32 {
        self.max_requests.unwrap_or(10_000)
    }

    /// Default: 70 %.
    pub fn failover_threshold(&self) -> u32 {
        self.failover_threshold.unwrap_or(70)
    }

    /// Default: never.
    pub fn outlier(&self) -> Option<Outlier> {
        self.outlier.filter(|outlier| outlier.consecutive_5xx > 0 || outlier.consecutive_gateway > 0)
    }
}

/// How an endpoint is picked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LoadBalancer {
    /// Of two picked at random, the one with fewer requests in flight.
    #[default]
    LeastRequest,
    /// In turn.
    RoundRobin,
    /// At random.
    Random,
}

/// What is tried again. Names are Envoy's where Envoy has them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RetryOn {
    /// No connection came about.
    ConnectFailure,
    /// The peer refused the stream (HTTP/2 `REFUSED_STREAM`).
    RefusedStream,
    /// A reused idle connection closed before any byte of an answer.
    ResetBeforeRequest,
    /// No answer at all: disconnect, reset or time-out.
    Reset,
    /// Any status from 500, or no answer.
    ServerError,
    /// 502, 503 or 504.
    GatewayError,
    /// 409.
    Retriable4xx,
    /// An answer that has this header.
    Header(String),
    /// A status in this range, both ends included.
    Status(u16, u16),
    /// A gRPC status, by its name in Envoy's list: `cancelled`, `unavailable`, ...
    Grpc(&'static str),
}

impl RetryOn {
    /// The statuses it names.
    pub fn statuses(&self) -> impl Iterator<Item = u32> + use<> {
        let range = if let Self::Status(first, last) = self { Some(*first..=*last) } else { None };
        range.into_iter().flatten().map(u32::from)
    }

    /// The response header it names.
    pub fn header(&self) -> Option<&str> {
        if let Self::Header(name) = self { Some(name) } else { None }
    }
}

/// How many retries may be in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RetryBudget {
    /// Percent of requests in flight.
    pub percent: u32,
    /// Retries that are allowed in any case.
    pub min: u32,
}

/// When an endpoint that keeps failing is left alone: passive health checks (Envoy, "Outlier detection").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Outlier {
    /// Failed requests in a row; 0: they do not count.
    pub consecutive_5xx: u32,
    /// Requests in a row without an answer, or answered 502, 503 or 504; 0: they do not count.
    pub consecutive_gateway: u32,
    /// How often Envoy looks; Tulle's proxy looks at each request.
    pub interval: Duration,
    /// The first time away, and by how much each further one is longer.
    pub base: Duration,
    /// The longest time away; not below `base`.
    pub longest: Duration,
    /// Share of endpoints that may be away at once, in percent.
    pub max_ejected: u32,
}

/// Pause before a retry: grows from `base`, doubling, to `max`, with jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Backoff {
    /// Before the first retry; not zero.
    pub base: Duration,
    /// The longest; not below `base`.
    pub max: Duration,
}

/// One step of failover.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailoverLevel {
    /// Endpoints of the client's zone.
    Zone,
    /// Endpoints of the client's region.
    Region,
    /// All others.
    Any,
}

/// What the inbound side of a workload accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mtls {
    /// Plain connections only.
    Disable,
    /// Both.
    #[default]
    Permissive,
    /// Mutual TLS of the mesh only.
    Strict,
}

impl Mtls {
    /// The mode in force where the mesh, a namespace and a Service have a say: the strictest of what they ask for, and
    /// permissive where none asks. Nobody weakens what another asks for (decision 010).
    pub fn strictest(asked: impl IntoIterator<Item = Option<Self>>) -> Self {
        asked.into_iter().flatten().max().unwrap_or_default()
    }

    /// Its name, as users write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Permissive => "permissive",
            Self::Strict => "strict",
        }
    }
}
