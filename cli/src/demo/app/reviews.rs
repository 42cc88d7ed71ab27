//! The reviews: one unary gRPC method, `shop.v1.Reviews/List`, over plain HTTP/2. Framing and status are written by
//! hand here, for both sides; a service of two messages needs no generated code.

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, header};
use http_body_util::{BodyExt as _, Full};
use prost::Message;

use super::caller;

/// Path of the method.
pub(in crate::demo) const LIST: &str = "/shop.v1.Reviews/List";

/// gRPC status codes: OK, and INVALID_ARGUMENT.
const OK: &str = "0";
const INVALID_ARGUMENT: &str = "3";

/// A request.
#[derive(Clone, PartialEq, Eq, Message)]
pub(in crate::demo) struct ListRequest {
    /// Product the reviews are for.
    #[prost(string, tag = "1")]
    pub(in crate::demo) product: String,
}

/// A reply.
#[derive(Clone, PartialEq, Eq, Message)]
pub(in crate::demo) struct ListReply {
    /// Which replica answers.
    #[prost(string, tag = "1")]
    pub(in crate::demo) replica: String,
    /// Who called it, as its sidecar has verified.
    #[prost(string, tag = "2")]
    pub(in crate::demo) caller: String,
    /// The reviews.
    #[prost(string, repeated, tag = "3")]
    pub(in crate::demo) reviews: Vec<String>,
}

/// Its routes.
pub(super) fn routes(replica: String) -> Router {
    Router::new().route(LIST, post(list)).with_state(replica)
}

async fn list(State(replica): State<String>, headers: HeaderMap, body: Bytes) -> Response {
    let Some(request) = unframe::<ListRequest>(&body) else {
        return reply(Bytes::new(), INVALID_ARGUMENT);
    };
    let reviews = vec![format!("{}: pours well", request.product), format!("{}: no lid", request.product)];
    reply(frame(&ListReply { replica, caller: caller(&headers), reviews }), OK)
}

fn reply(message: Bytes, status: &'static str) -> Response {
    let trailers =
        HeaderMap::from_iter([(header::HeaderName::from_static("grpc-status"), HeaderValue::from_static(status))]);
    let body = Full::new(message).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// A message as gRPC frames it: not compressed, length, bytes.
pub(in crate::demo) fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut out = BytesMut::with_capacity(length + 5);
    out.put_u8(0);
    out.put_u32(u32::try_from(length).expect("the demo's messages are short"));
    message.encode(&mut out).expect("a growing buffer has room");
    out.freeze()
}

/// The only message of a body; none when it is anything else.
pub(in crate::demo) fn unframe<M: Message + Default>(body: &Bytes) -> Option<M> {
    let (prefix, message) = body.split_first_chunk::<5>()?;
    let [0, length @ ..] = *prefix else { return None };
    (u32::from_be_bytes(length) as usize == message.len()).then(|| M::decode(message).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back() {
        let request = ListRequest { product: "teapot".to_owned() };
        let framed = frame(&request);
        assert_eq!(framed.slice(..5), [0, 0, 0, 0, 8].as_slice());
        assert_eq!(unframe(&framed), Some(request));
        for bad in [&b""[..], &framed[..9], b"\x01\0\0\0\0", b"\0\0\0\0\x01\xff"] {
            assert_eq!(unframe::<ListRequest>(&Bytes::copy_from_slice(bad)), None);
        }
    }
}
