//! A client that sends exactly the bytes it is given, and reads what comes back. Everything it awaits has the deadline
//! of [`wait`](crate::wait); a failure shows what had been received until then.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::message::{Body, Buffer, Framing, Head, read_body};
use crate::stream::Stream;
use crate::wait::within;

/// A connection of raw bytes.
#[derive(Debug)]
pub struct Raw {
    stream: Stream,
    buffer: Buffer,
}

/// A response to an HTTP/1 request.
#[derive(Debug, Clone)]
pub struct Response {
    /// Status code; 0 where the status line is not one.
    pub status: u16,
    /// Fields in order, names as they came.
    pub headers: Vec<(String, String)>,
    /// The body without framing.
    pub body: Vec<u8>,
    /// Exact bytes of the body, with chunk framing.
    pub body_bytes: Vec<u8>,
    /// Trailer fields in order.
    pub trailers: Vec<(String, String)>,
    /// The connection ended inside of the body.
    pub cut: bool,
}

impl Response {
    /// The first field called `name`, whatever its case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A complete HTTP/1.1 request: `host`, a content-length where there is a body, and `headers`.
pub fn request(method: &str, target: &str, host: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {target} HTTP/1.1\r\nhost: {host}\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    [head.as_bytes(), b"\r\n", body].concat()
}

impl Raw {
    /// Connects.
    pub async fn connect(addr: SocketAddr) -> Self {
        let tcp = within("a connection", TcpStream::connect(addr)).await;
        Self::over(tcp.unwrap_or_else(|error| panic!("cannot connect to {addr}: {error}")))
    }

    /// Uses a connection the test made itself, from a certain address or with certain options.
    pub fn over(tcp: TcpStream) -> Self {
        tcp.set_nodelay(true).expect("an open socket");
        Self { stream: Stream::Plain(tcp), buffer: Buffer::default() }
    }

    /// Connects with TLS; `name` is the server name sent.
    pub async fn connect_tls(addr: SocketAddr, config: Arc<rustls::ClientConfig>, name: &str) -> Self {
        let refused = |error| panic!("TLS with {addr}: {error}");
        Self::try_connect_tls(addr, config, name).await.unwrap_or_else(refused)
    }

    /// Like [`Raw::connect_tls`], for tests where the handshake may fail.
    ///
    /// # Errors
    /// Whatever connecting or the handshake failed with.
    pub async fn try_connect_tls(
        addr: SocketAddr,
        config: Arc<rustls::ClientConfig>,
        name: &str,
    ) -> std::io::Result<Self> {
        let tcp = within("a connection", TcpStream::connect(addr)).await?;
        tcp.set_nodelay(true)?;
        let stream = within("a TLS handshake", Stream::connect(tcp, config, name)).await?;
        Ok(Self { stream, buffer: Buffer::default() })
    }

    /// Address of this side.
    pub fn local_addr(&self) -> SocketAddr {
        self.stream.tcp().local_addr().expect("a connected socket")
    }

    /// Certificates the server presented, leaf first.
    pub fn peer_certificates(&self) -> Vec<rustls_pki_types::CertificateDer<'static>> {
        self.stream.peer_certificates()
    }

    /// The protocol ALPN agreed on.
    pub fn alpn(&self) -> Option<Vec<u8>> {
        self.stream.alpn()
    }

    /// Sends `bytes` as they are.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).await.unwrap_or_else(|error| panic!("sending failed: {error}; {}", self.seen()));
    }

    /// Like [`Raw::send`], for tests where the peer may have closed.
    ///
    /// # Errors
    /// Whatever the socket says.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        within("the peer to take bytes", self.stream.write_all(bytes.as_ref())).await?;
        within("the peer to take bytes", self.stream.flush()).await
    }

    /// Closes the sending side only.
    pub async fn half_close(&mut self) {
        self.stream.shutdown().await.unwrap_or_else(|error| panic!("half-close failed: {error}"));
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        self.stream.reset_on_drop();
    }

    /// Reads up to and including `mark`.
    pub async fn read_until(&mut self, mark: impl AsRef<[u8]>) -> Vec<u8> {
        let mark = mark.as_ref();
        let what = format!("{:?} from the peer", String::from_utf8_lossy(mark));
        match within(&what, self.buffer.until(&mut self.stream, mark)).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => panic!("the peer closed before {what}; {}", self.seen()),
            Err(error) => panic!("{error} before {what}; {}", self.seen()),
        }
    }

    /// Reads exactly `count` bytes.
    pub async fn read_exact(&mut self, count: usize) -> Vec<u8> {
        match within(&format!("{count} bytes"), self.buffer.exactly(&mut self.stream, count)).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => panic!("the peer closed before {count} bytes; {}", self.seen()),
            Err(error) => panic!("{error} before {count} bytes; {}", self.seen()),
        }
    }

    /// Reads until the peer closes its side; a reset ends it too.
    pub async fn read_to_close(&mut self) -> Vec<u8> {
        match within("the peer to close", self.buffer.rest(&mut self.stream)).await {
            Ok(bytes) => bytes,
            Err(_) => self.buffer.take_all(),
        }
    }

    /// Expects the peer to close or reset without another byte.
    pub async fn expect_close(&mut self) {
        let rest = self.read_to_close().await;
        assert!(rest.is_empty(), "the peer sent more before it closed: {:?}", String::from_utf8_lossy(&rest));
    }

    /// Sends a request and reads its response; for more control use [`Raw::send`] and [`Raw::response`].
    pub async fn exchange(&mut self, method: &str, target: &str, host: &str) -> Response {
        self.send(request(method, target, host, &[], &[])).await;
        self.response_to(method).await
    }

    /// Reads one response to a request that is not HEAD; interim responses (1xx but 101) count as responses.
    pub async fn response(&mut self) -> Response {
        self.response_to("GET").await
    }

    /// Reads one response to `method`.
    pub async fn response_to(&mut self, method: &str) -> Response {
        let response = self.try_response(method).await;
        response.unwrap_or_else(|| panic!("the peer closed before a response; {}", self.seen()))
    }

    /// Like [`Raw::response_to`]; `None` when the peer closes or resets before a complete head.
    pub async fn try_response(&mut self, method: &str) -> Option<Response> {
        let head = within("a response", self.buffer.until(&mut self.stream, b"\r\n\r\n")).await.ok()??;
        let head = Head::split(&head);
        let status: u16 = head.first.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        let bodiless = method == "HEAD" || status / 100 == 1 || status == 204 || status == 304;
        let framing = if bodiless { Framing::None } else { head.framing(Framing::Close) };
        let body = within("a response body", read_body(&mut self.buffer, &mut self.stream, framing)).await;
        let body = body.unwrap_or_else(|_| Body { cut: true, ..Body::default() });
        let Body { raw, data, trailers, cut } = body;
        Some(Response { status, headers: head.fields, body: data, body_bytes: raw, trailers, cut })
    }

    /// The stream, to send on without waiting for good.
    pub(super) const fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }

    /// Whether nothing is buffered and nothing comes for `time`. The end of the connection counts as something.
    pub(super) async fn idle(&mut self, time: std::time::Duration) -> bool {
        self.buffer.peek().is_empty() && tokio::time::timeout(time, self.buffer.fill(&mut self.stream)).await.is_err()
    }

    /// Exactly `count` bytes; `None` when the peer closes or resets before.
    pub(super) async fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        self.buffer.exactly(&mut self.stream, count).await.ok().flatten()
    }

    fn seen(&self) -> String {
        format!("received so far: {:?}", String::from_utf8_lossy(self.buffer.peek()))
    }
}

/// One GET on a connection of its own.
pub async fn get(addr: SocketAddr, target: &str, host: &str) -> Response {
    let mut raw = Raw::connect(addr).await;
    raw.send(request("GET", target, host, &[("connection", "close")], &[])).await;
    raw.response().await
}
