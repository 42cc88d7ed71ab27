//! What the fuzz targets run of the engine: bytes in, a panic when a promise does not hold.
#![expect(clippy::missing_panics_doc, reason = "a panic is how a target reports")]

use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};

use super::engine::Engine;
use super::error::H2Error;
use super::frame;
use super::hpack::decode::{Decoded, Decoder, Sink};
use super::hpack::encode::{Encoder, is_secret};
use super::hpack::names;
use super::send::Piece;
use crate::codec::h1::parse::Limits;

const LIMITS: Limits = Limits { bytes: 65_535, fields: 100 };

#[derive(Debug, Default, PartialEq)]
struct Fields(Vec<(Vec<u8>, Vec<u8>, bool)>);

impl Sink for Fields {
    fn field(&mut self, Decoded { name, value, kind, good, secret }: Decoded<'_>) {
        assert_eq!((kind, good), (names::kind(name), names::is_value(value)), "what is remembered of a field");
        if self.0.len() < 1000 {
            self.0.push((name.to_vec(), value.to_vec(), secret || is_secret(name)));
        }
    }
}

/// Blocks, each behind a byte that says how long it is: what is read and written is read as the same.
pub fn http2_fields(bytes: &[u8]) {
    let (mut decoder, mut encoder, mut next) = (Decoder::default(), Encoder::default(), Decoder::default());
    let mut rest = bytes;
    while let Some((length, after)) = rest.split_first() {
        let (block, later) = after.split_at(usize::from(*length).min(after.len()));
        rest = later;
        let mut fields = Fields::default();
        if decoder.decode(block, &mut fields).is_err() {
            return;
        }
        let mut out = Vec::new();
        encoder.begin(&mut out);
        for (name, value, secret) in &fields.0 {
            if *secret {
                Encoder::secret(name, value, &mut out);
            } else {
                encoder.field(name, value, &mut out);
            }
        }
        let mut again = Fields::default();
        assert_eq!(next.decode(&out, &mut again), Ok(()), "what is written can be read");
        assert_eq!(again, fields, "what was read, and what the next one reads");
        encoder.resize(usize::from(*length).saturating_mul(32));
    }
}

/// A client's frames, after its preface. The first byte says how large the pieces are that they come in, and what is
/// done with the requests.
pub fn http2_frames(bytes: &[u8]) {
    let Some((first, frames)) = bytes.split_first() else { return };
    let whole = answers(frames, frames.len().max(1), None);
    assert_eq!(answers(frames, usize::from(*first).max(1), None), whole, "in pieces, and at once");
    answers(frames, usize::from(*first).max(1), Some(*first));
}

/// What a server says, with requests served as they come, or left alone.
fn answers(frames: &[u8], piece: usize, serve: Option<u8>) -> Vec<u8> {
    let mut engine = Engine::new(true, LIMITS);
    let mut input = BytesMut::from(frame::PREFACE);
    engine.receive_preface(&mut input);
    let (mut said, mut slots) = (Vec::new(), Vec::new());
    let cx = Context::from_waker(Waker::noop());
    for part in frames.chunks(piece) {
        input.extend_from_slice(part);
        engine.receive(&mut input);
        if let Some(how) = serve {
            while let Some(arrived) = engine.next_arrived() {
                slots.push(arrived.slot);
            }
            slots.retain(|slot| !serve_one(&mut engine, *slot, how, &cx));
            engine.went_out(engine.waiting());
        }
        assert!(engine.streams.held() <= 256, "streams");
        // What a head makes us say is bounded by the peer's own frames; bodies are by their own bound.
        assert!(engine.waiting() <= 512 * 1024, "{} bytes wait", engine.waiting());
    }
    said.extend_from_slice(engine.out.get(engine.sent..).unwrap_or_default());
    for slot in slots {
        engine.release(slot);
    }
    said
}

/// Reads and answers; whether that is done with.
fn serve_one(engine: &mut Engine, slot: usize, how: u8, cx: &Context<'_>) -> bool {
    while let Poll::Ready(piece) = engine.poll_piece(slot, cx) {
        match piece {
            Ok(Piece::Data(data, _)) => engine.taken(slot, data.len()),
            Ok(Piece::End(_)) if how & 1 == 0 => break,
            Ok(Piece::End(_)) => return false,
            Err(_) => {
                engine.release(slot);
                return true;
            }
        }
    }
    if engine.reply(slot, false, false, |_, out| Encoder::status(200, out)).is_ok() {
        let mut body = Bytes::from_static(b"body");
        let _ = engine.poll_send(slot, &mut body, how & 2 == 0, cx);
    }
    engine.release(slot);
    true
}

/// A server's frames, after its settings, to a client that has asked four times, once with HEAD. The first byte says how
/// large the pieces are that they come in, and whether bodies are read as they come.
pub fn http2_replies(bytes: &[u8]) {
    let Some((first, frames)) = bytes.split_first() else { return };
    let mut engine = Engine::new(false, LIMITS);
    let mut input = BytesMut::from(&[0, 0, 0, frame::kind::SETTINGS, 0, 0, 0, 0, 0][..]);
    engine.receive(&mut input);
    let mut streams: Vec<_> = (0..4).filter_map(|n| Asked::open(&mut engine, n == 3)).collect();
    let cx = Context::from_waker(Waker::noop());
    for part in frames.chunks(usize::from(*first).max(1)) {
        input.extend_from_slice(part);
        engine.receive(&mut input);
        assert!(engine.waiting() <= 512 * 1024, "{} bytes wait", engine.waiting());
        engine.went_out(engine.waiting());
        if first & 1 == 0 {
            streams.iter_mut().for_each(|stream| stream.read(&mut engine, &cx));
        }
    }
    engine.fail(H2Error::Lost(std::io::ErrorKind::UnexpectedEof));
    for mut stream in streams {
        stream.read(&mut engine, &cx);
        engine.release(stream.slot);
    }
    assert_eq!(engine.streams.held(), 0, "streams");
}

/// A request of a client, and what was read of its reply.
struct Asked {
    slot: usize,
    to_head: bool,
    bodiless: bool,
    length: Option<u64>,
    got: u64,
}

impl Asked {
    fn open(engine: &mut Engine, to_head: bool) -> Option<Self> {
        let opened = engine.open(true, to_head, |encoder, out| encoder.path(b"/", out));
        let slot = opened.ok()?;
        engine.hold(slot);
        Some(Self { slot, to_head, bodiless: false, length: None, got: 0 })
    }

    fn read(&mut self, engine: &mut Engine, cx: &Context<'_>) {
        while let Poll::Ready(Ok(head)) = engine.poll_head(self.slot, cx) {
            assert!((100..=999).contains(&head.status) && head.status != 101, "a status");
            self.bodiless = self.to_head || matches!(head.status, 204 | 304);
            self.length = head.length.filter(|_| !self.bodiless && head.status >= 200);
        }
        while let Poll::Ready(Ok(piece)) = engine.poll_piece(self.slot, cx) {
            match piece {
                Piece::Data(data, _) => {
                    self.got += data.len() as u64;
                    assert!(!self.bodiless, "a reply without a body has none");
                    assert!(self.length.is_none_or(|length| self.got <= length), "no more than the head says");
                    engine.taken(self.slot, data.len());
                }
                Piece::End(_) => {
                    assert!(self.length.is_none_or(|length| self.got == length), "as much as the head says");
                    break;
                }
            }
        }
    }
}
