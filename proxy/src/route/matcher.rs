//! The conditions of one route: path, method, header fields and query. All must hold.

use super::RequestView;
use crate::config::route::{HeaderMatch, Matcher, PathMatch, QueryMatch, ValueMatch};

/// Whether every condition holds.
pub(super) fn matches(matcher: &Matcher, request: &impl RequestView) -> bool {
    path(&matcher.path, request.path())
        && matcher.headers.iter().all(|header| field(header, request))
        && matcher.query.iter().all(|condition| parameter(condition, request.path()))
}

fn path(condition: &PathMatch, target: &str) -> bool {
    if *condition == PathMatch::Any {
        return true;
    }
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    match condition {
        PathMatch::Any => true,
        PathMatch::Exact(exact) => path == &**exact,
        PathMatch::Prefix(prefix) => path.starts_with(&**prefix),
        PathMatch::Segments(segments) => {
            // Gateway API: a trailing slash of the condition is ignored.
            let segments = segments.strip_suffix('/').unwrap_or(segments);
            path.strip_prefix(segments).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        PathMatch::Regex(pattern) => pattern.holds(path.as_bytes()),
    }
}

/// A field that is absent fails every condition on its value, turned round or not, as Envoy and gRPC (gRFC A28) have
/// it; only `Present` can be turned into "absent".
fn field(condition: &HeaderMatch, request: &impl RequestView) -> bool {
    let value = match &*condition.name {
        ":method" => Some(request.method().as_bytes()),
        ":authority" => Some(request.authority().as_bytes()),
        ":path" => Some(request.path().as_bytes()),
        name => request.header(name),
    };
    let Some(value) = value else {
        return condition.value == ValueMatch::Present && condition.invert;
    };
    holds(&condition.value, value) != condition.invert
}

/// A parameter of the query as it was sent: the first with this name.
fn parameter(condition: &QueryMatch, target: &str) -> bool {
    let Some((_, query)) = target.split_once('?') else { return false };
    let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let found = pairs.find(|(name, _)| *name == &*condition.name);
    found.is_some_and(|(_, value)| holds(&condition.value, value.as_bytes()))
}

fn holds(condition: &ValueMatch, value: &[u8]) -> bool {
    match condition {
        ValueMatch::Present => true,
        ValueMatch::Exact(text) => value == text.as_bytes(),
        ValueMatch::Prefix(text) => value.starts_with(text.as_bytes()),
        ValueMatch::Suffix(text) => value.ends_with(text.as_bytes()),
        ValueMatch::Contains(text) => contains(value, text.as_bytes()),
        ValueMatch::Regex(pattern) => pattern.holds(value),
    }
}

fn contains(value: &[u8], text: &[u8]) -> bool {
    text.is_empty() || value.windows(text.len()).any(|window| window == text)
}
