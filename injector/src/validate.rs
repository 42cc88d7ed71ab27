//! Whether an object says about Tulle what can be. Services, namespaces and Tulle's kinds are judged by the control
//! plane's own function, which `tulle validate` calls too; pods by the list of annotations.

use serde_json::Value;
use tulle_control_plane::model::Problem;
use tulle_control_plane::model::problem::Severity;

use crate::annotations;
use crate::pod;

/// What is wrong with an object.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Why it is refused, each with a right value.
    pub(crate) errors: Vec<String>,
    /// What has no effect.
    pub(crate) warnings: Vec<String>,
}

/// Judges `object`. What was wrong with it before is no reason to refuse: an update of something else must pass.
pub(crate) fn object(object: &Value, before: Option<&Value>) -> Found {
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
    if pod::text(object, "/kind") == Some("Pod") {
        let read = annotations::read(&pod::strings(object, "/metadata/annotations"));
        return Found { errors: read.errors, warnings: read.warnings };
    }
    let mut found = Found::default();
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

/// The problem, without the object: the API server names it.
fn tell(problem: &Problem) -> String {
    let Problem { field, reason, example, .. } = problem;
    let field = if field.is_empty() { String::new() } else { format!("{field}: ") };
    let example = example.as_ref().map(|example| format!("; a right value is \"{example}\"")).unwrap_or_default();
    format!("{field}{reason}{example}")
}
