//! `gateway.networking.k8s.io/v1 HTTPRoute`.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::filters::{FilterManifest, Kinds, filters};
use super::refs::{BackendManifest, backends};
use super::text::{self, ValueManifest};
use super::{Asked, Spec, matches, route};
use crate::model::route::{Match, PathChange, PathMatch, Rank, Rule};
use crate::model::{Kind, Problem};
use crate::source::object::Converted;
use crate::source::object::at::{At, LastGood, Located};
use crate::source::object::meta::Meta;

/// Filters of an HTTPRoute.
pub(super) const FILTERS: Kinds =
    Kinds(&["RequestHeaderModifier", "ResponseHeaderModifier", "URLRewrite", "RequestRedirect"]);

/// An HTTPRoute as written. Hosts are not looked at: a route of a Service is for all names of that.
/// Source: Gateway API, `HTTPRouteSpec.hostnames`.
#[derive(Clone, Debug, Deserialize)]
pub(in crate::source) struct HttpRouteManifest {
    pub(in crate::source) metadata: Meta,
    #[serde(default)]
    spec: Spec<RuleManifest>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RuleManifest {
    matches: Option<Vec<MatchManifest>>,
    filters: Option<Vec<FilterManifest>>,
    backend_refs: Option<Vec<BackendManifest>>,
    timeouts: Option<TimeoutsManifest>,
    retry: Option<IgnoredAny>,
    session_persistence: Option<IgnoredAny>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct TimeoutsManifest {
    request: Option<Located<String>>,
    backend_request: Option<Located<String>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MatchManifest {
    path: Option<PathManifest>,
    headers: Option<Vec<ValueManifest>>,
    query_params: Option<Vec<ValueManifest>>,
    method: Option<Located<String>>,
}

#[derive(Clone, Debug, Deserialize)]
struct PathManifest {
    r#type: Option<Located<String>>,
    value: Option<Located<String>>,
}

pub(in crate::source) fn http_route(
    at: &At<'_>,
    manifest: &HttpRouteManifest,
    last: LastGood<'_>,
) -> Result<Converted, Problem> {
    route((at, Kind::HttpRoute, last), &manifest.metadata, &manifest.spec, rule)
}

fn rule(asked: &Asked<'_>, written: &RuleManifest) -> Result<Rule, Problem> {
    for (part, there) in [("retry", &written.retry), ("sessionPersistence", &written.session_persistence)] {
        if there.is_some() {
            let instead = "use the annotations tulle.io/retry-on and tulle.io/retry-limit of the Service";
            let hint = if part == "retry" { instead } else { "leave it out" };
            return Err(asked.part(part).fault(format!("{part} is not supported: {hint}")));
        }
    }
    let everything = Match {
        rank: [0, 1, 0, 0, 0],
        path: PathMatch::Prefix("/".into()),
        method: None,
        headers: Vec::new(),
        query: Vec::new(),
    };
    let matches = matches(asked, written.matches.as_ref(), everything, one)?;
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
    Ok(Rule { matches, changes, redirect, backends, timeout, try_timeout })
}

fn one(asked: &Asked<'_>, written: &MatchManifest) -> Result<Match, Problem> {
    let path = match &written.path {
        Some(path) => read_path(&asked.part("path"), path)?,
        None => PathMatch::Prefix("/".into()),
    };
    let method = match &written.method {
        Some(method) if method.is_empty() || !method.bytes().all(|b| b.is_ascii_uppercase()) => {
            let reason = format!("\"{}\" is not a method, which are written in capitals", method.as_str());
            return Err(asked.part("method").wrong(method, reason).example("GET"));
        }
        method => method.as_ref().map(|method| method.as_str().into()),
    };
    let headers = text::headers(&asked.part("headers"), written.headers.as_deref().unwrap_or_default())?;
    let query = text::query(&asked.part("queryParams"), written.query_params.as_deref().unwrap_or_default())?;
    let rank = rank(&path, method.is_some(), headers.len(), query.len());
    Ok(Match { rank, path, method, headers, query })
}

fn read_path(asked: &Asked<'_>, written: &PathManifest) -> Result<PathMatch, Problem> {
    let Some(value) = &written.value else { return Ok(PathMatch::Prefix("/".into())) };
    match written.r#type.as_ref().map(|kind| kind.as_str()) {
        None | Some("PathPrefix") => Ok(PathMatch::Prefix(text::prefix(&asked.part("value"), value)?)),
        Some("Exact") => Ok(PathMatch::Exact(text::path(&asked.part("value"), value)?)),
        Some("RegularExpression") => Ok(PathMatch::Regex(text::expression(&asked.part("value"), value)?)),
        Some(other) => {
            let reason = format!("there is no match of a path of type \"{other}\"");
            let kind = written.r#type.as_ref().unwrap_or(value);
            Err(asked.part("type").wrong(kind, reason).example("PathPrefix"))
        }
    }
}

/// An exact path, then an expression, then the longest prefix; then a method, most header fields, most parameters.
fn rank(path: &PathMatch, method: bool, headers: usize, query: usize) -> Rank {
    let length = |text: &str| u32::try_from(text.len()).unwrap_or(u32::MAX);
    let (kind, length) = match path {
        PathMatch::Exact(_) => (2, 0),
        PathMatch::Regex(text) => (1, length(text)),
        PathMatch::Prefix(text) => (0, length(text)),
    };
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    // The kind of path and its length are one criterion of two parts.
    [kind, length, u32::from(method), count(headers), count(query)]
}
