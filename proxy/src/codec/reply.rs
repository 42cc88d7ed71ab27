//! The way back to a downstream, of either version: interim replies, the reply's head, replies of our own.

use super::body::{BodyError, BodyOut};
use super::buffer;
use super::fields::{PROXY_HEADER, REASON_HEADER};
use super::h1::conn::BodyWriter;
use super::h1::parse::Framing as Received;
use super::h1::write::{self, Framing, Persistence};
use super::h2::{self, ResetCode};
use super::head::{Edit, ResponseHead};
use crate::conn::Duplex;

/// The way back for one request.
#[derive(Debug)]
pub(crate) enum Reply<'c> {
    /// To an HTTP/1 connection.
    H1(H1Reply<'c>),
    /// To an HTTP/2 stream.
    H2(h2::server::Reply),
}

/// The way back on an HTTP/1 connection.
#[derive(Debug)]
pub(crate) struct H1Reply<'c> {
    /// The connection.
    pub(crate) duplex: &'c Duplex,
    /// The client speaks HTTP/1.0: no chunks, no interim replies.
    pub(crate) http10: bool,
    /// Nothing else will be sent on the connection. Becomes true when the body can only end with it.
    pub(crate) close: bool,
    /// The request's method was HEAD.
    pub(crate) to_head: bool,
    end: BodyEnd,
}

/// How the client knows the end of a reply's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyEnd {
    /// By its framing, or there is no reply yet.
    Framed,
    /// By the end of the connection.
    Connection,
    /// It was to be the end of the connection, but the body was given up half way.
    Broken,
}

impl<'c> Reply<'c> {
    /// Passes an interim reply on, where the downstream can have one.
    pub(crate) async fn informational(&mut self, head: ResponseHead) -> Result<(), BodyError> {
        match self {
            Self::H1(reply) if reply.http10 => Ok(()),
            Self::H1(reply) => {
                let mut out = buffer::take();
                write::response(&head, Edit::default(), Framing::Same, Persistence::Implied, &mut out);
                let written = reply.duplex.write_all(&out).await;
                buffer::give(out);
                Ok(written?)
            }
            Self::H2(reply) => {
                reply.informational(&head);
                Ok(())
            }
        }
    }

    /// Starts the reply. `end`: its body is empty.
    pub(crate) fn start(&mut self, head: ResponseHead, edit: Edit<'_>, end: bool) -> Result<BodyOut<'c>, h2::H2Error> {
        match self {
            Self::H1(reply) => {
                let (framing, body) = reply.framing(&head, end);
                if framing == Framing::UntilClose {
                    reply.end = BodyEnd::Connection;
                    reply.close = true;
                }
                let mut out = buffer::take();
                write::response(&head, edit, framing, reply.persistence(), &mut out);
                Ok(BodyOut::H1(BodyWriter::new(reply.duplex, out, body)))
            }
            Self::H2(reply) => Ok(BodyOut::H2(reply.head(&head, edit, end)?)),
        }
    }

    /// Sends the head of a switch of protocols; what follows is no longer HTTP.
    pub(crate) async fn switch(&mut self, head: ResponseHead, edit: Edit<'_>) -> Result<(), BodyError> {
        if let Self::H1(reply) = self {
            let mut out = buffer::take();
            write::response(&head, edit, Framing::Same, Persistence::Implied, &mut out);
            let written = reply.duplex.write_all(&out).await;
            buffer::give(out);
            written?;
        }
        Ok(())
    }

    /// Answers instead of the application, saying which proxy and why. `grpc`: in the terms of gRPC, whose clients
    /// look for the status in a response without messages; its content type is the call's.
    pub(crate) async fn own(&mut self, status: u16, grpc: Option<(u8, &str)>, reason: &str, proxy: &str) {
        let grpc = grpc.map(|(code, kind)| (code.to_string(), kind));
        let mut extra = vec![(REASON_HEADER, reason), (PROXY_HEADER, proxy)];
        let mut shown = status;
        if let Some((number, kind)) = &grpc {
            shown = 200;
            extra.push(("content-type", kind));
            extra.push(("grpc-status", number));
            extra.push(("grpc-message", reason));
        }
        self.short(shown, &extra).await;
    }

    /// Sends the client elsewhere.
    pub(crate) async fn redirect(&mut self, status: u16, location: &str, proxy: &str) {
        self.short(status, &[("location", location), (REASON_HEADER, "route"), (PROXY_HEADER, proxy)]).await;
    }

    /// A reply of these fields, without a body.
    async fn short(&mut self, status: u16, extra: &[(&'static str, &str)]) {
        match self {
            Self::H1(reply) => {
                let mut out = buffer::take();
                write::own(status, extra, reply.persistence(), &mut out);
                // A downstream that has left does not want to hear it.
                let _ = reply.duplex.write_all(&out).await;
                buffer::give(out);
            }
            Self::H2(reply) => {
                let _ = reply.own(status, extra);
            }
        }
    }

    /// Says in the reply's head that the connection ends after it: the rest of the request will not be read.
    pub(crate) const fn close(&mut self) {
        if let Self::H1(reply) = self {
            reply.close = true;
        }
    }

    /// Forgets a reply that was started, whose head [`BodyOut::withdraw`] took back.
    pub(crate) const fn restart(&mut self) {
        if let Self::H1(reply) = self {
            reply.end = BodyEnd::Framed;
        }
    }

    /// Gives the request up without a reply, or in the middle of one.
    pub(crate) fn abort(&mut self, code: ResetCode) {
        match self {
            Self::H1(reply) => {
                reply.close = true;
                if reply.end == BodyEnd::Connection {
                    reply.end = BodyEnd::Broken;
                }
            }
            Self::H2(reply) => reply.reset(code),
        }
    }

    /// Whether an HTTP/2 downstream has given the request up.
    pub(crate) fn is_gone(&self) -> bool {
        match self {
            Self::H1(_) => false,
            Self::H2(reply) => reply.is_gone(),
        }
    }

    /// Waits until an HTTP/2 downstream gives the request up. Never returns for HTTP/1. Cancel safe.
    pub(crate) async fn gone(&mut self) {
        match self {
            Self::H1(_) => std::future::pending().await,
            Self::H2(reply) => reply.gone().await,
        }
    }
}

impl<'c> H1Reply<'c> {
    /// The way back for a request that arrived on `duplex`.
    pub(crate) const fn new(duplex: &'c Duplex, http10: bool, close: bool, to_head: bool) -> Self {
        Self { duplex, http10, close, to_head, end: BodyEnd::Framed }
    }

    /// Whether nothing but a reset of the connection can say that the reply is not complete.
    pub(crate) const fn is_broken(&self) -> bool {
        matches!(self.end, BodyEnd::Broken)
    }

    /// What the head says of the connection.
    const fn persistence(&self) -> Persistence {
        match (self.close, self.http10) {
            (true, _) => Persistence::Close,
            (false, true) => Persistence::KeepAlive,
            (false, false) => Persistence::Implied,
        }
    }

    /// How the reply is framed, in its head and in its body.
    fn framing(&self, head: &ResponseHead, end: bool) -> (Framing, Received) {
        let unknown = if self.http10 {
            (Framing::UntilClose, Received::UntilClose)
        } else {
            (Framing::Chunked, Received::Chunked)
        };
        match head {
            ResponseHead::H1(head) => match head.framing {
                Received::None | Received::Length(_) => (Framing::Same, head.framing),
                Received::Chunked if !self.http10 => (Framing::Same, Received::Chunked),
                Received::Chunked | Received::UntilClose => unknown,
            },
            ResponseHead::H2(_) if self.to_head => (Framing::Same, Received::None),
            ResponseHead::H2(head) => match head.status {
                204 | 304 => (Framing::Same, Received::None),
                _ => match head.length {
                    Some(length) => (Framing::Same, Received::Length(length)),
                    None if end => (Framing::Length(0), Received::None),
                    None => unknown,
                },
            },
        }
    }
}
