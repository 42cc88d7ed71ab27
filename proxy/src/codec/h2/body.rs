//! Bodies of streams, in either direction: pieces as long as the windows allow.

use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use http::HeaderMap;

use super::drive::Shared;
use super::error::{H2Error, ResetCode};
use super::send::Piece;
use crate::codec::body::{BodyError, Chunk, Data};

/// A hold on a stream. When the last one goes, a stream that has not ended is reset.
pub(super) struct Handle {
    engine: Shared,
    slot: usize,
}

impl Handle {
    /// Takes over a hold that was counted already.
    pub(super) const fn held(engine: Shared, slot: usize) -> Self {
        Self { engine, slot }
    }

    pub(super) const fn engine(&self) -> &Shared {
        &self.engine
    }

    pub(super) const fn slot(&self) -> usize {
        self.slot
    }

    /// Resets the stream unless it is over.
    pub(super) fn reset(&self, code: ResetCode) {
        self.engine.borrow_mut().reset(self.slot, H2Error::Given(code), Some(code));
    }

    /// The field of the peer's head or trailers that ended the stream.
    pub(super) fn fault(&self) -> Option<Box<str>> {
        self.engine.borrow_mut().streams.get(self.slot)?.fault.clone()
    }

    /// Waits until the stream fails. Cancel safe.
    pub(super) async fn gone(&self) {
        poll_fn(|cx| self.engine.borrow_mut().poll_gone(self.slot, cx)).await;
    }
}

impl Clone for Handle {
    fn clone(&self) -> Self {
        self.engine.borrow_mut().hold(self.slot);
        Self { engine: Rc::clone(&self.engine), slot: self.slot }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.engine.borrow_mut().release(self.slot);
    }
}

/// The receiving end of a stream's body. Dropped before the end, the stream is reset.
pub(crate) struct BodyReader {
    stream: Handle,
    /// Bytes handed on whose window was not given back yet.
    lent: usize,
    done: bool,
    trailers: Option<Box<HeaderMap>>,
}

impl fmt::Debug for BodyReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyReader").field("done", &self.done).finish_non_exhaustive()
    }
}

impl BodyReader {
    pub(super) fn new(stream: Handle) -> Self {
        let done = stream.engine.borrow_mut().is_spent(stream.slot);
        Self { stream, lent: 0, done, trailers: None }
    }

    /// The next piece; its window is given back when the one after it is asked for. Cancel safe.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Chunk<'_>>, BodyError> {
        if self.done {
            return Ok(None);
        }
        let piece = match poll_fn(|cx| self.poll_piece(cx)).await {
            Ok(piece) => piece,
            Err(H2Error::Given(_)) => return Err(BodyError::Rules(self.stream.fault())),
            Err(error) => return Err(error.into()),
        };
        Ok(match piece {
            Piece::Data(data, last) => {
                self.lent = data.len();
                self.done = last;
                Some(Chunk { data: Data::Shared(data), last })
            }
            Piece::End(trailers) => {
                self.trailers = trailers;
                self.done = true;
                None
            }
        })
    }

    fn poll_piece(&mut self, cx: &Context<'_>) -> Poll<Result<Piece, H2Error>> {
        let mut engine = self.stream.engine.borrow_mut();
        if self.lent > 0 {
            engine.taken(self.stream.slot, std::mem::take(&mut self.lent));
        }
        engine.poll_piece(self.stream.slot, cx)
    }

    /// The trailers, once the end was seen.
    pub(crate) const fn take_trailers(&mut self) -> Option<Box<HeaderMap>> {
        self.trailers.take()
    }

    /// Whether the end was seen.
    pub(crate) const fn is_done(&self) -> bool {
        self.done
    }
}

/// The sending end of a stream's body. The stream is reset when it ends before that and nobody holds it any more.
pub(crate) struct BodyWriter {
    stream: Handle,
    ended: bool,
}

impl fmt::Debug for BodyWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyWriter").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl BodyWriter {
    pub(super) const fn new(stream: Handle, ended: bool) -> Self {
        Self { stream, ended }
    }

    /// Sends a piece, as far as the peer's window allows at a time.
    pub(crate) async fn write(&mut self, chunk: Chunk<'_>) -> Result<(), BodyError> {
        let last = chunk.last;
        let mut data = chunk.data.into_shared();
        poll_fn(|cx| self.stream.engine.borrow_mut().poll_send(self.stream.slot, &mut data, last, cx)).await?;
        self.ended = last;
        Ok(())
    }

    /// Ends the body.
    pub(crate) fn finish(&mut self, trailers: Option<&HeaderMap>) -> Result<(), BodyError> {
        if self.ended {
            return Ok(());
        }
        self.ended = true;
        Ok(self.stream.engine.borrow_mut().finish(self.stream.slot, trailers)?)
    }

    /// Waits until the peer resets the stream or the connection fails. Cancel safe.
    pub(crate) async fn gone(&self) {
        self.stream.gone().await;
    }
}
