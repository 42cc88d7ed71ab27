//! The state of connections, played with values: a peer that sends frames, and a client and a server of ours.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::{Bytes, BytesMut};

use super::engine::{Ending, Engine, ROOM, STREAM_WINDOW};
use super::error::{H2Error, ResetCode};
use super::frame::{self, Head, flag, kind};
use super::head::Refusal;
use super::hpack::encode::Encoder;
use super::send::Piece;
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

#[test]
fn connections_end_with_a_code() {
    let open = || headers(1, 0);
    let window = |stream, by: u32| written(kind::WINDOW_UPDATE, 0, stream, &by.to_be_bytes());
    let setting = |name: u8, value: u32| [vec![0, name], value.to_be_bytes().to_vec()].concat();
    let cases: Vec<(&str, ResetCode, Vec<Vec<u8>>)> = vec![
        ("DATA of no stream", ResetCode::PROTOCOL, vec![written(kind::DATA, 0, 0, b"x")]),
        ("DATA of an idle stream", ResetCode::PROTOCOL, vec![written(kind::DATA, 0, 1, b"x")]),
        ("too much padding", ResetCode::PROTOCOL, vec![open(), written(kind::DATA, flag::PADDED, 1, &[2, 0])]),
        ("an even stream", ResetCode::PROTOCOL, vec![headers(2, 0)]),
        ("a head that cannot be read", ResetCode::COMPRESSION, vec![written(kind::HEADERS, 4, 1, &[0x80])]),
        ("a stream that has ended", ResetCode::STREAM_CLOSED, vec![headers(3, 1), headers(1, 1)]),
        ("on itself", ResetCode::PROTOCOL, vec![written(kind::HEADERS, 0x24, 1, &[0, 0, 0, 1, 9, 0x82])]),
        ("PING of 7 bytes", ResetCode::FRAME_SIZE, vec![written(kind::PING, 0, 0, &[0; 7])]),
        ("PING of a stream", ResetCode::PROTOCOL, vec![written(kind::PING, 0, 1, &[0; 8])]),
        ("half a setting", ResetCode::FRAME_SIZE, vec![written(kind::SETTINGS, 0, 0, &[0; 7])]),
        ("an answer with settings", ResetCode::FRAME_SIZE, vec![written(kind::SETTINGS, 1, 0, &[0; 6])]),
        ("push", ResetCode::PROTOCOL, vec![written(kind::SETTINGS, 0, 0, &setting(2, 2))]),
        ("frames too small", ResetCode::PROTOCOL, vec![written(kind::SETTINGS, 0, 0, &setting(5, 16_383))]),
        ("a window too large", ResetCode::FLOW_CONTROL, vec![written(kind::SETTINGS, 0, 0, &setting(4, 1 << 31))]),
        ("the connection's window", ResetCode::FLOW_CONTROL, vec![window(0, 0x7fff_ffff)]),
        ("no window", ResetCode::PROTOCOL, vec![window(0, 0)]),
        ("a window of an idle stream", ResetCode::PROTOCOL, vec![window(1, 1)]),
        ("a window of 3 bytes", ResetCode::FRAME_SIZE, vec![written(kind::WINDOW_UPDATE, 0, 0, &[0; 3])]),
        ("reset of an idle stream", ResetCode::PROTOCOL, vec![written(kind::RST_STREAM, 0, 1, &[0; 4])]),
        ("PUSH_PROMISE", ResetCode::PROTOCOL, vec![open(), written(kind::PUSH_PROMISE, 4, 1, &[0, 0, 0, 2])]),
        ("CONTINUATION of nothing", ResetCode::PROTOCOL, vec![open(), written(kind::CONTINUATION, 4, 1, &[])]),
        (
            "a frame within a head",
            ResetCode::PROTOCOL,
            vec![written(kind::HEADERS, 0, 1, &block()), written(kind::PING, 0, 0, &[0; 8])],
        ),
        (
            "an endless head",
            ResetCode::CALM,
            [vec![written(kind::HEADERS, 0, 1, &block())], vec![written(kind::CONTINUATION, 0, 1, &[]); 30]].concat(),
        ),
        ("a frame too large", ResetCode::FRAME_SIZE, vec![vec![1, 0, 1, kind::DATA, 0, 0, 0, 0, 1]]),
        ("empty DATA", ResetCode::CALM, [vec![open()], vec![written(kind::DATA, 0, 1, &[]); 101]].concat()),
        (
            "mistakes",
            ResetCode::CALM,
            [vec![open()], vec![window(1, 0x7fff_ffff)], vec![written(kind::PRIORITY, 0, 1, &[0]); 1024]].concat(),
        ),
    ];
    for (what, code, frames) in cases {
        let mut engine = server();
        let answer = hear(&mut engine, &frames);
        assert_eq!(goaway(&answer), Some(code.0), "{what}");
        assert_eq!(engine.failed, Some(H2Error::Ended(code)), "{what}");
        assert!(engine.is_over() && !engine.reads(), "{what}");
    }
}

#[test]
fn streams_end_with_a_code_and_the_connection_goes_on() {
    let cases: Vec<(&str, ResetCode, Vec<Vec<u8>>)> = vec![
        ("its window", ResetCode::FLOW_CONTROL, vec![written(kind::WINDOW_UPDATE, 0, 1, &[0x7f, 255, 255, 255])]),
        ("no window", ResetCode::PROTOCOL, vec![written(kind::WINDOW_UPDATE, 0, 1, &[0; 4])]),
        ("a second head", ResetCode::PROTOCOL, vec![headers(1, 0)]),
        ("a pseudo-header in trailers", ResetCode::PROTOCOL, vec![headers(1, 1)]),
        (
            "more after the end",
            ResetCode::STREAM_CLOSED,
            vec![written(kind::DATA, 1, 1, b"x"), written(kind::DATA, 0, 1, b"x")],
        ),
        ("more than its window", ResetCode::FLOW_CONTROL, vec![written(kind::DATA, 0, 1, &[0; 60_000]); 5]),
        ("PRIORITY of 4 bytes", ResetCode::FRAME_SIZE, vec![written(kind::PRIORITY, 0, 1, &[0; 4])]),
    ];
    for (what, code, frames) in cases {
        let mut engine = server();
        hear(&mut engine, &[headers(1, 0)]);
        assert_eq!(reset(&hear(&mut engine, &frames)), Some((1, code.0)), "{what}");
        hear(&mut engine, &[headers(3, 1)]);
        let arrived = engine.next_arrived().expect(what);
        assert!(arrived.head.is_ok() && engine.failed.is_none() && engine.streams.held() == 1, "{what}");
    }
}

#[test]
fn the_length_that_a_head_says_is_the_bodys() {
    let with = |length: &str, frames: &[Vec<u8>]| {
        let mut fields = block();
        Encoder::default().field(b"content-length", length.as_bytes(), &mut fields);
        let mut engine = server();
        let open = written(kind::HEADERS, flag::END_HEADERS, 1, &fields);
        reset(&hear(&mut engine, &[vec![open], frames.to_vec()].concat())).map(|(_, code)| code)
    };
    let data = |end: u8, bytes: &[u8]| written(kind::DATA, end, 1, bytes);
    assert_eq!(with("3", &[data(0, b"ab"), data(1, b"c")]), None);
    assert_eq!(with("3", &[data(0, b"ab"), data(1, b"")]), Some(1));
    assert_eq!(with("3", &[data(0, b"abcd")]), Some(1));
    assert_eq!(with("0", &[data(1, b"")]), None);
}

#[test]
fn refused_heads_are_handed_out() {
    let mut engine = server();
    hear(&mut engine, &[written(kind::HEADERS, 5, 1, &[0x82, 0x86])]);
    assert_eq!(engine.next_arrived().unwrap().head.unwrap_err(), Refusal::Malformed);
}

#[test]
fn more_streams_than_allowed_are_refused() {
    let mut engine = server();
    let frames: Vec<_> = (0..129).map(|n| headers(2 * n + 1, 0)).collect();
    let mut answer = Vec::new();
    // No more than that wait to be handed out; then the next is read.
    let mut input = BytesMut::from(&frames.concat()[..]);
    loop {
        engine.receive(&mut input);
        answer.extend(said(&mut engine));
        while engine.next_arrived().is_some() {}
        if input.is_empty() {
            break;
        }
    }
    assert_eq!(reset(&answer), Some((257, ResetCode::REFUSED.0)));
    assert_eq!(engine.streams.count(), 128);
}

#[test]
fn what_was_given_up_at_once_is_not_handed_out() {
    let mut engine = server();
    hear(&mut engine, &[headers(1, 1), written(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8]), headers(3, 1)]);
    let arrived = engine.next_arrived().unwrap();
    assert_eq!(engine.streams.get(arrived.slot).unwrap().id, 3);
    assert!(engine.next_arrived().is_none());
    assert_eq!(engine.streams.held(), 1);
}

#[test]
fn a_peer_that_does_not_read_is_not_read() {
    let mut engine = server();
    let mut input = BytesMut::from(&vec![written(kind::PING, 0, 0, &[1; 8]); 5000].concat()[..]);
    engine.receive(&mut input);
    assert!(!engine.reads() && engine.waiting() < 20_000 && !input.is_empty());
    said(&mut engine);
    assert!(engine.reads());
}

#[test]
fn the_end_is_announced_before_it_is_final() {
    let mut engine = server();
    hear(&mut engine, &[headers(1, 1)]);
    engine.next_arrived().unwrap();
    engine.retire();
    let frames = said(&mut engine);
    assert_eq!(frame::number(&frames[0].1[..4]), Some(0x7fff_ffff));
    let heard = written(kind::PING, flag::ACK, 0, &frames[1].1);
    // One that was on its way is still taken; one after the last word is not.
    let frames = hear(&mut engine, &[headers(3, 1), heard, headers(5, 1)]);
    assert_eq!(frame::number(&frames[0].1[..4]), Some(3));
    assert_eq!(engine.ending, Ending::Last);
    let late = engine.next_arrived().unwrap();
    assert!(engine.next_arrived().is_none() && !engine.is_over());
    engine.reply(0, true, false, ok).unwrap();
    engine.reply(late.slot, true, false, ok).unwrap();
    assert!(engine.is_over());
}

#[test]
fn a_reply_that_is_complete_ends_an_unread_request_without_an_error() {
    let mut engine = server();
    hear(&mut engine, &[headers(1, 0)]);
    let slot = engine.next_arrived().unwrap().slot;
    engine.reply(slot, true, false, ok).unwrap();
    engine.release(slot);
    assert_eq!(reset(&said(&mut engine)), Some((1, 0)));
    hear(&mut engine, &[headers(3, 0)]);
    let slot = engine.next_arrived().unwrap().slot;
    engine.release(slot);
    assert_eq!(reset(&said(&mut engine)), Some((3, ResetCode::CANCEL.0)));
}

#[test]
fn streams_beyond_the_last_were_not_looked_at() {
    let mut engine = Engine::new(false, LIMITS);
    hear(&mut engine, &[written(kind::SETTINGS, 0, 0, &[])]);
    let slots = [(); 2].map(|()| engine.open(true, false, get).unwrap());
    slots.iter().for_each(|slot| engine.hold(*slot));
    hear(&mut engine, &[written(kind::GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0])]);
    let cx = Context::from_waker(Waker::noop());
    assert!(engine.poll_head(slots[0], &cx).is_pending());
    assert!(matches!(engine.poll_head(slots[1], &cx), Poll::Ready(Err(error)) if error.is_refused()));
    assert_eq!(engine.open(true, false, get).unwrap_err(), H2Error::Unsent);
    assert_eq!(engine.max_streams(), 0);
    hear(&mut engine, &[written(kind::HEADERS, 5, 1, &[0x88])]);
    assert!(engine.is_over());
}

/// Moves what `from` has to say to `to`, in pieces.
fn carry(from: &mut Engine, to: &mut Engine, held: &mut BytesMut, piece: usize) {
    let bytes = from.out[from.sent..].to_vec();
    from.went_out(bytes.len());
    for part in bytes.chunks(piece) {
        held.extend_from_slice(part);
        to.receive_preface(held);
        to.receive(held);
    }
}

/// Bodies of any size arrive whole, through windows and whatever pieces the bytes come in.
fn bodies(sizes: &[usize], piece: usize) {
    let (mut client, mut server) = (Engine::new(false, LIMITS), Engine::new(true, LIMITS));
    let (mut up, mut down) = (BytesMut::new(), BytesMut::new());
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    let cx = Context::from_waker(&waker);
    let body = |n: usize| Bytes::from((0..sizes[n]).map(|at| (at % 251) as u8 ^ n as u8).collect::<Vec<_>>());
    let mut sending: Vec<_> = (0..sizes.len())
        .map(|n| {
            let slot = client.open(false, false, get).unwrap();
            client.hold(slot);
            (slot, body(n), false)
        })
        .collect();
    let (mut slots, mut got) = (Vec::new(), vec![(Vec::new(), false); sizes.len()]);
    for round in 0.. {
        assert!(round < 10_000, "it comes to an end");
        for (slot, data, done) in &mut sending {
            if !*done && let Poll::Ready(sent) = client.poll_send(*slot, data, true, &cx) {
                sent.unwrap();
                *done = true;
            }
        }
        assert!(client.waiting() < 2 * ROOM);
        carry(&mut client, &mut server, &mut up, piece);
        while let Some(arrived) = server.next_arrived() {
            slots.push(arrived.slot);
        }
        for (slot, (bytes, done)) in slots.iter().zip(&mut got) {
            while !*done && let Poll::Ready(piece) = server.poll_piece(*slot, &cx) {
                match piece.unwrap() {
                    Piece::Data(data, last) => {
                        bytes.extend_from_slice(&data);
                        server.taken(*slot, data.len());
                        *done = last;
                    }
                    Piece::End(_) => *done = true,
                }
            }
        }
        carry(&mut server, &mut client, &mut down, piece);
        assert_eq!((client.failed, server.failed), (None, None));
        if got.iter().all(|(_, done)| *done) && slots.len() == sizes.len() {
            break;
        }
    }
    for (n, (bytes, _)) in got.iter().enumerate() {
        assert!(*bytes == body(n), "stream {n}: {} of {} bytes", bytes.len(), sizes[n]);
    }
    for slot in slots {
        server.reply(slot, true, false, ok).unwrap();
        server.release(slot);
    }
    carry(&mut server, &mut client, &mut down, piece);
    for (slot, ..) in sending {
        assert!(matches!(client.poll_head(slot, &cx), Poll::Ready(Ok(head)) if head.status == 200));
        client.release(slot);
    }
    assert_eq!((client.streams.held(), server.streams.held()), (0, 0));
    client.deserted = true;
    assert!(client.is_over());
}

#[test]
fn bodies_larger_than_the_windows() {
    bodies(&[0, 1, 1_000_000, 3 * STREAM_WINDOW as usize, 70_000], 16_384);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(8))]
    #[test]
    fn bodies_of_any_size(sizes in proptest::collection::vec(0usize..60_000, 1..8), piece in 50usize..20_000) {
        bodies(&sizes, piece);
    }
}

/// A client that has heard its server's settings.
fn client() -> Engine {
    let mut engine = Engine::new(false, LIMITS);
    hear(&mut engine, &[written(kind::SETTINGS, 0, 0, &[])]);
    engine
}

#[test]
fn a_reply_without_a_body_brings_none() {
    let with = |bodiless: bool, head: &[u8], frames: &[Vec<u8>]| {
        let mut engine = client();
        let slot = engine.open(true, bodiless, get).unwrap();
        engine.hold(slot);
        said(&mut engine);
        let head = written(kind::HEADERS, flag::END_HEADERS, 1, head);
        reset(&hear(&mut engine, &[vec![head], frames.to_vec()].concat())).map(|(_, code)| code)
    };
    let data = |end: u8, bytes: &[u8]| written(kind::DATA, end, 1, bytes);
    let length = |status: u8| {
        let mut head = vec![status];
        Encoder::default().field(b"content-length", b"5", &mut head);
        head
    };
    // 200 to HEAD, 204 and 304: what follows would be read as the next reply by a client of HTTP/1.
    for (bodiless, head) in [(true, vec![0x88]), (true, length(0x88)), (false, vec![0x89]), (false, length(0x8b))] {
        assert_eq!(with(bodiless, &head, &[data(1, b"HTTP/")]), Some(ResetCode::PROTOCOL.0), "{head:x?}");
        assert_eq!(with(bodiless, &head, &[data(0, b""), data(1, b"")]), None, "{head:x?}");
    }
    assert_eq!(with(false, &length(0x88), &[data(1, b"HTTP/")]), None);
}

#[test]
fn a_peer_that_does_not_read_is_not_given_more_streams() {
    let mut engine = client();
    let mut opened = 0;
    while engine.may_open() {
        let long = |encoder: &mut Encoder, out: &mut Vec<u8>| {
            get(encoder, out);
            encoder.field(b"x", &[b'v'; 50_000], out);
        };
        let slot = engine.open(true, false, long).unwrap();
        engine.hold(slot);
        engine.release(slot);
        opened += 1;
        assert!(opened < 20, "streams that were given up at once leave their heads behind");
    }
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    engine.wait_to_open(&Context::from_waker(&waker));
    said(&mut engine);
    assert_eq!(count.0.load(Ordering::Relaxed), 1);
    assert!(engine.may_open());
}

#[test]
fn interim_heads_without_room_are_left_out() {
    let mut engine = server();
    hear(&mut engine, &[headers(1, 0)]);
    let slot = engine.next_arrived().unwrap().slot;
    let long = |_: &mut Encoder, out: &mut Vec<u8>| out.extend_from_slice(&[0x88; 10_000]);
    let mut heads = 0;
    while engine.may_inform(slot, 103) {
        engine.reply(slot, false, true, long).unwrap();
        heads += 1;
        assert!(heads < 20);
    }
    assert!(engine.waiting() < 2 * ROOM);
    // What a client may wait for, once.
    assert!(engine.may_inform(slot, 100) && !engine.may_inform(slot, 100));
    said(&mut engine);
    assert!(engine.may_inform(slot, 103));
}

#[test]
fn interim_heads_that_wait_are_bounded_by_their_bytes() {
    let mut engine = client();
    let slot = engine.open(true, false, get).unwrap();
    engine.hold(slot);
    let mut fields = b"\x08\x03103".to_vec();
    Encoder::default().field(b"x", &[b'v'; 9_000], &mut fields);
    let hints = written(kind::HEADERS, flag::END_HEADERS, 1, &fields);
    assert_eq!(reset(&hear(&mut engine, &vec![hints.clone(); 6])), None);
    assert_eq!(reset(&hear(&mut engine, &[hints])), Some((1, ResetCode::PROTOCOL.0)));
}

#[test]
fn streams_that_are_given_up_while_they_are_served_are_counted() {
    let mut engine = server();
    let mut told = None;
    for round in 0..100u32 {
        let streams: Vec<u32> = (0..100).map(|n| 2 * (100 * round + n) + 1).collect();
        let open: Vec<_> = streams.iter().map(|stream| headers(*stream, 1)).collect();
        hear(&mut engine, &open);
        let taken: Vec<_> = std::iter::from_fn(|| engine.next_arrived()).map(|arrived| arrived.slot).collect();
        let cancel: Vec<_> = streams.iter().map(|n| written(kind::RST_STREAM, 0, *n, &[0, 0, 0, 8])).collect();
        told = told.or_else(|| goaway(&hear(&mut engine, &cancel)));
        taken.into_iter().for_each(|slot| engine.release(slot));
    }
    assert_eq!(told, Some(ResetCode::CALM.0));
}

/// What waits for what all share is served in turn, however much one has to send.
#[test]
fn writers_take_turns() {
    let mut engine = server();
    let open: u32 = 0x7fff_0000;
    let window = |stream: u32| written(kind::WINDOW_UPDATE, 0, stream, &open.to_be_bytes());
    let frames: Vec<_> = (0..4).flat_map(|n| [headers(2 * n + 1, 1), window(2 * n + 1)]).collect();
    hear(&mut engine, &[frames, vec![window(0)]].concat());
    let slots: Vec<_> = std::iter::from_fn(|| engine.next_arrived()).map(|arrived| arrived.slot).collect();
    assert_eq!(slots.len(), 4);
    let wakes: Vec<_> = slots.iter().map(|_| Arc::new(Count::default())).collect();
    let mut left: Vec<_> = slots.iter().map(|_| Bytes::from(vec![0; 1 << 20])).collect();
    let mut due = [true; 4];
    for slot in &slots {
        engine.reply(*slot, false, false, ok).unwrap();
    }
    for _ in 0..12 {
        // Whoever was woken is polled, in the order of the slots: the first would always be first.
        while let Some(n) = due.iter().position(|due| *due) {
            due[n] = false;
            let waker = Waker::from(Arc::clone(&wakes[n]));
            assert!(engine.poll_send(slots[n], &mut left[n], true, &Context::from_waker(&waker)).is_pending());
            for (due, wakes) in due.iter_mut().zip(&wakes) {
                *due |= wakes.0.swap(0, Ordering::Relaxed) > 0;
            }
        }
        assert!(engine.waiting() <= ROOM);
        said(&mut engine);
        for (due, wakes) in due.iter_mut().zip(&wakes) {
            *due |= wakes.0.swap(0, Ordering::Relaxed) > 0;
        }
    }
    let sent: Vec<_> = left.iter().map(|left| (1usize << 20) - left.len()).collect();
    let (least, most) = (sent.iter().min().unwrap(), sent.iter().max().unwrap());
    assert!(*least > 0 && most - least <= 2 * ROOM, "{sent:?}");
}

#[test]
fn one_writer_is_woken_and_only_when_it_can_go_on() {
    let mut engine = server();
    let frames: Vec<_> = (0..100).map(|n| headers(2 * n + 1, 1)).collect();
    hear(&mut engine, &frames);
    let slots: Vec<_> = std::iter::from_fn(|| engine.next_arrived()).map(|arrived| arrived.slot).collect();
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    let cx = Context::from_waker(&waker);
    for slot in &slots {
        engine.reply(*slot, false, false, ok).unwrap();
        let _ = engine.poll_send(*slot, &mut Bytes::from(vec![0; 70_000]), true, &cx);
    }
    while !said(&mut engine).is_empty() {
        let _ = engine.poll_send(slots[0], &mut Bytes::from(vec![0; 70_000]), true, &cx);
        let _ = engine.poll_send(slots[1], &mut Bytes::from(vec![0; 70_000]), true, &cx);
    }
    assert_eq!(engine.send_window, 0);
    count.0.store(0, Ordering::Relaxed);
    for _ in 0..50 {
        hear(&mut engine, &[written(kind::PING, 0, 0, &[0; 8])]);
    }
    assert_eq!(count.0.load(Ordering::Relaxed), 0, "the connection's window is closed");
    hear(&mut engine, &[written(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])]);
    assert_eq!(count.0.load(Ordering::Relaxed), 1);
    // The first gives up: it is the next one's turn.
    engine.release(slots[0]);
    engine.release(slots[1]);
    assert!(count.0.load(Ordering::Relaxed) > 1);
}

#[test]
fn frames_of_a_stream_that_came_too_late_end_nothing() {
    let mut engine = server();
    hear(&mut engine, &[headers(1, 1)]);
    let slot = engine.next_arrived().unwrap().slot;
    engine.retire();
    let frames = said(&mut engine);
    hear(&mut engine, &[written(kind::PING, flag::ACK, 0, &frames[1].1)]);
    assert_eq!(engine.ending, Ending::Last);
    let late = [
        headers(3, 0),
        written(kind::DATA, 0, 3, b"x"),
        written(kind::WINDOW_UPDATE, 0, 3, &[0, 0, 0, 1]),
        written(kind::RST_STREAM, 0, 3, &[0, 0, 0, 8]),
        headers(5, 0),
        written(kind::DATA, 1, 5, b"x"),
    ];
    let frames = hear(&mut engine, &late);
    assert_eq!(reset(&frames), Some((3, ResetCode::REFUSED.0)));
    assert_eq!((goaway(&frames), engine.failed), (None, None));
    engine.reply(slot, true, false, ok).unwrap();
    assert!(engine.is_over());
}

#[test]
fn small_pieces_that_wait_become_large_ones() {
    let mut engine = server();
    hear(&mut engine, &[headers(1, 0)]);
    let slot = engine.next_arrived().unwrap().slot;
    let byte = |n: u32| written(kind::DATA, 0, 1, &[n as u8]);
    for n in 0..100_000 {
        hear(&mut engine, &[byte(n)]);
    }
    assert_eq!(engine.failed, None, "a slow reader ends nobody else's streams");
    let cx = Context::from_waker(Waker::noop());
    let (mut pieces, mut bytes) = (0, Vec::new());
    while let Poll::Ready(piece) = engine.poll_piece(slot, &cx) {
        let Piece::Data(data, false) = piece.unwrap() else { panic!("it has not ended") };
        bytes.extend_from_slice(&data);
        pieces += 1;
    }
    assert!(bytes.iter().enumerate().all(|(n, byte)| *byte == n as u8) && bytes.len() == 100_000);
    assert!(pieces < 10, "{pieces} pieces");
}

#[test]
fn a_request_that_never_left_was_not_looked_at() {
    let mut engine = client();
    let first = engine.open(true, false, get).unwrap();
    engine.hold(first);
    said(&mut engine);
    let second = engine.open(true, false, get).unwrap();
    engine.hold(second);
    engine.fail(H2Error::Lost(std::io::ErrorKind::UnexpectedEof));
    let cx = Context::from_waker(Waker::noop());
    let mut error = |slot| match engine.poll_head(slot, &cx) {
        Poll::Ready(Err(error)) => error,
        Poll::Ready(Ok(_)) | Poll::Pending => panic!("it has failed"),
    };
    assert_ne!(error(first), H2Error::Unsent);
    assert_eq!(error(second), H2Error::Unsent);
}

#[test]
fn what_arrived_before_a_write_failed_is_read() {
    let mut engine = client();
    let slot = engine.open(false, false, get).unwrap();
    engine.hold(slot);
    engine.mute(std::io::ErrorKind::BrokenPipe);
    assert!(engine.reads() && engine.waiting() == 0 && engine.max_streams() == 0);
    assert_eq!(engine.open(true, false, get).unwrap_err(), H2Error::Unsent);
    let reply = [written(kind::HEADERS, flag::END_HEADERS, 1, &[0x8c]), written(kind::DATA, 1, 1, b"no")];
    hear(&mut engine, &reply);
    let cx = Context::from_waker(Waker::noop());
    assert!(matches!(engine.poll_head(slot, &cx), Poll::Ready(Ok(head)) if head.status == 400));
    assert!(matches!(engine.poll_piece(slot, &cx), Poll::Ready(Ok(Piece::Data(_, true)))));
}

#[test]
fn answers_that_went_out_count_no_more() {
    let mut engine = server();
    hear(&mut engine, &[headers(1, 1), written(kind::WINDOW_UPDATE, 0, 1, &[0x10, 0, 0, 0])]);
    let slot = engine.next_arrived().unwrap().slot;
    engine.reply(slot, false, false, ok).unwrap();
    let cx = Context::from_waker(Waker::noop());
    for _ in 0..2000 {
        engine.receive(&mut BytesMut::from(&written(kind::PING, 0, 0, &[1; 8])[..]));
        // Something always waits behind them.
        let _ = engine.poll_send(slot, &mut Bytes::from(vec![0; 10_000]), false, &cx);
        engine.went_out(engine.waiting().saturating_sub(1));
        engine.receive(&mut BytesMut::from(&written(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0x30, 0])[..]));
        assert!(engine.reads());
    }
}

#[test]
fn a_server_says_which_requests_it_has_taken() {
    let mut engine = server();
    let told = written(kind::GOAWAY, 0, 0, &[0; 8]);
    hear(&mut engine, &[headers(1, 1), told]);
    let slot = engine.next_arrived().unwrap().slot;
    engine.reply(slot, true, false, ok).unwrap();
    assert!(engine.is_over());
    engine.conclude();
    let frames = said(&mut engine);
    let last = frames.iter().find(|(head, _)| head.kind == kind::GOAWAY).map(|(_, payload)| payload[..4].to_vec());
    assert_eq!(last, Some(vec![0, 0, 0, 1]));
}

#[test]
fn windows_of_one_frame_of_settings_are_taken_together() {
    let mut engine = server();
    let setting = |value: u32| [vec![0, 4], value.to_be_bytes().to_vec()].concat();
    let settings = [setting(70_000), setting(0), setting(65_535)].concat();
    hear(&mut engine, &[headers(1, 1), written(kind::SETTINGS, 0, 0, &settings)]);
    assert_eq!(engine.streams.get(0).unwrap().send_window, 65_535);
    let frames = hear(&mut engine, &[written(kind::SETTINGS, 0, 0, &[setting(1 << 31), setting(1)].concat())]);
    assert_eq!(goaway(&frames), Some(ResetCode::FLOW_CONTROL.0));
}
