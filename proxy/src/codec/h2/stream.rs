//! What is known of one stream (RFC 9113 section 5.1), and the table of a connection's streams.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use std::collections::VecDeque;
use std::task::{Context, Waker};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use super::error::H2Error;
use super::head::{Refused, Request, Response};
use crate::base::spare::{self, Spares};

/// A received piece shorter than this that has to wait behind others is appended to them, so that it keeps no buffer
/// alive and costs little beside its bytes.
const SMALL: usize = 16 * 1024;

/// Waits for the peer's bytes, or its reply's head.
pub(super) const READ: u8 = 1;
/// Waits for room to send.
pub(super) const WRITE: u8 = 2;
/// Waits for the stream to fail.
pub(super) const GONE: u8 = 4;

/// One stream. All that wait for it are polled by one task, the one of its exchange: one waker serves them.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts of a stream")]
pub(super) struct Stream {
    pub(super) id: u32,
    /// Readers and writers that hold it.
    pub(super) handles: u8,
    /// Where its first frame begins, in all that goes out (client).
    pub(super) begins: u64,
    /// The peer may still send on it.
    pub(super) recv_open: bool,
    /// The peer has said that it has sent everything.
    pub(super) complete: bool,
    /// The request that waits to be handed out.
    pub(super) request: Option<Result<Request, Refused>>,
    /// We may still send on it.
    pub(super) send_open: bool,
    /// The final head of the reply has gone out (server) or come in (client).
    pub(super) replied: bool,
    /// `100 (Continue)` has gone out.
    pub(super) continued: bool,
    /// It is blocked on a window that others share, and queued for it.
    pub(super) queued: bool,
    /// Why it ended before its end.
    pub(super) error: Option<H2Error>,
    /// The field of the peer's head or trailers that ended it.
    pub(super) fault: Option<Box<str>>,
    /// Received heads that nobody took yet: interim ones and the final one.
    pub(super) heads: VecDeque<Response>,
    data: VecDeque<Bytes>,
    /// Small pieces behind `data`, in one.
    tail: BytesMut,
    pub(super) trailers: Option<Box<HeaderMap>>,
    /// What the peer may send.
    pub(super) recv_window: i64,
    /// What was taken and not yet given back to the window.
    pub(super) taken: usize,
    /// What is missing of the length that the head said.
    pub(super) missing: Option<u64>,
    /// The reply has no body, whatever its head says of one.
    pub(super) bodiless: bool,
    /// What we may send.
    pub(super) send_window: i64,
    waker: Option<Waker>,
    waits: u8,
}

impl Stream {
    /// Notes that whoever polls wants to be woken.
    pub(super) fn wait(&mut self, what: u8, cx: &Context<'_>) {
        self.waits |= what;
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => self.waker = Some(cx.waker().clone()),
        }
    }

    /// Wakes who waits for any of `what`.
    pub(super) fn wake(&mut self, what: u8) {
        if self.waits & what != 0 {
            self.waits = 0;
            if let Some(waker) = &self.waker {
                waker.wake_by_ref();
            }
        }
    }

    /// Neither side sends any more.
    pub(super) const fn is_over(&self) -> bool {
        !self.recv_open && !self.send_open
    }

    /// Keeps a piece until it is taken.
    pub(super) fn keep(&mut self, piece: Bytes) {
        let waits = !self.data.is_empty() || !self.tail.is_empty();
        if waits && piece.len() < SMALL && self.tail.len() < SMALL {
            return self.tail.extend_from_slice(&piece);
        }
        if !self.tail.is_empty() {
            self.data.push_back(self.tail.split().freeze());
        }
        if waits && piece.len() < SMALL {
            self.tail.extend_from_slice(&piece);
        } else {
            self.data.push_back(piece);
        }
    }

    /// Takes the piece that has waited longest.
    pub(super) fn next_piece(&mut self) -> Option<Bytes> {
        self.data.pop_front().or_else(|| (!self.tail.is_empty()).then(|| std::mem::take(&mut self.tail).freeze()))
    }

    /// Everything has come, and was taken.
    pub(super) fn is_drained(&self) -> bool {
        self.complete && self.data.is_empty() && self.tail.is_empty() && self.trailers.is_none()
    }
}

/// Streams kept for reuse on a thread, with the room of their queues.
const KEPT: usize = 128;

thread_local! {
    static FREE: Spares<Box<Stream>> = const { Spares::at_most(KEPT) };
}

fn take() -> Box<Stream> {
    spare::take(&FREE).unwrap_or_default()
}

fn give(mut stream: Box<Stream>) {
    let (mut heads, mut data) = (std::mem::take(&mut stream.heads), std::mem::take(&mut stream.data));
    heads.clear();
    data.clear();
    *stream = Stream { heads, data, ..Stream::default() };
    if stream.data.capacity() <= 16 && stream.heads.capacity() <= 4 {
        spare::give(&FREE, stream);
    }
}

/// The streams of a connection: by slot, which a handle holds, and by number, which a frame names.
#[derive(Debug, Default)]
pub(super) struct Streams {
    slots: Vec<Option<Box<Stream>>>,
    free: Vec<usize>,
    /// Numbers of those that are open, in ascending order, with their slots.
    open: Vec<(u32, usize)>,
}

impl Streams {
    /// A new stream; its number is higher than that of any before.
    pub(super) fn open(&mut self, id: u32) -> (usize, &mut Stream) {
        let mut fresh = take();
        (fresh.id, fresh.recv_open, fresh.send_open) = (id, true, true);
        let slot = self.free.pop().unwrap_or(self.slots.len());
        if slot >= self.slots.len() {
            self.slots.push(None);
        }
        self.open.push((id, slot));
        let place = self.slots.get_mut(slot).expect("pushed above, or a slot that was there");
        (slot, place.insert(fresh))
    }

    pub(super) fn get(&mut self, slot: usize) -> Option<&mut Stream> {
        self.slots.get_mut(slot)?.as_deref_mut()
    }

    /// The slot of an open stream.
    pub(super) fn slot(&self, id: u32) -> Option<usize> {
        let at = self.open.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.open.get(at).map(|(_, slot)| *slot)
    }

    /// Open streams.
    pub(super) const fn count(&self) -> usize {
        self.open.len()
    }

    /// Streams that are open or held.
    pub(super) const fn held(&self) -> usize {
        self.slots.len().saturating_sub(self.free.len())
    }

    /// Forgets what is over: its number, and its slot when nobody holds it.
    pub(super) fn close(&mut self, slot: usize) {
        let Some(stream) = self.get(slot) else { return };
        let (id, over, held) = (stream.id, stream.is_over(), stream.handles > 0);
        if !over {
            return;
        }
        if let Ok(at) = self.open.binary_search_by_key(&id, |(id, _)| *id) {
            self.open.remove(at);
        }
        if !held && let Some(stream) = self.slots.get_mut(slot).and_then(Option::take) {
            give(stream);
            self.free.push(slot);
            if self.free.len() == self.slots.len() {
                // Idle: hold little.
                self.slots.clear();
                self.free.clear();
            }
        }
    }

    /// The slots of all that are open.
    pub(super) fn slots(&self) -> Vec<usize> {
        self.open.iter().map(|(_, slot)| *slot).collect()
    }

    /// Every stream that is open.
    pub(super) fn each(&mut self, mut f: impl FnMut(&mut Stream)) {
        for (_, slot) in &self.open {
            if let Some(stream) = self.slots.get_mut(*slot).and_then(Option::as_deref_mut) {
                f(stream);
            }
        }
    }
}
