//! Accepting and serving HTTP/1 connections, with bounds on their number and on how slowly a request may arrive.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::ConnectInfo;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{State, router};

/// Connections at once: scrapers, probes and a few people.
const CONNECTIONS: usize = 128;

/// The head of a request arrives within this.
const HEAD: Duration = Duration::from_secs(10);

/// A connection lives no longer than this; scrapers reconnect.
const LIFE: Duration = Duration::from_secs(300);

/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until dropped, which cuts the connections.
pub(crate) async fn serve(listener: TcpListener, state: Arc<State>) {
    let router = router(state);
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let mut tasks = JoinSet::new();
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        while tasks.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, peer)) => {
                let service = router.clone().layer(Extension(ConnectInfo::<SocketAddr>(peer)));
                tasks.spawn(async move {
                    let _permit = permit;
                    let connection = http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(HEAD)
                        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
                    // A client that breaks off is not worth a line.
                    let _ = tokio::time::timeout(LIFE, connection).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accepting an admin connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
