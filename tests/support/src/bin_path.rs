//! Where the workspace's binaries are, for tests that run them as processes. Cargo tells a test only those of its own
//! package.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, ensure};

/// The path of `name`, a binary of `package`, built in the profile and target folder of the running test.
///
/// It is built once in each test process, which takes a moment when it is fresh, so that a test never runs the binary
/// of yesterday's source.
///
/// # Errors
/// When the build fails, or the test was moved out of its target folder.
pub fn binary(package: &str, name: &str) -> anyhow::Result<PathBuf> {
    static BUILT: Mutex<Option<HashMap<String, PathBuf>>> = Mutex::new(None);
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let built = built.get_or_insert_with(HashMap::new);
    if let Some(path) = built.get(name) {
        return Ok(path.clone());
    }
    let path = build(package, name)?;
    built.insert(name.to_owned(), path.clone());
    Ok(path)
}

#[expect(clippy::disallowed_methods, reason = "test support: cargo tells the test where it belongs")]
fn build(package: &str, name: &str) -> anyhow::Result<PathBuf> {
    // TARGET/PROFILE/deps/test-HASH
    let test = std::env::current_exe().context("path of the running test")?;
    let profile_dir = test.ancestors().nth(2).context("the test is not in a target folder")?;
    let target_dir = profile_dir.parent().context("the test is not in a target folder")?;
    let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    // As cargo says at run time, since worktrees may share one target folder.
    let manifest_dir = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let done = Command::new(env!("CARGO"))
        .current_dir(manifest_dir)
        // The command has everything: named beside any other package it gives what both depend on one set of features, so
        // that it is compiled once.
        .args(["build", "--quiet", "--package", "tulle", "--package", package])
        .args(["--bin", name, "--profile", profile, "--target-dir"])
        .arg(target_dir)
        .output()
        .context("run cargo")?;
    ensure!(done.status.success(), "cargo build of {name}: {}", String::from_utf8_lossy(&done.stderr));
    let path = profile_dir.join(name);
    ensure!(path.is_file(), "cargo built no {}", path.display());
    Ok(path)
}
