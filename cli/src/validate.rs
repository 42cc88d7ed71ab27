//! `tulle validate`: problems of a directory of manifests, as a control plane and the injector would see them.

use std::process::ExitCode;

use anyhow::bail;
use serde_json::Value;
use tulle_control_plane::model::Problem;
use tulle_control_plane::model::problem::{Place, Severity};
use tulle_control_plane::validate;
use tulle_injector::{manifests, validate as injection};

use crate::args::ValidateArgs;
use crate::render;

/// Runs the subcommand.
///
/// # Errors
/// When the directory cannot be read.
pub(crate) fn run(args: &ValidateArgs) -> anyhow::Result<ExitCode> {
    if !args.dir.is_dir() {
        bail!("{} is not a directory", args.dir.display());
    }
    let mut problems = validate::validate(&args.dir);
    for (file, text) in validate::texts(&args.dir) {
        for (line, document, object) in manifests::documents(&text) {
            words(
                &object,
                &|word| Place { file: file.clone(), line: line_of(word, line, document), column: 0 },
                &mut problems,
            );
        }
    }
    problems.sort_by(|a, b| a.place.cmp(&b.place));
    render::lines(&problems)?;
    // What is only worth knowing is no reason to stop a deployment.
    let wrong = problems.iter().any(|problem| problem.severity > Severity::Info);
    Ok(if wrong { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What an object says about injection, and its items when it is a list.
fn words(object: &Value, place: &dyn Fn(&str) -> Place, problems: &mut Vec<Problem>) {
    for item in object["items"].as_array().into_iter().flatten() {
        words(item, place, problems);
    }
    let found = injection::words(object);
    let (errors, warnings) = (found.errors.iter(), found.warnings.iter());
    let told = errors.map(|text| (Severity::Error, text)).chain(warnings.map(|text| (Severity::Warning, text)));
    let name = |field: &str| object["metadata"][field].as_str();
    let object = format!(
        "{} {}{}",
        object["kind"].as_str().unwrap_or_default(),
        name("namespace").map(|namespace| format!("{namespace}/")).unwrap_or_default(),
        name("name").unwrap_or_default()
    );
    for (severity, text) in told {
        let mut problem = Problem::file(place(text), format!("{object}: {text}"));
        problem.severity = severity;
        problems.push(problem);
    }
}

/// The line of the document's annotation that `text` is about, else its first.
fn line_of(text: &str, first: usize, document: &str) -> u32 {
    let key = text.split([' ', ':']).find(|word| word.starts_with("tulle.io/"));
    let at = key.and_then(|key| document.lines().position(|line| line.contains(key))).unwrap_or_default();
    u32::try_from(first.saturating_add(at)).unwrap_or(u32::MAX)
}
