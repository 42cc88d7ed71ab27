//! Kinds of the Gateway API: routes whose parents are Services, and grants. Routes of Gateways are none of a mesh's
//! business. A rule that is wrong or not supported is refused alone: requests that match it are answered with 500, so that
//! it never depends on what was there before.

mod filters;
mod grant;
mod grpc;
mod http;
mod read;
mod refs;
mod text;

#[cfg(test)]
mod page;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::Converted;
use super::at::{At, Located};
use crate::model::route::{Match, Refusal, Rule};
use crate::model::{Kind, Object, ObjectRef, Problem, Route, Severity};
use read::Written;

pub(in crate::source) use grant::{GrantManifest, grant};
pub(in crate::source) use grpc::{GrpcRouteManifest, grpc_route};
pub(in crate::source) use http::{HttpRouteManifest, http_route};
pub(in crate::source) use read::{Exact, RouteManifest, RuleShape};

/// Most matches of one route: what the API allows, and a bound for what is searched for each request.
/// Source: Gateway API, the validation rules of `HTTPRouteSpec.rules` and of `GRPCRouteSpec.rules`.
const MOST_MATCHES: usize = 128;

/// Where a value stands, for what is said of it.
struct Asked<'a> {
    at: &'a At<'a>,
    object: &'a ObjectRef,
    /// The path of the part that is looked at.
    path: String,
}

impl<'a> Asked<'a> {
    /// A part of this.
    fn part(&self, name: &str) -> Self {
        Asked { at: self.at, object: self.object, path: format!("{}.{name}", self.path) }
    }

    /// An item of this list.
    fn item(&self, index: usize) -> Self {
        Asked { at: self.at, object: self.object, path: format!("{}[{index}]", self.path) }
    }

    /// What is wrong with a text that stands somewhere in the document.
    fn wrong<T>(&self, text: &Located<T>, reason: impl Into<Box<str>>) -> Problem {
        self.at.error(self.object, &self.path, &text.at, reason)
    }

    /// What is wrong with the part as a whole.
    fn fault(&self, reason: impl Into<Box<str>>) -> Problem {
        Problem::new(Severity::Error, self.object.clone(), &self.path, reason)
    }
}

/// The rules of one kind of route.
trait RuleKind: RuleShape {
    /// The matches as written.
    fn matches(&self) -> &[Self::Match];

    /// Reads a match. A condition that is wrong goes to `faults` and is left out, or made wider: the match holds for at
    /// least the requests that were meant.
    fn one(asked: &Asked<'_>, written: &Self::Match, faults: &mut Vec<Problem>) -> Match;

    /// The match of a rule that has none.
    fn everything() -> Match;

    /// Reads what becomes of requests that match.
    fn act(&self, asked: &Asked<'_>, matches: &[Match]) -> Result<Rule, Problem>;

    /// Whether a filter refers to an object of a kind that Tulle does not have.
    fn has_unknown_filter(&self) -> bool;
}

/// A route of either kind.
fn route<R: RuleKind>(at: &At<'_>, kind: Kind, written: &RouteManifest<R>) -> Result<Converted, Problem> {
    let object = written.metadata.reference(at, kind)?;
    let asked = |path: &str| Asked { at, object: &object, path: path.to_owned() };
    let mut problems = Vec::new();
    let parents = refs::parents(&asked("spec.parentRefs"), &written.parents, &mut problems);
    if parents.is_empty() {
        return Ok(Converted::default());
    }
    let mut rules = rules(&asked("spec.rules"), &written.rules, &mut problems);
    // What the API puts there.
    // Source: Gateway API, the default of `HTTPRouteSpec.rules`.
    if rules.is_empty() && kind == Kind::HttpRoute {
        rules.push(Rule { matches: vec![R::everything()], ..Rule::default() });
    }
    let route = Route {
        created: written.metadata.created(),
        generation: written.metadata.generation(),
        parents,
        rules: rules.into(),
        object,
    };
    Ok(Converted { object: Some(Object::Route(Arc::new(route))), problems })
}

/// A problem as the status of its object says it.
fn said(problem: &Problem) -> String {
    let example = problem.example.as_ref().map(|example| format!(" (example: {example})")).unwrap_or_default();
    format!("{}: {}{example}", problem.field, problem.reason)
}

fn rules<R: RuleKind>(asked: &Asked<'_>, written: &[Written<R>], problems: &mut Vec<Problem>) -> Vec<Rule> {
    let mut rules = Vec::new();
    for (index, written) in written.iter().enumerate() {
        let asked = asked.item(index);
        let mut faults = Vec::new();
        let (matches, act, unknown_kind) = match written {
            Written::Read(written) => {
                let matches = matches::<R>(&asked, written.matches(), &mut faults);
                let act = written.act(&asked, &matches);
                (matches, act, written.has_unknown_filter())
            }
            Written::Wrong { matches: written, reason } => {
                let matches = matches::<R>(&asked, written, &mut faults).into_iter().map(widened).collect();
                (matches, Err(asked.fault(reason.as_str())), false)
            }
        };
        let act = act.map_err(|problem| faults.push(problem));
        let refused = faults.first().map(|fault| Refusal { reason: said(fault).into(), unknown_kind });
        problems.append(&mut faults);
        rules.push(match (act, refused) {
            (Ok(rule), None) => Rule { matches, ..rule },
            (_, refused) => Rule { matches, refused, ..Rule::default() },
        });
    }
    let matches = rules.iter().fold(0_usize, |sum, rule| sum.saturating_add(rule.matches.len()));
    if matches > MOST_MATCHES {
        let problem = asked.fault(format!("there are {matches} matches, and {MOST_MATCHES} is the most of one route"));
        let refused = Some(Refusal { reason: said(&problem).into(), unknown_kind: false });
        problems.push(problem);
        return vec![Rule { matches: vec![R::everything()], refused, ..Rule::default() }];
    }
    rules
}

/// The matches of a rule; one for everything when none is written.
fn matches<R: RuleKind>(asked: &Asked<'_>, written: &[R::Match], faults: &mut Vec<Problem>) -> Vec<Match> {
    if written.is_empty() {
        return vec![R::everything()];
    }
    let asked = asked.part("matches");
    let one = |(index, written): (usize, &R::Match)| {
        let before = faults.len();
        let one = R::one(&asked.item(index), written, faults);
        if faults.len() > before { widened(one) } else { one }
    };
    written.iter().enumerate().map(one).collect()
}

/// The match as one that holds for more than was meant.
fn widened(mut one: Match) -> Match {
    let [.., wide] = &mut one.rank;
    *wide = 1;
    one
}
