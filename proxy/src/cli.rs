//! From arguments to exit code; also what `tulle proxy` runs.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use crate::app;
use crate::config::bootstrap::{Bootstrap, BootstrapError};
use crate::logging::LogFilter;
use crate::runtime::shutdown::ProcessSignals;
use crate::wait;

/// Runs a proxy until it is told to end. 0: it ended in good order, 1: it failed, 2: bad settings.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    // A page of 2 MiB is held whole for the few KiB in it: 12 MiB of an idle proxy. A kernel that refuses costs memory only.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    let bootstrap = match Bootstrap::parse(args) {
        Ok(bootstrap) => bootstrap,
        Err(BootstrapError::Usage(error)) => {
            // Help goes to standard output and is no failure.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
        Err(error @ BootstrapError::Problems(_)) => return complain(&error.to_string(), 2),
    };
    if let Some(within) = bootstrap.wait_ready {
        return match wait::until_ready(bootstrap.status, within) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => complain(&format!("{error:#}"), 1),
        };
    }
    let log = LogFilter::start(&bootstrap);
    match run(bootstrap, log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&format!("{error:#}"), 1),
    }
}

fn run(bootstrap: Bootstrap, log: LogFilter) -> anyhow::Result<()> {
    // Ignored when the program around us has chosen already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let running = app::start(bootstrap, log, ProcessSignals::register)?;
    tracing::info!(admin = %running.admin, status = %running.status, listeners = ?running.listeners, "started");
    let ended = running.join()?;
    tracing::info!(?ended, "ended");
    Ok(())
}

fn complain(error: &str, code: u8) -> ExitCode {
    // Without standard error there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "tulle-proxy: {error}");
    ExitCode::from(code)
}
