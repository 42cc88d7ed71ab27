//! Kinds of the Gateway API: routes whose parents are Services, and grants. Routes of Gateways are none of a mesh's
//! business. A route that says something wrong stays in force as it was, and says why it is not as written.

mod filters;
mod grant;
mod grpc;
mod http;
mod refs;
mod text;

#[cfg(test)]
mod page;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde::Deserialize;

use super::Converted;
use super::at::{At, LastGood, Located};
use super::meta::Meta;
use crate::model::route::{Match, Parent, Rule};
use crate::model::{Kind, Object, ObjectRef, Problem, Route, Severity};
use refs::ParentManifest;

pub(in crate::source) use grant::{GrantManifest, grant};
pub(in crate::source) use grpc::{GrpcRouteManifest, grpc_route};
pub(in crate::source) use http::{HttpRouteManifest, http_route};

/// Most matches of one route: what the API allows, and a bound for what is searched for each request.
/// Source: Gateway API, the validation rules of `HTTPRouteSpec.rules` and of `GRPCRouteSpec.rules`.
const MOST_MATCHES: usize = 128;

/// The parts that both kinds of route have.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec<R> {
    parent_refs: Vec<ParentManifest>,
    rules: Option<Vec<R>>,
}

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

/// A route of either kind; `rules` reads what both write differently.
fn route<R>(
    (at, kind, last): (&At<'_>, Kind, LastGood<'_>),
    metadata: &Meta,
    spec: &Spec<R>,
    rule: impl Fn(&Asked<'_>, &R) -> Result<Rule, Problem>,
) -> Result<Converted, Problem> {
    let object = metadata.reference(at, kind)?;
    let asked = |path: &str| Asked { at, object: &object, path: path.to_owned() };
    let parents = match refs::parents(&asked("spec.parentRefs"), &spec.parent_refs) {
        Ok(parents) if parents.is_empty() => return Ok(Converted::default()),
        parents => parents,
    };
    let rules = rules(&asked("spec.rules"), spec.rules.as_deref(), rule);
    let (parents, rules, problem) = match (parents, rules) {
        (Ok(parents), Ok(rules)) => (parents, rules, None),
        (Ok(parents), Err(problem)) => (parents, known(&object, last).1, Some(problem)),
        (Err(problem), _) => {
            let (parents, rules) = known(&object, last);
            (parents, rules, Some(problem))
        }
    };
    let route = Route {
        created: metadata.created(),
        generation: metadata.generation(),
        parents,
        rules,
        fault: problem.as_ref().map(|problem| Arc::from(&*said(problem))),
        object,
    };
    Ok(Converted { object: Some(Object::Route(Arc::new(route))), problems: problem.into_iter().collect() })
}

/// What the last good version says; nothing when there was none.
fn known(object: &ObjectRef, last: LastGood<'_>) -> (Vec<Parent>, Arc<[Rule]>) {
    let Some(Object::Route(route)) = last(object) else { return (Vec::new(), Arc::default()) };
    (route.parents.clone(), route.rules.clone())
}

/// A problem as the status of its object says it.
fn said(problem: &Problem) -> String {
    let example = problem.example.as_ref().map(|example| format!(" (example: {example})")).unwrap_or_default();
    format!("{}: {}{example}", problem.field, problem.reason)
}

fn rules<R>(
    asked: &Asked<'_>,
    written: Option<&[R]>,
    rule: impl Fn(&Asked<'_>, &R) -> Result<Rule, Problem>,
) -> Result<Arc<[Rule]>, Problem> {
    let mut rules = Vec::new();
    let mut matches = 0_usize;
    for (index, written) in written.into_iter().flatten().enumerate() {
        let read = rule(&asked.item(index), written)?;
        matches = matches.saturating_add(read.matches.len());
        rules.push(read);
    }
    if matches > MOST_MATCHES {
        return Err(asked.fault(format!("there are {matches} matches, and {MOST_MATCHES} is the most of one route")));
    }
    Ok(rules.into())
}

/// The matches of a rule; one for everything when none is written.
fn matches<M>(
    asked: &Asked<'_>,
    written: Option<&Vec<M>>,
    everything: Match,
    one: impl Fn(&Asked<'_>, &M) -> Result<Match, Problem>,
) -> Result<Vec<Match>, Problem> {
    let asked = asked.part("matches");
    match written {
        Some(written) if !written.is_empty() => {
            written.iter().enumerate().map(|(index, written)| one(&asked.item(index), written)).collect()
        }
        Some(_) | None => Ok(vec![everything]),
    }
}
