//! `tulle proxy` and `tulle control-plane`: the components in this one binary. They read their own flags.

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs a sidecar until it is told to stop.
pub(crate) fn proxy(flags: Vec<OsString>) -> ExitCode {
    tulle_proxy::cli::main(named("tulle proxy", flags))
}

/// Runs a control plane until it is told to stop.
pub(crate) fn control_plane(flags: Vec<OsString>) -> ExitCode {
    tulle_control_plane::cli::main(named("tulle control-plane", flags))
}

/// A whole command line, of which the first word is the command's name.
fn named(name: &str, flags: Vec<OsString>) -> impl Iterator<Item = OsString> {
    std::iter::once(name.into()).chain(flags)
}
