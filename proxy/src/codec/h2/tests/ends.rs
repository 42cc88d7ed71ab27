//! How connections end, and what becomes of their streams.

use std::task::{Context, Poll, Waker};

use super::super::engine::{Ending, Engine};
use super::super::error::{H2Error, ResetCode};
use super::super::frame::{self, flag, kind};
use super::super::send::Piece;
use super::*;

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
