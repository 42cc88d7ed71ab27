//! `gateway.networking.k8s.io/v1 HTTPRoute`.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::filters::{FilterManifest, Kinds, filters, has_unknown};
use super::read::{RouteManifest, RuleShape};
use super::refs::{BackendManifest, backends};
use super::text::{self, ValueManifest};
use super::{Asked, RuleKind, route};
use crate::model::route::{Match, PathChange, PathMatch, Rank, Rule};
use crate::model::{Kind, Problem};
use crate::source::object::Converted;
use crate::source::object::at::{At, Located};

/// Filters of an HTTPRoute.
pub(super) const FILTERS: Kinds =
    Kinds(&["RequestHeaderModifier", "ResponseHeaderModifier", "URLRewrite", "RequestRedirect"]);

/// An HTTPRoute as written.
pub(in crate::source) type HttpRouteManifest = RouteManifest<RuleManifest>;

/// A rule as written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::source) struct RuleManifest {
    #[serde(rename = "name")]
    _name: Option<IgnoredAny>,
    matches: Option<Vec<MatchManifest>>,
    filters: Option<Vec<FilterManifest>>,
    backend_refs: Option<Vec<BackendManifest>>,
    timeouts: Option<TimeoutsManifest>,
    retry: Option<IgnoredAny>,
    session_persistence: Option<IgnoredAny>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct TimeoutsManifest {
    request: Option<Located<String>>,
    backend_request: Option<Located<String>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::source) struct MatchManifest {
    path: Option<PathManifest>,
    headers: Option<Vec<ValueManifest>>,
    query_params: Option<Vec<ValueManifest>>,
    method: Option<Located<String>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PathManifest {
    r#type: Option<Located<String>>,
    value: Option<Located<String>>,
}

pub(in crate::source) fn http_route(at: &At<'_>, manifest: &HttpRouteManifest) -> Result<Converted, Problem> {
    route(at, Kind::HttpRoute, manifest)
}

impl RuleShape for RuleManifest {
    type Match = MatchManifest;
}

impl RuleKind for RuleManifest {
    fn matches(&self) -> &[MatchManifest] {
        self.matches.as_deref().unwrap_or_default()
    }

    fn one(asked: &Asked<'_>, written: &MatchManifest, faults: &mut Vec<Problem>) -> Match {
        one(asked, written, faults)
    }

    fn everything() -> Match {
        Match {
            rank: [0, 1, 0, 0, 0, 0],
            path: PathMatch::Prefix("/".into()),
            method: None,
            headers: Vec::new(),
            query: Vec::new(),
        }
    }

    fn act(&self, asked: &Asked<'_>, matches: &[Match]) -> Result<Rule, Problem> {
        act(asked, self, matches)
    }

    fn has_unknown_filter(&self) -> bool {
        has_unknown(self.filters.as_deref())
    }
}

fn act(asked: &Asked<'_>, written: &RuleManifest, matches: &[Match]) -> Result<Rule, Problem> {
    for (part, there) in [("retry", &written.retry), ("sessionPersistence", &written.session_persistence)] {
        if there.is_some() {
            let instead = "use the annotations tulle.io/retry-on and tulle.io/retry-limit of the Service";
            let hint = if part == "retry" { instead } else { "leave it out" };
            return Err(asked.part(part).fault(format!("{part} is not supported: {hint}")));
        }
    }
    let (changes, redirect) = filters(asked, FILTERS, written.filters.as_ref())?;
    let prefix = [changes.path.as_ref(), redirect.as_ref().and_then(|redirect| redirect.path.as_ref())];
    let by_prefix = matches.iter().all(|one| matches!(one.path, PathMatch::Prefix(_)));
    if prefix.into_iter().flatten().any(|change| matches!(change, PathChange::Prefix(_))) && !by_prefix {
        return Err(asked.part("filters").fault("ReplacePrefixMatch needs matches of type PathPrefix only"));
    }
    let backends = backends(asked, written.backend_refs.as_ref())?;
    if redirect.is_some() && !backends.is_empty() {
        return Err(asked.part("backendRefs").fault("a rule that redirects sends nothing to a Service"));
    }
    let timeouts = written.timeouts.clone().unwrap_or_default();
    let limit = |part: &str, text: Option<&Located<String>>| {
        text.map(|text| text::duration(&asked.part("timeouts").part(part), text)).transpose()
    };
    let timeout = limit("request", timeouts.request.as_ref())?;
    let try_timeout = limit("backendRequest", timeouts.backend_request.as_ref())?;
    if let (Some(whole), Some(part)) = (timeout, try_timeout)
        && !whole.is_zero()
        && part > whole
    {
        return Err(asked.part("timeouts").fault("backendRequest is longer than request, which it is a part of"));
    }
    Ok(Rule { changes, redirect, backends, timeout, try_timeout, ..Rule::default() })
}

fn one(asked: &Asked<'_>, written: &MatchManifest, faults: &mut Vec<Problem>) -> Match {
    let (path, mut rank) = match &written.path {
        Some(path) => read_path(&asked.part("path"), path, faults),
        None => (PathMatch::Prefix("/".into()), rank(&PathMatch::Prefix("/".into()))),
    };
    let method = match &written.method {
        Some(method) if method.is_empty() || !method.bytes().all(|b| b.is_ascii_uppercase()) => {
            let reason = format!("\"{}\" is not a method, which are written in capitals", method.as_str());
            faults.push(asked.part("method").wrong(method, reason).example("GET"));
            None
        }
        method => method.as_ref().map(|method| method.as_str().into()),
    };
    let headers = text::headers(&asked.part("headers"), written.headers.as_deref().unwrap_or_default(), faults);
    let query = text::query(&asked.part("queryParams"), written.query_params.as_deref().unwrap_or_default(), faults);
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    // A method, most header fields, most parameters.
    let [_, _, by_method, by_headers, by_query, _] = &mut rank;
    (*by_method, *by_headers, *by_query) = (u32::from(method.is_some()), count(headers.len()), count(query.len()));
    Match { rank, path, method, headers, query }
}

/// A condition on the path and its rank. One that is wrong is made wider, and of the rank of what is left of it.
fn read_path(asked: &Asked<'_>, written: &PathManifest, faults: &mut Vec<Problem>) -> (PathMatch, Rank) {
    let everything = PathMatch::Prefix("/".into());
    let Some(value) = &written.value else {
        let rank = rank(&everything);
        return (everything, rank);
    };
    let at = asked.part("value");
    let read = match written.r#type.as_ref().map(|kind| kind.as_str()) {
        None | Some("PathPrefix") => text::prefix(&at, value).map(PathMatch::Prefix),
        Some("Exact") => text::path(&at, value).map(PathMatch::Exact),
        Some("RegularExpression") => text::expression(&at, value).map(PathMatch::Regex),
        Some(other) => {
            let reason = format!("there is no match of a path of type \"{other}\"");
            let kind = written.r#type.as_ref().unwrap_or(value);
            Err(asked.part("type").wrong(kind, reason).example("PathPrefix"))
        }
    };
    match read {
        Ok(path) => {
            let rank = rank(&path);
            (path, rank)
        }
        Err(problem) => {
            faults.push(problem);
            let by_expression = written.r#type.as_ref().is_some_and(|kind| kind.as_str() == "RegularExpression");
            let path = by_expression.then(|| text::wider(value)).flatten().unwrap_or(everything);
            let rank = rank(&path);
            (path, rank)
        }
    }
}

/// An exact path, then an expression, then the longest prefix: the kind of path and its length are one criterion of two parts.
fn rank(path: &PathMatch) -> Rank {
    let length = |text: &str| u32::try_from(text.len()).unwrap_or(u32::MAX);
    let (kind, length) = match path {
        PathMatch::Exact(_) => (2, 0),
        PathMatch::Regex(text) => (1, length(text)),
        PathMatch::Prefix(text) => (0, length(text)),
    };
    [kind, length, 0, 0, 0, 0]
}
