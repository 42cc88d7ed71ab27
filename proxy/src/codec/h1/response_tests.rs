//! The tables of reply heads: what is refused, how bodies are framed, when the connection can be used again.

use super::parse::{self, Framing, HeadError, Limits, Response};

const LIMITS: Limits = Limits { bytes: 65_535, fields: 100 };

fn parse(head: impl AsRef<[u8]>, to_head: bool) -> Result<Option<(Response, usize)>, HeadError> {
    parse::response(head.as_ref(), to_head, LIMITS)
}

fn accepted(head: &str, to_head: bool) -> Response {
    match parse(head, to_head) {
        Ok(Some((response, length))) => {
            assert_eq!(length, head.len(), "{head:?}");
            response
        }
        other => panic!("{head:?}: {other:?}"),
    }
}

#[test]
fn ambiguous_or_malformed_replies_are_refused() {
    let heads: [&[u8]; 22] = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length : 5\r\nContent-Length: 6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-A: 1\r\n folded\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-A: a\rb\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-A: a\x00b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n: x\r\n\r\n",
        b"HTTP/1.1 099 Low\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"220 mail ready\r\n\r\n",
    ];
    for head in heads {
        let shown = String::from_utf8_lossy(head);
        assert!(parse(head, false).is_err(), "{shown:?}");
        for end in 0..head.len() {
            assert!(!matches!(parse(&head[..end], false), Ok(Some(_))), "{shown:?} was accepted at {end} bytes");
        }
    }
}

#[test]
fn framing_and_reuse() {
    for (head, to_head, framing, reusable) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", false, Framing::Length(5), true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false, Framing::Length(0), true),
        ("HTTP/1.1 200\r\nContent-Length: 5\r\n\r\n", false, Framing::Length(5), true),
        ("HTTP/1.1 200 \r\nContent-Length: 5\r\n\r\n", false, Framing::Length(5), true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: x, close\r\n\r\n", false, Framing::Length(5), false),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", false, Framing::Chunked, true),
        ("HTTP/1.1 200 OK\r\n\r\n", false, Framing::UntilClose, false),
        ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", false, Framing::Length(5), false),
        ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n", false, Framing::Length(5), true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true, Framing::None, true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", true, Framing::None, true),
        ("HTTP/1.1 200 OK\r\n\r\n", true, Framing::None, true),
        ("HTTP/1.1 204 No Content\r\n\r\n", false, Framing::None, true),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", false, Framing::None, true),
        ("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", false, Framing::None, true),
        ("HTTP/1.1 299 Anything \u{e4}\r\nContent-Length: 1\r\n\r\n", false, Framing::Length(1), true),
        ("HTTP/1.1 999 Far\r\nContent-Length: 1\r\n\r\n", false, Framing::Length(1), true),
    ] {
        let response = accepted(head, to_head);
        assert_eq!(response.framing, framing, "{head:?}");
        assert_eq!(response.keep_alive, reusable, "{head:?}");
    }
}

/// RFC 9112 section 5.1: a proxy removes the blank, and means the same field.
#[test]
fn mend_07_white_space_before_a_colon_is_removed() {
    for blank in [" ", "\t", "  \t "] {
        let head = format!("HTTP/1.1 200 OK\r\nX-Name{blank}: value\r\nContent-Length{blank}: 5\r\n\r\n");
        let response = accepted(&head, false);
        assert_eq!(response.framing, Framing::Length(5), "{blank:?}");
        let fields: Vec<_> = response.raw.fields.iter().map(|f| response.raw.slice(&f.name)).collect();
        assert_eq!(fields, [&b"X-Name"[..], b"Content-Length"], "{blank:?}");
    }
}

#[test]
fn mend_14_an_idle_time_is_read() {
    for (fields, seconds) in [
        ("Keep-Alive: timeout=5\r\n", Some(5)),
        ("keep-alive: max=100, Timeout = 60\r\n", Some(60)),
        ("Keep-Alive: timeout=0\r\n", Some(0)),
        ("Keep-Alive: timeout=x\r\n", None),
        ("Keep-Alive: timeout=99999999999999999999\r\n", None),
        ("Keep-Alive: max=5\r\n", None),
        ("Keep-Alive:\r\n", None),
        ("", None),
    ] {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{fields}\r\n");
        assert_eq!(accepted(&head, false).idle_secs, seconds, "{fields:?}");
    }
}

#[test]
fn a_switch_of_protocols() {
    let switch = |fields: &str| accepted(&format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n"), false).upgrade;
    assert!(switch("Connection: upgrade\r\nUpgrade: websocket\r\n"));
    assert!(!switch("Connection: upgrade\r\nUpgrade: h2c\r\n"));
    assert!(!switch(""));
    assert!(!accepted("HTTP/1.1 200 OK\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", false).upgrade);
    // 426 says which protocol is required (RFC 9110 section 15.5.22); nothing is switched.
    let required = "HTTP/1.1 426 Upgrade Required\r\nUpgrade: TLS/1.0\r\nContent-Length: 0\r\n\r\n";
    let required = accepted(required, false);
    assert!(required.upgrade && !required.switches());
}

#[test]
fn heads_larger_than_the_limit_are_refused() {
    let head = |size: usize| format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "a".repeat(size));
    let rest = head(0).len();
    assert!(parse(head(LIMITS.bytes - rest), false).is_ok());
    assert_eq!(parse(head(LIMITS.bytes - rest + 1), false).err(), Some(HeadError::TooLarge));
    assert_eq!(parse(&head(100_000).as_bytes()[..LIMITS.bytes], false).err(), Some(HeadError::TooLarge));
    let many = |count: usize| format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(count));
    assert!(parse(many(LIMITS.fields), false).is_ok());
    assert_eq!(parse(many(LIMITS.fields + 1), false).err(), Some(HeadError::TooLarge));
}
