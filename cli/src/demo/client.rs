//! The client of the shop's applications and of the load: ordinary HTTP/1.1 and gRPC to a sidecar on this machine.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::de::DeserializeOwned;

use super::app::reviews;

/// Longest wait for a reply; nothing in the shop takes a hundredth of it.
const DEADLINE: Duration = Duration::from_secs(5);

/// Keeps its connections. Cheap to clone; clones share them.
#[derive(Clone, Debug)]
pub(super) struct Client {
    inner: hyper_util::client::legacy::Client<HttpConnector, Full<Bytes>>,
}

/// Why there is no good reply, for people.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused(pub(super) String);

impl Client {
    /// For HTTP/1.1.
    pub(super) fn http1() -> Self {
        Self::new(false)
    }

    /// For HTTP/2 without TLS, as gRPC on a trusted network.
    pub(super) fn http2() -> Self {
        Self::new(true)
    }

    fn new(http2: bool) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let mut builder = hyper_util::client::legacy::Client::builder(TokioExecutor::new());
        // Retrying is the mesh's business here: nothing may hide what it does.
        builder.pool_timer(TokioTimer::new()).retry_canceled_requests(false).http2_only(http2);
        Self { inner: builder.build(connector) }
    }

    /// GET from the service of this name behind `sidecar`; the JSON of a reply with status 200.
    ///
    /// # Errors
    /// Any other reply, or none within 5 s.
    pub(super) async fn get_json<T: DeserializeOwned>(
        &self,
        sidecar: SocketAddr,
        service: &str,
        path: &str,
    ) -> Result<T, Refused> {
        self.json(sidecar, service, Method::GET, path, Bytes::new()).await
    }

    /// POST of a JSON text; as [`Self::get_json`] otherwise.
    ///
    /// # Errors
    /// Any other reply, or none within 5 s.
    pub(super) async fn post_json<T: DeserializeOwned>(
        &self,
        sidecar: SocketAddr,
        service: &str,
        path: &str,
        body: &'static str,
    ) -> Result<T, Refused> {
        self.json(sidecar, service, Method::POST, path, Bytes::from_static(body.as_bytes())).await
    }

    async fn json<T: DeserializeOwned>(
        &self,
        sidecar: SocketAddr,
        service: &str,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, Refused> {
        let mut request =
            Request::builder().method(method).uri(format!("http://{sidecar}{path}")).header(header::HOST, service);
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let (head, _, body) = self.exchange(request, body).await?;
        if head.status != StatusCode::OK {
            let text = String::from_utf8_lossy(&body).trim().to_owned();
            return Err(Refused(format!("{}{}: {text}", head.status.as_u16(), said_by(&head.headers))));
        }
        serde_json::from_slice(&body).map_err(|error| Refused(format!("reply is not JSON: {error}")))
    }

    /// The unary gRPC call of the reviews behind `sidecar`.
    ///
    /// # Errors
    /// Any status but OK, or none within 5 s.
    pub(super) async fn list_reviews(&self, sidecar: SocketAddr, product: &str) -> Result<reviews::ListReply, Refused> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("http://{sidecar}{}", reviews::LIST))
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers");
        let message = reviews::frame(&reviews::ListRequest { product: product.to_owned() });
        let (head, trailers, body) = self.exchange(request, message).await?;
        // A status in the head is that of a reply without a message.
        let status = trailers.get("grpc-status").or_else(|| head.headers.get("grpc-status"));
        match status.and_then(|status| status.to_str().ok()) {
            Some("0") => reviews::unframe(&body).ok_or_else(|| Refused("reply is not one message".to_owned())),
            Some(status) => Err(Refused(format!("gRPC status {status}{}", said_by(&head.headers)))),
            None => Err(Refused(format!("HTTP status {} without a gRPC status", head.status))),
        }
    }

    async fn exchange(
        &self,
        request: http::request::Builder,
        body: Bytes,
    ) -> Result<(http::response::Parts, HeaderMap, Bytes), Refused> {
        let request = request.body(Full::new(body)).map_err(|error| Refused(error.to_string()))?;
        let reply = async {
            let (head, body) = self.inner.request(request).await.map_err(chain)?.into_parts();
            let body = body.collect().await.map_err(chain)?;
            let trailers = body.trailers().cloned().unwrap_or_default();
            Ok((head, trailers, body.to_bytes()))
        };
        tokio::time::timeout(DEADLINE, reply).await.map_err(|_| Refused("no reply within 5 s".to_owned()))?
    }
}

/// An error with all its causes.
fn chain(error: impl Into<anyhow::Error>) -> Refused {
    Refused(format!("{:#}", error.into()))
}

/// Which proxy made this reply and why; empty when it is an application's.
fn said_by(headers: &HeaderMap) -> String {
    let of = |name| headers.get(name).and_then(|value| value.to_str().ok());
    match (of("tulle-proxy"), of("tulle-reason")) {
        (None, None) => String::new(),
        (who, why) => format!(" ({} proxy: {})", who.unwrap_or("some"), why.unwrap_or("no reason")),
    }
}
