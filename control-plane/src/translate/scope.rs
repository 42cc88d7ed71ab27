//! Who asks: all of a client that decides what it is told.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::model::Locality;

/// The kinds of client, told apart by the user agent of their node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClientKind {
    /// Tulle's own proxy.
    Tulle,
    /// A gRPC library without a proxy.
    Grpc,
    /// Envoy, and everything else that speaks its protocol.
    Envoy,
}

/// One client, as translate sees it. Clients with equal scopes get equal resources.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope {
    /// What kind it is.
    pub client: ClientKind,
    /// Its namespace; empty when it did not say.
    pub namespace: Arc<str>,
    /// Its workload: the owner, not the instance.
    pub workload: Arc<str>,
    /// Where it runs.
    pub locality: Locality,
    /// Where an Envoy listens for outbound HTTP, when not at 127.0.0.1:15001.
    pub outbound_address: Option<SocketAddr>,
}
