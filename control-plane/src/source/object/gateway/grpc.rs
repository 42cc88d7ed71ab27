//! `gateway.networking.k8s.io/v1 GRPCRoute`: a call is a path, `/SERVICE/METHOD`.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;
use tulle_proto::pattern;

use super::filters::{FilterManifest, Kinds, filters, has_unknown};
use super::read::{RouteManifest, RuleShape};
use super::refs::{BackendManifest, backends};
use super::text::{self, ValueManifest};
use super::{Asked, RuleKind, route};
use crate::model::route::{Match, PathMatch, Rule};
use crate::model::{Kind, Problem};
use crate::source::object::Converted;
use crate::source::object::at::{At, Located};

/// Filters of a GRPCRoute.
pub(super) const FILTERS: Kinds = Kinds(&["RequestHeaderModifier", "ResponseHeaderModifier"]);

/// A GRPCRoute as written.
pub(in crate::source) type GrpcRouteManifest = RouteManifest<RuleManifest>;

/// A rule as written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::source) struct RuleManifest {
    #[serde(rename = "name")]
    _name: Option<IgnoredAny>,
    matches: Option<Vec<MatchManifest>>,
    filters: Option<Vec<FilterManifest>>,
    backend_refs: Option<Vec<BackendManifest>>,
    session_persistence: Option<IgnoredAny>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::source) struct MatchManifest {
    method: Option<MethodManifest>,
    headers: Option<Vec<ValueManifest>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MethodManifest {
    r#type: Option<Located<String>>,
    service: Option<Located<String>>,
    method: Option<Located<String>>,
}

pub(in crate::source) fn grpc_route(at: &At<'_>, manifest: &GrpcRouteManifest) -> Result<Converted, Problem> {
    route(at, Kind::GrpcRoute, manifest)
}

impl RuleShape for RuleManifest {
    type Match = MatchManifest;
}

impl RuleKind for RuleManifest {
    fn matches(&self) -> &[MatchManifest] {
        self.matches.as_deref().unwrap_or_default()
    }

    fn one(asked: &Asked<'_>, written: &MatchManifest, faults: &mut Vec<Problem>) -> Match {
        let headers = text::headers(&asked.part("headers"), written.headers.as_deref().unwrap_or_default(), faults);
        let everything = (PathMatch::Prefix("/".into()), 0, 0);
        let (path, service, method) = match written.method.as_ref().map(|method| call(&asked.part("method"), method)) {
            Some(Ok(found)) => found,
            Some(Err(problem)) => {
                faults.push(problem);
                everything
            }
            None => everything,
        };
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        // The longest service, the longest method, the most header fields.
        let rank = [count(service), count(method), count(headers.len()), 0, 0, 0];
        Match { rank, path, method: None, headers, query: Vec::new() }
    }

    fn everything() -> Match {
        Match {
            rank: [0; 6],
            path: PathMatch::Prefix("/".into()),
            method: None,
            headers: Vec::new(),
            query: Vec::new(),
        }
    }

    fn act(&self, asked: &Asked<'_>, _: &[Match]) -> Result<Rule, Problem> {
        if self.session_persistence.is_some() {
            return Err(asked.part("sessionPersistence").fault("sessionPersistence is not supported: leave it out"));
        }
        let (changes, redirect) = filters(asked, FILTERS, self.filters.as_ref())?;
        let backends = backends(asked, self.backend_refs.as_ref())?;
        Ok(Rule { changes, redirect, backends, ..Rule::default() })
    }

    fn has_unknown_filter(&self) -> bool {
        has_unknown(self.filters.as_deref())
    }
}

/// The path of the calls that match, and the lengths of the names of service and method.
fn call(asked: &Asked<'_>, written: &MethodManifest) -> Result<(PathMatch, usize, usize), Problem> {
    let (service, method) = (written.service.as_ref(), written.method.as_ref());
    let lengths = (service.map_or(0, |text| text.len()), method.map_or(0, |text| text.len()));
    let kind = written.r#type.as_ref();
    let path = match kind.map(|kind| kind.as_str()) {
        None | Some("Exact") => {
            for (part, text) in [("service", service), ("method", method)] {
                if let Some(text) = text.filter(|text| !is_name(text)) {
                    let reason = format!("\"{}\" is not the name of a {part}", text.as_str());
                    return Err(asked.part(part).wrong(text, reason).example(if part == "service" {
                        "shop.v1.Reviews"
                    } else {
                        "List"
                    }));
                }
            }
            exact(service.map(|text| text.as_str()), method.map(|text| text.as_str()))
        }
        Some("RegularExpression") => {
            for (part, text) in [("service", service), ("method", method)] {
                text.map(|text| text::expression(&asked.part(part), text)).transpose()?;
            }
            let one = |text: Option<&Located<String>>| text.map_or("[^/]+", |text| text.as_str()).to_owned();
            PathMatch::Regex(format!("/(?:{})/(?:{})", one(service), one(method)).into())
        }
        Some(other) => {
            let reason = format!("there is no match of a method of type \"{other}\"");
            return Err(match kind {
                Some(kind) => asked.part("type").wrong(kind, reason),
                None => asked.part("type").fault(reason),
            }
            .example("Exact"));
        }
    };
    Ok((path, lengths.0, lengths.1))
}

fn exact(service: Option<&str>, method: Option<&str>) -> PathMatch {
    match (service, method) {
        (Some(service), Some(method)) => PathMatch::Exact(format!("/{service}/{method}").into()),
        (Some(service), None) => PathMatch::Prefix(format!("/{service}/").into()),
        (None, Some(method)) => PathMatch::Regex(Arc::from(format!("/[^/]+/{}", pattern::literal(method)))),
        (None, None) => PathMatch::Prefix("/".into()),
    }
}

fn is_name(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'.';
    text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_') && text.bytes().all(inner)
}
