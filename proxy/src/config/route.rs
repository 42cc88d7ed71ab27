//! HTTP routes of a listener.

use std::cmp::{Ordering, Reverse};
use std::sync::Arc;
use std::time::Duration;

use super::ClusterId;
use super::changes::{Changes, Pattern, Redirect};

/// All routes of a listener, by host. Made by [`RouteTable::new`] and not changed afterwards.
#[derive(Debug, Default)]
pub struct RouteTable {
    /// Name of the route configuration.
    pub name: Arc<str>,
    /// Virtual hosts, in the order given.
    hosts: Vec<VirtualHost>,
    index: HostIndex,
}

impl RouteTable {
    /// A table of `hosts`, with an index of their domains. Of two hosts with the same domain the first one serves it.
    pub fn new(name: Arc<str>, hosts: Vec<VirtualHost>) -> Self {
        let index = HostIndex::new(&hosts);
        Self { name, hosts, index }
    }

    /// Virtual hosts, in the order given.
    pub fn hosts(&self) -> &[VirtualHost] {
        &self.hosts
    }

    /// The virtual host that serves every host, when the table has no other: no host needs to be looked at.
    pub fn sole(&self) -> Option<&VirtualHost> {
        match self.hosts.as_slice() {
            [host] if self.index.exact.is_empty() && self.index.suffixes.is_empty() => {
                self.index.any.is_some().then_some(host)
            }
            _ => None,
        }
    }

    /// The virtual host with exactly this domain. `domain` yields the bytes of a host in lower case.
    pub fn exact(&self, domain: impl Iterator<Item = u8> + Clone) -> Option<&VirtualHost> {
        self.hosts.get(find(&self.index.exact, domain)? as usize)
    }

    /// The virtual host with the longest wildcard that ends `host`, which is ASCII case-insensitive. A wildcard
    /// stands for at least one character.
    pub fn suffix(&self, host: &str) -> Option<&VirtualHost> {
        let host = host.as_bytes();
        let found = self.index.suffixes.iter().find_map(|Suffixes { bytes, domains }| {
            let start = host.len().checked_sub(*bytes).filter(|start| *start > 0)?;
            find(domains, host.get(start..)?.iter().map(u8::to_ascii_lowercase))
        })?;
        self.hosts.get(found as usize)
    }

    /// The virtual host for hosts no other one serves.
    pub fn any(&self) -> Option<&VirtualHost> {
        self.hosts.get(self.index.any? as usize)
    }
}

/// Domains in the order they are searched; the numbers are indices of hosts.
#[derive(Debug, Default)]
struct HostIndex {
    /// Sorted by domain.
    exact: Vec<(Box<str>, u32)>,
    /// By length, longest first; within a length sorted by domain.
    suffixes: Vec<Suffixes>,
    any: Option<u32>,
}

/// Suffix wildcards of one length.
#[derive(Debug)]
struct Suffixes {
    bytes: usize,
    domains: Vec<(Box<str>, u32)>,
}

impl HostIndex {
    fn new(hosts: &[VirtualHost]) -> Self {
        let mut index = Self::default();
        let mut suffixes = Vec::new();
        for (number, host) in (0_u32..).zip(hosts) {
            for domain in &host.domains {
                match domain {
                    Domain::Exact(name) => index.exact.push((name.clone(), number)),
                    Domain::Suffix(name) => suffixes.push((name.clone(), number)),
                    Domain::Any => index.any = index.any.or(Some(number)),
                }
            }
        }
        // Sorting is stable and deduplication keeps the first, so the first host given wins.
        index.exact.sort_by(|a, b| a.0.cmp(&b.0));
        index.exact.dedup_by(|later, first| later.0 == first.0);
        suffixes.sort_by(|a, b| (Reverse(a.0.len()), &a.0).cmp(&(Reverse(b.0.len()), &b.0)));
        suffixes.dedup_by(|later, first| later.0 == first.0);
        for entry in suffixes {
            let bytes = entry.0.len();
            match index.suffixes.last_mut() {
                Some(same) if same.bytes == bytes => same.domains.push(entry),
                _ => index.suffixes.push(Suffixes { bytes, domains: vec![entry] }),
            }
        }
        index
    }
}

fn find(sorted: &[(Box<str>, u32)], domain: impl Iterator<Item = u8> + Clone) -> Option<u32> {
    let order = |entry: &(Box<str>, u32)| -> Ordering { entry.0.bytes().cmp(domain.clone()) };
    let at = sorted.binary_search_by(order).ok()?;
    sorted.get(at).map(|entry| entry.1)
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
    /// What is changed on their way there and back, if anything is.
    pub changes: Option<Box<Changes>>,
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
    /// Conditions on parameters of the query, by their names as sent.
    pub query: Vec<QueryMatch>,
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
    /// All of it is described by this.
    Regex(Pattern),
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

/// A condition on one parameter of the query. Of several with one name the first counts.
#[derive(Debug, PartialEq, Eq)]
pub struct QueryMatch {
    /// Name, as sent.
    pub name: Box<str>,
    /// What its value must be, as sent.
    pub value: ValueMatch,
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
    /// All of it is described by this.
    Regex(Pattern),
}

/// Where requests go.
#[derive(Debug)]
pub enum Action {
    /// To one cluster.
    Cluster(ClusterId),
    /// To one of several, at random by weight; the weights sum to `total`, which is not 0.
    Weighted {
        /// Clusters and weights; without a cluster: answered here with 500.
        clusters: Vec<(Option<ClusterId>, u32)>,
        /// Sum of the weights.
        total: u32,
    },
    /// To the local application (inbound).
    Local,
    /// Answered here with this status.
    Respond(u16),
    /// Answered here with another address.
    Redirect(Box<Redirect>),
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
#[expect(clippy::struct_excessive_bools, reason = "each is a condition of its own, in any combination")]
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
    /// Header fields of the reply, in lower case, any of which calls for another attempt.
    pub headers: Vec<Box<str>>,
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
            headers: Vec::new(),
        }
    }
}
