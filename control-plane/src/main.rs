//! The control plane's program: reads flags, sets up logging, runs until told to stop.

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tulle_control_plane::app;
use tulle_control_plane::settings::{LogSettings, Settings};

fn main() -> anyhow::Result<()> {
    let (settings, log) = Settings::from_args(std::env::args_os())?;
    start_logging(&log)?;
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
        app::run(settings, async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
        .await
    })
}

fn start_logging(log: &LogSettings) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(&log.level)
        .with_context(|| format!("--log-level {:?} is not a filter such as info", log.level))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if log.json {
        lines.json().init()
    } else {
        lines.init()
    }
    Ok(())
}
