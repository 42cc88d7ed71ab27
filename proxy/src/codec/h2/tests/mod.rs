//! The state of connections, played with values: a peer that sends frames, and a client and a server of ours.

/// Rules of frames and streams, and what a peer is held to.
mod rules;

/// What waits, and for what: windows, room, turns.
mod flow;

/// How connections end, and what becomes of their streams.
mod ends;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use bytes::BytesMut;

use super::engine::Engine;
use super::frame::{self, Head, flag, kind};
use super::hpack::encode::Encoder;
use crate::codec::h1::parse::Limits;

const LIMITS: Limits = Limits { bytes: 60_000, fields: 100 };

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn written(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Head::write(kind, flags, stream, payload, &mut out);
    out
}

fn get(encoder: &mut Encoder, out: &mut Vec<u8>) {
    encoder.method(b"GET", out);
    encoder.path(b"/", out);
    encoder.field(b":authority", b"a.test", out);
}

fn block() -> Vec<u8> {
    let mut out = Vec::new();
    get(&mut Encoder::default(), &mut out);
    out
}

fn ok(_: &mut Encoder, out: &mut Vec<u8>) {
    Encoder::status(200, out);
}

fn headers(stream: u32, flags: u8) -> Vec<u8> {
    written(kind::HEADERS, flags | flag::END_HEADERS, stream, &block())
}

/// What `engine` has to say.
fn said(engine: &mut Engine) -> Vec<(Head, Vec<u8>)> {
    let mut out = engine.out[engine.sent..].to_vec();
    engine.went_out(out.len());
    if out.starts_with(frame::PREFACE) {
        out.drain(..frame::PREFACE.len());
    }
    let mut frames = Vec::new();
    while let Some(head) = Head::read(&out) {
        let rest = out.split_off(frame::HEAD + head.length);
        frames.push((head, out[frame::HEAD..].to_vec()));
        out = rest;
    }
    frames
}

/// A server that has been greeted.
fn server() -> Engine {
    let mut engine = Engine::new(true, LIMITS);
    let mut input = BytesMut::from(frame::PREFACE);
    engine.receive_preface(&mut input);
    engine.receive(&mut BytesMut::from(&written(kind::SETTINGS, 0, 0, &[])[..]));
    assert!(engine.greeted && engine.settled && input.is_empty());
    said(&mut engine);
    engine
}

fn hear(engine: &mut Engine, frames: &[Vec<u8>]) -> Vec<(Head, Vec<u8>)> {
    engine.receive(&mut BytesMut::from(&frames.concat()[..]));
    said(engine)
}

fn goaway(frames: &[(Head, Vec<u8>)]) -> Option<u32> {
    let (_, payload) = frames.iter().find(|(head, _)| head.kind == kind::GOAWAY)?;
    frame::number(&payload[4..8])
}

fn reset(frames: &[(Head, Vec<u8>)]) -> Option<(u32, u32)> {
    let (head, payload) = frames.iter().find(|(head, _)| head.kind == kind::RST_STREAM)?;
    Some((head.stream, frame::number(payload)?))
}

/// A client that has heard its server's settings.
fn client() -> Engine {
    let mut engine = Engine::new(false, LIMITS);
    hear(&mut engine, &[written(kind::SETTINGS, 0, 0, &[])]);
    engine
}
