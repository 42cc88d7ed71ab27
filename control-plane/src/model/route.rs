//! A route of the Gateway API whose parents are Services: which requests go where, and what changes on their way.
//! HTTPRoute and GRPCRoute become the same values; how requests are matched is told by paths alone.

use std::sync::Arc;
use std::time::Duration;

use super::name::{Key, Kind, ObjectRef, Port};

/// An HTTPRoute or GRPCRoute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Which of the two, its namespace and name.
    pub object: ObjectRef,
    /// When it was created.
    pub created: Option<Arc<str>>,
    /// Which version of what was written this is; 0 where nobody counts.
    pub generation: i64,
    /// The Services it is for.
    pub parents: Vec<Parent>,
    /// Its rules, in the order written. A rule that cannot be carried out is among them and says why.
    pub rules: Arc<[Rule]>,
}

impl Route {
    /// Whether `kind` is one of routes.
    pub const fn is(kind: Kind) -> bool {
        matches!(kind, Kind::HttpRoute | Kind::GrpcRoute)
    }
}

/// A Service that a route is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    /// The Service.
    pub service: Key,
    /// The namespace as written, if it was.
    pub namespace: Option<Arc<str>>,
    /// One port of it, by number; all without.
    pub port: Option<Port>,
    /// One port of it, by name.
    pub section: Option<Arc<str>>,
    /// The group as written, when it is not the one of Services.
    pub group: Option<Arc<str>>,
    /// Why the reference means nothing, and the route is not in force there.
    pub fault: Option<Arc<str>>,
}

/// What becomes of requests that match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rule {
    /// Which requests: any of these, at least one.
    pub matches: Vec<Match>,
    /// What changes on their way.
    pub changes: Changes,
    /// They are sent elsewhere by their client.
    pub redirect: Option<Redirect>,
    /// Where they go, by weight.
    pub backends: Vec<Backend>,
    /// Longest time to the end of the reply; zero: none, whatever the Service says.
    pub timeout: Option<Duration>,
    /// Longest time of one attempt; zero: none.
    pub try_timeout: Option<Duration>,
    /// Why the rule is not carried out: requests that match it are answered with 500.
    pub refused: Option<Refusal>,
}

/// Why a rule is not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Refusal {
    /// Field and reason, for people.
    pub reason: Arc<str>,
    /// A filter refers to an object of a kind that Tulle does not have.
    pub unknown_kind: bool,
}

/// Conditions on a request, all of which hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Match {
    /// Which of several that match is taken: the greatest.
    pub rank: Rank,
    /// On its path.
    pub path: PathMatch,
    /// On its method.
    pub method: Option<Arc<str>>,
    /// On its header fields, by lower-case name, none twice.
    pub headers: Vec<ValueMatch>,
    /// On the parameters of its query.
    pub query: Vec<ValueMatch>,
}

/// How specific a match is, most important first.
/// The last number is 1 where a condition could not be read and was left out: of what is alike such a match goes first,
/// so that requests it may have meant do not go elsewhere.
/// Source: Gateway API, the precedence of `HTTPRouteRule.matches` and of `GRPCRouteRule.matches`.
pub type Rank = [u32; 6];

/// A condition on a path, without its query.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathMatch {
    /// It is this.
    Exact(Arc<str>),
    /// It begins with these segments; with a slash at their end, with exactly these characters.
    Prefix(Arc<str>),
    /// All of it is described by this expression.
    Regex(Arc<str>),
}

/// A condition on a named value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ValueMatch {
    /// The name.
    pub name: Arc<str>,
    /// What its value is.
    pub value: TextMatch,
}

/// A condition on a text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TextMatch {
    /// It is this.
    Exact(Arc<str>),
    /// All of it is described by this expression.
    Regex(Arc<str>),
}

/// What changes on the way there and back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Changes {
    /// Fields of the request.
    pub request: FieldChanges,
    /// Fields of the reply.
    pub reply: FieldChanges,
    /// Its host.
    pub host: Option<Arc<str>>,
    /// Its path.
    pub path: Option<PathChange>,
}

/// Changes of header fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FieldChanges {
    /// Name and value: the only ones from now on.
    pub set: Vec<(Arc<str>, Arc<str>)>,
    /// Name and value: beside those that are there.
    pub add: Vec<(Arc<str>, Arc<str>)>,
    /// Names: not passed on.
    pub remove: Vec<Arc<str>>,
}

/// A change of a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathChange {
    /// This is all of it.
    Full(Arc<str>),
    /// This instead of the matched segments.
    Prefix(Arc<str>),
}

/// An answer that sends the client elsewhere. What is unset stays as in the request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Redirect {
    /// `http` or `https`.
    pub scheme: Option<Arc<str>>,
    /// The host.
    pub host: Option<Arc<str>>,
    /// The port.
    pub port: Option<Port>,
    /// The path.
    pub path: Option<PathChange>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// Where some of the requests go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Backend {
    /// The destination.
    pub to: To,
    /// Its share, relative to its siblings.
    pub weight: u32,
}

/// A destination as written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum To {
    /// A port of a Service.
    Service(Key, Port),
    /// A kind that no request can go to.
    Unknown(Arc<str>),
}

impl Rule {
    /// The Services that requests go to.
    pub fn services(&self) -> impl Iterator<Item = &Key> {
        self.backends.iter().filter_map(|backend| match &backend.to {
            To::Service(key, _) => Some(key),
            To::Unknown(_) => None,
        })
    }
}
