//! The gRPC listeners: TLS for proxies everywhere, plaintext for clients on this machine.

/// Accepting connections: bounds, deadlines and TLS.
mod accept;

pub(crate) use accept::{TlsIncoming, Tuning};

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tulle_proto::auth::istio_certificate_service_server::IstioCertificateServiceServer;
use tulle_proto::discovery::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer;

use crate::caller::Callers;
use crate::identity::Ca;
use crate::xds::{Ads, Shared};

/// Largest request, in bytes. A first request with 10,000 names of ordinary length and versions is under 2 MiB.
const MAX_REQUEST_BYTES: usize = 4 * 1024 * 1024;

/// A quiet connection is pinged this often, so that a client that vanished is noticed.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// A ping without an answer for this long ends the connection.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Calls at once on one connection: a client needs one stream and now and then a signature.
const MAX_CALLS: u32 = 32;

/// Receive window of a connection. Small windows make h2 count small frames as abuse when a reader is slow.
const WINDOW: u32 = 1024 * 1024;

/// What the services of one listener are made of.
pub(crate) struct Services {
    pub(crate) shared: Arc<Shared>,
    pub(crate) callers: Callers,
    pub(crate) ca: Ca,
}

/// Serves connections until `shutdown`, then lets calls in flight end.
///
/// # Errors
/// When the transport fails as a whole; a failing connection is its own affair.
pub(crate) async fn serve<I, C, E>(
    services: Services,
    incoming: I,
    shutdown: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error>
where
    I: Stream<Item = Result<C, E>>,
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let Services { shared, callers, ca } = services;
    let ads =
        AggregatedDiscoveryServiceServer::new(Ads::new(shared, callers)).max_decoding_message_size(MAX_REQUEST_BYTES);
    let ca = IstioCertificateServiceServer::new(ca).max_decoding_message_size(MAX_REQUEST_BYTES);
    Server::builder()
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .max_concurrent_streams(MAX_CALLS)
        .initial_connection_window_size(WINDOW)
        .initial_stream_window_size(WINDOW)
        .http2_max_header_list_size(16 * 1024)
        .add_service(ads)
        .add_service(ca)
        .serve_with_incoming_shutdown(incoming, shutdown)
        .await
}
