//! One probe: HTTP, TCP or gRPC health, as the kubelet performs them.

use std::net::SocketAddr;
use std::pin::pin;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Full, Limited};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::tls;
use crate::config::bootstrap::{Check, Probe};

/// The status for the kubelet, and why.
type Bad = (StatusCode, String);

/// Most bytes of a gRPC health reply.
const GRPC_REPLY: usize = 4096;

/// Performs a probe; the caller bounds its time.
pub(super) async fn run(probe: &Probe, address: SocketAddr) -> Result<(), Bad> {
    let stream = TcpStream::connect(address).await.map_err(unreachable)?;
    match &probe.check {
        Check::Tcp => Ok(()),
        Check::Http { tls: false, .. } => http(probe, stream, address).await,
        Check::Http { tls: true, .. } => {
            let stream = tls::connect(stream, address.ip()).await.map_err(unreachable)?;
            Box::pin(http(probe, stream, address)).await
        }
        Check::Grpc { service } => grpc(service, stream, address).await,
    }
}

fn unreachable(error: impl std::fmt::Display) -> Bad {
    (StatusCode::SERVICE_UNAVAILABLE, error.to_string())
}

async fn http(
    probe: &Probe,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    address: SocketAddr,
) -> Result<(), Bad> {
    let Check::Http { path, headers, .. } = &probe.check else { return Ok(()) };
    let mut request = Request::get(path.as_str())
        .header(header::USER_AGENT, concat!("kube-probe/tulle-", env!("CARGO_PKG_VERSION")))
        .header(header::ACCEPT, "*/*")
        .header(header::CONNECTION, "close");
    for (name, value) in headers {
        request = request.header(name, value);
    }
    if !headers.iter().any(|(name, _)| name == header::HOST) {
        request = request.header(header::HOST, address.to_string());
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(unreachable)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(unreachable)?;
    let response = driven(connection, sender.send_request(request)).await.map_err(unreachable)?;
    let status = response.status();
    if status.is_success() || status.is_redirection() {
        return Ok(());
    }
    // The kubelet's Events show the application's own status.
    let shown = if status.is_client_error() || status.is_server_error() { status } else { StatusCode::BAD_GATEWAY };
    Err((shown, format!("it answers {status}")))
}

/// The answer that comes over `connection`, also when the connection ends with it.
pub(super) async fn driven<T>(connection: impl Future, answer: impl Future<Output = T>) -> T {
    let mut answer = pin!(answer);
    tokio::select! {
        biased; // what has come is taken before the end
        answer = &mut answer => answer,
        _ = connection => answer.await,
    }
}

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct HealthRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`; 1 is SERVING.
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct HealthResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

async fn grpc(service: &str, stream: TcpStream, address: SocketAddr) -> Result<(), Bad> {
    let message = HealthRequest { service: service.to_owned() }.encode_to_vec();
    let mut body = BytesMut::with_capacity(message.len().saturating_add(5));
    body.put_u8(0);
    body.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    body.put_slice(&message);
    let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, concat!("kube-probe/tulle-", env!("CARGO_PKG_VERSION")))
        .body(Full::new(body.freeze()))
        .map_err(unreachable)?;
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(unreachable)?;
    let answer = async move {
        let response = sender.send_request(request).await.map_err(unreachable)?;
        let mut status = grpc_status(response.headers());
        let body = Limited::new(response.into_body(), GRPC_REPLY).collect().await.map_err(unreachable)?;
        status = status.or_else(|| body.trailers().and_then(grpc_status));
        Ok::<_, Bad>((status, body.to_bytes()))
    };
    let (status, body) = driven(connection, answer).await?;
    let served = body.get(5..).and_then(|message| HealthResponse::decode(message).ok()).map(|reply| reply.status);
    match (status.as_deref(), served) {
        (None | Some("0"), Some(1)) => Ok(()),
        (None | Some("0"), _) => Err(unreachable("its health service does not say SERVING")),
        (Some(status), _) => Err(unreachable(format!("its health service answers with gRPC status {status}"))),
    }
}

fn grpc_status(headers: &http::HeaderMap) -> Option<String> {
    headers.get("grpc-status").and_then(|status| status.to_str().ok()).map(str::to_owned)
}
