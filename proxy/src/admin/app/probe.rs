//! One probe or lifecycle hook over TCP or gRPC health; HTTP is in `get`. As the kubelet performs them.

use std::net::SocketAddr;
use std::pin::pin;

use bytes::{BufMut as _, BytesMut};
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use tokio::net::TcpStream;

use super::get;
use crate::config::bootstrap::{Check, Probe};

/// Why a probe fails.
#[derive(Debug)]
pub(super) struct Failed {
    /// The status for the kubelet, whose Events show it.
    pub(super) status: StatusCode,
    /// Why, in words.
    pub(super) reason: String,
    /// The application answered: a hook asks for no more.
    pub(super) answered: bool,
}

impl Failed {
    /// The application did not answer, or not in the probe's protocol.
    pub(super) fn unanswered(reason: impl std::fmt::Display) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, reason: reason.to_string(), answered: false }
    }
}

/// Performs a probe; the caller bounds its time. The status for the kubelet: 200, or a redirect that it reports as a warning.
pub(super) async fn run(probe: &Probe, address: SocketAddr, agent: &HeaderValue) -> Result<StatusCode, Failed> {
    match &probe.check {
        Check::Tcp => TcpStream::connect(address).await.map(|_| StatusCode::OK).map_err(Failed::unanswered),
        Check::Http { tls, page, headers } => {
            let first = get::Page::of_probe(*tls, address, page);
            Box::pin(get::Asker { address: address.ip(), headers, agent, hook: probe.timeout.is_none() }.run(first))
                .await
        }
        Check::Grpc { service } => grpc(service, address, agent).await,
    }
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

/// Most bytes of a gRPC health reply.
const GRPC_REPLY: usize = 4096;

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

async fn grpc(service: &str, address: SocketAddr, agent: &HeaderValue) -> Result<StatusCode, Failed> {
    let stream = TcpStream::connect(address).await.map_err(Failed::unanswered)?;
    let message = HealthRequest { service: service.to_owned() }.encode_to_vec();
    let mut body = BytesMut::with_capacity(message.len().saturating_add(5));
    body.put_u8(0);
    body.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    body.put_slice(&message);
    let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, agent)
        .body(Full::new(body.freeze()))
        .map_err(Failed::unanswered)?;
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(Failed::unanswered)?;
    let answer = async move {
        let response = sender.send_request(request).await.map_err(Failed::unanswered)?;
        let mut status = grpc_status(response.headers());
        let body = Limited::new(response.into_body(), GRPC_REPLY).collect().await.map_err(Failed::unanswered)?;
        status = status.or_else(|| body.trailers().and_then(grpc_status));
        Ok::<_, Failed>((status, body.to_bytes()))
    };
    let (status, body) = driven(connection, answer).await?;
    let served = body.get(5..).and_then(|message| HealthResponse::decode(message).ok()).map(|reply| reply.status);
    match (status.as_deref(), served) {
        (None | Some("0"), Some(1)) => Ok(StatusCode::OK),
        (None | Some("0"), _) => Err(Failed::unanswered("its health service does not say SERVING")),
        (Some(status), _) => Err(Failed::unanswered(format!("its health service answers with gRPC status {status}"))),
    }
}

fn grpc_status(headers: &http::HeaderMap) -> Option<String> {
    headers.get("grpc-status").and_then(|status| status.to_str().ok()).map(str::to_owned)
}
