//! The sockets: datagrams and streams of clients in, replies out. Every count and size is bounded.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::counts::Outcome;
use super::message::{self, MAX_QUESTION_BYTES, Parsed};
use super::resolve::Resolver;

/// Questions over UDP under way at a time, of one socket; more are dropped, and their clients ask again.
const MAX_DATAGRAMS: usize = 512;

/// Streams at a time, of one socket; more wait in the kernel's queue.
const MAX_STREAMS: usize = 64;

/// Longest time a stream may take to bring a question, or to take a reply. Source: RFC 7766, section 6.2.3, wants
/// "a few seconds".
const STREAM_TIMEOUT: Duration = Duration::from_secs(10);

/// Wait after an error of a socket that would otherwise come again at once.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// Both sockets of each address.
#[derive(Debug)]
pub(super) struct Sockets {
    bound: Vec<(SocketAddr, UdpSocket, TcpListener)>,
}

impl Sockets {
    /// Binds them. An IPv6 address that the host does not have is left out while another one is bound.
    ///
    /// # Errors
    /// The first address that cannot be bound, and why.
    pub(super) async fn bind(addresses: &[SocketAddr]) -> io::Result<Self> {
        let (mut bound, mut missing) = (Vec::new(), None);
        for address in addresses {
            match bind(*address).await {
                Ok(sockets) => bound.push(sockets),
                Err(error) => {
                    let text = format!("cannot listen on {address} for DNS: {error}");
                    let named = io::Error::new(error.kind(), text);
                    let absent = [io::ErrorKind::AddrNotAvailable, io::ErrorKind::Unsupported];
                    if address.is_ipv6() && (absent.contains(&error.kind()) || error.raw_os_error() == Some(97)) {
                        missing = Some(named);
                    } else {
                        return Err(named);
                    }
                }
            }
        }
        match missing {
            Some(error) if bound.is_empty() => Err(error),
            Some(_) | None => Ok(Self { bound }),
        }
    }

    /// Where they are bound.
    pub(super) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.bound.iter().map(|(address, ..)| *address)
    }

    /// Serves for as long as it is polled.
    pub(super) async fn run(self, resolver: Arc<Resolver>) {
        let each = self.bound.into_iter().map(|(_, udp, tcp)| {
            let resolver = &resolver;
            async move { tokio::join!(datagrams(udp, resolver), streams(tcp, resolver)) }
        });
        join_all(each).await;
        // Without an address there is nothing to serve, and nothing to fail.
        std::future::pending::<()>().await;
    }
}

/// UDP and TCP at one port; with port 0 the one the kernel gives to TCP.
async fn bind(address: SocketAddr) -> io::Result<(SocketAddr, UdpSocket, TcpListener)> {
    let tcp = TcpListener::bind(address).await?;
    let address = tcp.local_addr()?;
    Ok((address, UdpSocket::bind(address).await?, tcp))
}

async fn datagrams(socket: UdpSocket, resolver: &Arc<Resolver>) {
    let socket = Arc::new(socket);
    let mut tasks = JoinSet::new();
    // One byte more than is taken, to tell what is larger.
    let mut buffer = vec![0; MAX_QUESTION_BYTES + 1];
    loop {
        while tasks.try_join_next().is_some() {}
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                // Mostly the echo of a reply to a client that is gone.
                tracing::debug!(%error, "cannot receive a question");
                sleep(ERROR_PAUSE).await;
                continue;
            }
        };
        let bytes = buffer.get(..length).filter(|bytes| bytes.len() <= MAX_QUESTION_BYTES).unwrap_or_default();
        let question = match message::parse(bytes) {
            Parsed::Question(question) => question,
            Parsed::Refused(reply) => {
                resolver.counts().count(Outcome::Malformed);
                let _ = socket.try_send_to(&reply, client);
                continue;
            }
            Parsed::Nothing => {
                resolver.counts().count(Outcome::Malformed);
                continue;
            }
        };
        if tasks.len() >= MAX_DATAGRAMS {
            resolver.counts().count(Outcome::Overload);
            continue;
        }
        let (socket, resolver) = (Arc::clone(&socket), Arc::clone(resolver));
        tasks.spawn(async move {
            let resolved = resolver.resolve(&question).await;
            resolver.counts().count(resolved.outcome);
            if let Some(reply) = question.udp(resolved.answer) {
                // A client that is gone needs no reply; one that is slow asks again.
                let _ = socket.send_to(&reply, client).await;
            }
            if let Some(refresh) = resolved.refresh {
                let _ = refresh.await;
            }
        });
    }
}

async fn streams(listener: TcpListener, resolver: &Arc<Resolver>) {
    let mut connections = JoinSet::new();
    let slots = Arc::new(Semaphore::new(MAX_STREAMS));
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let resolver = Arc::clone(resolver);
                connections.spawn(async move {
                    // Whatever ended it, the client knows.
                    let _ = stream_of(stream, &resolver).await;
                    drop(slot);
                });
            }
            Err(error) => {
                // Mostly EMFILE: it ends when a connection somewhere does, and until then would spin.
                tracing::warn!(%error, "cannot accept for DNS");
                sleep(ERROR_PAUSE).await;
            }
        }
    }
}

/// One client's questions, one after the other.
async fn stream_of(mut stream: TcpStream, resolver: &Resolver) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    loop {
        let length = usize::from(timeout(STREAM_TIMEOUT, stream.read_u16()).await??);
        if length > MAX_QUESTION_BYTES {
            resolver.counts().count(Outcome::Malformed);
            return Ok(());
        }
        buffer.resize(length, 0);
        timeout(STREAM_TIMEOUT, stream.read_exact(&mut buffer)).await??;
        let (reply, refresh) = match message::parse(&buffer) {
            Parsed::Question(question) => {
                let resolved = resolver.resolve(&question).await;
                resolver.counts().count(resolved.outcome);
                (question.tcp(resolved.answer), resolved.refresh)
            }
            Parsed::Refused(reply) => {
                resolver.counts().count(Outcome::Malformed);
                let length = u16::try_from(reply.len()).unwrap_or_default();
                (Some([&length.to_be_bytes()[..], &reply].concat()), None)
            }
            Parsed::Nothing => {
                resolver.counts().count(Outcome::Malformed);
                return Ok(());
            }
        };
        let Some(reply) = reply else { return Ok(()) };
        timeout(STREAM_TIMEOUT, stream.write_all(&reply)).await??;
        if let Some(refresh) = refresh {
            let _ = refresh.await;
        }
    }
}
