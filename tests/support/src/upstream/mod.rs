//! Servers of the application's side: they answer as the test says and remember what they were asked.

pub mod http1;

pub mod http2;

pub mod tcp;

pub use http1::{Reply, Upstream};
pub use http2::{Http2Reply, Http2Upstream};
pub use tcp::TcpUpstream;

use std::net::SocketAddr;

use tokio::net::TcpListener;

/// Listens at `at`, or at a free port of 127.0.0.1.
pub(crate) async fn listen(at: Option<SocketAddr>) -> TcpListener {
    let at = at.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
    TcpListener::bind(at).await.unwrap_or_else(|error| panic!("cannot listen at {at}: {error}"))
}
