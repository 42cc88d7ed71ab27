//! A file as a sequence of YAML documents, each one object. All errors of a file are found, not only the first.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_saphyr::Location;

use super::super::object::{self, At, Converted, Exact, LastGood, Located, RouteManifest, RuleShape};
use super::list::ListManifest;
use crate::model::Origin;
use crate::model::delta::Item;
use crate::model::problem::{Place, Problem};

/// What a good file holds.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) items: Vec<Item>,
    /// What is wrong though the file is usable.
    pub(super) problems: Vec<Problem>,
}

/// Reads `text`, the content of `file`.
///
/// # Errors
/// Every reason why the file as a whole cannot be used.
pub(super) fn read(file: &Arc<str>, text: &str, last: LastGood<'_>) -> Result<Read, Vec<Problem>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut read = Read::default();
    let mut errors = Vec::new();
    for (number, (line, text)) in split(text).into_iter().enumerate() {
        let document = Document { file, line, text };
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        document.take(number, true, last, &mut |taken| match taken {
            Ok((item, problems)) => {
                read.items.extend(item);
                read.problems.extend(problems);
            }
            Err(problem) => errors.push(problem),
        });
    }
    if errors.is_empty() { Ok(read) } else { Err(errors) }
}

/// Splits at lines that start a document. Such a line cannot be inside of one: block scalars are indented, and other
/// scalars must not contain it (YAML 1.2.2, section 9.1.2). Documents of nothing but comments are left out.
fn split(text: &str) -> Vec<(u32, &str)> {
    let mut documents = Vec::new();
    let (mut start, mut start_line, mut at) = (0, 1, 0_usize);
    let mut line_number: u32 = 0;
    for line in text.split_inclusive('\n') {
        line_number = line_number.saturating_add(1);
        let marker =
            line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        if marker {
            documents.push((start_line, text.get(start..at).unwrap_or_default()));
            (start, start_line) = (at, line_number);
        }
        at = at.saturating_add(line.len());
    }
    documents.push((start_line, text.get(start..).unwrap_or_default()));
    documents.retain(|(_, document)| !document.lines().all(is_blank));
    documents
}

fn is_blank(line: &str) -> bool {
    let line = line.strip_prefix("---").unwrap_or(line).trim();
    line.is_empty() || line.starts_with('#') || line.starts_with('%') || line == "..."
}

/// An object, if there is use for it, and what is wrong with it though it is usable.
type Taken = (Option<Item>, Vec<Problem>);

/// A document and where it stands.
#[derive(Clone, Copy, Debug)]
struct Document<'a> {
    file: &'a Arc<str>,
    /// Its first line in the file, from 1.
    line: u32,
    text: &'a str,
}

/// What every object has.
#[derive(Deserialize)]
struct Head {
    #[serde(rename = "apiVersion")]
    api_version: Option<String>,
    kind: Option<Located<String>>,
}

impl Document<'_> {
    /// Reads the object, or the objects when this is a List, which may be where `list` is.
    fn take(&self, number: u32, list: bool, last: LastGood<'_>, told: &mut dyn FnMut(Result<Taken, Problem>)) {
        let head: Head = match self.parse() {
            Ok(head) => head,
            Err(problem) => return told(Err(problem)),
        };
        if list && head.api_version.as_deref() == Some("v1") && head.kind.as_ref().is_some_and(|kind| **kind == "List")
        {
            match self.parse::<ListManifest>() {
                Ok(list) => {
                    for (offset, text) in list.items(self.text) {
                        let item = Document { file: self.file, line: self.line.saturating_add(offset), text: &text };
                        item.take(number, false, last, told);
                    }
                }
                Err(problem) => told(Err(problem)),
            }
            return;
        }
        let origin = Origin { file: self.file.clone(), document: number, line: self.line };
        told(
            self.read(head, last)
                .map(|Converted { object, problems }| (object.map(|object| Item { origin, object }), problems)),
        );
    }

    fn read(&self, head: Head, last: LastGood<'_>) -> Result<Converted, Problem> {
        let (Some(api_version), Some(kind)) = (head.api_version, head.kind) else {
            let reason = "it is no Kubernetes object: apiVersion or kind is missing";
            return Err(Problem::file(self.first_line(), reason));
        };
        let (group, _) = api_version.split_once('/').unwrap_or(("", &api_version));
        let at = At::document(self.file, self.line);
        match (&*api_version, &**kind) {
            ("v1", "Service") => object::service(&at, &self.parse()?, last),
            ("v1", "Namespace") => object::namespace(&at, &self.parse()?, last),
            ("discovery.k8s.io/v1", "EndpointSlice") => object::endpoint_slice(&at, &self.parse()?),
            ("tulle.io/v1alpha1", "Workload") => object::workload(&at, &self.parse()?),
            ("gateway.networking.k8s.io/v1" | "gateway.networking.k8s.io/v1beta1", "HTTPRoute") => {
                object::http_route(&at, &self.route()?)
            }
            ("gateway.networking.k8s.io/v1", "GRPCRoute") => object::grpc_route(&at, &self.route()?),
            ("gateway.networking.k8s.io/v1" | "gateway.networking.k8s.io/v1beta1", "ReferenceGrant") => {
                object::grant(&at, &self.parse()?)
            }
            ("v1", "List") => Err(Problem::file(self.place(&kind.at), "a List within a List is not read")),
            _ if group == "tulle.io" => {
                let reason = format!("there is no {api_version} {} in this version of Tulle", *kind);
                Err(Problem::file(self.place(&kind.at), reason).example("tulle.io/v1alpha1 Workload"))
            }
            // Manifests of an application hold much that is none of a mesh's business.
            _ => Ok(Converted::default()),
        }
    }

    /// A route: whole, and where a part of it cannot be read, part by part.
    fn route<R: RuleShape>(&self) -> Result<RouteManifest<R>, Problem> {
        self.parse::<Exact<R>>().map(RouteManifest::from).or_else(|_| self.parse())
    }

    fn parse<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        serde_saphyr::from_str(self.text).map_err(|error| {
            let place = error.location().map_or_else(|| self.first_line(), |location| self.place(&location));
            let text = error.without_snippet().to_string();
            let reason = text.lines().next().unwrap_or("it is not valid");
            // The position is in front already.
            Problem::file(place, reason.split(" at line ").next().unwrap_or(reason))
        })
    }

    fn place(&self, location: &Location) -> Place {
        At::document(self.file, self.line).place(location).unwrap_or_else(|| self.first_line())
    }

    fn first_line(&self) -> Place {
        Place { file: self.file.clone(), line: self.line, column: 0 }
    }
}
