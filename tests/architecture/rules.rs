//! Rules about single files: budget, module docs, shared state, `unsafe`, codec types, environment, folder style.

use std::path::Path;

use crate::source::{PathUse, Source};

/// Lines of code outside tests above which a file fails; 400 is the aim (style, rule 2).
pub const FILE_BUDGET: usize = 600;

/// Where state that several threads touch may live in the proxy: one home, its writers, and ranks 9 to 11.
const SHARED_STATE: &[&str] = &[
    "proxy/src/config/publish.rs",
    "proxy/src/telemetry/",
    "proxy/src/drain.rs",
    "proxy/src/tls/keys.rs",
    "proxy/src/runtime/",
    "proxy/src/xds/",
    "proxy/src/identity/",
    "proxy/src/resolve.rs",
    "proxy/src/resolve/",
    "proxy/src/admin/",
    "proxy/src/dns/",
    "proxy/src/app.rs",
    "proxy/src/app/",
    "proxy/src/main.rs",
];

/// The files that may hold `unsafe`, each block with its `// SAFETY:`.
const UNSAFE: &[&str] = &["proxy/src/orig_dst.rs", "proxy/src/runtime/listen.rs", "proxy/src/relay/splice.rs"];

/// The files that may read environment variables, once, at start.
const ENVIRONMENT: &[&str] = &[
    "proxy/src/config/bootstrap.rs",
    "control-plane/src/settings.rs",
    "injector/src/settings.rs",
    "injector/src/cni/settings.rs",
    "cli/src/settings.rs",
    "tests/",
    "control-plane/tests/",
    "cli/tests/",
    "proto/build.rs",
];

/// Decisions: no runtime, no sockets, no clock (rank 3).
const PURE: &[&str] = &["proxy/src/route", "proxy/src/policy", "proxy/src/balance", "control-plane/src/translate"];

/// Runs every rule of this file; `path` is relative to the repository.
pub fn check(path: &str, source: &Source, test_only: bool) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    if !source.module_doc {
        found.push((
            1,
            "starts without `//!`: say in 1-10 lines what the file does, must not do, and who calls it".into(),
        ));
    }
    if test_only {
        return found;
    }
    let lines = source.code_lines.len();
    if lines > FILE_BUDGET {
        found.push((
            1,
            format!("{lines} lines of code outside tests; the budget is 400, above {FILE_BUDGET} fails: split it"),
        ));
    }
    let allowed = |list: &[&str]| list.iter().any(|entry| path.starts_with(entry));
    for word in source.words.iter().filter(|word| !word.test) {
        if path.starts_with("proxy/src/") && !allowed(SHARED_STATE) && is_shared_state(&word.text) {
            let text = &word.text;
            found.push((
                word.line,
                format!("`{text}` shares state between threads: keep it per worker, or add a home for it to the list"),
            ));
        }
        if word.text == "unsafe" && word.opens_item && !allowed(UNSAFE) {
            found.push((
                word.line,
                "`unsafe` is allowed only in the files listed in tests/architecture/rules.rs".into(),
            ));
        }
    }
    for used in source.paths.iter().filter(|used| !used.test) {
        let codec = path.starts_with("proxy/src/codec/");
        if names_crate(source, used, "httparse") && path.starts_with("proxy/src/") && !codec {
            found.push((used.line, "types of the crate `httparse` stay in proxy/src/codec/".into()));
        }
        if names_crate(source, used, "h2") && path.starts_with("proxy/src/") {
            found.push((used.line, "HTTP/2 is proxy/src/codec/h2/, not the crate `h2`".into()));
        }
        if reads_environment(used) && !allowed(ENVIRONMENT) {
            found.push((used.line, "the environment is read once, in config/bootstrap.rs or settings.rs".into()));
        }
        if allowed(PURE) && (names_crate(source, used, "tokio") || ends_with(used, &["Instant", "now"])) {
            found.push((
                used.line,
                "decisions are pure: no runtime, no sockets, no clock; take `now` as an argument".into(),
            ));
        }
    }
    found.dedup();
    found
}

/// A module is `foo/mod.rs` or `foo.rs`, never `foo.rs` beside `foo/`.
pub fn check_folder_style(root: &Path, path: &str) -> Option<String> {
    let stem = path.strip_suffix(".rs")?;
    let twin = root.join(stem);
    let special = ["lib", "main", "mod"].iter().any(|name| stem.ends_with(&format!("/{name}")));
    (!special && twin.is_dir()).then(|| format!("stands beside the folder `{stem}/`: move it to `{stem}/mod.rs`"))
}

fn is_shared_state(word: &str) -> bool {
    const EXACT: [&str; 3] = ["Mutex", "RwLock", "ReentrantMutex"];
    const ATOMIC: [&str; 6] = ["Bool", "Ptr", "Usize", "Isize", "U", "I"];
    let atomic = word.strip_prefix("Atomic").is_some_and(|kind| ATOMIC.iter().any(|known| kind.starts_with(known)));
    EXACT.contains(&word) || word.starts_with("ArcSwap") || atomic
}

/// Whether `used` starts at the external crate `name`, not at a module of the same name that this file
/// declares or imports.
fn names_crate(source: &Source, used: &PathUse, name: &str) -> bool {
    let bound = if used.import { &source.declared } else { &source.bound };
    let local = bound.contains(name) && !used.absolute;
    used.segments.first().is_some_and(|first| first == name) && !local
}

fn reads_environment(used: &PathUse) -> bool {
    ["var", "var_os", "vars", "vars_os"].iter().any(|function| ends_with(used, &["env", function]))
}

fn ends_with(used: &PathUse, tail: &[&str]) -> bool {
    used.segments.len() >= tail.len() && used.segments.iter().rev().zip(tail.iter().rev()).all(|(a, b)| a == b)
}
