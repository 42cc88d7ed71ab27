//! Rules about manifests: crates depend on each other in order, and on nothing their code does not name.

use std::collections::BTreeSet;

/// Crates of this workspace that a crate may depend on; a crate without a line may use any.
const ORDER: &[(&str, &[&str])] = &[
    ("proto", &[]),
    ("identity", &["tulle-proto"]),
    ("proxy", &["tulle-proto", "tulle-identity"]),
    ("control-plane", &["tulle-proto", "tulle-identity"]),
    // Its webhook judges objects by the function that the control plane and `tulle validate` judge them by.
    ("injector", &["tulle-proto", "tulle-identity", "tulle-control-plane"]),
];

/// Packages whose library has another name.
const LIBRARIES: &[(&str, &str)] = &[("rustls-webpki", "webpki")];

/// Dependencies that only generated code names, by crate.
const GENERATED: &[(&str, &str)] = &[("proto", "prost-types"), ("proto", "tonic-prost")];

/// Dependencies that are there for the features they switch on, by crate.
const FOR_FEATURES: &[(&str, &str)] = &[];

/// Words of a crate's code.
#[derive(Debug, Default)]
pub struct Words {
    /// Outside tests, `build.rs` included.
    pub code: BTreeSet<String>,
    /// Everywhere.
    pub all: BTreeSet<String>,
}

/// A dependency as a manifest lists it.
struct Dependency<'a> {
    name: String,
    section: &'a str,
    line: usize,
}

/// Checks that `member` depends on no crate of ours above it.
pub fn check_order(member: &str, manifest: &str) -> Vec<(usize, String)> {
    let Some((_, allowed)) = ORDER.iter().find(|(name, _)| *name == member) else { return Vec::new() };
    let wrong = |found: &Dependency<'_>| {
        found.section != "dev-dependencies"
            && found.name.starts_with("tulle-")
            && !allowed.contains(&found.name.as_str())
    };
    let message = |found: Dependency<'_>| {
        (found.line, format!("`{member}` must not depend on `{}`; it may use {allowed:?}", found.name))
    };
    dependencies(manifest).into_iter().filter(wrong).map(message).collect()
}

/// Checks that the code of `member` names each of its dependencies.
pub fn check_unused(member: &str, manifest: &str, words: &Words) -> Vec<(usize, String)> {
    let excused = |name: &str| GENERATED.iter().chain(FOR_FEATURES).any(|entry| *entry == (member, name));
    let unused = |found: &Dependency<'_>| {
        let library = LIBRARIES.iter().find(|(package, _)| *package == found.name).map(|(_, library)| *library);
        let library = library.map_or_else(|| found.name.replace('-', "_"), str::to_owned);
        let read = if found.section == "dev-dependencies" { &words.all } else { &words.code };
        !read.contains(&library) && !excused(&found.name)
    };
    let message = |found: Dependency<'_>| {
        let name = found.name;
        let place = if found.section == "dev-dependencies" { "tests" } else { "code outside tests" };
        (
            found.line,
            format!(
                "`{name}` is not named in the {place} of `{member}`: remove it, or say in manifests.rs what it is for"
            ),
        )
    };
    dependencies(manifest).into_iter().filter(unused).map(message).collect()
}

/// What the dependency sections of `manifest` list.
fn dependencies(manifest: &str) -> Vec<Dependency<'_>> {
    let mut section = "";
    let mut found = Vec::new();
    for (line, text) in (1..).zip(manifest.lines().map(str::trim)) {
        if let Some(header) = text.strip_prefix('[') {
            section = header.trim_end_matches(']');
        }
        let name: String = text.chars().take_while(|c| c.is_ascii_alphanumeric() || "-_".contains(*c)).collect();
        let listed = ["dependencies", "dev-dependencies", "build-dependencies"].contains(&section);
        if listed && !name.is_empty() {
            found.push(Dependency { name, section, line });
        }
    }
    found
}
