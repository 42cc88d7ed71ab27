//! Every metric of the control plane. Handles are resolved once; label sets are closed.

use std::sync::atomic::AtomicI64;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tulle_proto::ResourceType;

/// Handles to the metrics. Clones share the values.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    /// Open discovery streams.
    pub(crate) streams: Family<StreamLabels, Gauge>,
    /// Responses sent.
    pub(crate) pushes: Family<TypeLabel, Counter>,
    /// Resources in them.
    pub(crate) resources: Family<TypeLabel, Counter>,
    /// Responses refused by a client.
    pub(crate) nacks: Family<TypeLabel, Counter>,
    /// Streams and signing requests that were turned away.
    pub(crate) refused: Family<ReasonLabel, Counter>,
    /// Streams, demands and signatures that were refused because a quota was used up.
    pub(crate) quota_refused: Family<QuotaLabels, Counter>,
    /// Signing requests by result.
    pub(crate) csrs: Family<ResultLabel, Counter>,
    /// TLS handshakes by result.
    pub(crate) handshakes: Family<ResultLabel, Counter>,
    /// Version of the newest mesh.
    pub(crate) mesh_version: Gauge,
    /// Problems with objects in the newest mesh.
    pub(crate) problems: Gauge,
    /// When the serving certificate ends, Unix seconds.
    pub(crate) serving_expiry: Gauge<i64, AtomicI64>,
}

/// Labels of [`Metrics::streams`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct StreamLabels {
    pub(crate) client: &'static str,
    pub(crate) variant: &'static str,
}

/// A resource type as the label `type`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct TypeLabel {
    r#type: Type,
}

impl TypeLabel {
    /// The label of `ty`.
    pub(crate) const fn of(ty: ResourceType) -> Self {
        Self { r#type: Type(ty) }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Type(ResourceType);

impl EncodeLabelValue for Type {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.0.short().encode(encoder)
    }
}

/// Why something was turned away.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ReasonLabel {
    pub(crate) reason: &'static str,
}

/// Whose quota was used up, and which.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct QuotaLabels {
    /// A SPIFFE id, or `other`: the number of series is bounded.
    pub(crate) identity: String,
    pub(crate) quota: &'static str,
}

/// How something ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ResultLabel {
    pub(crate) result: &'static str,
}

impl Metrics {
    /// A registry that exports these handles under their names in the vocabulary.
    pub(crate) fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix("tulle");
        let r = &mut registry;
        r.register("xds_streams", "Open discovery streams", self.streams.clone());
        r.register("xds_pushes", "Discovery responses sent", self.pushes.clone());
        r.register("xds_resources_sent", "Resources in discovery responses", self.resources.clone());
        r.register("xds_nacks", "Discovery responses refused by a client", self.nacks.clone());
        r.register("xds_refused", "Streams turned away, by reason", self.refused.clone());
        r.register(
            "quota_refused",
            "Streams, demands and signatures refused because the quota of an identity was used up",
            self.quota_refused.clone(),
        );
        r.register("ca_requests", "Certificate signing requests, by result", self.csrs.clone());
        r.register("tls_handshakes", "TLS handshakes of the discovery port, by result", self.handshakes.clone());
        r.register("mesh_version", "Version of the newest mesh", self.mesh_version.clone());
        r.register("problems", "Problems with objects in the newest mesh", self.problems.clone());
        r.register(
            "cert_expiry_timestamp_seconds",
            "Unix time at which the serving certificate ends",
            self.serving_expiry.clone(),
        );
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        r.register("build", "The running version", build);
        registry
    }
}

/// The text of the metrics with a sample of each, for their description.
///
/// # Errors
/// None in practice: a text takes what is written to it.
pub fn example() -> Result<String, std::fmt::Error> {
    let metrics = Metrics::default();
    metrics.streams.get_or_create(&StreamLabels { client: "", variant: "" }).inc();
    for by_type in [&metrics.pushes, &metrics.resources, &metrics.nacks] {
        by_type.get_or_create(&TypeLabel::of(ResourceType::Listener)).inc();
    }
    metrics.refused.get_or_create(&ReasonLabel { reason: "" }).inc();
    metrics.quota_refused.get_or_create(&QuotaLabels { identity: String::new(), quota: "" }).inc();
    for by_result in [&metrics.csrs, &metrics.handshakes] {
        by_result.get_or_create(&ResultLabel { result: "" }).inc();
    }
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &metrics.registry()).map(|()| text)
}
