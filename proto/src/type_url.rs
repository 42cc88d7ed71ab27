//! The resource types of the aggregated stream.

/// A resource type, in make-before-break order: a response for an earlier type is sent and applied first
/// (clusters before the endpoints they name, listeners before their routes).
/// Source: "xDS REST and gRPC protocol", section "Eventual consistency considerations".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceType {
    /// Trust bundles, as SDS secrets.
    Secret,
    /// `envoy.config.cluster.v3.Cluster`.
    Cluster,
    /// `envoy.config.endpoint.v3.ClusterLoadAssignment`.
    Endpoint,
    /// `envoy.config.listener.v3.Listener`.
    Listener,
    /// `envoy.config.route.v3.RouteConfiguration`.
    Route,
    /// `tulle.v1.Name`: what a DNS name stands for.
    Name,
    /// `tulle.v1.AddressRanges`: which addresses belong to the mesh.
    Ranges,
}

impl ResourceType {
    /// Every type, in order.
    pub const ALL: [Self; 7] =
        [Self::Secret, Self::Cluster, Self::Endpoint, Self::Listener, Self::Route, Self::Name, Self::Ranges];

    /// The `type_url` on the wire.
    pub const fn url(self) -> &'static str {
        match self {
            Self::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoint => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            Self::Name => "type.googleapis.com/tulle.v1.Name",
            Self::Ranges => "type.googleapis.com/tulle.v1.AddressRanges",
        }
    }

    /// The type a `type_url` names, if it is one of ours.
    pub fn from_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.url() == url)
    }

    /// Short name for metrics and messages: `lds`, `cds`, ...
    pub const fn short(self) -> &'static str {
        match self {
            Self::Secret => "sds",
            Self::Cluster => "cds",
            Self::Endpoint => "eds",
            Self::Listener => "lds",
            Self::Route => "rds",
            Self::Name => "names",
            Self::Ranges => "ranges",
        }
    }
}

impl std::fmt::Display for ResourceType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.short())
    }
}
