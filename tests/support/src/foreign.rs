//! Other people's programs, for tests that Tulle keeps to more than its own word: Envoy, gRPC's Python library, Helm,
//! h2spec.
//! `.ci/run` installs them under the cache folder: the first two from `.ci/requirements.txt` into a Python environment.

use std::io::Write as _;
use std::path::PathBuf;

/// The Python interpreter that can `import grpc`; `None`, said loudly, where it is not installed.
///
/// # Panics
/// Instead of `None` when `TULLE_REQUIRE_FOREIGN_TESTS=1`, which says that this machine has everything.
pub fn python() -> Option<PathBuf> {
    installed("TULLE_TEST_PYTHON", "tulle/python", "python")
}

/// The Envoy binary; `None`, said loudly, where it is not installed.
///
/// # Panics
/// As [`python`].
pub fn envoy() -> Option<PathBuf> {
    installed("TULLE_TEST_PYTHON", "tulle/python", "envoy")
}

/// h2spec, which judges HTTP/2 servers; `None`, said loudly, where it is not installed.
///
/// # Panics
/// As [`python`].
pub fn h2spec() -> Option<PathBuf> {
    installed("TULLE_TEST_TOOLS", "tulle/tools", "h2spec")
}

/// Helm; `None`, said loudly, where it is not installed.
///
/// # Panics
/// As [`python`].
pub fn helm() -> Option<PathBuf> {
    installed("TULLE_TEST_TOOLS", "tulle/tools", "helm")
}

/// Whether every one of `programs` is on the path; `false`, said loudly, where one is not.
///
/// # Panics
/// As [`python`].
#[expect(clippy::disallowed_methods, reason = "test support: the path is read where programs are looked for")]
pub fn commands(programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let missing = |program: &&&str| !std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    let missing = programs.iter().find(missing);
    if let Some(program) = missing {
        skip(program);
    }
    missing.is_none()
}

#[expect(clippy::disallowed_methods, reason = "test support: the switches are read where they act")]
fn installed(switch: &str, in_cache: &str, program: &str) -> Option<PathBuf> {
    let folder = std::env::var_os(switch).map(PathBuf::from).or_else(|| {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
        Some(cache.join(in_cache))
    });
    if let Some(path) = folder.map(|folder| folder.join("bin").join(program)).filter(|path| path.is_file()) {
        return Some(path);
    }
    skip(program);
    None
}

/// Says that a test was skipped, or fails it where that is forbidden.
#[expect(clippy::disallowed_methods, reason = "test support: the switches are read where they act")]
fn skip(program: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("test");
    let required = std::env::var_os("TULLE_REQUIRE_FOREIGN_TESTS").is_some_and(|value| value == "1");
    assert!(!required, "{test} cannot run, and TULLE_REQUIRE_FOREIGN_TESTS=1 forbids to skip it: no {program}");
    // Not `eprintln!`: a skipped test passes, and the output of passing tests is swallowed.
    let line = format!("\nSKIPPED {test}: {program} is not installed. `.ci/run` installs it and runs this.\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}
