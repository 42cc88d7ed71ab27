//! What a proxy counts as a request is what the application receives; what is ambiguous reaches nobody.

use tulle_testing::upstream::Reply;
use tulle_testing::upstream::http1::Recorded;

use crate::boundary_lanes::Lane;

/// A second request behind each refused one, which must not be seen either.
const SMUGGLED: &[u8] = b"GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n";

/// Requests that are refused whole: a line for each, after `POST /f HTTP/1.1` and a host where it begins with `+`.
const AMBIGUOUS: &[(&str, &str)] = &[
    ("FR-01", "+Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG"),
    (
        "FR-02",
        "+Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n5c\r\nGPOST / HTTP/1.1\r\nContent-Length: 15\r\n\r\nx=1\r\n0\r\n\r\n",
    ),
    ("FR-03", "+Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    ("FR-03", "+Transfer-Encoding: identity\r\n\r\n0\r\n\r\n"),
    ("FR-03", "+Transfer-Encoding:\r\n\r\n0\r\n\r\n"),
    ("FR-03", "+Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
    ("FR-03", "+Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    ("FR-03", "+Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
    ("FR-03", "+Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"),
    ("FR-03", "+Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n"),
    ("FR-03", "+Transfer-Encoding: blegh\r\n\r\n0\r\n\r\n"),
    ("FR-03", "+Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    ("FR-03", "+Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n"),
    ("FR-03", "+Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n"),
    ("FR-03", "+Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n"),
    ("FR-03", "+Transfer-Encoding: \u{a0}chunked\u{a0}\r\n\r\n0\r\n\r\n"),
    ("FR-04", "+Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("FR-04", "+Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"),
    ("FR-04", "+Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("FR-05", "POST /f HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("FR-07", "+Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
    ("FR-07", "+Content-Length : 34\r\n\r\n"),
    ("FR-09", "+Content-Length: 2\r\nContent-Length: 2\r\n\r\nok"),
    ("FR-09", "+Content-Length: 2, 2\r\n\r\nok"),
    ("FR-10", "+Content-Length: 1\r\nContent-Length: 0\r\n\r\nk"),
    ("FR-10", "+Content-Length: 0\r\nContent-Length: 1\r\n\r\nk"),
    ("FR-10", "+Content-Length: 0\r\nContent-Length: 31\r\n\r\nGET /x HTTP/1.1\r\nHost: b\r\n\r\n"),
    ("FR-10", "+Content-Length: 2, 3\r\n\r\nok"),
    ("FR-11", "+Content-Length: +1\r\n\r\nk"),
    ("FR-11", "+Content-Length: +1_0\r\n\r\nk"),
    ("FR-11", "+Content-Length: -48\r\n\r\n"),
    ("FR-11", "+Content-Length: 1Z\r\n\r\nk"),
    ("FR-11", "+Content-Length:\r\nContent-Length: 43\r\n\r\n"),
    ("FR-11", "+Content-Length: 0x10\r\n\r\n"),
    ("FR-11", "+Content-Length:\r\n\r\n"),
    ("FR-11", "+Content-Length: 18446744073709551616\r\n\r\n"),
    ("FR-16", "POST /f HTTP/1.1\nHost: a.test\n\n"),
    ("FR-16", "+X: y\nContent-Length: 30\r\n\r\n"),
    ("FR-18", "+X-A: 1\r\n continued\r\n\r\n"),
    ("FR-18", "GET /f HTTP/1.1\r\n Host: a.test\r\n\r\n"),
    ("FR-19", "+: x\r\n\r\n"),
    ("FR-19", "+Content-Length 10\r\n\r\n"),
    ("FR-19", "+Te\nst: x\r\n\r\n"),
    ("FR-19", "+Transfer-\r\nEncoding: chunked\r\n\r\n"),
    ("FR-19", "+Header\u{85}: x\r\n\r\n"),
    ("FR-19", "+\u{ef}oo: x\r\n\r\n"),
    ("FR-20", "GET\t/f HTTP/1.1\r\nHost: a.test\r\n\r\n"),
    ("FR-20", "GET /f\tHTTP/1.1\r\nHost: a.test\r\n\r\n"),
    ("FR-20", "GET /f http/1.1\r\nHost: a.test\r\n\r\n"),
    ("FR-20", "GET /f HTTP/1.32\r\nHost: a.test\r\n\r\n"),
    ("FR-20", "GET /f HTTP/0.9\r\nHost: a.test\r\n\r\n"),
    ("FR-20", "GET /f\r\nHost: a.test\r\n\r\n"),
    ("FR-20", "GET /\nHTTP/1.1\r\nHost: a.test\r\n\r\n"),
    ("FR-20", "GET /\u{ff} HTTP/1.1\r\nHost: a.test\r\n\r\n"),
    ("FR-20", "GET /a b HTTP/1.1\r\nHost: a.test\r\n\r\n"),
    ("FR-20", "GET  /f HTTP/1.1\r\nHost: a.test\r\n\r\n"),
    ("FR-20", "GET /f HTTP/1.1 \r\nHost: a.test\r\n\r\n"),
    ("FR-20", "GET /f HTTP/1.2\r\nHost: a.test\r\n\r\n"),
    ("FR-20", "GET /f HTTP/4294967295.255\r\nHost: a.test\r\n\r\n"),
    ("FR-20", "GET /a\0b HTTP/1.1\r\nHost: a.test\r\n\r\n"),
    ("TG-01", "GET /f HTTP/1.1\r\n\r\n"),
    ("TG-02", "GET /f HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
    ("TG-02", "GET /f HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
    ("TG-02", "GET /f HTTP/1.1\r\nHost: a, b\r\n\r\n"),
    ("TG-03", "GET /f HTTP/1.1\r\nHost: u@a\r\n\r\n"),
    ("TG-03", "GET /f HTTP/1.1\r\nHost: a/admin\r\n\r\n"),
    ("TG-03", "GET /f HTTP/1.1\r\nHost: a b\r\n\r\n"),
    ("TG-03", "GET /f HTTP/1.1\r\nHost: a:80x\r\n\r\n"),
    ("TG-03", "GET /f HTTP/1.1\r\nHost:\r\n\r\n"),
    ("TG-03", "GET /f HTTP/1.1\r\nHost: a\0.b\r\n\r\n"),
    ("TG-05", "GET http:///admin HTTP/1.1\r\nHost: a.test\r\n\r\n"),
    ("TG-05", "GET http://b#f HTTP/1.1\r\nHost: a.test\r\n\r\n"),
    ("TG-05", "GET http://u:p@b/f HTTP/1.1\r\nHost: a.test\r\n\r\n"),
    ("TG-05", "GET file:///etc/passwd HTTP/1.1\r\nHost: a.test\r\n\r\n"),
    ("TG-06", "GET * HTTP/1.1\r\nHost: a.test\r\n\r\n"),
    ("TG-06", "GET admin HTTP/1.1\r\nHost: a.test\r\n\r\n"),
    ("TG-06", "GET a.test:80 HTTP/1.1\r\nHost: a.test\r\n\r\n"),
    ("TG-06", "GET /f#g HTTP/1.1\r\nHost: a.test\r\n\r\n"),
    ("TG-06", "OPTIONS */x HTTP/1.1\r\nHost: a.test\r\n\r\n"),
    ("TN-02", "CONNECT /x HTTP/1.1\r\nHost: a.test\r\n\r\n"),
    ("TN-02", "CONNECT http://test/bar HTTP/1.1\r\nHost: a.test\r\n\r\n"),
    ("TN-02", "CONNECT * HTTP/1.1\r\nHost: a.test\r\n\r\n"),
    ("TN-02", "CONNECT b HTTP/1.1\r\nHost: a.test\r\n\r\n"),
];

/// Bodies that break their framing before any of them can be passed on.
const BROKEN: &[(&str, &str)] = &[
    ("FR-22", "+Transfer-Encoding: chunked\r\n\r\nxyz\r\n"),
    ("FR-22", "+Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n"),
    ("FR-22", "+Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n"),
    ("FR-22", "+Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n"),
    ("FR-22", "+Transfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\nhello\r\n0\r\n\r\n"),
    ("FR-22", "+Transfer-Encoding: chunked\r\n\r\n5;\0\r\nhello\r\n0\r\n\r\n"),
    ("FR-22", "+Transfer-Encoding: chunked\r\n\r\n0\r\nbad name: x\r\n\r\n"),
    ("FR-22", "+Transfer-Encoding: chunked\r\n\r\n0\r\nX-A: 1\n\r\n"),
];

fn whole(row: &str) -> Vec<u8> {
    match row.strip_prefix('+') {
        Some(fields) => format!("POST /f HTTP/1.1\r\nHost: a.test\r\n{fields}").into_bytes(),
        None => row.as_bytes().to_vec(),
    }
}

#[tokio::test]
async fn ambiguous_requests_are_refused_and_reach_nobody() {
    for lane in Lane::all(|_| Reply::ok("hello")).await {
        for (_, row) in AMBIGUOUS {
            lane.refused(&[&whole(row), SMUGGLED].concat(), &[400, 501, 505]).await;
        }
        // Bytes that no text can hold.
        for value in [&b"\xa0chunked\xa0"[..], b"\xffchunked\xff"] {
            let bytes = [b"POST /f HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: ", value, b"\r\n\r\n0\r\n\r\n"];
            lane.refused(&bytes.concat(), &[400, 501]).await;
        }
        // TN-01
        assert_eq!(lane.refused(b"CONNECT b:80 HTTP/1.1\r\nHost: b:80\r\n\r\n", &[405]).await, 405);
        assert_eq!(lane.app.connections(), 0, "{}: something was dialled", lane.name);
        for (_, row) in BROKEN {
            lane.refused(&[&whole(row), SMUGGLED].concat(), &[400]).await;
        }
        assert_eq!(lane.connect().await.exchange("GET", "/", "a.test").await.status, 200);
        assert_eq!(lane.app.requests().len(), 1, "{}", lane.name);
    }
}

/// A request that is accepted, and what the application gets of it.
struct Row {
    id: &'static str,
    sent: &'static str,
    line: &'static str,
    host: &'static str,
    body: &'static str,
    /// Fields that must be there, with these values; `-` for absent.
    fields: &'static [(&'static str, &'static str)],
}

const fn row(
    id: &'static str,
    sent: &'static str,
    line: &'static str,
    host: &'static str,
    body: &'static str,
    fields: &'static [(&'static str, &'static str)],
) -> Row {
    Row { id, sent, line, host, body, fields }
}

const CHUNKED: &[(&str, &str)] = &[("transfer-encoding", "chunked"), ("content-length", "-")];

const ACCEPTED: &[Row] = &[
    row("FR-11", "+\r\n", "POST /f", "a.test", "", &[("content-length", "-"), ("transfer-encoding", "-")]),
    row(
        "FR-11",
        "+Content-Length: 0\r\n\r\n",
        "POST /f",
        "a.test",
        "",
        &[("content-length", "0"), ("transfer-encoding", "-")],
    ),
    row("FR-11", "+Content-Length: 5\r\n\r\nhello", "POST /f", "a.test", "hello", &[("content-length", "5")]),
    row("FR-11", "+Content-Length:\t005 \r\n\r\nhello", "POST /f", "a.test", "hello", &[]),
    row("FR-03", "+Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "POST /f", "a.test", "hello", CHUNKED),
    row("FR-03", "+Transfer-Encoding:\tChunked \r\n\r\n0\r\n\r\n", "POST /f", "a.test", "", &[("content-length", "-")]),
    row(
        "FR-22",
        "+transfer-encoding: chunked\r\n\r\n5;a=b;c=\"d\"\r\nhello\r\n006;x\r\n world\r\n0;last\r\n\r\n",
        "POST /f",
        "a.test",
        "hello world",
        CHUNKED,
    ),
    row("FR-21", "\r\nGET /x?y=1&z=%20 HTTP/1.1\r\nhOsT: a.test:80\r\n\r\n", "GET /x?y=1&z=%20", "a.test:80", "", &[]),
    row("FR-21", "\r\n\r\nGET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "GET /", "[::1]:80", "", &[]),
    row("TG-04", "GET http://b.test/f HTTP/1.1\r\nHost: a.test\r\n\r\n", "GET /f", "b.test", "", &[]),
    row("TG-04", "GET http://b.test:81 HTTP/1.1\r\nHost: a.test\r\n\r\n", "GET /", "b.test:81", "", &[]),
    row("TG-06", "OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n", "OPTIONS *", "a.test", "", &[]),
    row("TG-06", "OPTIONS http://b.test HTTP/1.1\r\nHost: a.test\r\n\r\n", "OPTIONS *", "b.test", "", &[]),
    row("TG-06", "M-SEARCH //a/../b HTTP/1.1\r\nHost: a\r\n\r\n", "M-SEARCH //a/../b", "a", "", &[]),
    row("RB-19", "+Expect: 200-ok\r\nContent-Length: 2\r\n\r\nok", "POST /f", "a.test", "ok", &[("expect", "200-ok")]),
    row(
        "FR-11",
        "GET /g HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nget",
        "GET /g",
        "a",
        "get",
        &[("content-length", "3")],
    ),
    row("RB-19", "HEAD /h HTTP/1.1\r\nHost: a\r\n\r\n", "HEAD /h", "a", "", &[]),
    row("TG-04", "GET http://b.test?x=1 HTTP/1.1\r\nHost: a.test\r\n\r\n", "GET /?x=1", "b.test", "", &[]),
    row("FR-03", "+Transfer-Encoding: chunked\t\r\n\r\n0\r\n\r\n", "POST /f", "a.test", "", &[("content-length", "-")]),
];

#[tokio::test]
async fn accepted_requests_arrive_with_the_same_boundaries() {
    let answer = |request: &Recorded| match request.method() {
        "HEAD" => Reply::head(200, &[("content-length", "7")]),
        method => Reply::ok(format!("{method} {}", request.path())),
    };
    for lane in Lane::both(answer).await {
        for (at, row) in ACCEPTED.iter().enumerate() {
            let mut raw = lane.connect().await;
            let next = format!("GET /next{at} HTTP/1.1\r\nHost: next\r\n\r\n");
            raw.send([whole(row.sent), next.into_bytes()].concat()).await;
            let method = row.line.split(' ').next().unwrap_or_default();
            let (first, second) = (raw.response_to(method).await, raw.response().await);
            assert_eq!(first.status, 200, "{}: {} {:?}", lane.name, row.id, row.sent);
            if method != "HEAD" {
                assert_eq!(first.text(), row.line, "{}: {} {:?}", lane.name, row.id, row.sent);
            }
            assert_eq!(second.text(), format!("GET /next{at}"), "{}: {} {:?}", lane.name, row.id, row.sent);
            let (seen, next) = (lane.app.request(2 * at).await, lane.app.request(2 * at + 1).await);
            check(&lane, row, &seen);
            assert_eq!((next.path(), next.header("host")), (format!("/next{at}").as_str(), Some("next")));
        }
        assert_eq!(lane.app.requests().len(), 2 * ACCEPTED.len(), "{}", lane.name);
    }
}

fn check(lane: &Lane, row: &Row, seen: &Recorded) {
    let what = format!("{}: {:?} arrived as {:?}", lane.name, row.sent, String::from_utf8_lossy(&seen.head_bytes));
    assert_eq!(format!("{} {}", seen.method(), seen.path()), row.line, "{what}");
    assert_eq!(seen.header("host"), Some(row.host), "{what}");
    assert_eq!(String::from_utf8_lossy(&seen.body), row.body, "{what}");
    assert!(!String::from_utf8_lossy(&seen.body_bytes).contains(';'), "{what}: chunk extensions");
    for (name, value) in row.fields {
        assert_eq!(seen.header(name), Some(*value).filter(|value| *value != "-"), "{what}: {name}");
    }
}

#[tokio::test]
async fn a_body_that_breaks_its_framing_ends_both_connections() {
    for lane in Lane::both(|_| Reply::ok("hello")).await {
        lane.connect().await.exchange("GET", "/before", "a").await;
        let mut raw = lane.connect().await;
        raw.send("POST /broken HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
        // The application has the head and the first chunk when the rest breaks.
        let seen = lane.app.connections();
        raw.send([b"nonsense\r\n", SMUGGLED].concat()).await;
        let reply = raw.response().await;
        assert_eq!((reply.status, reply.header("connection")), (400, Some("close")), "{}", lane.name);
        raw.expect_close().await;
        let broken = lane.app.request(1).await;
        assert!(broken.cut, "{}: {:?}", lane.name, broken.body);
        lane.connect().await.exchange("GET", "/after", "a").await;
        let after = lane.app.request(2).await;
        assert_eq!(after.path(), "/after");
        assert_ne!(after.connection, broken.connection, "{}: reused after a framing error", lane.name);
        assert!(lane.app.connections() > seen.min(1), "{}", lane.name);
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let answer = |request: &Recorded| match request.path() {
        path if path.ends_with('3') => Reply::chunked(&[b"chunked ", path.as_bytes()], &[]),
        path => Reply::ok(path),
    };
    for lane in Lane::both(answer).await {
        let mut bytes = Vec::new();
        for n in 0..40 {
            let body = "b".repeat(n * 37);
            bytes.extend(
                match n % 3 {
                    0 => format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n"),
                    1 => format!("POST /{n} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
                    _ => format!(
                        "PUT /{n} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
                        body.len()
                    ),
                }
                .into_bytes(),
            );
        }
        let mut raw = lane.connect().await;
        raw.send(bytes).await;
        for n in 0..40 {
            let expected = if n % 10 == 3 { format!("chunked /{n}") } else { format!("/{n}") };
            assert_eq!(raw.response().await.text(), expected, "{}", lane.name);
        }
        for (n, request) in lane.app.requests().iter().enumerate() {
            assert_eq!(request.path(), format!("/{n}"), "{}", lane.name);
            assert_eq!(request.body.len(), if n % 3 == 0 { 0 } else { n * 37 }, "{}: {n}", lane.name);
        }
    }
}

#[tokio::test]
async fn a_request_that_is_not_whole_is_never_taken_for_one() {
    for lane in Lane::both(|_| Reply::ok("hello")).await {
        let heads = ["Content-Length: 10\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"];
        for (at, head) in heads.into_iter().enumerate() {
            let mut raw = lane.connect().await;
            raw.send(format!("POST /half HTTP/1.1\r\nHost: a\r\n{head}")).await;
            drop(raw);
            let seen = lane.app.request(at).await;
            assert!(seen.cut, "{}: {head:?} arrived as {:?}", lane.name, seen.body);
        }
        // Nothing of a head that stops is told to anybody.
        let mut raw = lane.connect().await;
        raw.send("GET /part HTTP/1.1\r\nHost: a\r\n").await;
        raw.half_close().await;
        raw.expect_close().await;
        assert_eq!(lane.app.requests().len(), heads.len(), "{}", lane.name);
    }
}

#[tokio::test]
async fn nothing_is_served_behind_a_request_that_closes() {
    for lane in Lane::both(|_| Reply::ok("hello")).await {
        for first in ["GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "GET / HTTP/1.0\r\nHost: a\r\n\r\n"] {
            let before = lane.app.requests().len();
            let mut raw = lane.connect().await;
            raw.send([first.as_bytes(), SMUGGLED].concat()).await;
            assert_eq!(raw.response().await.text(), "hello", "{}", lane.name);
            raw.expect_close().await;
            assert_eq!(lane.app.requests().len(), before + 1, "{}", lane.name);
        }
    }
}
