//! Requests off a server connection, replies back.

use std::fmt;
use std::future::poll_fn;

use bytes::Bytes;
use http::Response;

use super::batch::Batch;
use super::check::{self, Refusal};
use super::{BodyReader, BodyWriter, H2Error, ResetCode};
use crate::codec::fields;
use crate::codec::head::{Edit, RequestHead, ResponseHead};
use crate::conn::Io;

/// A connection on which a peer opens streams.
pub(crate) struct Connection {
    wire: h2::server::Connection<Batch, Bytes>,
    batch: Batch,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}

/// A request: head, body, and where the reply goes.
pub(crate) type Call = (RequestHead, BodyReader, Reply);

impl Connection {
    /// Exchanges prefaces and settings. `max_header_bytes` bounds the decoded header list of a request.
    pub(crate) async fn accept(io: Io, max_header_bytes: u32) -> Result<Self, H2Error> {
        let mut builder = h2::server::Builder::new();
        builder
            .initial_connection_window_size(super::CONNECTION_WINDOW)
            .initial_window_size(super::STREAM_WINDOW)
            .max_frame_size(super::MAX_FRAME)
            .max_concurrent_streams(super::MAX_STREAMS)
            .max_header_list_size(max_header_bytes)
            .max_send_buffer_size(super::SEND_BUFFER)
            .data_frame_budget(super::SMALL_FRAMES);
        let batch = Batch::new(io);
        let wire = batch.drive(builder.handshake(batch.clone())).await?;
        Ok(Self { wire, batch })
    }

    /// The next request; none when the connection is over. Also moves every stream's frames, so it must be polled all
    /// the time. `refuse` gets those that break the rules or have more than `max_fields`, to be answered or reset.
    /// Cancel safe.
    pub(crate) async fn next(
        &mut self,
        max_fields: usize,
        refuse: impl Fn(Refusal, Reply),
    ) -> Option<Result<Call, H2Error>> {
        loop {
            let (request, respond) = match self.batch.drive(self.wire.accept()).await? {
                Ok(call) => call,
                Err(error) => return Some(Err(error.into())),
            };
            let (head, body) = request.into_parts();
            let reply = Reply { respond };
            match check::request(&head, max_fields) {
                Ok(()) => return Some(Ok((RequestHead::H2(Box::new(head)), BodyReader::new(body), reply))),
                Err(refusal) => refuse(refusal, reply),
            }
        }
    }

    /// Whether any stream is open.
    pub(crate) fn is_busy(&self) -> bool {
        self.wire.has_streams()
    }

    /// Announces the end with GOAWAY: streams that are open go on, new ones are accepted until the peer has heard.
    pub(crate) fn graceful_shutdown(&mut self) {
        self.wire.graceful_shutdown();
    }

    /// Says GOAWAY and closes, whatever is open.
    pub(crate) fn cut(&mut self) {
        self.wire.abrupt_shutdown(h2::Reason::NO_ERROR);
    }
}

/// Where the reply to one request goes.
pub(crate) struct Reply {
    respond: h2::server::SendResponse<Bytes>,
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply")
    }
}

impl Reply {
    /// Passes an interim reply on.
    pub(crate) fn informational(&mut self, head: ResponseHead) -> Result<(), H2Error> {
        Ok(self.respond.send_informational(response(head, Edit::default()))?)
    }

    /// Sends the head; `end`: there is no body.
    pub(crate) fn head(&mut self, head: ResponseHead, edit: Edit<'_>, end: bool) -> Result<BodyWriter, H2Error> {
        let stream = self.respond.send_response(response(head, edit), end)?;
        Ok(BodyWriter::new(stream, end))
    }

    /// Answers by ourselves, without a body.
    pub(crate) fn own(&mut self, status: u16, extra: &[(&'static str, &str)]) -> Result<(), H2Error> {
        let mut reply = Response::new(());
        *reply.status_mut() = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::BAD_GATEWAY);
        for (name, value) in extra {
            if let Ok(value) = http::HeaderValue::from_str(value) {
                reply.headers_mut().insert(*name, value);
            }
        }
        self.respond.send_response(reply, true)?;
        Ok(())
    }

    /// Resets the stream.
    pub(crate) fn reset(&mut self, code: ResetCode) {
        self.respond.send_reset(code.0);
    }

    /// Waits until the peer resets the stream. Cancel safe.
    pub(crate) async fn gone(&mut self) {
        let _ = poll_fn(|cx| self.respond.poll_reset(cx)).await;
    }
}

/// A reply's head as HTTP/2 has it.
fn response(head: ResponseHead, edit: Edit<'_>) -> Response<()> {
    let mut reply = Response::new(());
    match head {
        ResponseHead::H2(mut head) => {
            *reply.status_mut() = head.status;
            super::drop_fields(&mut head.headers, edit, false);
            *reply.headers_mut() = head.headers;
        }
        ResponseHead::H1(head) => {
            *reply.status_mut() = http::StatusCode::from_u16(head.status).unwrap_or(http::StatusCode::BAD_GATEWAY);
            super::copy_fields(&head.raw, edit, reply.headers_mut());
        }
    }
    super::change_fields(reply.headers_mut(), edit);
    debug_assert!(!reply.headers().contains_key(fields::PEER_HEADER), "identity travels with requests only");
    reply
}
