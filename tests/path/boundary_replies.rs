//! Replies: the client gets what the application sent, with its end where the application put it, and is told when
//! there was none.

use tulle_testing::client::Raw;
use tulle_testing::client::raw::Response;
use tulle_testing::sidecar::Builder;
use tulle_testing::upstream::http1::Recorded;
use tulle_testing::upstream::{Reply, Upstream};
use tulle_testing::wait::{self, Gate};

use crate::boundary_lanes::Lane;

/// What the client must see of a reply the application gave.
enum Seen {
    /// This status and body; the connection goes on.
    Whole(u16, &'static str),
    /// A reply of the proxy with this status and reason.
    Instead(u16, &'static str),
    /// A reply that ends too early, and says so.
    Cut,
}

const REPLIES: &[(&str, &str, Seen)] = &[
    ("length", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", Seen::Whole(200, "hello")),
    ("no body", "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", Seen::Whole(404, "")),
    ("no reason", "HTTP/1.1 299\r\nContent-Length: 1\r\n\r\nx", Seen::Whole(299, "x")),
    (
        "chunks",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nhel\r\n02\r\nlo\r\n0;c\r\n\r\n",
        Seen::Whole(200, "hello"),
    ),
    ("empty chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Seen::Whole(200, "")),
    ("until close", "HTTP/1.1 200 OK\r\n\r\nhello<close>", Seen::Whole(200, "hello")),
    ("HTTP/1.0", "HTTP/1.0 200 OK\r\nServer: old\r\n\r\nhello<close>", Seen::Whole(200, "hello")),
    ("HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello<close>", Seen::Whole(200, "hello")),
    ("204", "HTTP/1.1 204 No Content\r\n\r\n", Seen::Whole(204, "")),
    ("204", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", Seen::Whole(204, "")),
    ("204", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Seen::Whole(204, "")),
    ("304", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: x\r\n\r\n", Seen::Whole(304, "")),
    (
        "a second reply",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        Seen::Whole(200, "ok"),
    ),
    (
        "two lengths",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        Seen::Instead(502, "protocol_error"),
    ),
    (
        "both framings",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Seen::Instead(502, "protocol_error"),
    ),
    ("a coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nxx<close>", Seen::Instead(502, "protocol_error")),
    (
        "HTTP/1.0 chunks",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n<close>",
        Seen::Instead(502, "protocol_error"),
    ),
    ("folded", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n", Seen::Instead(502, "protocol_error")),
    ("garbage", "220 mail.test ESMTP ready\r\n\r\n", Seen::Instead(502, "protocol_error")),
    ("HTTP/2", "HTTP/2.0 200 OK\r\n\r\n", Seen::Instead(502, "protocol_error")),
    (
        "101 unasked",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\n",
        Seen::Instead(502, "protocol_error"),
    ),
    ("half a head", "HTTP/1.1 200 OK\r\nContent-Le<close>", Seen::Instead(502, "upstream_closed")),
    ("nothing", "<close>", Seen::Instead(502, "upstream_closed")),
    ("reset", "<reset>", Seen::Instead(502, "upstream_reset")),
    ("short", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello<close>", Seen::Cut),
    ("short", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello<reset>", Seen::Cut),
    ("chunks cut", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n<close>", Seen::Cut),
    ("chunks cut", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel<close>", Seen::Cut),
    ("chunks cut", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n<close>", Seen::Cut),
    ("chunks broken", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nxyz\r\n", Seen::Cut),
];

/// The reply for `/N`.
fn scripted(request: &Recorded) -> Reply {
    let at: Option<usize> = request.path().trim_start_matches('/').parse().ok();
    let Some((_, text, _)) = at.and_then(|at| REPLIES.get(at)) else { return Reply::ok("next") };
    if let Some(text) = text.strip_suffix("<close>") {
        return Reply::raw(text).close();
    }
    text.strip_suffix("<reset>").map_or_else(|| Reply::raw(text), |text| Reply::raw(text).reset())
}

#[tokio::test]
async fn replies_arrive_whole_or_are_known_to_be_broken() {
    for lane in Lane::both(scripted).await {
        for (at, (name, text, expected)) in REPLIES.iter().enumerate() {
            let what = format!("{}: {name} {text:?}", lane.name);
            let mut raw = lane.connect().await;
            raw.send(format!("GET /{at} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
            let reply = raw.try_response("GET").await;
            let goes_on = check(&what, expected, reply);
            if goes_on {
                let next = raw.exchange("GET", "/next", "a").await;
                assert_eq!(next.text(), "next", "{what}: the next request got {next:?}");
            }
        }
        for request in lane.app.requests() {
            assert!(request.body_bytes.is_empty(), "{}", lane.name);
        }
    }
}

/// Compares, and says whether the connection can carry another request.
fn check(what: &str, expected: &Seen, reply: Option<Response>) -> bool {
    match (expected, reply) {
        (Seen::Whole(status, body), Some(reply)) => {
            assert_eq!((reply.status, reply.text().as_str(), reply.cut), (*status, *body, false), "{what}");
            assert_eq!(reply.header("tulle-reason"), None, "{what}");
            let speaks = reply.header("content-length").or(reply.header("transfer-encoding"));
            assert!(*status != 204 || speaks.is_none(), "{what}: {speaks:?}");
            true
        }
        (Seen::Instead(status, reason), Some(reply)) => {
            let seen = (reply.status, reply.header("tulle-reason"), reply.header("tulle-proxy"));
            // In the pair the application's own proxy says it, and the other one passes that on.
            assert_eq!(seen, (*status, Some(*reason), Some("inbound")), "{what}");
            true
        }
        (Seen::Cut, Some(reply)) => {
            assert!(reply.cut, "{what}: {reply:?}");
            false
        }
        (Seen::Cut, None) => false,
        (Seen::Whole(..) | Seen::Instead(..), None) => panic!("{what}: no reply"),
    }
}

#[tokio::test]
async fn replies_without_a_body_keep_their_boundaries() {
    let answer = |request: &Recorded| match request.path() {
        "/length" => Reply::head(200, &[("content-length", "1000")]),
        "/chunked" => Reply::head(200, &[("transfer-encoding", "chunked")]),
        "/neither" => Reply::head(200, &[]),
        _ => Reply::ok("next"),
    };
    for lane in Lane::both(answer).await {
        let mut raw = lane.connect().await;
        for (path, length) in
            [("/length", Some("1000")), ("/chunked", None), ("/neither", None), ("/length", Some("1000"))]
        {
            let reply = raw.exchange("HEAD", path, "a").await;
            assert_eq!((reply.status, reply.header("content-length")), (200, length), "{}: {path}", lane.name);
            assert_eq!(raw.exchange("GET", "/next", "a").await.text(), "next", "{}: {path}", lane.name);
        }
        assert_eq!(lane.app.connections(), 1, "{}: a connection was not reused", lane.name);
    }
}

#[tokio::test]
async fn clients_of_http_1_0_get_replies_they_understand() {
    let answer = |request: &Recorded| match request.path() {
        "/length" => Reply::ok("hello"),
        "/close" => Reply::until_close("hello"),
        "/cut" => Reply::head(200, &[("transfer-encoding", "chunked")]).chunk(b"hello").close(),
        _ => Reply::chunked(&[b"hel", b"lo"], &[("x-trailer", "1")]),
    };
    for lane in Lane::both(answer).await {
        for (at, path) in ["/length", "/close", "/chunked"].into_iter().enumerate() {
            let mut raw = lane.connect().await;
            raw.send(format!("GET {path} HTTP/1.0\r\n\r\n")).await;
            let reply = raw.response().await;
            assert_eq!((reply.text().as_str(), reply.header("transfer-encoding")), ("hello", None), "{}", lane.name);
            raw.expect_close().await;
            let seen = lane.app.request(at).await;
            assert!(seen.head_bytes.starts_with(format!("GET {path} HTTP/1.0\r\n").as_bytes()), "{}", lane.name);
        }
        // A reply whose only end is that of the connection, and that broke: nobody may take it for complete.
        let mut raw = lane.connect().await;
        raw.send("GET /cut HTTP/1.0\r\nHost: a\r\n\r\n").await;
        let reply = raw.try_response("GET").await;
        assert!(reply.is_none_or(|reply| reply.cut), "{}: a cut reply ended like a whole one", lane.name);
    }
}

#[tokio::test]
async fn a_websocket_crosses_both_proxies() {
    const ASK: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    const GREETS: &str =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\ngreetings";
    let answer = |request: &Recorded| match request.path() {
        "/chat" => Reply::switch_and_echo("websocket"),
        "/greets" => Reply::raw(GREETS).close(),
        _ => Reply::status(200, &[], "no"),
    };
    for lane in Lane::both(answer).await {
        let mut raw = lane.connect().await;
        // The first frame comes with the request: nothing may lose it.
        raw.send(format!("{ASK}early")).await;
        let head = String::from_utf8(raw.read_until("\r\n\r\n").await).expect("an ASCII head").to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 101 "), "{}: {head}", lane.name);
        assert!(head.contains("upgrade: websocket\r\n") && head.contains("connection: upgrade\r\n"), "{head}");
        assert_eq!(raw.read_exact(5).await, b"early", "{}", lane.name);
        let frame: Vec<u8> = (0..200_000u32).map(|n| (n % 251) as u8).collect();
        raw.send(&frame[..100_000]).await;
        assert_eq!(raw.read_exact(100_000).await, &frame[..100_000], "{}", lane.name);
        raw.half_close().await;
        raw.expect_close().await;
        // What the server says first comes with its head.
        let mut raw = lane.connect().await;
        raw.send(ASK.replace("/chat", "/greets")).await;
        raw.read_until("\r\n\r\n").await;
        assert_eq!(raw.read_to_close().await, b"greetings", "{}", lane.name);
        // Refused, it is an ordinary exchange.
        let mut raw = lane.connect().await;
        raw.send(ASK.replace("/chat", "/no")).await;
        assert_eq!(raw.response().await.text(), "no", "{}", lane.name);
        assert_eq!(raw.exchange("GET", "/next", "a").await.text(), "no", "{}", lane.name);
        let seen = lane.app.requests();
        assert_eq!(seen.last().map(|request| request.path().to_owned()).as_deref(), Some("/next"), "{}", lane.name);
    }
}

#[tokio::test]
async fn a_reply_that_comes_early_reaches_a_client_that_is_still_sending() {
    for lane in Lane::both(|_| Reply::status(413, &[], "too much").early().close()).await {
        let mut raw = Raw::connect(lane.entry).await;
        raw.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 800000\r\n\r\n").await;
        let _ = raw.try_send(vec![b'x'; 400_000]).await;
        let reply = raw.response().await;
        assert_eq!((reply.status, reply.text().as_str()), (413, "too much"), "{}", lane.name);
        assert_eq!(reply.header("connection"), Some("close"), "{}", lane.name);
        raw.expect_close().await;
    }
}

/// Each lane on its own, with an application that answers by `handler` and holds back what is behind the gate.
async fn gated<H>(pair: bool, handler: impl Fn(Gate) -> H) -> (Lane, Gate)
where
    H: Fn(&Recorded) -> Reply + Send + Sync + 'static,
{
    let gate = Gate::closed();
    let app = Upstream::http1(handler(gate.clone())).await;
    let one = |builder: Builder| builder.arg("--workers", "1");
    (if pair { Lane::pair(app, one).await } else { Lane::plain(app, one).await }, gate)
}

#[tokio::test]
async fn bytes_that_nobody_asked_for_are_no_reply_to_the_next_request() {
    const EVIL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    for pair in [false, true] {
        let (lane, gate) = gated(pair, |gate| {
            move |request: &Recorded| match request.path() {
                "/first" => Reply::ok("first").after(&gate).write(EVIL).close(),
                _ => Reply::ok("next"),
            }
        })
        .await;
        let mut raw = lane.connect().await;
        assert_eq!(raw.exchange("GET", "/first", "a").await.text(), "first", "{}", lane.name);
        gate.open();
        wait::until("the application to close", || lane.app.open_connections() == 0).await;
        // Another exchange in between: by then the proxy has seen what came.
        assert_eq!(lane.connect().await.exchange("GET", "/other", "a").await.text(), "next", "{}", lane.name);
        assert_eq!(raw.exchange("GET", "/next", "a").await.text(), "next", "{}", lane.name);
    }
}

#[tokio::test]
async fn a_reply_is_passed_on_as_it_comes() {
    for pair in [false, true] {
        let (lane, gate) = gated(pair, |gate| {
            move |request: &Recorded| match request.path() {
                "/chunks" => Reply::head(200, &[("transfer-encoding", "chunked")])
                    .after(&gate)
                    .chunk(b"one")
                    .chunk(b"two")
                    .last_chunk(&[]),
                _ => Reply::head(200, &[("content-length", "6")]).write("one").after(&gate).write("two"),
            }
        })
        .await;
        // The head alone; the first half of a body alone.
        let (mut chunks, mut length) = (lane.connect().await, lane.connect().await);
        chunks.send("GET /chunks HTTP/1.1\r\nHost: a\r\n\r\n").await;
        chunks.read_until("\r\n\r\n").await;
        length.send("GET /length HTTP/1.1\r\nHost: a\r\n\r\n").await;
        length.read_until("\r\n\r\none").await;
        gate.open();
        chunks.read_until("0\r\n\r\n").await;
        assert_eq!(length.read_exact(3).await, b"two", "{}", lane.name);
    }
}
