//! Label sets of the metrics, interned when a view or connection is set up; the path holds the series they name.
//!
//! Every value comes from configuration or a verified certificate, never from a raw path or host.

use std::sync::Arc;

use crate::base::protocol::Protocol;

/// Which way a connection goes, seen from the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// Network to application.
    Inbound,
    /// Application to network.
    Outbound,
}

impl Direction {
    /// Both, in the order of their discriminants.
    pub const ALL: [Self; 2] = [Self::Inbound, Self::Outbound];

    /// The name in labels and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// Who sends. Unknown parts are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Party {
    /// Workload name.
    pub workload: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its verified SPIFFE id; empty when it did not prove one.
    pub identity: Arc<str>,
}

/// Who receives. Unknown parts are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Destination {
    /// Service name.
    pub service: Arc<str>,
    /// Namespace of the service, or of the workload when it is addressed directly.
    pub namespace: Arc<str>,
    /// Workload name of the endpoint.
    pub workload: Arc<str>,
}

/// What all requests of one series have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestLabels {
    /// Seen from this workload.
    pub direction: Direction,
    /// Who sent the request.
    pub source: Party,
    /// Who it was for.
    pub destination: Destination,
    /// Name of the route; empty when it has none.
    pub route: Arc<str>,
    /// What was spoken.
    pub protocol: Protocol,
    /// Whether the connection between the proxies is mutual TLS.
    pub tls: bool,
}

/// What all opaque connections of one series have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TcpLabels {
    /// Seen from this workload.
    pub direction: Direction,
    /// Who connected.
    pub source: Party,
    /// Who it was for.
    pub destination: Destination,
    /// Whether the connection between the proxies is mutual TLS.
    pub tls: bool,
}

/// Value of every text label of the series that takes what no longer fits in the bound.
pub(super) const OVERFLOW: &str = "overflow";

fn overflow() -> (Party, Destination) {
    let text: Arc<str> = OVERFLOW.into();
    (
        Party { workload: text.clone(), namespace: text.clone(), identity: text.clone() },
        Destination { service: text.clone(), namespace: text.clone(), workload: text },
    )
}

/// A label set that can be folded into one for everything that does not fit.
pub(super) trait Fold {
    /// The label set for what does not fit.
    fn fold(&self) -> Self;
}

impl Fold for RequestLabels {
    fn fold(&self) -> Self {
        let (source, destination) = overflow();
        Self {
            source,
            destination,
            route: OVERFLOW.into(),
            direction: self.direction,
            protocol: Protocol::Auto,
            tls: false,
        }
    }
}

impl Fold for TcpLabels {
    fn fold(&self) -> Self {
        let (source, destination) = overflow();
        Self { source, destination, direction: self.direction, tls: false }
    }
}
