//! Every metric of the injector. Label sets are closed.

use std::sync::atomic::AtomicI64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// Handles to the metrics. Clones share the values.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    /// Requests of the API server, answered.
    pub(crate) admissions: Family<Admission, Counter>,
    /// TLS handshakes.
    pub(crate) handshakes: Family<Handshake, Counter>,
    /// When the serving certificate ends, Unix seconds.
    pub(crate) serving_expiry: Gauge<i64, AtomicI64>,
}

/// Labels of [`Metrics::admissions`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Admission {
    pub(crate) webhook: &'static str,
    /// `injected`, `skipped`, `allowed`, `denied` or `refused`.
    pub(crate) outcome: &'static str,
    pub(crate) reason: &'static str,
}

/// Labels of [`Metrics::handshakes`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Handshake {
    pub(crate) result: &'static str,
}

impl Metrics {
    /// A registry that exports these handles.
    pub(crate) fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix("tulle");
        let r = &mut registry;
        r.register("injector_admissions", "Requests for admission, by outcome and reason", self.admissions.clone());
        r.register("tls_handshakes", "TLS handshakes of the webhook, by result", self.handshakes.clone());
        r.register(
            "cert_expiry_timestamp_seconds",
            "Unix time at which the serving certificate ends",
            self.serving_expiry.clone(),
        );
        r.register("build", "The running version", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        registry
    }

    pub(crate) fn count(&self, webhook: &'static str, outcome: &'static str, reason: &'static str) {
        self.admissions.get_or_create(&Admission { webhook, outcome, reason }).inc();
    }
}

/// The text of the metrics with a sample of each, for their description.
///
/// # Errors
/// None in practice: a text takes what is written to it.
pub fn example() -> Result<String, std::fmt::Error> {
    let metrics = Metrics::default();
    metrics.count("", "", "");
    metrics.handshakes.get_or_create(&Handshake { result: "" }).inc();
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &metrics.registry()).map(|()| text)
}
