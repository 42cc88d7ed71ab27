//! Requests onto a client connection.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;

use bytes::Bytes;
use http::uri::Scheme;
use http::{HeaderValue, Request, Uri};

use super::batch::Batch;
use super::{BodyReader, BodyWriter, H2Error};
use crate::codec::fields;
use crate::codec::head::{Edit, RequestHead, ResponseHead};
use crate::conn::Io;

/// A connection on which we open streams. Clones share it.
#[derive(Clone)]
pub(crate) struct Connection(h2::client::SendRequest<Bytes>);

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}

/// Moves the frames of a connection; ends when it is over, with the reason if it failed.
pub(crate) type Driver = Pin<Box<dyn Future<Output = Result<(), H2Error>>>>;

impl Connection {
    /// Exchanges prefaces and settings.
    pub(crate) async fn connect(io: Io, max_header_bytes: u32) -> Result<(Self, Driver), H2Error> {
        let mut builder = h2::client::Builder::new();
        builder
            .enable_push(false)
            .initial_connection_window_size(super::CONNECTION_WINDOW)
            .initial_window_size(super::STREAM_WINDOW)
            .max_frame_size(super::MAX_FRAME)
            .max_header_list_size(max_header_bytes)
            .max_send_buffer_size(super::SEND_BUFFER)
            .data_frame_budget(super::SMALL_FRAMES);
        let batch = Batch::new(io);
        let (send, connection) = builder.handshake(batch.clone()).await?;
        Ok((Self(send), Box::pin(async move { batch.drive(connection).await.map_err(H2Error) })))
    }

    /// Streams that may be open at the same time: what the peer allows, and what the windows hold.
    pub(crate) fn max_streams(&self) -> usize {
        self.0.current_max_send_streams().min(super::MAX_STREAMS as usize)
    }

    /// Opens a stream. An error says that nothing of the request was sent.
    /// `end`: there is no body.
    pub(crate) async fn send(
        &self,
        head: &RequestHead,
        edit: Edit<'_>,
        end: bool,
    ) -> Result<(ReplyReader, BodyWriter), H2Error> {
        let mut send = self.0.clone().ready().await?;
        let (reply, stream) = send.send_request(request(head, edit), end)?;
        Ok((ReplyReader(reply), BodyWriter::new(stream, end)))
    }
}

/// Reads the heads of a reply.
pub(crate) struct ReplyReader(h2::client::ResponseFuture);

impl fmt::Debug for ReplyReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplyReader")
    }
}

/// A head of a reply, interim or final.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// 1xx: the final one follows.
    Interim(ResponseHead),
    /// The final head, and the body.
    Final(ResponseHead, BodyReader),
}

impl ReplyReader {
    /// The next head. Cancel safe.
    pub(crate) async fn head(&mut self) -> Result<Incoming, H2Error> {
        poll_fn(|cx| {
            if let std::task::Poll::Ready(Some(Ok(interim))) = self.0.poll_informational(cx) {
                let head = ResponseHead::H2(Box::new(interim.into_parts().0));
                return std::task::Poll::Ready(Ok(Incoming::Interim(head)));
            }
            Pin::new(&mut self.0).poll(cx).map(|reply| {
                let (head, body) = reply?.into_parts();
                Ok(Incoming::Final(ResponseHead::H2(Box::new(head)), BodyReader::new(body)))
            })
        })
        .await
    }
}

/// A request's target, always with the scheme `http`: what is underneath differs from hop to hop.
fn uri(head: &RequestHead, edit: Edit<'_>) -> Uri {
    let (host, path) = (edit.host(), edit.path());
    if let RequestHead::H2(head) = head
        && head.uri.authority().is_some()
        && host.is_none()
        && path.is_none()
    {
        if head.uri.scheme() == Some(&Scheme::HTTP) {
            return head.uri.clone();
        }
        let mut parts = head.uri.clone().into_parts();
        parts.scheme = Some(Scheme::HTTP);
        return Uri::from_parts(parts).unwrap_or_default();
    }
    // Both texts were checked when the head was received.
    let (host, path) = (host.unwrap_or_else(|| head.authority()), path.unwrap_or_else(|| head.path()));
    Uri::builder().scheme(Scheme::HTTP).authority(host).path_and_query(path).build().unwrap_or_default()
}

/// A request's head as HTTP/2 has it.
fn request(head: &RequestHead, edit: Edit<'_>) -> Request<()> {
    let mut request = Request::new(());
    *request.uri_mut() = uri(head, edit);
    match head {
        RequestHead::H2(head) => {
            *request.method_mut() = head.method.clone();
            let mut headers = head.headers.clone();
            let mut te = headers.get_all(http::header::TE).iter();
            let trailers = te.next().is_some_and(|te| te == "trailers") && te.next().is_none();
            super::drop_fields(&mut headers, edit, trailers);
            *request.headers_mut() = headers;
        }
        RequestHead::H1(h1) => {
            *request.method_mut() = head.method().parse().unwrap_or(http::Method::GET);
            super::copy_fields(&h1.raw, edit, request.headers_mut());
            if head.is_grpc() {
                request.headers_mut().insert(http::header::TE, HeaderValue::from_static("trailers"));
            }
        }
    }
    super::change_fields(request.headers_mut(), edit);
    if let Some(peer) = edit.peer.and_then(|peer| HeaderValue::from_str(peer).ok()) {
        request.headers_mut().insert(fields::PEER_HEADER, peer);
    }
    request
}
