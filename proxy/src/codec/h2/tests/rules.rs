//! Rules of frames and streams, and what a peer is held to.

use bytes::BytesMut;

use super::super::error::{H2Error, ResetCode};
use super::super::frame::{flag, kind};
use super::super::head::Refusal;
use super::super::hpack::encode::Encoder;
use super::*;

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
    assert_eq!(engine.next_arrived().unwrap().head.unwrap_err().cause, Refusal::Malformed);
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
