//! The log of the process: to standard error, as text or JSON, with a filter that can be changed while it runs.

use std::io;
use std::sync::Arc;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt, reload};

use crate::config::bootstrap::{Bootstrap, LogFormat};

/// The filter in force.
#[derive(Clone, Debug, Default)]
pub struct LogFilter(Option<Arc<reload::Handle<EnvFilter, tracing_subscriber::Registry>>>);

impl LogFilter {
    /// Starts logging for the process. A second call changes nothing and gives a filter without effect, as a proxy
    /// that runs inside another program's process has.
    pub fn start(bootstrap: &Bootstrap) -> Self {
        // The text was checked with the other settings.
        let filter = EnvFilter::try_new(&bootstrap.log_level).unwrap_or_else(|_| EnvFilter::new("info"));
        let (filter, handle) = reload::Layer::new(filter);
        let registry = tracing_subscriber::registry().with(filter);
        let started = match bootstrap.log_format {
            LogFormat::Text => registry.with(fmt::layer().with_writer(io::stderr).with_ansi(false)).try_init(),
            LogFormat::Json => registry.with(fmt::layer().json().with_writer(io::stderr)).try_init(),
        };
        Self(started.is_ok().then(|| Arc::new(handle)))
    }

    pub(crate) fn get(&self) -> String {
        self.0
            .as_ref()
            .and_then(|handle| handle.with_current(EnvFilter::to_string).ok())
            .unwrap_or_else(|| "set by the program around this proxy".to_owned())
    }

    pub(crate) fn set(&self, filter: &str) -> Result<(), String> {
        let parsed = EnvFilter::try_new(filter).map_err(|error| error.to_string())?;
        match &self.0 {
            Some(handle) => handle.reload(parsed).map_err(|error| error.to_string()),
            None => Err("the log belongs to the program around this proxy".to_owned()),
        }
    }
}
