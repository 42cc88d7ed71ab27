//! Whether namespace tests can run here, said loudly when they cannot.

use std::env::split_paths;
use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::bail;

use super::namespace::Namespace;

/// What every namespace test needs.
const ALWAYS: [&str; 2] = ["ip", "setpriv"];

/// True when this process may make namespaces and `tools` are installed. Otherwise false, after telling stderr which
/// test is skipped and why, past the capture of test output.
///
/// # Errors
/// Instead of false when `TULLE_REQUIRE_ROOT_TESTS=1`, which says that this machine has everything.
#[expect(clippy::disallowed_methods, reason = "test support: the switch is read where it acts")]
pub fn available(tools: &[&str]) -> anyhow::Result<bool> {
    static NAMESPACES: OnceLock<Result<(), String>> = OnceLock::new();
    let missing: Vec<&str> = ALWAYS.iter().chain(tools).copied().filter(|tool| !installed(tool)).collect();
    let reason = if !rustix::process::geteuid().is_root() {
        "not root".to_owned()
    } else if !missing.is_empty() {
        format!("not installed: {}", missing.join(", "))
    } else if let Err(error) =
        NAMESPACES.get_or_init(|| Namespace::create("probe").map(drop).map_err(|error| format!("{error:#}")))
    {
        format!("no network namespaces: {error}")
    } else {
        return Ok(true);
    };
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("test");
    if std::env::var_os("TULLE_REQUIRE_ROOT_TESTS").is_some_and(|value| value == "1") {
        bail!("{test} cannot run, and TULLE_REQUIRE_ROOT_TESTS=1 forbids to skip it: {reason}");
    }
    // Not `eprintln!`: a skipped test passes, and the output of passing tests is swallowed.
    let line = format!("\nSKIPPED {test}: {reason}. `.ci/run` installs what it needs and runs it as root.\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
    Ok(false)
}

#[expect(clippy::disallowed_methods, reason = "test support: where the shell would look")]
fn installed(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/sbin:/usr/bin:/sbin:/bin"));
    split_paths(&path).map(|dir: PathBuf| dir.join(tool)).any(|file| file.is_file())
}
