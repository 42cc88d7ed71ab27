//! How a process is asked to end: SIGTERM, of Kubernetes, or SIGINT, of a person.

use std::future::Future;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

/// Resolves when this process is asked to end. From the call on the signals no longer end it by themselves; needs a running
/// tokio runtime.
///
/// # Errors
/// When the system does not let them be caught.
pub(crate) fn asked_to_end() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
