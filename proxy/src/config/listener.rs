//! What is accepted: services the workload dials, and its own ports.

use std::collections::HashMap;
use std::sync::Arc;

use super::ClusterId;
use super::route::RouteTable;
use crate::base::protocol::Protocol;

/// A service or workload that the workload dials.
#[derive(Debug)]
pub struct Outbound {
    /// `reviews.shop.svc.cluster.local:80`, or the address that was asked for.
    pub name: Arc<str>,
    /// What it speaks.
    pub protocol: Protocol,
    /// Routes of HTTP requests; none when the protocol is opaque.
    pub routes: Option<Arc<RouteTable>>,
    /// Where opaque connections go; none when only HTTP is spoken.
    pub opaque: Option<ClusterId>,
}

/// The workload's own ports.
#[derive(Debug)]
pub struct Inbound {
    /// Declared ports.
    pub ports: HashMap<u16, Arc<InboundPort>>,
    /// Every other port.
    pub default: Arc<InboundPort>,
}

impl Inbound {
    /// The rules for connections to `port`.
    pub fn port(&self, port: u16) -> &Arc<InboundPort> {
        self.ports.get(&port).unwrap_or(&self.default)
    }
}

/// How connections to one of the workload's ports are received.
#[derive(Debug, PartialEq, Eq)]
pub struct InboundPort {
    /// What it speaks.
    pub protocol: Protocol,
    /// Who may connect.
    pub mtls: MtlsMode,
    /// Service the port belongs to, for telemetry; empty when none.
    pub service: Arc<str>,
    /// Its namespace; empty when unknown.
    pub namespace: Arc<str>,
}

/// Who may connect to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MtlsMode {
    /// Mesh peers with a valid certificate only.
    Strict,
    /// Mesh peers with a valid certificate, and anyone in plain.
    Permissive,
    /// Anyone in plain; mesh TLS is not taken up.
    Disable,
}
