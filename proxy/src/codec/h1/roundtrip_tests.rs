//! What is written is what was read: random heads near the rules, taken in and passed on.

use proptest::prelude::*;

use super::parse::{self, Framing, HeadError, Limits, Request};
use super::write;
use crate::codec::head::{Edit, RequestHead};

const LIMITS: Limits = Limits { bytes: 65_535, fields: 100 };

fn parse(head: impl AsRef<[u8]>) -> Result<Option<(Request, usize)>, HeadError> {
    parse::request(head.as_ref(), LIMITS)
}

/// Beginnings that are good so far, and none.
const STARTS: [&str; 6] = [
    "",
    "GET / HTTP/1.1\r\nHost: a\r\n",
    "POST /f HTTP/1.1\r\nHost: a\r\n",
    "GET http://b HTTP/1.1\r\nHost: a\r\n",
    "POST / HTTP/1.0\r\n",
    "OPTIONS http://b HTTP/1.1\r\n",
];

/// Pieces that heads are made of, good and bad; random sequences of them come near the rules.
const PIECES: [&[u8]; 40] = [
    b"GET ",
    b"POST ",
    b"OPTIONS ",
    b"CONNECT ",
    b"/",
    b"/f?x",
    b"*",
    b"http://b",
    b"http://b/f",
    b"b:80",
    b" HTTP/1.1\r\n",
    b" HTTP/1.0\r\n",
    b"GET / HTTP/1.1\r\n",
    b"GET http://b HTTP/1.1\r\n",
    b"POST /f HTTP/1.1\r\nHost: a\r\n",
    b"Host: a\r\n",
    b"Host:\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"Connection: upgrade, x-a\r\n",
    b"Upgrade: websocket\r\n",
    b"Upgrade: h2c\r\n",
    b"TE: trailers\r\n",
    b"Expect: 100-continue\r\n",
    b"X-A: b\r\n",
    b"X-B:\t\xff \r\n",
    b"x-forwarded-client-cert: x\r\n",
    b"\r\n",
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b":",
    b"\t",
    b"\0",
    b"\x0b",
    b"a",
    b"\x80",
];

/// What a request is, apart from its fields.
fn shape(request: &Request) -> (&str, &str, &str, Framing, bool) {
    let text = |range| request.raw.text(range);
    (text(&request.method), text(&request.path), text(&request.authority), request.framing, request.upgrade)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    /// What is passed on is read by the next proxy as we read it: the same request, and nothing behind it.
    #[test]
    fn what_is_written_reads_as_what_was_read(
        start in prop::sample::select(&STARTS[..]),
        pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..8),
        end in prop::sample::select(&["", "\r\n", "\r\n\r\n"][..]),
    ) {
        let bytes = [start.as_bytes(), &pieces.concat(), end.as_bytes()].concat();
        let Ok(Some((request, length))) = parse(&bytes) else { return Ok(()) };
        for end in 0..length {
            prop_assert!(!matches!(parse(&bytes[..end]), Ok(Some(_))), "accepted at {end} of {length} bytes");
        }
        let mut out = Vec::new();
        let head = RequestHead::H1(request);
        write::request(&head, Edit { peer: Some("URI=x"), ..Edit::default() }, write::Framing::Same, &mut out);
        let RequestHead::H1(request) = head else { return Ok(()) };
        match parse(&out) {
            Ok(Some((again, length))) => {
                prop_assert_eq!(length, out.len());
                prop_assert_eq!(shape(&again), shape(&request));
            }
            other => prop_assert!(false, "{:?} came out of {:?}", other, String::from_utf8_lossy(&out)),
        }
    }

    #[test]
    fn no_bytes_make_the_parser_fail(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes);
        let _ = parse([b"GET / HTTP/1.1\r\nHost: a\r\n", &bytes[..]].concat());
        let _ = parse::response(&[b"HTTP/1.1 200 OK\r\n", &bytes[..]].concat(), false, LIMITS);
    }
}
