//! Endpoints as they are written by hand or by Kubernetes, and what every endpoint has.

use std::net::IpAddr;
use std::sync::Arc;

use super::name::{Key, Port};
use super::protocol::Protocol;

/// Where something runs. Empty text is 'not known'.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Locality {
    /// Region, such as `eu-west-1`.
    pub region: Arc<str>,
    /// Zone within the region, such as `eu-west-1a`.
    pub zone: Arc<str>,
}

impl Locality {
    /// A locality of these two names.
    pub fn new(region: impl Into<Arc<str>>, zone: impl Into<Arc<str>>) -> Self {
        Self { region: region.into(), zone: zone.into() }
    }
}

impl Default for Locality {
    fn default() -> Self {
        Self::new("", "")
    }
}

/// Whether an endpoint takes requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Health {
    /// It takes requests.
    #[default]
    Ready,
    /// It is terminating: it finishes what it has, and takes new requests only when nobody else can.
    Draining,
    /// It takes no requests.
    Unready,
}

/// A set of addresses of one service, all with the same ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Namespace and name of the slice.
    pub key: Key,
    /// When it was created.
    pub created: Option<Arc<str>>,
    /// The service it belongs to, in the same namespace.
    pub service: Arc<str>,
    /// Ports, matched to service ports by name.
    pub ports: Vec<SlicePort>,
    /// Addresses.
    pub endpoints: Vec<SliceEndpoint>,
}

/// A port of an [`EndpointSlice`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// Name of the service port it stands for; empty for a service with one unnamed port.
    pub name: Arc<str>,
    /// Port of the application.
    pub port: Port,
    /// Protocol, where the slice says so.
    pub protocol: Option<Protocol>,
}

/// An address of an [`EndpointSlice`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// Its address.
    pub address: IpAddr,
    /// Whether it takes requests.
    pub health: Health,
    /// Where it runs.
    pub locality: Locality,
    /// Zones whose clients it is meant for; empty when nothing is said of that.
    pub for_zones: Arc<[Arc<str>]>,
}
