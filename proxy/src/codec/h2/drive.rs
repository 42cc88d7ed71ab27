//! Moves the bytes of a connection between its socket and its state. What its streams have written goes out in one
//! piece when there is nothing more to do: one system call, one TLS record.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Sleep, timeout};

use super::engine::{Arrived, Engine};
use super::error::{H2Error, ResetCode};
use crate::codec::buffer;
use crate::conn::Io;

/// How long the last words wait for a peer that does not take them.
const PATIENCE: Duration = Duration::from_secs(10);
/// Least room for a read.
const ROOM: usize = buffer::SIZE / 4;

/// A connection's state, shared by its task and those of its streams. The cell is borrowed only inside a poll.
pub(super) type Shared = Rc<RefCell<Engine>>;

/// The socket of a connection, and what was read of it and not yet understood.
pub(super) struct Wire {
    io: Io,
    input: BytesMut,
    /// `input` has more memory than a buffer that is kept.
    grown: bool,
    /// Ends the waiting for a peer that does not take the last words.
    patience: Option<Pin<Box<Sleep>>>,
    engine: Shared,
}

/// What a connection has come to.
pub(super) enum Event {
    /// A request.
    Arrived(Arrived),
    /// Its end, and the reason if it failed.
    Over(Option<H2Error>),
}

impl Wire {
    pub(super) fn new(io: Io, engine: Engine) -> Self {
        Self { io, input: BytesMut::new(), grown: false, patience: None, engine: Rc::new(RefCell::new(engine)) }
    }

    pub(super) const fn engine(&self) -> &Shared {
        &self.engine
    }

    /// Says what is said first, and waits for the peer's preface.
    pub(super) fn poll_greeting(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), H2Error>> {
        loop {
            let mut engine = self.engine.borrow_mut();
            engine.receive_preface(&mut self.input);
            let (greeted, failed) = (engine.greeted, engine.failed);
            drop(engine);
            let _ = self.poll_send(cx);
            if let Some(error) = failed {
                return Poll::Ready(Err(error));
            }
            if greeted {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_fill(cx));
        }
    }

    /// Moves what can be moved. Pending: everything that was written has gone out, or waits for the socket.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        loop {
            let mut engine = self.engine.borrow_mut();
            engine.receive(&mut self.input);
            if let Some(arrived) = engine.next_arrived() {
                return Poll::Ready(Event::Arrived(arrived));
            }
            let (over, full, reads) = (engine.is_over(), engine.waiting() >= buffer::SIZE, engine.reads());
            if over {
                engine.conclude();
            }
            drop(engine);
            if over {
                return self.poll_end(cx).map(Event::Over);
            }
            if full && self.poll_send(cx).is_ready() && !reads {
                continue;
            }
            if !self.engine.borrow().reads() || self.poll_fill(cx).is_pending() {
                break;
            }
        }
        if self.input.is_empty() {
            self.give_input();
        }
        let stuck = !self.engine.borrow().reads();
        let sent = self.poll_send(cx);
        let mut engine = self.engine.borrow_mut();
        engine.wait(cx);
        if engine.failed.is_some() || (stuck && sent.is_ready()) {
            // Again, from the beginning: there is something to say, or room to go on.
            engine.kick();
        }
        Poll::Pending
    }

    /// Reads what has arrived.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.input.is_empty() {
            self.give_input();
            self.input = buffer::take_shared();
        }
        let missing = Engine::wanted(&self.input).saturating_sub(self.input.len());
        if self.input.capacity().saturating_sub(self.input.len()) < missing.max(ROOM) {
            self.grown |= missing > buffer::SIZE;
            self.input.reserve(missing.max(buffer::SIZE));
        }
        let read = ready!(tokio_util::io::poll_read_buf(Pin::new(&mut self.io), cx, &mut self.input));
        match read {
            Ok(0) => self.lost(io::ErrorKind::UnexpectedEof),
            Ok(_) => {}
            Err(error) => self.lost(error.kind()),
        }
        Poll::Ready(())
    }

    /// Gives the memory of what was read back.
    fn give_input(&mut self) {
        let input = std::mem::take(&mut self.input);
        if !std::mem::take(&mut self.grown) {
            buffer::give_shared(input);
        }
    }

    /// Nothing more will arrive.
    fn lost(&self, kind: io::ErrorKind) {
        let mut engine = self.engine.borrow_mut();
        // What was lost first tells more.
        let kind = engine.mute.unwrap_or(kind);
        engine.fail(H2Error::Lost(kind));
    }

    /// Sends what waits, as far as the socket takes it.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut engine = self.engine.borrow_mut();
        if let Some(kind) = engine.mute {
            // A frame may have been cut off: whatever followed would be read as the rest of it.
            engine.mute(kind);
            return Poll::Ready(());
        }
        let sent = loop {
            let Some(rest) = engine.out.get(engine.sent..).filter(|rest| !rest.is_empty()) else {
                break ready!(Pin::new(&mut self.io).poll_flush(cx));
            };
            match ready!(Pin::new(&mut self.io).poll_write(cx, rest)) {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => engine.went_out(n),
                Err(error) => break Err(error),
            }
        };
        // What the peer has said before it stopped listening may well be there: the end is told by reading.
        if let Err(error) = sent {
            engine.mute(error.kind());
        }
        Poll::Ready(())
    }

    /// Ends our direction, then reads and drops what still comes, up to 1 MiB, until nothing has come for `quiet`.
    pub(super) async fn linger(mut self, quiet: Duration) {
        let _ = self.io.shutdown().await;
        let mut left = 1024 * 1024usize;
        while left > 0 {
            self.input.clear();
            self.input.reserve(ROOM);
            match timeout(quiet, self.io.read_buf(&mut self.input)).await {
                Ok(Ok(n)) if n > 0 => left = left.saturating_sub(n),
                Ok(_) | Err(_) => break,
            }
        }
    }

    /// Sends the last words and closes. A peer that broke the rules is not waited for.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Option<H2Error>> {
        let (failed, hurry) = {
            let engine = self.engine.borrow();
            (engine.failed, engine.hurry)
        };
        let broken = failed.filter(|error| *error != H2Error::Ended(ResetCode::NONE));
        let lost = matches!(failed, Some(H2Error::Lost(_)));
        if !lost && self.poll_send(cx).is_pending() && broken.is_none() && !hurry {
            self.engine.borrow_mut().wait(cx);
            let patience = self.patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(PATIENCE)));
            ready!(patience.as_mut().poll(cx));
        }
        let _ = Pin::new(&mut self.io).poll_shutdown(cx);
        self.engine.borrow_mut().fail(H2Error::Ended(ResetCode::NONE));
        // The end of the peer's bytes is no failure.
        Poll::Ready(broken.filter(|error| *error != H2Error::Lost(io::ErrorKind::UnexpectedEof)))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.engine.borrow_mut().fail(H2Error::Lost(io::ErrorKind::BrokenPipe));
        self.give_input();
    }
}
