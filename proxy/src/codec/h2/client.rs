//! Requests onto a client connection.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use super::body::{BodyReader, BodyWriter, Handle};
use super::drive::{Event, Shared, Wire};
use super::engine::Engine;
use super::error::H2Error;
use super::write;
use crate::codec::h1::parse::Limits;
use crate::codec::head::{Edit, RequestHead, ResponseHead};
use crate::conn::Io;

/// A connection on which we open streams. Dropped, the connection ends when its streams have.
pub(crate) struct Connection(Shared);

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}

/// Moves the frames of a connection; ends when it is over, with the reason if it failed.
pub(crate) type Driver = Pin<Box<dyn Future<Output = Result<(), H2Error>>>>;

impl Connection {
    /// Says what is said first.
    pub(crate) async fn connect(io: Io, limits: Limits) -> Result<(Self, Driver), H2Error> {
        let mut wire = Wire::new(io, Engine::new(false, limits));
        poll_fn(|cx| wire.poll_greeting(cx)).await?;
        let connection = Self(Rc::clone(wire.engine()));
        let driver = async move {
            loop {
                match poll_fn(|cx| wire.poll(cx)).await {
                    // Only servers are asked.
                    Event::Arrived(_) => {}
                    Event::Over(error) => return error.map_or(Ok(()), Err),
                }
            }
        };
        Ok((connection, Box::pin(driver)))
    }

    /// Streams that may be open at the same time: what the peer allows, and what the windows hold.
    pub(crate) fn max_streams(&self) -> usize {
        self.0.borrow().max_streams()
    }

    /// Whether the peer's SETTINGS are there: until then one stream may be open.
    pub(crate) fn is_settled(&self) -> bool {
        self.0.borrow().settled
    }

    /// Waits for the peer's SETTINGS, or the connection's end. Cancel safe.
    pub(crate) async fn settled(&self) {
        poll_fn(|cx| {
            let mut engine = self.0.borrow_mut();
            if engine.settled || engine.max_streams() == 0 {
                return Poll::Ready(());
            }
            engine.wait_to_open(cx);
            Poll::Pending
        })
        .await;
    }

    /// Opens a stream. An error says that nothing of the request was sent.
    /// `end`: there is no body.
    pub(crate) async fn send(
        &self,
        head: &RequestHead,
        edit: Edit<'_>,
        end: bool,
    ) -> Result<(ReplyReader, BodyWriter), H2Error> {
        let slot = poll_fn(|cx| {
            let mut engine = self.0.borrow_mut();
            if !engine.may_open() {
                engine.wait_to_open(cx);
                return Poll::Pending;
            }
            if !write::fits(head, engine.peer.max_head) {
                return Poll::Ready(Err(H2Error::TooLarge));
            }
            let opened = engine.open(end, head.is_head(), |encoder, out| write::request(head, edit, encoder, out));
            if let Ok(slot) = opened {
                engine.hold(slot);
            }
            Poll::Ready(opened)
        })
        .await?;
        let stream = Handle::held(Rc::clone(&self.0), slot);
        Ok((ReplyReader(stream.clone()), BodyWriter::new(stream, end)))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut engine = self.0.borrow_mut();
        engine.deserted = true;
        engine.kick();
    }
}

/// Reads the heads of a reply.
pub(crate) struct ReplyReader(Handle);

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
    /// The field of the response that ended the stream.
    pub(crate) fn fault(&self) -> Option<Box<str>> {
        self.0.fault()
    }

    /// The next head. Cancel safe.
    pub(crate) async fn head(&self) -> Result<Incoming, H2Error> {
        let head = poll_fn(|cx| self.0.engine().borrow_mut().poll_head(self.0.slot(), cx)).await?;
        Ok(if head.status < 200 {
            Incoming::Interim(ResponseHead::H2(head))
        } else {
            Incoming::Final(ResponseHead::H2(head), BodyReader::new(self.0.clone()))
        })
    }
}
