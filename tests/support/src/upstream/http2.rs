//! An HTTP/2 origin on the crate `h2`: gRPC-like answers with trailers, resets, GOAWAY, all as scripted.
//!
//! ```no_run
//! # async fn example() {
//! use tulle_testing::upstream::{Http2Reply, Http2Upstream};
//! let origin = Http2Upstream::start(|_| Http2Reply::grpc(&[b"hello"], 0)).await;
//! # }
//! ```

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, JoinSet};

use super::http1::Options;
use crate::stream::Stream;
use crate::wait::{self, Gate};

/// A request as it arrived, complete.
#[derive(Debug, Clone)]
pub struct Http2Recorded {
    /// Which of the origin's connections it came on, from 0.
    pub connection: usize,
    /// Method, URI and headers.
    pub head: Request<()>,
    /// The whole body.
    pub body: Bytes,
    /// Trailers, if any came.
    pub trailers: Option<HeaderMap>,
    /// The client reset the stream before its end, for this reason.
    pub reset: Option<Reason>,
    /// Certificates the client presented, leaf first.
    pub certificates: Vec<rustls_pki_types::CertificateDer<'static>>,
}

impl Http2Recorded {
    /// The first field called `name`.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.headers().get(name).and_then(|value| value.to_str().ok())
    }
}

#[derive(Debug, Clone)]
enum Action {
    Head(u16, HeaderMap),
    Data(Bytes),
    Trailers(HeaderMap),
    After(Gate),
    Reset(Reason),
    Echo,
}

/// An answer: steps in the order they were added. The stream ends behind the last step.
#[derive(Debug, Clone, Default)]
pub struct Http2Reply {
    actions: Vec<Action>,
    goaway: Option<Reason>,
    close: bool,
}

impl Http2Reply {
    /// `200` with `body`.
    pub fn ok(body: impl Into<Bytes>) -> Self {
        Self::head(200, &[]).data(body)
    }

    /// Only a head; steps may follow.
    pub fn head(status: u16, headers: &[(&str, &str)]) -> Self {
        Self { actions: vec![Action::Head(status, map(headers))], ..Self::default() }
    }

    /// A gRPC answer: each message in a frame of its own, then `grpc-status` in the trailers.
    pub fn grpc(messages: &[&[u8]], status: u8) -> Self {
        let head = Self::head(200, &[("content-type", "application/grpc")]);
        let sent = messages.iter().fold(head, |reply, message| reply.data(grpc_frame(message)));
        sent.trailers(&[("grpc-status", &status.to_string())])
    }

    /// A gRPC answer without messages, its status in the head ("trailers-only").
    pub fn grpc_trailers_only(status: u8, message: &str) -> Self {
        let status = status.to_string();
        let fields = [("content-type", "application/grpc"), ("grpc-status", &status), ("grpc-message", message)];
        Self::head(200, &fields)
    }

    /// Refuses the stream: the peer may know that nothing was done.
    pub fn refuse() -> Self {
        Self::default().reset(Reason::REFUSED_STREAM)
    }

    /// `200`, then every DATA frame is sent back as it comes, and the trailers at the end.
    pub fn echo() -> Self {
        Self::head(200, &[]).then(Action::Echo)
    }

    /// Adds a DATA frame.
    pub fn data(self, bytes: impl Into<Bytes>) -> Self {
        self.then(Action::Data(bytes.into()))
    }

    /// Ends the stream with trailers.
    pub fn trailers(self, fields: &[(&str, &str)]) -> Self {
        self.then(Action::Trailers(map(fields)))
    }

    /// Waits here until the test opens `gate`.
    pub fn after(self, gate: &Gate) -> Self {
        self.then(Action::After(gate.clone()))
    }

    /// Resets the stream here.
    pub fn reset(self, reason: Reason) -> Self {
        self.then(Action::Reset(reason))
    }

    /// Sends GOAWAY with `NO_ERROR` when this request arrives: it and earlier ones are answered, later ones are not.
    pub fn goaway(mut self) -> Self {
        self.goaway = Some(Reason::NO_ERROR);
        self
    }

    /// Sends GOAWAY with `reason` when this request arrives, and ends the connection without an answer.
    pub fn abort(mut self, reason: Reason) -> Self {
        self.goaway = Some(reason);
        self
    }

    /// Drops the connection when this request arrives, without a word.
    pub fn drop_connection(mut self) -> Self {
        self.close = true;
        self
    }

    fn then(mut self, action: Action) -> Self {
        self.actions.push(action);
        self
    }
}

/// `message` as a gRPC frame: not compressed, length, bytes.
pub fn grpc_frame(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).expect("test messages are short");
    [&[0][..], &length.to_be_bytes(), message].concat().into()
}

type Handler = dyn Fn(&Request<()>) -> Http2Reply + Send + Sync;

struct Shared {
    handler: Box<Handler>,
    requests: Mutex<Vec<Http2Recorded>>,
    connections: AtomicUsize,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("connections", &self.connections).finish_non_exhaustive()
    }
}

/// A running HTTP/2 origin (prior knowledge, or ALPN of the given TLS configuration); dropping it stops it.
#[derive(Debug)]
pub struct Http2Upstream {
    addr: SocketAddr,
    shared: Arc<Shared>,
    accept: AbortHandle,
}

impl Http2Upstream {
    /// Starts an origin at a free port; `handler` decides each answer by the head.
    pub async fn start(handler: impl Fn(&Request<()>) -> Http2Reply + Send + Sync + 'static) -> Self {
        Self::start_with(Options::default(), handler).await
    }

    /// Starts an origin with [`Options`].
    #[expect(clippy::disallowed_methods, reason = "a test's peers run beside the test")]
    pub async fn start_with(
        options: Options,
        handler: impl Fn(&Request<()>) -> Http2Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = super::listen(options.at).await;
        let addr = listener.local_addr().expect("a bound socket has an address");
        let handler = Box::new(handler);
        let shared = Arc::new(Shared { handler, requests: Mutex::default(), connections: AtomicUsize::new(0) });
        let served = Arc::clone(&shared);
        let accept = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let (shared, tls) = (Arc::clone(&served), options.tls.clone());
                connections.spawn(async move {
                    let _ = connection(shared, tcp, tls.as_ref()).await;
                });
            }
        });
        Self { addr, shared, accept: accept.abort_handle() }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Every complete request so far.
    pub fn requests(&self) -> Vec<Http2Recorded> {
        self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The request number `index`, from 0; waits until it is complete.
    pub async fn request(&self, index: usize) -> Http2Recorded {
        wait::until_some(&format!("request {index} at the origin"), || self.requests().get(index).cloned()).await
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Http2Upstream {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

async fn connection(
    shared: Arc<Shared>,
    tcp: TcpStream,
    tls: Option<&Arc<rustls::ServerConfig>>,
) -> Result<(), h2::Error> {
    let connection = shared.connections.fetch_add(1, Ordering::SeqCst);
    let Ok(stream) = Stream::accept(tcp, tls).await else { return Ok(()) };
    let certificates = stream.peer_certificates();
    let mut server = h2::server::handshake(stream).await?;
    let mut streams = JoinSet::new();
    while let Some(accepted) = server.accept().await {
        let (request, respond) = accepted?;
        let (parts, body) = request.into_parts();
        let head = Request::from_parts(parts, ());
        let reply = (shared.handler)(&head);
        if reply.close {
            return Ok(());
        }
        match reply.goaway {
            Some(Reason::NO_ERROR) => server.graceful_shutdown(),
            Some(reason) => server.abrupt_shutdown(reason),
            None => {}
        }
        let recorded = Http2Recorded {
            connection,
            head,
            body: Bytes::new(),
            trailers: None,
            reset: None,
            certificates: certificates.clone(),
        };
        let shared = Arc::clone(&shared);
        streams.spawn(async move {
            let _ = answer(&shared, recorded, body, respond, reply).await;
        });
    }
    // The streams are driven by the connection, which is over.
    streams.abort_all();
    Ok(())
}

/// Reads the request and runs the steps, one after the other unless the answer echoes.
async fn answer(
    shared: &Shared,
    mut request: Http2Recorded,
    mut body: RecvStream,
    mut respond: SendResponse<Bytes>,
    reply: Http2Reply,
) -> Result<(), h2::Error> {
    let echoes = reply.actions.iter().any(|action| matches!(action, Action::Echo));
    if !echoes {
        read(&mut request, &mut body, |_| Ok(())).await?;
        shared.requests.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
    }
    let mut send: Option<SendStream<Bytes>> = None;
    let last = reply.actions.len().saturating_sub(1);
    for (at, action) in reply.actions.into_iter().enumerate() {
        let end = at == last;
        match (action, &mut send) {
            (Action::Head(status, headers), _)
                if http::StatusCode::from_u16(status).is_ok_and(|s| s.is_informational()) =>
            {
                respond.send_informational(response(status, headers))?;
            }
            (Action::Head(status, headers), _) => send = Some(respond.send_response(response(status, headers), end)?),
            (Action::Data(bytes), Some(send)) => send.send_data(bytes, end)?,
            (Action::Trailers(fields), Some(send)) => send.send_trailers(fields)?,
            (Action::After(gate), _) => gate.passed().await,
            (Action::Reset(reason), Some(send)) => send.send_reset(reason),
            (Action::Reset(reason), None) => respond.send_reset(reason),
            (Action::Echo, Some(send)) => {
                read(&mut request, &mut body, |bytes| send.send_data(bytes, false)).await?;
                match request.trailers.clone() {
                    Some(trailers) => send.send_trailers(trailers)?,
                    None => send.send_data(Bytes::new(), true)?,
                }
                shared.requests.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
            }
            (Action::Data(_) | Action::Trailers(_) | Action::Echo, None) => panic!("a reply needs a head first"),
        }
    }
    Ok(())
}

async fn read(
    request: &mut Http2Recorded,
    body: &mut RecvStream,
    mut each: impl FnMut(Bytes) -> Result<(), h2::Error>,
) -> Result<(), h2::Error> {
    let mut whole = Vec::new();
    while let Some(data) = body.data().await {
        match data {
            Ok(bytes) => {
                // The window is given back at once: tests of back-pressure hold the connection, not a stream.
                let _ = body.flow_control().release_capacity(bytes.len());
                whole.extend_from_slice(&bytes);
                each(bytes)?;
            }
            Err(error) => {
                request.reset = Some(error.reason().unwrap_or(Reason::CANCEL));
                request.body = whole.into();
                return Ok(());
            }
        }
    }
    request.body = whole.into();
    request.trailers = body.trailers().await.ok().flatten();
    Ok(())
}

fn response(status: u16, headers: HeaderMap) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = http::StatusCode::from_u16(status).expect("a test's status is valid");
    *response.headers_mut() = headers;
    response
}

/// A header map of what a test wrote.
pub(crate) fn map(fields: &[(&str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&str, &str)| {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap_or_else(|_| panic!("{name:?} is no header name"));
        let value = HeaderValue::from_str(value).unwrap_or_else(|_| panic!("{value:?} is no header value"));
        (name, value)
    };
    let mut map = HeaderMap::new();
    for (name, value) in fields.iter().map(pair) {
        map.append(name, value);
    }
    map
}
