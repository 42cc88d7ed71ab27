//! Routes joined with the services they are for and those they send requests to. Pure: index in, what counts out.
//!
//! The rules, stated once. A route in the namespace of its Service is for every client; one in another namespace is for
//! the clients of that namespace, and for these it takes the place of the others. Of two kinds of route on one port, in
//! one namespace, the one whose oldest route is older counts, the other does not; other namespaces have no say in that. Where matches are alike the oldest route has the request,
//! then the first by name.

mod bind;
mod table;
mod verdict;

use std::sync::Arc;

use crate::model::route::{Parent, Rule};
use crate::model::{Key, ObjectRef, Port, Route};

pub(super) use bind::{bind, overlaps};
pub(super) use table::RouteTable;
pub(super) use verdict::verdicts;

/// A route on one port of a service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BoundRoute {
    /// The route.
    pub object: ObjectRef,
    /// Only clients of its own namespace use it.
    pub consumer: bool,
    /// What it says.
    pub rules: Arc<[Rule]>,
    /// Where the backends of each rule lead, in their order; none: requests for it are answered with 500.
    pub targets: Vec<Vec<Option<(Key, Port)>>>,
}

/// A route, and whether it is in force for each of its parents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteView {
    /// The route as written.
    pub route: Arc<Route>,
    /// For each of its parents, in their order.
    pub verdicts: Vec<Verdict>,
}

/// What a parent makes of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The parent.
    pub parent: Parent,
    /// Whether the route is in force.
    pub accepted: Condition,
    /// Whether all it refers to is there and may be used.
    pub resolved: Condition,
    /// Some of its rules are not carried out; none when all are, or none is.
    pub partly_invalid: Option<Condition>,
}

/// One condition of a status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// It holds.
    pub holds: bool,
    /// Why, in one word.
    /// Source: Gateway API, `RouteConditionReason`.
    pub reason: &'static str,
    /// Why, for people.
    pub message: Arc<str>,
}

impl Condition {
    fn holds(reason: &'static str, message: &str) -> Self {
        Self { holds: true, reason, message: message.into() }
    }

    fn fails(reason: &'static str, message: impl Into<Arc<str>>) -> Self {
        Self { holds: false, reason, message: message.into() }
    }
}
