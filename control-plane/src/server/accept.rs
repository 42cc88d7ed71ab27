//! Accepting connections: bounds, deadlines and TLS.
//!
//! Handshakes run beside each other, at most a fixed number of them, each with a deadline, so a client that connects
//! and says nothing delays nobody. The certificate in use is read anew for each connection.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::caller::Peer;
use crate::metrics::{Metrics, ResultLabel};

/// Bounds of a listener.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tuning {
    /// A handshake takes no longer than this.
    pub(crate) handshake: Duration,
    /// Handshakes at once; more connections wait in the kernel's queue.
    pub(crate) handshakes: usize,
    /// Connections at once; more wait in the kernel's queue.
    pub(crate) connections: usize,
}

impl Default for Tuning {
    /// A P-256 handshake takes under a millisecond of a core: 256 at once are only ever reached by clients that stall.
    fn default() -> Self {
        Self { handshake: Duration::from_secs(10), handshakes: 256, connections: 20_000 }
    }
}

/// Pause after a failed accept, which is a lack of file descriptors or memory: retrying at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that have finished their handshake.
#[derive(Debug)]
pub(crate) struct TlsIncoming(mpsc::Receiver<Conn<TlsStream<TcpStream>>>);

impl TlsIncoming {
    /// Connections of a listener, and the task that accepts them; it ends when the connections are dropped.
    pub(crate) fn new(
        listener: TcpListener,
        configs: watch::Receiver<Arc<ServerConfig>>,
        metrics: Metrics,
        tuning: Tuning,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (ready, receiver) = mpsc::channel(64);
        let work = Accepting { listener, configs, metrics, tuning, ready };
        (Self(receiver), work.run())
    }
}

impl Stream for TlsIncoming {
    type Item = io::Result<Conn<TlsStream<TcpStream>>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|conn| conn.map(Ok))
    }
}

struct Accepting {
    listener: TcpListener,
    configs: watch::Receiver<Arc<ServerConfig>>,
    metrics: Metrics,
    tuning: Tuning,
    ready: mpsc::Sender<Conn<TlsStream<TcpStream>>>,
}

impl Accepting {
    async fn run(self) {
        let handshakes = Arc::new(Semaphore::new(self.tuning.handshakes));
        let connections = Arc::new(Semaphore::new(self.tuning.connections));
        // Ends the handshakes that are under way when accepting ends.
        let mut tasks = tokio::task::JoinSet::new();
        loop {
            let Ok(connection) = connections.clone().acquire_owned().await else { return };
            let Ok(handshake) = handshakes.clone().acquire_owned().await else { return };
            while tasks.try_join_next().is_some() {}
            let accepted = tokio::select! {
                biased; // nobody takes connections any more
                () = self.ready.closed() => return,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let acceptor = TlsAcceptor::from(self.configs.borrow().clone());
                    let (metrics, ready, within) = (self.metrics.clone(), self.ready.clone(), self.tuning.handshake);
                    tasks.spawn(async move {
                        if let Some(stream) = shake(acceptor, stream, within, &metrics).await {
                            drop(handshake);
                            let _ = ready.send(Conn { stream, peer: Peer(peer), _permit: connection }).await;
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn shake(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    within: Duration,
    metrics: &Metrics,
) -> Option<TlsStream<TcpStream>> {
    let _ = stream.set_nodelay(true);
    let (result, stream) = match tokio::time::timeout(within, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => ("ok", Some(stream)),
        Ok(Err(error)) => {
            tracing::debug!(%error, "TLS handshake failed");
            ("failed", None)
        }
        Err(_) => ("timeout", None),
    };
    metrics.handshakes.get_or_create(&ResultLabel { result }).inc();
    stream
}

/// A connection that counts against the bound for as long as it lives.
#[derive(Debug)]
pub(crate) struct Conn<T> {
    stream: T,
    peer: Peer,
    _permit: OwnedSemaphorePermit,
}

impl<T> Connected for Conn<T> {
    /// Callers are known by their token, never by their address; but they take turns by it.
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Conn<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Conn<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio_stream::StreamExt as _;
    use tulle_identity::spiffe::{SpiffeId, TrustDomain};

    use super::*;
    use crate::identity::{Authority, Serving};
    use crate::settings::Settings;

    /// A client that connects and says nothing holds up others no longer than the handshake's deadline.
    #[tokio::test]
    async fn a_silent_client_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let domain = TrustDomain::parse("cluster.local").unwrap();
        let settings = Settings::new(dir.path(), dir.path().join("state"), domain.clone());
        let metrics = Metrics::default();
        let authority = Arc::new(Authority::open(&settings).unwrap());
        let serving =
            Serving::new(authority.clone(), &settings, metrics.clone(), crate::clock::Clock::system()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tuning = Tuning { handshake: Duration::from_millis(50), handshakes: 1, connections: 2 };
        let (mut incoming, accepting) = TlsIncoming::new(listener, serving.configs(), metrics.clone(), tuning);
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(accepting);

        let started = Instant::now();
        let _silent = TcpStream::connect(address).await.unwrap();
        let id = SpiffeId::workload(&domain, "tulle-system", "tulle-control-plane").unwrap();
        let config = tulle_identity::tls::control_plane_client(&authority.bundle().borrow(), &id).unwrap();
        let connector = tokio_rustls::TlsConnector::from(config);
        let tcp = TcpStream::connect(address).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let (client, server) = tokio::join!(connector.connect(name, tcp), incoming.next());
        assert!(client.is_ok() && server.is_some_and(|conn| conn.is_ok()));
        assert!(started.elapsed() >= Duration::from_millis(50), "the silent one had its time");
        let timeouts = metrics.handshakes.get_or_create(&ResultLabel { result: "timeout" }).get();
        assert_eq!(timeouts, 1);
    }
}
