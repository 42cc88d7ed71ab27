//! `metadata`, which every kind has.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use super::at::{At, Located};
use crate::model::annotations;
use crate::model::{Key, Kind, Labels, ObjectRef, Policy, Problem, Severity};

/// Namespace of objects that name none.
const DEFAULT_NAMESPACE: &str = "default";

/// The part of `metadata` that Tulle reads.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::source) struct Meta {
    name: Located<String>,
    namespace: Option<Located<String>>,
    labels: Option<BTreeMap<String, Option<String>>>,
    annotations: Option<BTreeMap<String, Option<Located<String>>>>,
    creation_timestamp: Option<String>,
    deletion_timestamp: Option<String>,
    uid: Option<String>,
    generation: Option<i64>,
}

impl Meta {
    /// Kind, namespace and name.
    ///
    /// # Errors
    /// When a name is not one Kubernetes would accept.
    pub(super) fn reference(&self, at: &At<'_>, kind: Kind) -> Result<ObjectRef, Problem> {
        let name: Arc<str> = self.name.as_str().into();
        let namespace: Arc<str> = match (&kind, &self.namespace) {
            (Kind::Namespace, _) => name.clone(),
            (_, Some(namespace)) => namespace.as_str().into(),
            (_, None) => DEFAULT_NAMESPACE.into(),
        };
        let object = ObjectRef { kind, key: Key { namespace, name } };
        let named = [("metadata.name", Some(&self.name)), ("metadata.namespace", self.namespace.as_ref())];
        for (field, text) in named {
            if let Some(text) = text.filter(|text| !is_name(text)) {
                let reason = format!("\"{}\" is not a name: use a-z, 0-9, - and . (at most 253)", text.as_str());
                return Err(at.error(&object, field, &text.at, reason));
            }
        }
        Ok(object)
    }

    pub(super) fn labels(&self) -> Labels {
        let labels = self.labels.iter().flatten();
        labels.map(|(k, v)| (k.as_str().into(), v.as_deref().unwrap_or_default().into())).collect()
    }

    pub(super) fn label(&self, key: &str) -> Option<&str> {
        self.labels.as_ref()?.get(key)?.as_deref()
    }

    pub(super) fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key)?.as_ref().map(|value| value.as_str())
    }

    pub(super) fn uid(&self) -> Option<Arc<str>> {
        self.uid.as_deref().map(Into::into)
    }

    /// Counts the versions of what was written; 0 where nobody does.
    pub(super) fn generation(&self) -> i64 {
        self.generation.unwrap_or(0)
    }

    /// Whether somebody asked for its end.
    pub(super) fn ends(&self) -> bool {
        self.deletion_timestamp.is_some()
    }

    pub(super) fn created(&self) -> Option<Arc<str>> {
        self.creation_timestamp.as_deref().map(Into::into)
    }

    /// The policy annotations; a wrong value keeps the one `last` has, and is a problem.
    pub(super) fn policy(&self, at: &At<'_>, object: &ObjectRef, last: Option<&Policy>) -> (Policy, Vec<Problem>) {
        let mut policy = Policy::default();
        let mut problems = Vec::new();
        for (key, value) in self.annotations.iter().flatten() {
            let text = value.as_ref().map(|value| value.as_str()).unwrap_or_default();
            let Err(rejected) = annotations::read(&mut policy, key, text, last) else {
                continue;
            };
            let field = format!("metadata.annotations[{key}]");
            let mut problem = Problem::new(Severity::Warning, object.clone(), &field, rejected.reason);
            problem.example = rejected.example.map(Into::into);
            problem.place = value.as_ref().and_then(|value| at.place(&value.at));
            problems.push(problem);
        }
        (policy, problems)
    }
}

/// Whether Kubernetes would accept it as a name (RFC 1123 subdomain).
fn is_name(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    text.len() <= 253 && edge(text.chars().next()) && edge(text.chars().next_back()) && text.chars().all(inner)
}
