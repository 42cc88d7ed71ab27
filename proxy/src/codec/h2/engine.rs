//! The state of one connection without its socket: bytes in, frames out, streams between them (RFC 9113).
//!
//! `receive.rs` reads frames into it, `send.rs` writes them; `drive.rs` moves the bytes.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use std::collections::VecDeque;
use std::io;
use std::task::{Context, Waker};

use super::bucket::Bucket;
use super::error::{H2Error, ResetCode};
use super::frame::{self, Head, kind, setting};
use super::head::{Refused, Request};
use super::hpack::OVERHEAD;
use super::hpack::decode::Decoder;
use super::hpack::encode::Encoder;
use super::stream::{GONE, READ, Streams, WRITE};
use crate::codec::buffer;
use crate::codec::h1::parse::Limits;

/// Stream window.
pub(super) const STREAM_WINDOW: u32 = 256 * 1024;
/// Concurrent streams of a connection, in either direction; beyond it a pool opens another.
pub(super) const MAX_STREAMS: usize = 128;
/// Connection window: all of its streams together, so that streams whose bytes nobody takes never leave others without
/// one. What may wait to be taken is bounded by the streams' own; it is given back at once.
const CONNECTION_WINDOW: u32 = 128 * STREAM_WINDOW;
/// Bytes that are received before the connection's window is opened again.
const WINDOW_STEP: u32 = 1 << 20;
/// Largest frame accepted: four reads of a TLS record.
pub(super) const MAX_FRAME: usize = 64 * 1024;
/// Bytes of bodies that wait to be sent, all streams together: beyond it, their writers wait.
pub(super) const ROOM: usize = 64 * 1024;
/// Least room that is worth a frame.
const LEAST: usize = 1024;
/// Bytes that a peer may leave unread before it is given no more streams, and none of its are taken.
pub(super) const UNREAD: usize = 256 * 1024;
/// The PING that asks whether the peer has heard of the end.
const FAREWELL: [u8; 8] = *b"farewell";

/// A request that arrived, and its stream.
pub(super) struct Arrived {
    pub(super) slot: usize,
    pub(super) head: Result<Request, Refused>,
}

/// What the peer's settings allow.
pub(super) struct Peer {
    pub(super) window: i64,
    pub(super) max_frame: usize,
    pub(super) max_streams: usize,
    /// Largest head, each field with its name, its value and 32 (section 6.5.2).
    pub(super) max_head: usize,
}

/// A head whose end is still to come (section 6.10).
pub(super) struct Block {
    pub(super) stream: u32,
    pub(super) end: bool,
    pub(super) bytes: Vec<u8>,
    pub(super) frames: u32,
}

/// How far the end of a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Not announced.
    No,
    /// GOAWAY without a last stream was sent; the peer was asked whether it has heard.
    Announced,
    /// GOAWAY with the last stream was sent: over when the streams are.
    Last,
    /// Over once what was written has gone out.
    Now,
}

/// The state of one connection.
#[expect(clippy::struct_excessive_bools, reason = "independent facts of a connection")]
pub(super) struct Engine {
    pub(super) server: bool,
    pub(super) limits: Limits,
    pub(super) streams: Streams,
    pub(super) decoder: Decoder,
    pub(super) encoder: Encoder,
    /// Frames to be sent, from `sent` on. Holds memory only while there are some.
    pub(super) out: Vec<u8>,
    pub(super) sent: usize,
    /// Bytes that have gone out, all in all.
    pub(super) gone: u64,
    pub(super) peer: Peer,
    pub(super) send_window: i64,
    pub(super) recv_window: i64,
    /// Slots of streams whose request waits to be handed out.
    pub(super) arrived: VecDeque<usize>,
    /// Slots of streams with bytes to send that wait for what all share. Only the first may take of it.
    pub(super) blocked: VecDeque<usize>,
    pub(super) block: Option<Block>,
    /// The peer's preface was seen.
    pub(super) greeted: bool,
    /// The peer's SETTINGS were seen.
    pub(super) settled: bool,
    /// The next stream of our own (client).
    pub(super) next: u32,
    /// The highest stream that the peer opened (server).
    pub(super) seen: u32,
    /// The highest of them that was taken: what a GOAWAY says.
    pub(super) taken: u32,
    pub(super) ending: Ending,
    /// A peer that does not take the last words is left without them.
    pub(super) hurry: bool,
    /// The peer has said GOAWAY.
    pub(super) told: bool,
    /// The peer takes no more bytes from us; what it has sent before is still read.
    pub(super) mute: Option<io::ErrorKind>,
    /// Why it is over.
    pub(super) failed: Option<H2Error>,
    /// Whoever opens streams has gone, or never was (server).
    pub(super) deserted: bool,
    pub(super) counts: Counts,
    driver: Option<Waker>,
    openers: Vec<Waker>,
}

/// What peers are held to.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Bytes of answers that the peer has not taken yet.
    pub(super) answers: usize,
    /// Where the last of them ends, in all that goes out.
    pub(super) answers_end: u64,
    /// Frames without bytes, since the last one with some.
    pub(super) empty: u32,
    /// Streams that the peer gave up before their reply began.
    pub(super) given_up: Bucket,
    /// Streams that we reset for the peer's mistakes.
    pub(super) mistakes: Bucket,
    /// Streams that we reset.
    pub(super) resets: u32,
}

impl Engine {
    /// A new connection, with what is said first.
    pub(super) fn new(server: bool, limits: Limits) -> Self {
        let mut engine = Self {
            server,
            limits,
            streams: Streams::default(),
            decoder: Decoder::default(),
            encoder: Encoder::default(),
            out: Vec::new(),
            sent: 0,
            gone: 0,
            // Until the settings are there: what everybody allows, and one stream. A server may allow few, and need not
            // forgive more (section 5.1.2).
            peer: Peer {
                window: frame::DEFAULT_WINDOW.into(),
                max_frame: frame::DEFAULT_FRAME,
                max_streams: 1,
                max_head: usize::MAX,
            },
            send_window: frame::DEFAULT_WINDOW.into(),
            recv_window: CONNECTION_WINDOW.into(),
            arrived: VecDeque::new(),
            blocked: VecDeque::new(),
            block: None,
            greeted: !server,
            settled: false,
            next: 1,
            seen: 0,
            taken: 0,
            ending: Ending::No,
            hurry: false,
            told: false,
            mute: None,
            failed: None,
            deserted: server,
            counts: Counts::default(),
            driver: None,
            openers: Vec::new(),
        };
        engine.greet();
        engine
    }

    fn greet(&mut self) {
        let most = u32::try_from(MAX_STREAMS).unwrap_or(u32::MAX);
        // Senders count 32 bytes more for each field than its bytes (section 6.5.2); the limit is on the bytes.
        let fields = self.limits.fields.saturating_mul(OVERHEAD);
        let list = u32::try_from(self.limits.bytes.saturating_add(fields)).unwrap_or(u32::MAX);
        let first = if self.server { (setting::MAX_CONCURRENT_STREAMS, most) } else { (setting::ENABLE_PUSH, 0) };
        let settings = [
            first,
            (setting::INITIAL_WINDOW_SIZE, STREAM_WINDOW),
            (setting::MAX_FRAME_SIZE, u32::try_from(MAX_FRAME).unwrap_or(u32::MAX)),
            (setting::MAX_HEADER_LIST_SIZE, list),
        ];
        let mut payload = [0; 24];
        for (place, (name, value)) in payload.as_chunks_mut::<6>().0.iter_mut().zip(settings) {
            let ([a, b], [c, d, e, f]) = (name.to_be_bytes(), value.to_be_bytes());
            *place = [a, b, c, d, e, f];
        }
        if !self.server {
            self.out().extend_from_slice(frame::PREFACE);
        }
        Head::write(kind::SETTINGS, 0, 0, &payload, self.out());
        self.window_update(0, CONNECTION_WINDOW.saturating_sub(frame::DEFAULT_WINDOW));
    }

    /// Where frames are written to.
    pub(super) fn out(&mut self) -> &mut Vec<u8> {
        if self.out.capacity() == 0 {
            self.out = buffer::take();
        }
        &mut self.out
    }

    /// Bytes that wait to be sent.
    pub(super) const fn waiting(&self) -> usize {
        self.out.len().saturating_sub(self.sent)
    }

    /// Where the next frame will begin, in all that goes out.
    pub(super) fn position(&self) -> u64 {
        self.gone.saturating_add(u64::try_from(self.waiting()).unwrap_or(u64::MAX))
    }

    /// `n` more bytes have gone out.
    pub(super) fn went_out(&mut self, n: usize) {
        self.sent = self.sent.saturating_add(n);
        self.gone = self.gone.saturating_add(u64::try_from(n).unwrap_or(u64::MAX));
        if self.gone >= self.counts.answers_end {
            self.counts.answers = 0;
        }
        if self.waiting() == 0 {
            self.sent = 0;
            buffer::give(std::mem::take(&mut self.out));
        } else if self.sent > ROOM {
            self.out.drain(..self.sent);
            self.sent = 0;
        }
        if self.may_open() {
            self.wake_openers();
        }
        self.next_turn();
    }

    /// The peer takes nothing any more: what waits is dropped. A server's replies reach nobody.
    pub(super) fn mute(&mut self, error: io::ErrorKind) {
        if self.server {
            self.fail(H2Error::Lost(error));
        }
        self.mute = self.mute.or(Some(error));
        (self.out, self.sent, self.counts.answers) = (Vec::new(), 0, 0);
        self.wake_openers();
    }

    /// Bytes of bodies that still find room, behind the head of their frame.
    pub(super) fn room(&self) -> usize {
        ROOM.saturating_sub(self.waiting()).saturating_sub(frame::HEAD)
    }

    /// Whether there is room that is worth a frame.
    pub(super) fn has_room(&self) -> bool {
        self.room() >= LEAST
    }

    /// Lets the connection's task send what was written.
    pub(super) fn kick(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }

    /// The connection's task waits for work.
    pub(super) fn wait(&mut self, cx: &Context<'_>) {
        match &mut self.driver {
            Some(driver) => driver.clone_from(cx.waker()),
            None => self.driver = Some(cx.waker().clone()),
        }
    }

    /// Whoever wants to open a stream waits for room.
    pub(super) fn wait_to_open(&mut self, cx: &Context<'_>) {
        if !self.openers.iter().any(|opener| opener.will_wake(cx.waker())) {
            self.openers.push(cx.waker().clone());
        }
    }

    pub(super) fn wake_openers(&mut self) {
        for opener in self.openers.drain(..) {
            opener.wake();
        }
    }

    /// The first of those that wait for what all share goes on, if it can.
    pub(super) fn next_turn(&mut self) {
        if self.send_window > 0
            && self.has_room()
            && let Some(first) = self.blocked.front()
            && let Some(stream) = self.streams.get(*first)
        {
            stream.wake(WRITE);
        }
    }

    /// A stream does not wait for what all share any more: it is the next one's turn.
    pub(super) fn leave(&mut self, slot: usize) {
        if self.streams.get(slot).is_some_and(|stream| std::mem::take(&mut stream.queued)) {
            self.blocked.retain(|other| *other != slot);
            self.next_turn();
        }
    }

    pub(super) fn window_update(&mut self, stream: u32, by: u32) {
        Head::write(kind::WINDOW_UPDATE, 0, stream, &by.to_be_bytes(), self.out());
    }

    /// Bytes of DATA have arrived, for whatever stream. False: more than the connection's window.
    pub(super) fn received(&mut self, length: usize) -> bool {
        let length = i64::try_from(length).unwrap_or(i64::MAX);
        self.recv_window = self.recv_window.saturating_sub(length);
        if self.recv_window < 0 {
            return false;
        }
        let used = i64::from(CONNECTION_WINDOW).saturating_sub(self.recv_window);
        if used >= WINDOW_STEP.into() {
            self.recv_window = CONNECTION_WINDOW.into();
            self.window_update(0, u32::try_from(used).unwrap_or(u32::MAX));
        }
        true
    }

    /// A stream ends before its end. `said`: the peer is told so.
    pub(super) fn reset(&mut self, slot: usize, error: H2Error, said: Option<ResetCode>) {
        let Some(stream) = self.streams.get(slot) else { return };
        if stream.is_over() {
            return;
        }
        let id = stream.id;
        // What came before is still read.
        (stream.recv_open, stream.send_open) = (false, false);
        stream.error = stream.error.or(Some(error));
        stream.wake(READ | WRITE | GONE);
        self.leave(slot);
        if let Some(code) = said {
            self.counts.resets = self.counts.resets.saturating_add(1);
            Head::write(kind::RST_STREAM, 0, id, &code.0.to_be_bytes(), self.out());
            self.kick();
        }
        self.closed(slot);
    }

    /// A stream is over, or nobody holds it any more.
    pub(super) fn closed(&mut self, slot: usize) {
        self.streams.close(slot);
        self.wake_openers();
        if self.streams.count() == 0 && (self.deserted || self.ending != Ending::No || self.told) {
            self.kick();
        }
    }

    /// The connection is over: every stream is.
    pub(super) fn fail(&mut self, error: H2Error) {
        if self.failed.is_some() {
            return;
        }
        self.failed = Some(error);
        self.ending = Ending::Now;
        for slot in self.streams.slots() {
            let left = self.server || self.streams.get(slot).is_some_and(|stream| stream.begins < self.gone);
            // A request of which no byte has left, and none will, was not looked at.
            let unseen = !left && matches!(error, H2Error::Lost(_));
            self.reset(slot, if unseen { H2Error::Unsent } else { error }, None);
        }
        self.wake_openers();
        self.kick();
    }

    /// The peer broke a rule of connections: says so.
    pub(super) fn break_off(&mut self, code: ResetCode) {
        self.say_goaway(self.taken, code);
        self.fail(H2Error::Ended(code));
    }

    fn say_goaway(&mut self, last: u32, code: ResetCode) {
        let ([a, b, c, d], [e, f, g, h]) = (last.to_be_bytes(), code.0.to_be_bytes());
        Head::write(kind::GOAWAY, 0, 0, &[a, b, c, d, e, f, g, h], self.out());
        self.kick();
    }

    /// Announces the end (section 6.8): streams that are open go on, new ones are taken until the peer has heard.
    pub(super) fn retire(&mut self) {
        if self.ending == Ending::No {
            self.ending = Ending::Announced;
            self.say_goaway(0x7fff_ffff, ResetCode::NONE);
            Head::write(kind::PING, 0, 0, &FAREWELL, self.out());
        }
    }

    /// The peer has answered a PING.
    pub(super) fn answered(&mut self, payload: &[u8]) {
        if self.ending == Ending::Announced && payload == FAREWELL {
            self.ending = Ending::Last;
            self.say_goaway(self.taken, ResetCode::NONE);
        }
    }

    /// Says that the connection ends, and ends it. The second time, the peer is not waited for any more.
    pub(super) fn cut(&mut self) {
        if self.ending == Ending::Now {
            self.hurry = true;
            return self.kick();
        }
        self.say_goaway(self.taken, ResetCode::NONE);
        self.fail(H2Error::Ended(ResetCode::NONE));
    }

    /// Nothing more is to be read.
    pub(super) fn is_over(&self) -> bool {
        let idle = self.streams.count() == 0 && self.arrived.is_empty();
        match self.ending {
            Ending::Now => true,
            Ending::Last => idle,
            Ending::No if !self.server => idle && (self.deserted || self.told),
            Ending::No | Ending::Announced => idle && self.told,
        }
    }

    /// It is over: the last words, unless they were said.
    pub(super) fn conclude(&mut self) {
        if matches!(self.ending, Ending::No | Ending::Announced) {
            self.cut();
        }
    }
}
