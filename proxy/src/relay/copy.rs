//! One direction of a relay, as a state machine that is polled.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::ReadBuf;

use super::Stream;
use super::buffer::{Buffer, Size};
use super::splice::{BULK_BYTES, Pipe};

/// One direction: what was read and not yet written, and how far it is to its end.
#[derive(Default)]
pub(super) struct Half {
    /// Bytes `start..end` of it are to be written; none when nothing is.
    buffer: Option<Buffer>,
    start: usize,
    end: usize,
    /// In place of a buffer while bulk moves between plain sockets.
    pipe: Option<Pipe>,
    /// There was no pipe to be had: it is not asked for again and again.
    pipeless: bool,
    /// Size of the next buffer.
    size: Size,
    /// Something was written since the last flush.
    unflushed: bool,
    /// Something moved since [`Half::take_moved`].
    moved: bool,
    state: State,
}

#[derive(Clone, Copy, Default)]
enum State {
    #[default]
    Open,
    /// The reader has ended; the writer is to be told.
    Ending,
    Ended,
}

/// Which stream failed.
pub(super) enum Broken {
    /// The one that is read.
    From(io::Error),
    /// The one that is written.
    To(io::Error),
}

impl Half {
    /// Whether something moved since the last call.
    pub(super) const fn take_moved(&mut self) -> bool {
        std::mem::replace(&mut self.moved, false)
    }

    /// Moves what can be moved. Ready when the end of `from` was passed on to `to`, again and again.
    pub(super) fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        count: impl Fn(u64),
    ) -> Poll<Result<(), Broken>>
    where
        R: Stream,
        W: Stream,
    {
        loop {
            ready!(self.poll_write(cx, to, &count))?;
            match self.state {
                State::Open => {
                    let read = self.poll_read(cx, from, to.plain().is_some())?;
                    if read.is_pending() {
                        // Before a pause everything must be on its way: TLS may hold the end of a record back.
                        return self.poll_flush(cx, to);
                    }
                }
                State::Ending => {
                    match ready!(Pin::new(&mut *to).poll_shutdown(cx)) {
                        // Both directions have ended already: there is nobody left to tell.
                        Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
                        told => told.map_err(Broken::To)?,
                    }
                    self.state = State::Ended;
                }
                State::Ended => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Writes what there is to write; ready when there is nothing.
    fn poll_write<W: Stream>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut W,
        count: &impl Fn(u64),
    ) -> Poll<Result<(), Broken>> {
        while let (Some(pipe), Some(socket)) = (self.pipe.as_mut().filter(|pipe| !pipe.is_empty()), to.plain()) {
            let written = ready!(pipe.poll_drain(cx, socket)).map_err(Broken::To)?;
            self.moved = true;
            count(written as u64);
        }
        while let Some(buffer) = self.buffer.as_deref() {
            let rest = buffer.get(self.start..self.end).unwrap_or_default();
            if rest.is_empty() {
                self.buffer = None;
                break;
            }
            let written = ready!(Pin::new(&mut *to).poll_write(cx, rest)).map_err(Broken::To)?;
            if written == 0 {
                return Poll::Ready(Err(Broken::To(io::ErrorKind::WriteZero.into())));
            }
            self.start += written;
            self.moved = true;
            self.unflushed = true;
            count(written as u64);
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once. `to_plain`: the writer is a plain socket. A buffer or pipe is kept only if something is in it.
    fn poll_read<R: Stream>(&mut self, cx: &mut Context<'_>, from: &mut R, to_plain: bool) -> Poll<Result<(), Broken>> {
        let bulk = self.size == Size::Large && to_plain && !self.pipeless;
        if let Some(socket) = from.plain().filter(|_| bulk)
            && let Some(mut pipe) = self.pipe()
        {
            let read = ready!(pipe.poll_fill(cx, socket)).map_err(Broken::From)?;
            match read {
                0 => self.state = State::Ending,
                _ if read < BULK_BYTES => self.size = Size::Small,
                _ => {}
            }
            self.moved |= read > 0;
            self.pipe = Some(pipe);
            return Poll::Ready(Ok(()));
        }
        self.pipe = None;
        let mut buffer = Buffer::take(self.size);
        let mut space = ReadBuf::new(&mut buffer);
        ready!(Pin::new(from).poll_read(cx, &mut space)).map_err(Broken::From)?;
        let (read, whole) = (space.filled().len(), space.remaining() == 0);
        if read == 0 {
            self.state = State::Ending;
            return Poll::Ready(Ok(()));
        }
        // A full buffer means there was more; a large one that is not half full is not needed.
        self.size = match self.size {
            Size::Small if whole => Size::Large,
            Size::Large if read < buffer.len() / 2 => Size::Small,
            Size::Small | Size::Large => self.size,
        };
        (self.start, self.end) = (0, read);
        self.buffer = Some(buffer);
        self.moved = true;
        Poll::Ready(Ok(()))
    }

    /// The pipe held, or an empty one.
    fn pipe(&mut self) -> Option<Pipe> {
        let pipe = self.pipe.take().or_else(Pipe::take);
        self.pipeless = pipe.is_none();
        pipe
    }

    fn poll_flush<W: Stream>(&mut self, cx: &mut Context<'_>, to: &mut W) -> Poll<Result<(), Broken>> {
        if self.unflushed {
            ready!(Pin::new(to).poll_flush(cx)).map_err(Broken::To)?;
            self.unflushed = false;
        }
        Poll::Pending
    }
}
