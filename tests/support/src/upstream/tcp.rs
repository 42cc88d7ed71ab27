//! Servers that speak no HTTP: an echo, and one that speaks first as mail and database servers do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, JoinSet};

/// A TCP server: says its greeting, then sends back what it gets, and closes its side when the peer closed its own.
#[derive(Debug)]
pub struct TcpUpstream {
    addr: SocketAddr,
    connections: Arc<AtomicUsize>,
    accept: AbortHandle,
}

impl TcpUpstream {
    /// A server that waits for the client and echoes.
    pub async fn echo() -> Self {
        Self::greeting_at(None, "").await
    }

    /// A server that speaks first: `220 mail ready\r\n`, a MySQL handshake packet.
    pub async fn greeting(greeting: impl AsRef<[u8]>) -> Self {
        Self::greeting_at(None, greeting).await
    }

    /// [`TcpUpstream::greeting`] at a given address; an empty greeting makes it an echo server.
    #[expect(clippy::disallowed_methods, reason = "a test's peers run beside the test")]
    pub async fn greeting_at(at: Option<SocketAddr>, greeting: impl AsRef<[u8]>) -> Self {
        let listener = super::listen(at).await;
        let addr = listener.local_addr().expect("a bound socket has an address");
        let connections = Arc::new(AtomicUsize::new(0));
        let (counter, greeting) = (Arc::clone(&connections), Arc::<[u8]>::from(greeting.as_ref()));
        let accept = tokio::spawn(async move {
            let mut tasks = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                tasks.spawn(serve(tcp, Arc::clone(&greeting)));
            }
        });
        Self { addr, connections, accept: accept.abort_handle() }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for TcpUpstream {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

async fn serve(mut tcp: TcpStream, greeting: Arc<[u8]>) -> std::io::Result<()> {
    tcp.write_all(&greeting).await?;
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let count = tcp.read(&mut chunk).await?;
        if count == 0 {
            return tcp.shutdown().await;
        }
        tcp.write_all(&chunk[..count]).await?;
    }
}
