//! From arguments to exit code.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;

use crate::app;
use crate::settings::{LogSettings, Settings};
use crate::signals::asked_to_end;

/// Runs an injector until it is told to end. 0: it ended in good order, 1: it failed, 2: bad settings.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let (settings, log) = match Settings::from_args(args) {
        Ok(read) => read,
        Err(mistakes) => return complain(&mistakes.to_string(), 2),
    };
    match run(settings, &log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&format!("{error:#}"), 1),
    }
}

fn run(settings: Settings, log: &LogSettings) -> anyhow::Result<()> {
    start_logging(log)?;
    // Ignored when the program around us has chosen already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(async { Box::pin(app::run(settings, asked_to_end()?)).await })
}

fn start_logging(log: &LogSettings) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(&log.level)
        .with_context(|| format!("--log-level {:?} is not a filter such as info", log.level))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(std::io::stderr);
    if log.json {
        lines.json().init()
    } else {
        lines.init()
    }
    Ok(())
}

fn complain(error: &str, code: u8) -> ExitCode {
    // Without standard error there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "tulle-injector: {error}");
    ExitCode::from(code)
}
