//! Heads of HTTP/2 requests that must reach nobody (security.md 1.3): each breaks one rule of a request that is good
//! without it. In plain, and from a peer of the mesh.

use tulle_testing::client::frames::{END_HEADERS, END_STREAM, block, frame, kind};

use crate::target::{App, Target, Way};

type Field<'f> = (&'f [u8], &'f [u8]);

/// A good request.
const GOOD: [Field<'_>; 4] =
    [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"a.test")];

/// Values that a pseudo-header must not have, by its place in [`GOOD`].
const PSEUDO: &[(&str, usize, &[u8])] = &[
    ("DG-01", 0, b"GET / HTTP/1.1\r\nX: y"),
    ("DG-01", 0, b"GET /x"),
    ("DG-01", 0, b"GET?"),
    ("DG-01", 0, b""),
    ("DG-01", 0, b"CONNECT"),
    ("DG-01", 1, b"http://evil/?"),
    ("DG-01", 1, b""),
    ("DG-01", 1, b"ht tp"),
    ("DG-01", 1, b"ftp"),
    ("DG-01", 2, b"/f HTTP/1.1\r\nHost: x\r\n\r\nGET /smug"),
    ("DG-01", 2, b"/f x"),
    ("DG-01", 2, b""),
    ("DG-01", 2, b"*"),
    ("DG-01", 2, b"admin"),
    ("DG-01", 2, b"http://evil/x"),
    ("DG-01", 2, b"/a\tb"),
    ("DG-01", 2, b"/a\x00b"),
    ("DG-01", 2, b"/a\x7fb"),
    ("DG-01", 3, b"a\r\nX: y"),
    ("DG-01", 3, b"a/x"),
    ("DG-01", 3, b"a b"),
    ("DG-01", 3, b""),
    ("DG-01", 3, b"u@a"),
    ("DG-01", 3, b"a:80x"),
    ("DG-01", 3, b"a, b"),
    ("DG-01", 3, b"a\x00"),
];

/// Fields that a request must not have beside those of [`GOOD`].
const EXTRA: &[(&str, Field<'_>)] = &[
    ("DG-01", (b":path", b"/second")),
    ("DG-01", (b":authority", b"b.test")),
    ("DG-01", (b":unknown", b"x")),
    ("DG-01", (b":status", b"200")),
    ("DG-02", (b"x-a", b"1\r\nX: y")),
    ("DG-02", (b"x-a", b"1\n")),
    ("DG-02", (b"x-a", b"a\x00b")),
    ("DG-02", (b"x-a", b"a\x7fb")),
    ("DG-02", (b"X-Upper", b"1")),
    ("DG-02", (b"x:a", b"1")),
    ("DG-02", (b"x a", b"1")),
    ("DG-02", (b"x\r\ny", b"1")),
    ("DG-02", (b"", b"1")),
    ("DG-02", (b"x\x80", b"1")),
    ("DG-02", (b"x\t", b"1")),
    ("DG-03", (b"transfer-encoding", b"chunked")),
    ("DG-03", (b"connection", b"close")),
    ("DG-03", (b"connection", b"upgrade")),
    ("DG-03", (b"upgrade", b"h2c")),
    ("DG-03", (b"keep-alive", b"timeout=5")),
    ("DG-03", (b"proxy-connection", b"close")),
    ("DG-03", (b"te", b"gzip")),
    ("DG-03", (b"content-length", b"5")),
    ("DG-04", (b"host", b"evil.test")),
];

/// Lengths that a body of two bytes must not be said to have.
const LENGTHS: &[(&str, &[&[u8]])] = &[
    ("DG-03", &[b"1"]),
    ("DG-03", &[b"9"]),
    ("DG-03", &[b"+2"]),
    ("DG-03", &[b"2", b"3"]),
    ("DG-03", &[b"2, 2"]),
    ("DG-03", &[b"x"]),
    ("DG-03", &[b"18446744073709551618"]),
];

#[tokio::test]
async fn malformed_heads_reach_nobody() {
    for way in Way::ALL {
        let target = Target::start(|builder| builder).await;
        assert!(served(&target, way, &GOOD, None).await, "the request without a fault is served");
        let length = [&GOOD[..], &[(b"content-length", b"2")]].concat();
        assert!(served(&target, way, &length, Some(b"ab")).await, "and so it is with a body");
        let bad = |id: &str, fields: &[Field<'_>]| format!("{} {id}: {}", way.name(), shown(fields));
        for (id, at, value) in PSEUDO {
            let mut fields = GOOD;
            fields[*at].1 = value;
            assert!(!served(&target, way, &fields, None).await, "{}", bad(id, &fields));
        }
        for missing in 0..4 {
            let fields: Vec<Field<'_>> =
                GOOD.iter().enumerate().filter(|(at, _)| *at != missing).map(|(_, field)| *field).collect();
            assert!(!served(&target, way, &fields, None).await, "{}", bad("DG-01", &fields));
        }
        for (id, field) in EXTRA {
            let fields = [&GOOD[..], &[*field]].concat();
            assert!(!served(&target, way, &fields, None).await, "{}", bad(id, &fields));
        }
        let late = [&[(&b"x-a"[..], &b"1"[..])], &GOOD[..]].concat();
        assert!(!served(&target, way, &late, None).await, "{}", bad("DG-01", &late));
        for (id, lengths) in LENGTHS {
            let lengths = lengths.iter().map(|length| (&b"content-length"[..], *length));
            let fields: Vec<Field<'_>> = GOOD.iter().copied().chain(lengths).collect();
            assert!(!served(&target, way, &fields, Some(b"ab")).await, "{}", bad(id, &fields));
        }
        let whole: Vec<_> = target.http2.requests().into_iter().skip(2).filter(|seen| seen.reset.is_none()).collect();
        assert!(whole.is_empty(), "{}: the application must see none of it: {whole:?}", way.name());
        target.ask(way).await;
    }
}

fn shown(fields: &[Field<'_>]) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{:?}", fields.iter().map(|(name, value)| text(name) + ": " + &text(value)).collect::<Vec<_>>())
}

/// Sends one request in frames; whether it was answered 200, and not refused: by RST_STREAM, GOAWAY, another status,
/// or the end of the connection.
async fn served(target: &Target, way: Way, fields: &[Field<'_>], body: Option<&[u8]>) -> bool {
    let mut frames = target.frames(way, App::Http2).await;
    let end = if body.is_none() { END_STREAM } else { 0 };
    let mut bytes = frame(kind::HEADERS, END_HEADERS | end, 1, &block(fields));
    if let Some(body) = body {
        bytes.extend(frame(kind::DATA, END_STREAM, 1, body));
    }
    frames.send(bytes).await;
    let verdict = frames.find(|frame| matches!(frame.kind, kind::HEADERS | kind::RST_STREAM | kind::GOAWAY)).await;
    verdict.is_some_and(|frame| frame.is_ok())
}
