//! Whether an object says about Tulle what can be. Services, namespaces and Tulle's kinds are judged by the control
//! plane's own function, which `tulle validate` calls too; pods by the list of annotations.

use serde_json::Value;
use tulle_control_plane::model::Problem;
use tulle_control_plane::model::problem::Severity;

use crate::annotations::{self, INJECT};
use crate::pod;

/// What is wrong with an object.
#[derive(Debug, Default)]
pub struct Found {
    /// Why it is refused, each with a right value.
    pub errors: Vec<String>,
    /// What has no effect.
    pub warnings: Vec<String>,
}

/// Judges `object`. What was wrong with it before is no reason to refuse: an update of something else must pass.
pub fn object(object: &Value, before: Option<&Value>) -> Found {
    let mut found = judge(object);
    if let Some(before) = before {
        let known = judge(before).errors;
        let (old, new) = found.errors.into_iter().partition(|error| known.contains(error));
        found.errors = new;
        found.warnings.extend::<Vec<_>>(old);
    }
    found
}

fn judge(object: &Value) -> Found {
    let mut found = words(object);
    for problem in tulle_control_plane::validate::object(&object.to_string()) {
        let text = tell(&problem);
        match problem.severity {
            // A value with a right one to show is wrong; without one the key itself has no effect.
            Severity::Error => found.errors.push(text),
            Severity::Warning if problem.example.is_some() => found.errors.push(text),
            Severity::Warning => found.warnings.push(text),
            Severity::Info => {}
        }
    }
    found
}

/// What an object says about injection: a namespace by its label, a pod and a template of pods by labels and annotations.
/// Empty for all other objects. A template is never refused: its pods are, where they are to be injected.
pub fn words(object: &Value) -> Found {
    let kind = pod::text(object, "/kind").unwrap_or_default();
    if kind == "Namespace" {
        return namespace(object);
    }
    match pod::template(kind) {
        None => Found::default(),
        Some("") => of_pod(object),
        Some(pointer) => {
            let Found { errors, warnings } = object.pointer(pointer).map(of_pod).unwrap_or_default();
            let errors = errors.into_iter().map(|error| format!("{error}: pods that are to be injected are refused"));
            Found { errors: Vec::new(), warnings: errors.chain(warnings).collect() }
        }
    }
}

fn of_pod(pod: &Value) -> Found {
    let label = labels(pod, "the only label of pods");
    let read = annotations::read(&pod::strings(pod, "/metadata/annotations"));
    Found {
        errors: label.errors.into_iter().chain(read.errors).collect(),
        warnings: label.warnings.into_iter().chain(read.warnings).collect(),
    }
}

fn namespace(object: &Value) -> Found {
    let mut found = labels(object, "the only label of namespaces");
    if pod::strings(object, "/metadata/annotations").contains_key(INJECT) {
        let name = pod::text(object, "/metadata/name").unwrap_or_default();
        found.warnings.push(format!(
            "the annotation {INJECT} of a namespace has no effect: kubectl label namespace {name} {INJECT}=enabled"
        ));
    }
    found
}

/// The label `tulle.io/inject`, and others that look like it.
fn labels(object: &Value, which: &str) -> Found {
    let mut found = Found::default();
    for (key, value) in pod::strings(object, "/metadata/labels") {
        if key == INJECT {
            let read = annotations::read(&[(key, value)].into());
            found.errors.extend(read.errors.into_iter().map(|error| format!("label {error}")));
        } else if key.starts_with(annotations::PREFIX) {
            found.warnings.push(format!("label {key} is not known and has no effect; {INJECT} is {which}"));
        }
    }
    found
}

/// The problem, without the object: the API server names it.
fn tell(problem: &Problem) -> String {
    let Problem { field, reason, example, .. } = problem;
    let field = if field.is_empty() { String::new() } else { format!("{field}: ") };
    let example = example.as_ref().map(|example| format!("; a right value is \"{example}\"")).unwrap_or_default();
    format!("{field}{reason}{example}")
}
