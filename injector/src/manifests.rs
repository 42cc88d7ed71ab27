//! Manifests in, manifests out: what `tulle inject` does without a cluster. Pure.
//!
//! A document that stays as it is keeps every byte; one that is changed keeps every field, but neither comments nor the
//! order of fields. YAML is read as kubectl does, so `yes` is true and `0644` octal.

use serde_json::{Value, json};
use serde_saphyr::Options;

use crate::decide::{self, Circumstances, Verdict};
use crate::patch;
use crate::pod;
use crate::settings::Injection;

/// What stands beside the manifests.
#[derive(Clone, Copy, Debug)]
pub struct Around<'a> {
    /// Namespace of objects that name none.
    pub namespace: &'a str,
    /// Whether the cluster has native sidecars.
    pub native: bool,
}

/// What became of one object that makes pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// `Deployment shop/web`.
    pub object: String,
    /// What happened.
    pub what: What,
}

/// What happened to an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Its pods have a proxy now; what its owner should know.
    Injected(Vec<String>),
    /// It stays as it is, and why.
    Skipped(String),
    /// What it says about its proxy is wrong.
    Wrong(String),
}

/// A document that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("document {number} (line {line}): {reason}")]
pub struct Unreadable {
    /// Its place among the documents, from 1.
    pub number: usize,
    /// The line it starts at, from 1.
    pub line: usize,
    /// What is wrong.
    pub reason: String,
}

/// Puts proxies into everything in `text` that makes pods.
///
/// # Errors
/// The first document that is no YAML.
pub fn inject(text: &str, around: Around<'_>, settings: &Injection) -> Result<(String, Vec<Outcome>), Unreadable> {
    let mut out = String::with_capacity(text.len());
    let mut outcomes = Vec::new();
    for (index, (line, document)) in split(text).into_iter().enumerate() {
        let unreadable = |reason: String| Unreadable { number: index.saturating_add(1), line, reason };
        if document.lines().all(is_blank) {
            out.push_str(document);
            continue;
        }
        let options = serde_saphyr::options! { legacy_octal_numbers: true };
        let mut value: Value = read(document, options).map_err(unreadable)?;
        if object(&mut value, around, settings, &mut outcomes) {
            let written = serde_saphyr::to_string(&value).map_err(|error| unreadable(error.to_string()))?;
            if line > 1 || document.starts_with("---") {
                out.push_str("---\n");
            }
            out.push_str(&written);
            if !out.ends_with('\n') {
                out.push('\n');
            }
        } else {
            out.push_str(document);
        }
    }
    Ok((out, outcomes))
}

/// The documents of `text` that are YAML, each with its first line, counted from 1, and its own text.
pub fn documents(text: &str) -> Vec<(usize, &str, Value)> {
    let options = || serde_saphyr::options! { legacy_octal_numbers: true };
    let parsed = |(line, document)| Some((line, document, read(document, options()).ok()?));
    split(text).into_iter().filter_map(parsed).collect()
}

fn read(document: &str, options: Options) -> Result<Value, String> {
    serde_saphyr::from_str_with_options(document, options)
        .map_err(|error| error.without_snippet().to_string().lines().next().unwrap_or("it is no YAML").to_owned())
}

/// Documents with the lines they start at. A line that starts one cannot be inside of one (YAML 1.2.2, section 9.1.2).
fn split(text: &str) -> Vec<(usize, &str)> {
    let mut documents = Vec::new();
    let (mut start, mut first, mut at) = (0_usize, 1_usize, 0_usize);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let marks =
            line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        if marks && at > start {
            documents.push((first, text.get(start..at).unwrap_or_default()));
            (start, first) = (at, index.saturating_add(1));
        }
        at = at.saturating_add(line.len());
    }
    documents.push((first, text.get(start..).unwrap_or_default()));
    documents
}

fn is_blank(line: &str) -> bool {
    let line = line.strip_prefix("---").unwrap_or(line).trim();
    line.is_empty() || line.starts_with('#') || line.starts_with('%') || line == "..."
}

/// Changes an object in place; whether it did.
fn object(value: &mut Value, around: Around<'_>, settings: &Injection, outcomes: &mut Vec<Outcome>) -> bool {
    let kind = pod::text(value, "/kind").unwrap_or_default().to_owned();
    if let Some(items) = value.pointer_mut("/items").and_then(Value::as_array_mut).filter(|_| kind.ends_with("List")) {
        let mut changed = false;
        for item in items {
            changed |= object(item, around, settings, outcomes);
        }
        return changed;
    }
    let Some(pointer) = pod::template(&kind) else { return false };
    let namespace = pod::text(value, "/metadata/namespace").unwrap_or(around.namespace).to_owned();
    let name = pod::workload(&without_owners(value)).unwrap_or_default();
    let Some(found) = value.pointer_mut(pointer) else { return false };
    let mut candidate = found.clone();
    if !pointer.is_empty() && candidate.is_object() {
        // As the pods will say; CronJobs make Jobs.
        let owner = if kind == "CronJob" { "Job" } else { kind.as_str() };
        if !candidate["metadata"].is_object() {
            candidate["metadata"] = json!({});
        }
        candidate["metadata"]["ownerReferences"] = json!([{"kind": owner, "name": name, "controller": true}]);
    }
    let circumstances = Circumstances { namespace: &namespace, by_default: true, native: around.native };
    let (what, changed) = match decide::decide(&candidate, circumstances) {
        Verdict::Inject(inject) => {
            let workload = (!pointer.is_empty()).then_some(name.as_str());
            let warnings = inject.warnings.iter().cloned().chain(patch::warnings(found, inject.native)).collect();
            *found = patch::inject(found, &inject, settings, workload);
            (What::Injected(warnings), true)
        }
        Verdict::Skip(skip) => (What::Skipped(skip.to_string()), false),
        Verdict::Deny(deny) => (What::Wrong(deny.to_string()), false),
    };
    outcomes.push(Outcome { object: format!("{kind} {namespace}/{name}"), what });
    changed
}

/// What an object is named by itself.
fn without_owners(value: &Value) -> Value {
    let field = |name: &str| value.pointer("/metadata").and_then(|metadata| metadata.get(name)).cloned();
    json!({"metadata": {"name": field("name"), "generateName": field("generateName")}})
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const AROUND: Around<'_> = Around { namespace: "default", native: true };

    #[test]
    fn golden_pairs() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/manifests");
        let mut seen = 0;
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            let Some(name) = name.strip_suffix(".in.yaml") else { continue };
            let text = std::fs::read_to_string(&path).unwrap();
            let (out, outcomes) = inject(&text, AROUND, &Injection::default()).unwrap();
            let told: Vec<_> =
                outcomes.iter().map(|Outcome { object, what }| format!("# {object}: {what:?}\n")).collect();
            let shown = format!("{}{}", told.concat(), out).replace(env!("CARGO_PKG_VERSION"), "VERSION");
            let golden = directory.join(format!("{name}.out.yaml"));
            if std::env::vars().any(|(key, _)| key == "UPDATE_GOLDEN") {
                std::fs::write(&golden, &shown).unwrap();
            }
            assert_eq!(
                shown,
                std::fs::read_to_string(&golden).unwrap_or_default(),
                "{name}: UPDATE_GOLDEN=1 rewrites it"
            );
            let (again, _) = inject(&out, AROUND, &Injection::default()).unwrap();
            assert_eq!(again, out, "{name}: injecting again changes nothing");
            seen += 1;
        }
        assert!(seen > 1, "no golden pairs in {}", directory.display());
    }

    #[test]
    fn a_file_without_pods_keeps_every_byte() {
        for text in [
            "%YAML 1.2\n---\n# a comment\nkind: Service # another\nspec: {}\n---\n---\n{\"kind\": \"ConfigMap\"}\n...\n",
            "kind: Service\r\n---\r\nkind: ConfigMap\r\n",
            "kind: Service\n---\nkind: ConfigMap",
            "kind: Service\n---",
            "# nothing",
            "\n\n",
            "",
        ] {
            assert_eq!(inject(text, AROUND, &Injection::default()), Ok((text.to_owned(), Vec::new())));
        }
    }

    #[test]
    fn documents_beside_a_changed_one_keep_every_byte() {
        let (before, after) = ("# first\nkind: Service\n\n", "---\nkind:   ConfigMap # no line end");
        let pod = "---\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a}]}\n";
        let (out, outcomes) = inject(&[before, pod, after].concat(), AROUND, &Injection::default()).unwrap();
        assert!(matches!(outcomes[..], [Outcome { what: What::Injected(_), .. }]), "{outcomes:?}");
        assert!(out.starts_with(&format!("{before}---\n")) && out.ends_with(&format!("\n{after}")), "{out}");
    }

    #[test]
    fn what_is_no_yaml_is_named_by_its_line() {
        let error = inject("kind: A\n---\nkind: [\n", AROUND, &Injection::default()).unwrap_err();
        assert_eq!((error.number, error.line), (2, 2), "{error}");
    }

    #[test]
    fn wrong_values_are_told() {
        let text =
            "kind: Pod\nmetadata: {name: a, annotations: {tulle.io/capture: x}}\nspec: {containers: [{name: a}]}\n";
        let (out, outcomes) = inject(text, AROUND, &Injection::default()).unwrap();
        assert_eq!(out, text);
        assert!(matches!(&outcomes[0].what, What::Wrong(reason) if reason.contains("nft")), "{outcomes:?}");
    }
}
