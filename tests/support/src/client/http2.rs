//! An HTTP/2 client on the crate `h2`, with prior knowledge or over TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use crate::stream::Stream;
use crate::upstream::http2::map;
use crate::wait::within;

/// A client connection; dropping it closes the connection.
#[derive(Debug)]
pub struct Http2Client {
    send: SendRequest<Bytes>,
    driver: AbortHandle,
}

/// A complete response.
#[derive(Debug, Clone)]
pub struct Http2Response {
    /// Status code.
    pub status: u16,
    /// Fields of the head.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// Trailers, if any came.
    pub trailers: Option<HeaderMap>,
}

impl Http2Response {
    /// The first field called `name`, of the head.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// `grpc-status`, of the trailers or else of the head.
    pub fn grpc_status(&self) -> Option<&str> {
        let trailers = self.trailers.iter().find_map(|trailers| trailers.get("grpc-status"));
        trailers.or_else(|| self.headers.get("grpc-status")).and_then(|value| value.to_str().ok())
    }

    /// Reads a response to its end.
    ///
    /// # Errors
    /// A reset of the stream, or the end of the connection.
    pub async fn read(response: http::Response<RecvStream>) -> Result<Self, h2::Error> {
        let (parts, mut stream) = response.into_parts();
        let mut body = Vec::new();
        while let Some(data) = within("DATA", stream.data()).await {
            let data = data?;
            let _ = stream.flow_control().release_capacity(data.len());
            body.extend_from_slice(&data);
        }
        let trailers = within("the end of the stream", stream.trailers()).await?;
        Ok(Self { status: parts.status.as_u16(), headers: parts.headers, body: body.into(), trailers })
    }
}

/// A request head for `http://authority/path`.
pub fn request(method: &str, authority: &str, path: &str, headers: &[(&str, &str)]) -> Request<()> {
    let uri = format!("http://{authority}{path}");
    let mut request = Request::builder().method(method).uri(uri).body(()).expect("a test's request is valid");
    *request.headers_mut() = map(headers);
    request
}

impl Http2Client {
    /// Connects in clear text with prior knowledge.
    pub async fn connect(addr: SocketAddr) -> Self {
        let tcp = within("a connection", TcpStream::connect(addr)).await;
        Self::over(Stream::Plain(tcp.unwrap_or_else(|error| panic!("cannot connect to {addr}: {error}")))).await
    }

    /// Connects with TLS; `config` should offer `h2`, or a token of the mesh that means it.
    pub async fn connect_tls(addr: SocketAddr, config: Arc<rustls::ClientConfig>, name: &str) -> Self {
        let tcp = within("a connection", TcpStream::connect(addr)).await.expect("a connection");
        let stream = within("a TLS handshake", Stream::connect(tcp, config, name)).await;
        Self::over(stream.unwrap_or_else(|error| panic!("TLS with {addr}: {error}"))).await
    }

    #[expect(clippy::disallowed_methods, reason = "a test's peers run beside the test")]
    async fn over(stream: Stream) -> Self {
        stream.tcp().set_nodelay(true).expect("an open socket");
        let (send, connection) = within("the HTTP/2 preface", h2::client::handshake(stream)).await.expect("HTTP/2");
        let driver = tokio::spawn(async move {
            let _ = connection.await;
        });
        Self { send, driver: driver.abort_handle() }
    }

    /// Starts a request whose body the test sends itself; resolve the future for the response.
    ///
    /// # Errors
    /// When the connection is over or refuses new streams.
    pub async fn start(
        &self,
        head: Request<()>,
        end: bool,
    ) -> Result<(h2::client::ResponseFuture, SendStream<Bytes>), h2::Error> {
        let ready = within("room for a stream", self.send.clone().ready()).await?;
        let mut send = ready;
        send.send_request(head, end)
    }

    /// A request with a whole body and optional trailers, and its whole response.
    ///
    /// # Errors
    /// A reset of the stream, or the end of the connection.
    pub async fn exchange(
        &self,
        head: Request<()>,
        body: impl Into<Bytes>,
        trailers: Option<HeaderMap>,
    ) -> Result<Http2Response, h2::Error> {
        let body = body.into();
        let bare = body.is_empty() && trailers.is_none();
        let (response, mut send) = self.start(head, bare).await?;
        if !bare {
            send.send_data(body, trailers.is_none())?;
            if let Some(trailers) = trailers {
                send.send_trailers(trailers)?;
            }
        }
        Http2Response::read(within("a response", response).await?).await
    }

    /// A GET.
    ///
    /// # Errors
    /// As [`Http2Client::exchange`].
    pub async fn get(&self, authority: &str, path: &str) -> Result<Http2Response, h2::Error> {
        self.exchange(request("GET", authority, path, &[]), Bytes::new(), None).await
    }

    /// A unary gRPC call of `path` with one message.
    ///
    /// # Errors
    /// As [`Http2Client::exchange`].
    pub async fn grpc(&self, authority: &str, path: &str, message: &[u8]) -> Result<Http2Response, h2::Error> {
        let headers = [("content-type", "application/grpc"), ("te", "trailers")];
        let head = request("POST", authority, path, &headers);
        self.exchange(head, crate::upstream::http2::grpc_frame(message), None).await
    }
}

impl Drop for Http2Client {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
