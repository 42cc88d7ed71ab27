//! Accepting and serving connections, with bounds on their number and on how slowly anything may arrive: the
//! webhook over TLS, health and metrics without.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::metrics::{Handshake, Metrics};

/// Connections of one listener at once; more wait in the kernel's queue. API servers keep a few each.
const CONNECTIONS: usize = 512;

/// A handshake takes no longer than this.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The head of a request arrives within this.
const HEAD: Duration = Duration::from_secs(10);

/// Streams of one HTTP/2 connection at once.
const STREAMS: u32 = 250;

/// Pause after a failed accept, which is a lack of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Requests under way are finished within this when the end has come.
const FINISH: Duration = Duration::from_secs(10);

/// The TLS of a listener.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    pub(crate) configs: watch::Receiver<Option<Arc<ServerConfig>>>,
    pub(crate) metrics: Metrics,
}

/// Serves until `end`, then finishes what is under way. Without `tls` in the clear.
pub(crate) async fn serve(listener: TcpListener, router: Router, tls: Option<Tls>, end: CancellationToken) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let mut tasks = JoinSet::new();
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { break };
        while tasks.try_join_next().is_some() {}
        let accepted = tokio::select! {
            biased; // the end comes before one more
            () = end.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (router, tls, watcher) = (router.clone(), tls.clone(), graceful.watcher());
        tasks.spawn(async move {
            let _slot = slot;
            let _ = stream.set_nodelay(true);
            match tls {
                None => Box::pin(connection(stream, router, watcher)).await,
                Some(tls) => {
                    if let Some(stream) = tls.shake(stream).await {
                        Box::pin(connection(stream, router, watcher)).await;
                    }
                }
            }
        });
    }
    drop(listener);
    // What is left then is cut with its task.
    let _ = tokio::time::timeout(FINISH, graceful.shutdown()).await;
}

impl Tls {
    async fn shake(&self, stream: TcpStream) -> Option<tokio_rustls::server::TlsStream<TcpStream>> {
        let config = self.configs.borrow().clone();
        let Some(config) = config else {
            // The API server tries again.
            self.count("no_certificate");
            return None;
        };
        let (result, stream) = match tokio::time::timeout(HANDSHAKE, TlsAcceptor::from(config).accept(stream)).await {
            Ok(Ok(stream)) => ("ok", Some(stream)),
            Ok(Err(error)) => {
                tracing::debug!(%error, "TLS handshake failed");
                ("failed", None)
            }
            Err(_) => ("timeout", None),
        };
        self.count(result);
        stream
    }

    fn count(&self, result: &'static str) {
        self.metrics.handshakes.get_or_create(&Handshake { result }).inc();
    }
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router, watcher: Watcher) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(STREAMS).keep_alive_interval(Some(HEAD));
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)).into_owned();
    // How a connection ends is the caller's business.
    let _ = watcher.watch(connection).await;
}
