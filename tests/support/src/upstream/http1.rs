//! An HTTP/1 origin on a raw socket: it records the exact bytes of each request and writes exactly the bytes it is told.
//!
//! ```no_run
//! # async fn example() {
//! use tulle_testing::upstream::{Reply, Upstream};
//! let origin = Upstream::http1(|request| Reply::ok(format!("you asked for {}", request.path()))).await;
//! // ... send something to origin.addr() ...
//! let seen = origin.request(0).await;
//! assert_eq!(seen.header("host"), Some("reviews.shop"));
//! # }
//! ```

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, JoinSet};

use crate::message::{Body, Buffer, Framing, Head, read_body};
use crate::stream::Stream;
use crate::wait::{self, Gate};

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Which of the origin's connections it came on, from 0 in the order of their arrival.
    pub connection: usize,
    /// Address of the peer.
    pub peer: SocketAddr,
    /// Exact bytes of the head, with the empty line.
    pub head_bytes: Vec<u8>,
    /// Exact bytes of the body, with chunk framing.
    pub body_bytes: Vec<u8>,
    /// The body without framing.
    pub body: Vec<u8>,
    /// Trailer fields in order.
    pub trailers: Vec<(String, String)>,
    /// The connection ended inside of the body.
    pub cut: bool,
    /// Certificates the client presented, leaf first.
    pub certificates: Vec<rustls_pki_types::CertificateDer<'static>>,
    head: Head,
}

impl Recorded {
    /// The method, as sent.
    pub fn method(&self) -> &str {
        self.head.first.split(' ').next().unwrap_or_default()
    }

    /// The request target, as sent.
    pub fn path(&self) -> &str {
        self.head.first.split(' ').nth(1).unwrap_or_default()
    }

    /// The first field called `name`, whatever its case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.field(name)
    }

    /// Every field in order, names as sent.
    pub fn headers(&self) -> &[(String, String)] {
        &self.head.fields
    }
}

/// One thing the origin does to answer.
#[derive(Debug, Clone)]
enum Action {
    Write(Vec<u8>),
    After(Gate),
    Pause(Duration),
    Close,
    Reset,
    Echo,
    Never,
}

/// An answer: what is written, what is waited for, and what becomes of the connection. Steps run in the order they were
/// added; without [`Reply::close`], [`Reply::reset`] or [`Reply::echo`] the connection stays open for another request.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    actions: Vec<Action>,
    early: bool,
    asks: bool,
}

impl Reply {
    /// `200 OK` with `body` and a content-length.
    pub fn ok(body: impl AsRef<[u8]>) -> Self {
        Self::status(200, &[], body)
    }

    /// Any status, with `headers`, `body` and its content-length.
    pub fn status(status: u16, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let length = body.len().to_string();
        let fields: Vec<_> = headers.iter().copied().chain([("content-length", length.as_str())]).collect();
        Self::head(status, &fields).write(body)
    }

    /// Only a head, exactly these fields; a body may follow with [`Reply::write`] or [`Reply::chunk`].
    pub fn head(status: u16, headers: &[(&str, &str)]) -> Self {
        Self::default().then_head(status, headers)
    }

    /// Exactly `bytes`, valid or not.
    pub fn raw(bytes: impl AsRef<[u8]>) -> Self {
        Self::default().write(bytes)
    }

    /// `200 OK`, chunked: one chunk for each of `chunks`, then `trailers`.
    pub fn chunked(chunks: &[&[u8]], trailers: &[(&str, &str)]) -> Self {
        let head = Self::head(200, &[("transfer-encoding", "chunked")]);
        chunks.iter().fold(head, |reply, chunk| reply.chunk(chunk)).last_chunk(trailers)
    }

    /// `200 OK` whose body ends with the connection.
    pub fn until_close(body: impl AsRef<[u8]>) -> Self {
        Self::head(200, &[("connection", "close")]).write(body).close()
    }

    /// `101 Switching Protocols` to `protocol`; then everything the peer sends is sent back, until it closes.
    pub fn switch_and_echo(protocol: &str) -> Self {
        Self::head(101, &[("connection", "upgrade"), ("upgrade", protocol)]).echo()
    }

    /// No answer, ever; the connection stays open until the peer closes it.
    pub fn never() -> Self {
        Self::default().then(Action::Never)
    }

    /// Adds a head: an interim one (100, 103) before, or a second one behind the first.
    pub fn then_head(self, status: u16, headers: &[(&str, &str)]) -> Self {
        let reason = http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or("Unknown");
        let mut head = format!("HTTP/1.1 {status} {reason}\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        self.write(head + "\r\n")
    }

    /// Adds bytes.
    pub fn write(self, bytes: impl AsRef<[u8]>) -> Self {
        self.then(Action::Write(bytes.as_ref().to_vec()))
    }

    /// Adds one chunk of a chunked body.
    pub fn chunk(self, data: &[u8]) -> Self {
        let mut framed = format!("{:x}\r\n", data.len()).into_bytes();
        framed.extend_from_slice(data);
        framed.extend_from_slice(b"\r\n");
        self.write(framed)
    }

    /// Adds the end of a chunked body.
    pub fn last_chunk(self, trailers: &[(&str, &str)]) -> Self {
        let fields: String = trailers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        self.write(format!("0\r\n{fields}\r\n"))
    }

    /// Waits here until the test opens `gate`.
    pub fn after(self, gate: &Gate) -> Self {
        self.then(Action::After(gate.clone()))
    }

    /// Waits here for `duration`: for tests about time itself, such as timeouts.
    pub fn pause(self, duration: Duration) -> Self {
        self.then(Action::Pause(duration))
    }

    /// Closes the connection here.
    pub fn close(self) -> Self {
        self.then(Action::Close)
    }

    /// Resets the connection here.
    pub fn reset(self) -> Self {
        self.then(Action::Reset)
    }

    /// Sends back whatever comes from here on.
    pub fn echo(self) -> Self {
        self.then(Action::Echo)
    }

    /// Answers when the head has come, before the body is read. The body is read, and the request recorded, after it.
    pub fn early(mut self) -> Self {
        self.early = true;
        self
    }

    /// Says `100 Continue` when the head has come, and answers when the body has.
    pub fn asks_for_body(mut self) -> Self {
        self.asks = true;
        self
    }

    fn then(mut self, action: Action) -> Self {
        self.actions.push(action);
        self
    }
}

type Handler = dyn Fn(&Recorded) -> Reply + Send + Sync;

/// A running origin; dropping it closes its listener and its connections.
#[derive(Debug)]
pub struct Upstream {
    addr: SocketAddr,
    shared: Arc<Shared>,
    accept: AbortHandle,
}

/// Where and how an origin listens.
#[derive(Debug, Default, Clone)]
pub struct Options {
    /// Address to listen at; a free port of 127.0.0.1 otherwise.
    pub at: Option<SocketAddr>,
    /// TLS configuration; plain otherwise.
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

struct Shared {
    handler: Box<Handler>,
    requests: Mutex<Vec<Recorded>>,
    connections: AtomicUsize,
    open: AtomicUsize,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("connections", &self.connections)
            .field("open", &self.open)
            .finish_non_exhaustive()
    }
}

impl Upstream {
    /// Starts an origin at a free port; `handler` decides each answer by the head, before the body is read.
    pub async fn http1(handler: impl Fn(&Recorded) -> Reply + Send + Sync + 'static) -> Self {
        Self::http1_with(Options::default(), handler).await
    }

    /// Starts an origin that gives these answers, one for each request in the order they come; the last one repeats.
    pub async fn scripted(replies: impl IntoIterator<Item = Reply>) -> Self {
        let replies: Vec<Reply> = replies.into_iter().collect();
        let next = AtomicUsize::new(0);
        Self::http1(move |_| {
            let at = next.fetch_add(1, Ordering::SeqCst).min(replies.len() - 1);
            replies[at].clone()
        })
        .await
    }

    /// Starts an origin with [`Options`].
    #[expect(clippy::disallowed_methods, reason = "a test's peers run beside the test")]
    pub async fn http1_with(options: Options, handler: impl Fn(&Recorded) -> Reply + Send + Sync + 'static) -> Self {
        let listener = super::listen(options.at).await;
        let addr = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            handler: Box::new(handler),
            requests: Mutex::default(),
            connections: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
        });
        let served = Arc::clone(&shared);
        let accept = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((tcp, peer)) = listener.accept().await {
                let (shared, tls) = (Arc::clone(&served), options.tls.clone());
                connections.spawn(async move {
                    let _ = connection(&shared, tcp, peer, tls.as_ref()).await;
                });
            }
        });
        Self { addr, shared, accept: accept.abort_handle() }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Every request so far, in the order they were complete.
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The request number `index`, from 0; waits until it has come.
    pub async fn request(&self, index: usize) -> Recorded {
        wait::until_some(&format!("request {index} at the origin"), || self.requests().get(index).cloned()).await
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Connections open now.
    pub fn open_connections(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Closes the listener and every connection; the address then refuses connections.
    pub async fn stop(self) {
        let addr = self.addr;
        drop(self);
        wait::until_ready(
            "the origin to stop",
            || async move { TcpStream::connect(addr).await.is_err().then_some(()) },
        )
        .await;
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

async fn connection(
    shared: &Shared,
    tcp: TcpStream,
    peer: SocketAddr,
    tls: Option<&Arc<rustls::ServerConfig>>,
) -> io::Result<()> {
    let connection = shared.connections.fetch_add(1, Ordering::SeqCst);
    shared.open.fetch_add(1, Ordering::SeqCst);
    let _open = Open(shared);
    // Head and body are written apart: without this the body waits for a delayed acknowledgement.
    tcp.set_nodelay(true)?;
    let mut stream = Stream::accept(tcp, tls).await?;
    let mut buffer = Buffer::default();
    while let Some(head_bytes) = buffer.until(&mut stream, b"\r\n\r\n").await? {
        let head = Head::split(&head_bytes);
        let framing = head.framing(Framing::None);
        let certificates = stream.peer_certificates();
        let mut request = Recorded {
            connection,
            peer,
            head_bytes,
            body_bytes: Vec::new(),
            body: Vec::new(),
            trailers: Vec::new(),
            cut: false,
            certificates,
            head,
        };
        let reply = (shared.handler)(&request);
        let mut open = true;
        if reply.asks {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
            stream.flush().await?;
        }
        if reply.early {
            open = act(&mut stream, &mut buffer, &reply.actions).await?;
        }
        let body = match open {
            true => read_body(&mut buffer, &mut stream, framing).await?,
            false => Body::default(),
        };
        let Body { raw, data, trailers, cut } = body;
        request = Recorded { body_bytes: raw, body: data, trailers, cut, ..request };
        shared.requests.lock().unwrap_or_else(PoisonError::into_inner).push(request);
        if !reply.early && !cut {
            open = act(&mut stream, &mut buffer, &reply.actions).await?;
        }
        if !open || cut {
            return Ok(());
        }
    }
    Ok(())
}

/// Runs the steps; false when the connection is over.
async fn act(stream: &mut Stream, buffer: &mut Buffer, actions: &[Action]) -> io::Result<bool> {
    for action in actions {
        match action {
            Action::Write(bytes) => stream.write_all(bytes).await?,
            Action::After(gate) => {
                stream.flush().await?;
                gate.passed().await;
            }
            Action::Pause(duration) => {
                stream.flush().await?;
                tokio::time::sleep(*duration).await;
            }
            Action::Close => {
                stream.flush().await?;
                stream.shutdown().await?;
                return Ok(false);
            }
            Action::Reset => {
                stream.flush().await?;
                stream.reset_on_drop();
                return Ok(false);
            }
            Action::Echo => loop {
                let bytes = buffer.take_all();
                stream.write_all(&bytes).await?;
                stream.flush().await?;
                if !buffer.fill(stream).await? {
                    stream.shutdown().await?;
                    return Ok(false);
                }
            },
            Action::Never => {
                while buffer.fill(stream).await? {
                    buffer.take_all();
                }
                return Ok(false);
            }
        }
    }
    stream.flush().await?;
    Ok(true)
}

/// Counts a connection as open while it lives.
struct Open<'a>(&'a Shared);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}
