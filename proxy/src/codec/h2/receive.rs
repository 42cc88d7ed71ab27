//! Frames as received (RFC 9113 section 6), and what a peer is held to.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};

use super::engine::{Arrived, Block, Ending, Engine, MAX_FRAME, MAX_STREAMS, STREAM_WINDOW, UNREAD};
use super::error::{H2Error, ResetCode};
use super::frame::{self, Head, flag, kind};
use super::head::{Collector, Refusal};
use super::stream::READ;

/// Frames that one head may be continued in.
const CONTINUATIONS: u32 = 20;
/// Frames without bytes, one after the other.
const EMPTY: u32 = 100;
/// Streams that a peer may give up in a second, time after time, before their reply begins: four times those that may be
/// open. Deadlines that pass make so many; what makes more opens streams to give them up.
const GIVEN_UP: u32 = 512;
/// Streams that we may have to reset in a second, time after time, for a peer's mistakes.
const MISTAKES: u32 = 64;
/// Interim heads of one reply that wait to be taken. Their bytes together are those of one head.
const INTERIM: usize = 32;
/// Bytes of answers to PING and SETTINGS that the peer may leave unread before it is read no further.
const ANSWERS: usize = 16 * 1024;

/// What a frame does wrong.
pub(super) enum Trouble {
    /// The connection ends with this code.
    OfConnection(ResetCode),
    /// The stream does.
    OfStream(u32, ResetCode),
}

use Trouble::{OfConnection, OfStream};

impl Engine {
    /// Whether more is to be read. A peer that does not take its answers is not.
    pub(super) fn reads(&self) -> bool {
        self.failed.is_none()
            && self.counts.answers <= ANSWERS
            && !(self.server && self.waiting() > UNREAD)
            && self.arrived.len() < MAX_STREAMS
    }

    /// Takes the preface of a client (section 3.4), if it is there.
    pub(super) fn receive_preface(&mut self, input: &mut BytesMut) {
        let most = input.len().min(frame::PREFACE.len());
        if self.greeted || self.failed.is_some() {
            return;
        }
        if input.get(..most) != frame::PREFACE.get(..most) {
            self.break_off(ResetCode::PROTOCOL);
        } else if most == frame::PREFACE.len() {
            input.advance(most);
            self.greeted = true;
        }
    }

    /// Takes the whole frames that are there.
    pub(super) fn receive(&mut self, input: &mut BytesMut) {
        while self.reads() {
            let Some(head) = Head::read(input) else { return };
            if head.length > MAX_FRAME {
                return self.break_off(ResetCode::FRAME_SIZE);
            }
            if input.len() < head.length.saturating_add(frame::HEAD) {
                return;
            }
            input.advance(frame::HEAD);
            let done = self.frame(head, input);
            match done {
                Ok(()) => {}
                Err(OfConnection(code)) => self.break_off(code),
                Err(OfStream(id, code)) => self.mistake(id, code),
            }
        }
    }

    /// Bytes that must be there before [`Engine::receive`] can go on.
    pub(super) fn wanted(input: &[u8]) -> usize {
        Head::read(input).map_or(0, |head| head.length.min(MAX_FRAME).saturating_add(frame::HEAD))
    }

    /// One frame, whose payload is at the beginning of `input`.
    fn frame(&mut self, head: Head, input: &mut BytesMut) -> Result<(), Trouble> {
        let continued = self.block.as_ref().map(|block| block.stream);
        let belongs = head.kind == kind::CONTINUATION && continued == Some(head.stream);
        let first = !self.settled && (head.kind != kind::SETTINGS || head.has(flag::ACK));
        if first || (continued.is_some() && !belongs) {
            return Err(OfConnection(ResetCode::PROTOCOL));
        }
        if head.kind == kind::DATA {
            let payload = input.split_to(head.length).freeze();
            return self.data(head, payload);
        }
        let payload = input.get(..head.length).unwrap_or_default();
        let done = self.control(head, payload);
        input.advance(head.length);
        done
    }

    fn control(&mut self, head: Head, payload: &[u8]) -> Result<(), Trouble> {
        let on_stream = head.stream != 0;
        match head.kind {
            kind::HEADERS if on_stream => self.headers(head, payload),
            kind::CONTINUATION if on_stream => self.continuation(head, payload),
            kind::PRIORITY if on_stream => self.priority(head.stream, payload),
            kind::RST_STREAM if on_stream => self.reset_by_peer(head.stream, payload),
            kind::SETTINGS if !on_stream => self.settings(head, payload),
            kind::PING if !on_stream => self.ping(head, payload),
            kind::GOAWAY if !on_stream => self.goaway(payload),
            kind::WINDOW_UPDATE => self.window(head.stream, payload),
            kind::HEADERS
            | kind::CONTINUATION
            | kind::PRIORITY
            | kind::RST_STREAM
            | kind::SETTINGS
            | kind::PING
            | kind::GOAWAY
            // We have said that we want none (section 8.4), and clients may send none.
            | kind::PUSH_PROMISE => Err(OfConnection(ResetCode::PROTOCOL)),
            // Unknown: ignored (section 5.5).
            _ => Ok(()),
        }
    }

    /// Whether no stream of this number was ever opened (section 5.1.1).
    pub(super) const fn is_idle(&self, id: u32) -> bool {
        id.is_multiple_of(2) || if self.server { id > self.seen } else { id >= self.next }
    }

    /// Answers a peer's mistake on a stream.
    fn mistake(&mut self, id: u32, code: ResetCode) {
        if !self.counts.mistakes.take(Instant::now(), MISTAKES) {
            return self.break_off(ResetCode::CALM);
        }
        match self.streams.slot(id) {
            Some(slot) => self.reset(slot, H2Error::Given(code), Some(code)),
            None => self.say_reset(id, code),
        }
    }

    fn say_reset(&mut self, id: u32, code: ResetCode) {
        self.counts.resets = self.counts.resets.saturating_add(1);
        Head::write(kind::RST_STREAM, 0, id, &code.0.to_be_bytes(), self.out());
    }

    fn priority(&self, id: u32, payload: &[u8]) -> Result<(), Trouble> {
        // A stream that is idle cannot be reset.
        let wrong = |code| if self.is_idle(id) { OfConnection(code) } else { OfStream(id, code) };
        let [a, b, c, d, _] = *payload else { return Err(wrong(ResetCode::FRAME_SIZE)) };
        if u32::from_be_bytes([a, b, c, d]) & 0x7fff_ffff == id {
            return Err(wrong(ResetCode::PROTOCOL));
        }
        Ok(())
    }

    fn headers(&mut self, head: Head, payload: &[u8]) -> Result<(), Trouble> {
        let range = head.unpadded(payload).ok_or(OfConnection(ResetCode::PROTOCOL))?;
        let mut block = payload.get(range).unwrap_or_default();
        if head.has(flag::PRIORITY) {
            let (priority, rest) = block.split_at_checked(5).ok_or(OfConnection(ResetCode::FRAME_SIZE))?;
            // On itself (RFC 7540 section 5.3.1).
            let on = priority.first_chunk::<4>().map_or(0, |on| u32::from_be_bytes(*on) & 0x7fff_ffff);
            if on == head.stream {
                return Err(OfConnection(ResetCode::PROTOCOL));
            }
            block = rest;
        }
        let (stream, end) = (head.stream, head.has(flag::END_STREAM));
        if head.has(flag::END_HEADERS) {
            return self.head(stream, end, block);
        }
        self.block = Some(Block { stream, end, bytes: block.to_vec(), frames: 0 });
        Ok(())
    }

    fn continuation(&mut self, head: Head, payload: &[u8]) -> Result<(), Trouble> {
        let Some(block) = &mut self.block else { return Err(OfConnection(ResetCode::PROTOCOL)) };
        block.frames = block.frames.saturating_add(1);
        let most = self.limits.bytes.saturating_mul(4).max(MAX_FRAME);
        if block.frames > CONTINUATIONS || block.bytes.len().saturating_add(payload.len()) > most {
            return Err(OfConnection(ResetCode::CALM));
        }
        block.bytes.extend_from_slice(payload);
        if head.has(flag::END_HEADERS)
            && let Some(block) = self.block.take()
        {
            return self.head(block.stream, block.end, &block.bytes);
        }
        Ok(())
    }

    /// A whole head. It is decoded whatever becomes of it: the next one builds on it.
    fn head(&mut self, id: u32, end: bool, block: &[u8]) -> Result<(), Trouble> {
        let mut fields = Collector::new(self.limits);
        self.decoder.decode(block, &mut fields).map_err(|_| OfConnection(ResetCode::COMPRESSION))?;
        match self.streams.slot(id) {
            Some(slot) => self.later_head(slot, id, end, fields),
            None if self.server && id % 2 == 1 && id > self.seen => {
                self.request(id, end, fields);
                Ok(())
            }
            None if self.is_idle(id) => Err(OfConnection(ResetCode::PROTOCOL)),
            // On its way when we reset the stream, or after the end that the peer itself has said.
            None if self.counts.resets > 0 || !self.server => Ok(()),
            None => Err(OfConnection(ResetCode::STREAM_CLOSED)),
        }
    }

    fn request(&mut self, id: u32, end: bool, fields: Collector) {
        self.seen = id;
        let full = self.streams.count() >= MAX_STREAMS || self.streams.held() >= MAX_STREAMS.saturating_mul(2);
        // What is beyond the last that our GOAWAY takes was on its way when we said it.
        if full || matches!(self.ending, Ending::Last | Ending::Now) {
            return self.say_reset(id, ResetCode::REFUSED);
        }
        self.taken = id;
        let mut head = fields.request();
        let length = head.as_ref().ok().and_then(|head| head.length);
        if let Ok(request) = &head
            && end
            && length.is_some_and(|length| length > 0)
        {
            head = Err(request.refused(Refusal::Malformed));
        }
        let window = self.peer.window;
        let (slot, stream) = self.streams.open(id);
        (stream.recv_window, stream.send_window) = (STREAM_WINDOW.into(), window);
        (stream.request, stream.handles) = (Some(head), 1);
        (stream.recv_open, stream.complete) = (!end, end);
        stream.missing = length;
        self.arrived.push_back(slot);
    }

    /// The next request that nobody has given up.
    pub(super) fn next_arrived(&mut self) -> Option<Arrived> {
        loop {
            let slot = self.arrived.pop_front()?;
            let stream = self.streams.get(slot)?;
            let head = stream.request.take();
            if let (Some(head), None) = (head, stream.error) {
                return Some(Arrived { slot, head });
            }
            self.release(slot);
        }
    }

    /// A reply's head, or trailers.
    fn later_head(&mut self, slot: usize, id: u32, end: bool, mut fields: Collector) -> Result<(), Trouble> {
        let Some(stream) = self.streams.get(slot) else { return Ok(()) };
        if !stream.recv_open {
            return Err(OfStream(id, ResetCode::STREAM_CLOSED));
        }
        let malformed = OfStream(id, ResetCode::PROTOCOL);
        if self.server || stream.replied {
            let (Some(trailers), true) = (fields.trailers(), end) else {
                stream.fault = fields.take_fault();
                return Err(malformed);
            };
            stream.trailers = Some(Box::new(trailers));
        } else {
            let Some(head) = fields.response() else {
                stream.fault = fields.take_fault();
                return Err(malformed);
            };
            let interim = head.status < 200;
            let waiting: usize = stream.heads.iter().map(|head| head.raw.bytes.len()).sum();
            let most = self.limits.bytes.saturating_sub(head.raw.bytes.len());
            if (interim && end) || stream.heads.len() > INTERIM || (interim && waiting > most) {
                return Err(malformed);
            }
            stream.replied = !interim;
            let bodiless = stream.bodiless || matches!(head.status, 204 | 304);
            stream.missing = match head.length {
                _ if interim => None,
                _ if bodiless => Some(0),
                length => length,
            };
            stream.heads.push_back(head);
        }
        if end {
            return self.complete(slot);
        }
        stream.wake(READ);
        Ok(())
    }

    /// The peer has sent everything.
    fn complete(&mut self, slot: usize) -> Result<(), Trouble> {
        let Some(stream) = self.streams.get(slot) else { return Ok(()) };
        if stream.missing.is_some_and(|missing| missing > 0) {
            return Err(OfStream(stream.id, ResetCode::PROTOCOL));
        }
        (stream.recv_open, stream.complete) = (false, true);
        stream.wake(READ);
        if stream.is_over() {
            self.closed(slot);
        }
        Ok(())
    }

    fn data(&mut self, head: Head, payload: Bytes) -> Result<(), Trouble> {
        let id = head.stream;
        if self.is_idle(id) {
            return Err(OfConnection(ResetCode::PROTOCOL));
        }
        if !self.received(head.length) {
            return Err(OfConnection(ResetCode::FLOW_CONTROL));
        }
        let range = head.unpadded(&payload).ok_or(OfConnection(ResetCode::PROTOCOL))?;
        let end = head.has(flag::END_STREAM);
        let Some((slot, stream)) = self.streams.slot(id).and_then(|slot| Some((slot, self.streams.get(slot)?))) else {
            let late = self.counts.resets > 0 || !self.server;
            return if late { Ok(()) } else { Err(OfStream(id, ResetCode::STREAM_CLOSED)) };
        };
        if !stream.recv_open {
            return Err(OfStream(id, ResetCode::STREAM_CLOSED));
        }
        if !self.server && !stream.replied {
            return Err(OfStream(id, ResetCode::PROTOCOL));
        }
        stream.recv_window = stream.recv_window.saturating_sub(i64::try_from(head.length).unwrap_or(i64::MAX));
        if stream.recv_window < 0 {
            return Err(OfStream(id, ResetCode::FLOW_CONTROL));
        }
        let piece = if range.len() == payload.len() { payload } else { payload.slice(range) };
        let padding = head.length.saturating_sub(piece.len());
        if let Some(missing) = &mut stream.missing {
            let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
            *missing = missing.checked_sub(length).ok_or(OfStream(id, ResetCode::PROTOCOL))?;
        }
        self.counts.empty = if piece.is_empty() && !end { self.counts.empty.saturating_add(1) } else { 0 };
        if self.counts.empty > EMPTY {
            return Err(OfConnection(ResetCode::CALM));
        }
        if !piece.is_empty() {
            stream.keep(piece);
            stream.wake(READ);
        }
        if padding > 0 {
            self.taken(slot, padding);
        }
        if end { self.complete(slot) } else { Ok(()) }
    }

    fn reset_by_peer(&mut self, id: u32, payload: &[u8]) -> Result<(), Trouble> {
        let code = frame::number(payload).ok_or(OfConnection(ResetCode::FRAME_SIZE))?;
        if self.is_idle(id) {
            return Err(OfConnection(ResetCode::PROTOCOL));
        }
        let Some(slot) = self.streams.slot(id) else { return Ok(()) };
        let early = self.server && self.streams.get(slot).is_some_and(|stream| !stream.replied);
        if early && !self.counts.given_up.take(Instant::now(), GIVEN_UP) {
            return Err(OfConnection(ResetCode::CALM));
        }
        self.reset(slot, H2Error::Reset(ResetCode(code)), None);
        Ok(())
    }
}
