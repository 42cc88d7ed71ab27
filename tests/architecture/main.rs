//! The rules of the source tree, checked on every file: import ranks, file budget, module docs, where shared state,
//! `unsafe`, codec types and environment reads may be, links in pages, commands of the README.
//!
//! A violation prints as `file:line: what and what to do`. `checker.rs` feeds each rule bad input, so that a rule
//! that cannot fail is noticed.

mod checker;
mod manifests;
mod pages;
mod ranks;
mod rules;
mod source;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::source::Source;

/// Folders with Rust code of ours.
const CODE: &[&str] =
    &["proto", "identity", "proxy", "control-plane", "injector", "cli", "tests", "benches", "examples"];

/// The repository: as cargo says at run time, since worktrees may share one target folder.
#[expect(clippy::disallowed_methods, reason = "cargo tells the test where it belongs")]
fn root() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from)
}

#[test]
fn source_files_keep_the_rules() {
    let root = root();
    let files: Vec<String> =
        CODE.iter().flat_map(|dir| walk(&root.join(dir), "rs")).map(|p| relative(&root, &p)).collect();
    assert!(files.len() >= 10, "only {} Rust files found: is the walk broken?", files.len());
    let sources: Vec<(String, Result<Source, String>)> = files
        .into_iter()
        .map(|path| {
            let source =
                Source::parse(&std::fs::read_to_string(root.join(&path)).expect("a file that was just listed"));
            (path, source)
        })
        .collect();
    let test_modules = test_modules(&sources);
    let mut report = Report::default();
    for (path, source) in &sources {
        report.line(path, 1, rules::check_folder_style(&root, path));
        match source {
            Err(error) => report.line(path, 1, Some(error.clone())),
            Ok(source) => report.file(path, check_file(path, source, &test_modules)),
        }
    }
    report.finish();
}

/// Folders with a manifest; the first is the workspace's own package.
const MEMBERS: &[&str] =
    &[".", "proto", "identity", "proxy", "control-plane", "injector", "cli", "tests/support", "tests/fuzz"];

#[test]
fn manifests_list_what_is_used_in_order() {
    let root = root();
    let mut report = Report::default();
    for member in MEMBERS {
        let path = format!("{member}/Cargo.toml");
        let manifest = std::fs::read_to_string(root.join(&path)).expect("every crate has a manifest");
        report.file(&path, manifests::check_order(member, &manifest));
        report.file(&path, manifests::check_unused(member, &manifest, &words(&root, member)));
    }
    report.finish();
}

/// The words of a package's Rust files.
fn words(root: &Path, member: &str) -> manifests::Words {
    let package = |path: &str| path.starts_with("tests/support/") || path.starts_with("tests/fuzz/");
    let own = |path: &PathBuf| member != "." || !package(&relative(root, path));
    let folders: &[&str] =
        if member == "." { &["tests", "benches", "examples"] } else { &["src", "tests", "build.rs"] };
    let folders = folders.iter().map(|folder| root.join(member).join(folder));
    let files = folders.flat_map(|folder| if folder.is_file() { vec![folder] } else { walk(&folder, "rs") });
    let mut words = manifests::Words::default();
    for path in files.filter(own) {
        let text = std::fs::read_to_string(&path).expect("a file that was just listed");
        let Ok(source) = Source::parse(&text) else { continue };
        let tests = relative(root, &path).contains("/tests/") || source.test_file;
        for word in source.words {
            if !word.test && !tests {
                words.code.insert(word.text.clone());
            }
            words.all.insert(word.text);
        }
    }
    words
}

#[test]
fn links_in_pages_lead_somewhere() {
    let root = root();
    let mut report = Report::default();
    for page in walk(&root, "md") {
        let path = relative(&root, &page);
        let text = std::fs::read_to_string(&page).expect("a page that was just listed");
        report.file(&path, pages::check_links(&root, &path, &text));
    }
    report.finish();
}

#[test]
fn commands_of_the_readme_are_run() {
    let root = root();
    let ci = std::fs::read_to_string(root.join(".ci/run")).expect(".ci/run exists");
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap_or_default();
    let mut report = Report::default();
    report.file("README.md", pages::check_commands(&readme, &ci));
    report.finish();
}

/// Every rule for one parsed file.
fn check_file(path: &str, source: &Source, test_modules: &BTreeSet<String>) -> Vec<(usize, String)> {
    let test_only = source.test_file || is_test_only(path, test_modules);
    let mut found = rules::check(path, source, test_only);
    let ranked = ranks::CRATES.iter().find(|krate| path.starts_with(&format!("{}/src/", krate.dir)));
    if let Some(krate) = ranked.filter(|_| !test_only) {
        found.extend(krate.check(&module_path(path), source));
    }
    found
}

/// `proxy/src/codec/h1/mod.rs` -> `[codec, h1]`; `lib.rs` -> `[]`.
fn module_path(path: &str) -> Vec<String> {
    let inside = path.split_once("/src/").map_or(path, |(_, inside)| inside);
    let inside = inside.strip_suffix(".rs").unwrap_or(inside);
    let mut modules: Vec<String> = inside.split('/').map(str::to_owned).collect();
    if modules.last().is_some_and(|last| last == "mod" || last == "lib") {
        modules.pop();
    }
    modules
}

/// Modules declared `#[cfg(test)] mod name;` anywhere, as `folder/name` prefixes of their files.
fn test_modules(sources: &[(String, Result<Source, String>)]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (path, source) in sources {
        let Ok(source) = source else { continue };
        let stem = path.strip_suffix(".rs").unwrap_or(path);
        let folder = ["/mod", "/lib", "/main"].iter().find_map(|name| stem.strip_suffix(name)).unwrap_or(stem);
        found.extend(source.test_modules.iter().map(|modules| format!("{folder}/{}", modules.join("/"))));
    }
    found
}

/// Integration tests, benchmarks and examples, or a file of a test-only module.
fn is_test_only(path: &str, test_modules: &BTreeSet<String>) -> bool {
    let stem = path.strip_suffix(".rs").unwrap_or(path);
    let declared = test_modules.iter().any(|module| stem == module || stem.starts_with(&format!("{module}/")));
    let outside = ["benches/", "examples/"].iter().any(|dir| path.starts_with(dir));
    declared || outside
}

/// Files under `dir` ending in `.ext`, sorted; hidden folders and build output left out.
fn walk(dir: &Path, ext: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(dir) else { return found };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') || name == "target" || name == "node_modules" {
            continue;
        }
        if path.is_dir() {
            found.extend(walk(&path, ext));
        } else if path.extension().is_some_and(|e| e == ext) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn relative(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned()
}

/// What was found, printed all at once.
#[derive(Default)]
struct Report(Vec<String>);

impl Report {
    fn line(&mut self, path: &str, line: usize, message: Option<String>) {
        self.0.extend(message.map(|message| format!("{path}:{line}: {message}")));
    }

    fn file(&mut self, path: &str, found: Vec<(usize, String)>) {
        for (line, message) in found {
            self.line(path, line, Some(message));
        }
    }

    fn finish(self) {
        assert!(self.0.is_empty(), "{} violation(s):\n{}\n", self.0.len(), self.0.join("\n"));
    }
}
