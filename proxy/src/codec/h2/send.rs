//! Frames as sent: heads, bodies, and what streams give back to their windows.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::HeaderMap;

use super::engine::{Engine, MAX_STREAMS, STREAM_WINDOW, UNREAD};
use super::error::{H2Error, ResetCode};
use super::frame::{self, Head, flag, kind};
use super::head::Response;
use super::hpack::encode::Encoder;
use super::stream::{GONE, READ, Stream, WRITE};
use crate::codec::fields::{self, Role};

/// What a stream sends at a time while others wait.
const TURN: usize = 16 * 1024;

/// What was received next of a body.
pub(super) enum Piece {
    Data(Bytes, bool),
    End(Option<Box<HeaderMap>>),
}

impl Engine {
    /// Writes a head; `fields` writes its fields.
    fn block(&mut self, id: u32, end: bool, fields: impl FnOnce(&mut Encoder, &mut Vec<u8>)) {
        let most = self.peer.max_frame;
        let mut out = std::mem::take(self.out());
        let start = out.len();
        out.extend_from_slice(&[0; frame::HEAD]);
        self.encoder.begin(&mut out);
        fields(&mut self.encoder, &mut out);
        let after = start.saturating_add(frame::HEAD);
        let length = out.len().saturating_sub(after);
        let more = (length > most).then(|| out.split_off(after.saturating_add(most)));
        let end = if end { flag::END_STREAM } else { 0 };
        let flags = if more.is_some() { end } else { end | flag::END_HEADERS };
        let head = Head { length: length.min(most), kind: kind::HEADERS, flags, stream: id };
        if let Some(place) = out.get_mut(start..after) {
            place.copy_from_slice(&head.bytes());
        }
        let mut pieces = more.iter().flat_map(|more| more.chunks(most)).peekable();
        while let Some(piece) = pieces.next() {
            let flags = if pieces.peek().is_none() { flag::END_HEADERS } else { 0 };
            Head::write(kind::CONTINUATION, flags, id, piece, &mut out);
        }
        self.out = out;
        self.kick();
    }

    /// Opens a stream with a request's head. `bodiless`: its reply will have no body.
    pub(super) fn open(
        &mut self,
        end: bool,
        bodiless: bool,
        fields: impl FnOnce(&mut Encoder, &mut Vec<u8>),
    ) -> Result<usize, H2Error> {
        let (id, begins) = (self.next, self.position());
        if let Some(error) = self.failed {
            return Err(error);
        }
        if self.is_leaving() || id > 0x7fff_ffff {
            return Err(H2Error::Unsent);
        }
        self.next = id.saturating_add(2);
        let window = self.peer.window;
        let (slot, stream) = self.streams.open(id);
        stream.begins = begins;
        (stream.recv_window, stream.send_window) = (STREAM_WINDOW.into(), window);
        (stream.send_open, stream.bodiless) = (!end, bodiless);
        self.block(id, end, fields);
        Ok(slot)
    }

    /// No stream can be opened any more.
    const fn is_leaving(&self) -> bool {
        self.failed.is_some() || self.told || self.mute.is_some()
    }

    /// Whether a stream may be opened, or cannot be opened any more. None may while the peer leaves much unread: heads
    /// are bounded by nothing else.
    pub(super) fn may_open(&self) -> bool {
        self.is_leaving() || (self.streams.count() < self.peer.max_streams && self.waiting() <= UNREAD)
    }

    /// Streams that may be open at the same time.
    pub(super) fn max_streams(&self) -> usize {
        if self.is_leaving() { 0 } else { self.peer.max_streams.min(MAX_STREAMS) }
    }

    /// Whether an interim head of this status may go out now.
    pub(super) fn may_inform(&mut self, slot: usize, status: u16) -> bool {
        let room = self.has_room();
        let first = |stream: &mut Stream| status == 100 && !std::mem::replace(&mut stream.continued, true);
        self.streams.get(slot).is_some_and(first) || room
    }

    /// Sends the head of a reply; `interim`: another one follows.
    pub(super) fn reply(
        &mut self,
        slot: usize,
        end: bool,
        interim: bool,
        fields: impl FnOnce(&mut Encoder, &mut Vec<u8>),
    ) -> Result<(), H2Error> {
        let Some(stream) = self.streams.get(slot) else { return Err(H2Error::Given(ResetCode::CANCEL)) };
        if let Some(error) = stream.error {
            return Err(error);
        }
        if stream.replied || !stream.send_open {
            return Err(H2Error::Given(ResetCode::INTERNAL));
        }
        let id = stream.id;
        stream.replied = !interim;
        self.block(id, end, fields);
        if end {
            self.sent_all(slot);
        }
        Ok(())
    }

    /// We have sent everything.
    fn sent_all(&mut self, slot: usize) {
        self.leave(slot);
        let Some(stream) = self.streams.get(slot) else { return };
        stream.send_open = false;
        if stream.is_over() {
            self.closed(slot);
        }
    }

    /// Sends as much of `data` as the windows and the buffer have room for, in turn with the other streams; ready when
    /// that is all of it.
    pub(super) fn poll_send(
        &mut self,
        slot: usize,
        data: &mut Bytes,
        last: bool,
        cx: &Context<'_>,
    ) -> Poll<Result<(), H2Error>> {
        loop {
            let most = self.share(slot);
            let Some(stream) = self.streams.get(slot) else { return Poll::Ready(Ok(())) };
            if !stream.send_open {
                return Poll::Ready(Err(stream.error.unwrap_or(H2Error::Given(ResetCode::CANCEL))));
            }
            let own = usize::try_from(stream.send_window).unwrap_or(0);
            let length = data.len().min(own).min(most);
            if length == 0 && !data.is_empty() {
                stream.wait(WRITE, cx);
                if own == 0 {
                    self.leave(slot);
                } else if !std::mem::replace(&mut stream.queued, true) {
                    self.blocked.push_back(slot);
                }
                return Poll::Pending;
            }
            let (id, end) = (stream.id, last && length == data.len());
            if length > 0 || end {
                let used = i64::try_from(length).unwrap_or(i64::MAX);
                stream.send_window = stream.send_window.saturating_sub(used);
                self.send_window = self.send_window.saturating_sub(used);
                let flags = if end { flag::END_STREAM } else { 0 };
                Head::write(kind::DATA, flags, id, data.get(..length).unwrap_or_default(), self.out());
                data.advance(length);
                self.kick();
            }
            // Whoever waits is next.
            self.leave(slot);
            if data.is_empty() {
                if end {
                    self.sent_all(slot);
                }
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// What a stream may take of what all share.
    fn share(&self, slot: usize) -> usize {
        if !self.has_room() || self.blocked.front().is_some_and(|first| *first != slot) {
            return 0;
        }
        let window = usize::try_from(self.send_window).unwrap_or(0);
        // It is the first of those that wait, or nobody does.
        let turn = if self.blocked.len() > 1 { TURN } else { usize::MAX };
        window.min(self.room()).min(self.peer.max_frame).min(turn)
    }

    /// Ends a body, with trailers where there are some.
    pub(super) fn finish(&mut self, slot: usize, trailers: Option<&HeaderMap>) -> Result<(), H2Error> {
        let Some(stream) = self.streams.get(slot) else { return Ok(()) };
        if !stream.send_open {
            return Err(stream.error.unwrap_or(H2Error::Given(ResetCode::CANCEL)));
        }
        let id = stream.id;
        match trailers {
            Some(trailers) => self.block(id, true, |encoder, out| {
                for (name, value) in trailers {
                    let name = name.as_str().as_bytes();
                    if fields::role(name) != Role::End {
                        continue;
                    }
                    if value.is_sensitive() {
                        Encoder::secret(name, value.as_bytes(), out);
                    } else {
                        encoder.field(name, value.as_bytes(), out);
                    }
                }
            }),
            None => {
                Head::write(kind::DATA, flag::END_STREAM, id, &[], self.out());
                self.kick();
            }
        }
        self.sent_all(slot);
        Ok(())
    }

    /// The next piece of what was received. Before an error, what came is given out.
    pub(super) fn poll_piece(&mut self, slot: usize, cx: &Context<'_>) -> Poll<Result<Piece, H2Error>> {
        let Some(stream) = self.streams.get(slot) else { return Poll::Ready(Ok(Piece::End(None))) };
        if let Some(data) = stream.next_piece() {
            let last = stream.is_drained();
            return Poll::Ready(Ok(Piece::Data(data, last)));
        }
        if stream.complete {
            return Poll::Ready(Ok(Piece::End(stream.trailers.take())));
        }
        if let Some(error) = stream.error {
            return Poll::Ready(Err(error));
        }
        stream.wait(READ, cx);
        Poll::Pending
    }

    /// The next head of a reply.
    pub(super) fn poll_head(&mut self, slot: usize, cx: &Context<'_>) -> Poll<Result<Response, H2Error>> {
        let Some(stream) = self.streams.get(slot) else { return Poll::Ready(Err(H2Error::Given(ResetCode::CANCEL))) };
        if let Some(head) = stream.heads.pop_front() {
            return Poll::Ready(Ok(head));
        }
        if let Some(error) = stream.error {
            return Poll::Ready(Err(error));
        }
        stream.wait(READ, cx);
        Poll::Pending
    }

    /// Whether nothing is left to be received.
    pub(super) fn is_spent(&mut self, slot: usize) -> bool {
        self.streams.get(slot).is_none_or(|stream| stream.is_drained())
    }

    /// Gives `n` bytes that were taken back to the stream's window, when it is worth a frame.
    pub(super) fn taken(&mut self, slot: usize, n: usize) {
        let Some(stream) = self.streams.get(slot) else { return };
        stream.taken = stream.taken.saturating_add(n);
        let by = u32::try_from(stream.taken).unwrap_or(u32::MAX);
        if by >= STREAM_WINDOW / 2 && stream.recv_open {
            let id = stream.id;
            stream.recv_window = stream.recv_window.saturating_add(by.into());
            stream.taken = 0;
            self.window_update(id, by);
            self.kick();
        }
    }

    /// Whether the stream has failed.
    pub(super) fn is_gone(&mut self, slot: usize) -> bool {
        self.streams.get(slot).is_none_or(|stream| stream.error.is_some())
    }

    /// Waits until the stream fails.
    pub(super) fn poll_gone(&mut self, slot: usize, cx: &Context<'_>) -> Poll<()> {
        match self.streams.get(slot) {
            Some(stream) if stream.error.is_none() => {
                stream.wait(GONE, cx);
                Poll::Pending
            }
            Some(_) | None => Poll::Ready(()),
        }
    }

    /// One more holds the stream.
    pub(super) fn hold(&mut self, slot: usize) {
        if let Some(stream) = self.streams.get(slot) {
            stream.handles = stream.handles.saturating_add(1);
        }
    }

    /// One less holds the stream. The last one ends what has not ended.
    pub(super) fn release(&mut self, slot: usize) {
        let server = self.server;
        let Some(stream) = self.streams.get(slot) else { return };
        stream.handles = stream.handles.saturating_sub(1);
        if stream.handles > 0 {
            return;
        }
        if stream.is_over() {
            return self.closed(slot);
        }
        // A reply that is complete stands, whatever is left of its request (section 8.1).
        let code = if server && !stream.send_open { ResetCode::NONE } else { ResetCode::CANCEL };
        self.reset(slot, H2Error::Given(code), Some(code));
    }
}
