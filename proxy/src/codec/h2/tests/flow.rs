//! What waits, and for what: windows, room, turns.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};

use super::super::engine::{Engine, ROOM, STREAM_WINDOW};
use super::super::error::ResetCode;
use super::super::frame::{flag, kind};
use super::super::hpack::encode::Encoder;
use super::super::send::Piece;
use super::*;

#[test]
fn a_peer_that_does_not_read_is_not_read() {
    let mut engine = server();
    let mut input = BytesMut::from(&vec![written(kind::PING, 0, 0, &[1; 8]); 5000].concat()[..]);
    engine.receive(&mut input);
    assert!(!engine.reads() && engine.waiting() < 20_000 && !input.is_empty());
    said(&mut engine);
    assert!(engine.reads());
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
fn windows_of_one_frame_of_settings_are_taken_together() {
    let mut engine = server();
    let setting = |value: u32| [vec![0, 4], value.to_be_bytes().to_vec()].concat();
    let settings = [setting(70_000), setting(0), setting(65_535)].concat();
    hear(&mut engine, &[headers(1, 1), written(kind::SETTINGS, 0, 0, &settings)]);
    assert_eq!(engine.streams.get(0).unwrap().send_window, 65_535);
    let frames = hear(&mut engine, &[written(kind::SETTINGS, 0, 0, &[setting(1 << 31), setting(1)].concat())]);
    assert_eq!(goaway(&frames), Some(ResetCode::FLOW_CONTROL.0));
}
