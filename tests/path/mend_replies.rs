//! Responses and requests of real applications and clients that a proxy must carry: broken ones are told with a reason,
//! merely unusual ones are passed on.

use tulle_testing::client::http2::request;
use tulle_testing::client::{Http2Client, Raw, raw};
use tulle_testing::control::Service;
use tulle_testing::upstream::http1::Recorded;
use tulle_testing::upstream::{Http2Reply, Http2Upstream, Reply, Upstream};
use tulle_testing::wait::{self, Gate};

use crate::boundary_lanes::Lane;
use crate::http2::publish_http1_only;
use crate::mesh;

/// Responses whose fault is there with their first byte.
const BROKEN: &[(&str, &str)] = &[
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "protocol_error"),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n", "protocol_error"),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nbad name: x\r\n\r\n", "protocol_error"),
    ("HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n", "protocol_error"),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n", "protocol_error"),
    ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n<close>", "upstream_closed"),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n<close>", "upstream_closed"),
];

fn broken(request: &Recorded) -> Reply {
    let at: Option<usize> = request.path().trim_start_matches('/').parse().ok();
    let Some((text, _)) = at.and_then(|at| BROKEN.get(at)) else { return Reply::ok("next") };
    text.strip_suffix("<close>").map_or_else(|| Reply::raw(text), |text| Reply::raw(text).close())
}

#[tokio::test]
async fn mend_06_a_response_that_breaks_at_once_is_never_an_empty_one() {
    for lane in Lane::both(broken).await {
        for (at, (text, reason)) in BROKEN.iter().enumerate() {
            for version in ["1.1", "1.0"] {
                let mut raw = lane.connect().await;
                raw.send(format!("GET /{at} HTTP/{version}\r\nHost: a\r\n\r\n")).await;
                let what = format!("{}: HTTP/{version} {text:?}", lane.name);
                let Some(reply) = raw.try_response("GET").await else { panic!("{what}: nothing came") };
                // Whether head and body come in one piece is the kernel's affair: then the break shows after the head.
                if reply.status != 502 {
                    assert!(reply.cut || version == "1.0", "{what}: {reply:?}");
                    continue;
                }
                let seen = (reply.header("tulle-reason"), reply.header("tulle-proxy"));
                assert_eq!(seen, (Some(*reason), Some("inbound")), "{what}");
                for proxy in &lane.proxies {
                    let (request, end) = (format!("a /{at} HTTP/1."), format!(" 502 grpc=- reason={reason} "));
                    wait::until(&format!("{what} in the log"), || {
                        proxy.process().lines().iter().any(|line| line.contains(&request) && line.contains(&end))
                    })
                    .await;
                }
                if version == "1.1" {
                    assert_eq!(raw.exchange("GET", "/next", "a").await.text(), "next", "{what}");
                }
            }
        }
    }
}

#[tokio::test]
async fn mend_06_an_http2_response_that_is_reset_at_once_is_a_502_in_http1() {
    let control = mesh::control().await;
    let app = Http2Upstream::start(|_| Http2Reply::head(200, &[]).reset(h2::Reason::INTERNAL_ERROR)).await;
    let old = Upstream::http1(broken).await;
    control.publish(&Service::http2(&mesh::name("app")).endpoint(&app.addr().to_string(), None));
    publish_http1_only(&control, &Service::http(&mesh::name("old")).endpoint(&old.addr().to_string(), None));
    let sidecar = mesh::client(&control, &["app", "old"]).await;
    let mut raw = Raw::connect(sidecar.outbound(&mesh::name("app"))).await;
    raw.send(raw::request("GET", "/", "app.shop", &[], &[])).await;
    let reply = raw.try_response("GET").await.expect("a response");
    assert!(reply.cut || reply.header("tulle-reason") == Some("upstream_reset"), "{reply:?}");
    // Towards HTTP/2 the break is a reset of the stream.
    let client = Http2Client::connect(sidecar.outbound(&mesh::name("old"))).await;
    let reply = client.get("old.shop", "/0").await;
    assert!(reply.as_ref().is_err_and(h2::Error::is_reset) || reply.is_ok_and(|r| r.status == 502));
}

/// What Docker's client asks for.
fn exec(framing: &str) -> String {
    format!(
        "POST /exec/1/start HTTP/1.1\r\nHost: docker\r\nUser-Agent: Docker-Client\r\nContent-Type: application/json\r\n\
         Connection: Upgrade\r\nUpgrade: tcp\r\n{framing}"
    )
}

#[tokio::test]
async fn mend_05_an_upgrade_may_have_content() {
    let length = exec("Content-Length: 12\r\n\r\n{\"Tty\":true}");
    let chunked = exec("Transfer-Encoding: chunked\r\n\r\n5\r\n{\"Tty\r\n7\r\n\":true}\r\n0\r\n\r\n");
    for lane in Lane::both(|_| Reply::switch_and_echo("tcp")).await {
        for (at, (ask, early)) in [(&length, ""), (&length, "early"), (&chunked, "")].into_iter().enumerate() {
            let mut raw = lane.connect().await;
            raw.send(format!("{ask}{early}")).await;
            let head = String::from_utf8(raw.read_until("\r\n\r\n").await).expect("an ASCII head");
            assert!(head.starts_with("HTTP/1.1 101 "), "{}: {head}", lane.name);
            assert!(head.to_ascii_lowercase().contains("upgrade: tcp\r\n"), "{}: {head}", lane.name);
            raw.send("0123456789".repeat(1_000)).await;
            assert_eq!(raw.read_exact(10_000 + early.len()).await.len(), 10_000 + early.len(), "{}", lane.name);
            raw.half_close().await;
            raw.expect_close().await;
            let seen = lane.app.request(at).await;
            assert_eq!((seen.body.as_slice(), seen.header("upgrade")), (&b"{\"Tty\":true}"[..], Some("tcp")));
            assert_eq!(seen.header("connection").map(str::to_ascii_lowercase).as_deref(), Some("upgrade"));
            // The line of the log comes at the end, with the bytes of both directions.
            let bytes = format!(" {}/{} ", 12 + 10_000 + early.len(), 10_000 + early.len());
            for proxy in &lane.proxies {
                wait::until("a line of the access log", || {
                    let lines = proxy.process().lines();
                    let ends = lines.iter().filter(|line| line.contains("/exec/1/start HTTP/1.1\" 101 "));
                    ends.filter(|line| line.contains(&bytes)).count() >= if at == 2 { 2 } else { 1 }
                })
                .await;
            }
        }
        for proxy in &lane.proxies {
            let counted = mesh::metric(proxy, "tulle_response_bytes_total", &[]).await;
            assert_eq!(counted, 30_005.0, "{}", lane.name);
        }
    }
}

#[tokio::test]
async fn mend_05_content_behind_an_early_101_still_reaches_the_application() {
    for pair in [false, true] {
        let gate = Gate::closed();
        let held = gate.clone();
        let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: tcp\r\n\r\n";
        let app = Upstream::http1(move |_| Reply::raw(head).after(&held).write("greetings").early().close()).await;
        let lane = if pair { Lane::pair(app, |b| b).await } else { Lane::plain(app, |b| b).await };
        let mut raw = lane.connect().await;
        raw.send(exec("Content-Length: 12\r\n\r\n{\"Tty\"")).await;
        assert!(raw.read_until("\r\n\r\n").await.starts_with(b"HTTP/1.1 101 "), "{}", lane.name);
        raw.send(":true}").await;
        gate.open();
        assert_eq!(raw.read_to_close().await, b"greetings", "{}", lane.name);
    }
}

#[tokio::test]
async fn mend_05_a_refused_upgrade_with_content_is_an_ordinary_exchange() {
    for lane in Lane::both(|_| Reply::status(409, &[], "not running")).await {
        let mut raw = lane.connect().await;
        for _ in 0..2 {
            raw.send(exec("Content-Length: 12\r\n\r\n{\"Tty\":true}")).await;
            let reply = raw.response().await;
            assert_eq!((reply.status, reply.text().as_str()), (409, "not running"), "{}", lane.name);
        }
        assert_eq!(lane.app.request(1).await.body, b"{\"Tty\":true}", "{}", lane.name);
    }
}

#[tokio::test]
async fn mend_07_unusual_responses_are_passed_on_and_wrong_ones_name_their_field() {
    let answer = |request: &Recorded| match request.path() {
        "/blank" => Reply::raw("HTTP/1.1 200 OK\r\nX-Name : value\r\nContent-Length \t: 5\r\n\r\nhello"),
        "/chunk" => Reply::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5 ;ext\r\nhello\r\n0\t;x\r\n\r\n"),
        "/426" => Reply::status(426, &[("Upgrade", "HTTP/3.0"), ("Connection", "Upgrade")], "no"),
        "/name" => Reply::raw("HTTP/1.1 200 OK\r\nX Bad: 1\r\nContent-Length: 0\r\n\r\n"),
        "/value" => Reply::raw("HTTP/1.1 200 OK\r\nX-Bell: a\u{7}b\r\nContent-Length: 0\r\n\r\n"),
        "/folded" => Reply::raw("HTTP/1.1 200 OK\r\nX-Folded: a\r\n b\r\nContent-Length: 0\r\n\r\n"),
        "/large" => Reply::status(200, &[("X-Large", &"a".repeat(70_000))], ""),
        _ => Reply::ok(request.body.as_slice()),
    };
    for lane in Lane::both(answer).await {
        let mut raw = lane.connect().await;
        let reply = raw.exchange("GET", "/blank", "a").await;
        let seen = (reply.status, reply.header("x-name"), reply.text());
        assert_eq!(seen, (200, Some("value"), "hello".to_owned()), "{}", lane.name);
        assert_eq!(raw.exchange("GET", "/chunk", "a").await.text(), "hello", "{}", lane.name);
        let reply = raw.exchange("GET", "/426", "a").await;
        assert_eq!((reply.status, reply.header("upgrade")), (426, Some("HTTP/3.0")), "{}", lane.name);
        assert_eq!(reply.header("connection").map(str::to_ascii_lowercase).as_deref(), Some("upgrade"));
        // In answer to an upgrade it is no switch.
        raw.send("GET /426 HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").await;
        assert_eq!(raw.response().await.text(), "no", "{}", lane.name);
        for chunk in ["5 ;ext", "5\t ; a=b"] {
            raw.send(format!(
                "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}\r\nhello\r\n0\r\n\r\n"
            ))
            .await;
            assert_eq!(raw.response().await.status, 200, "{}: {chunk:?}", lane.name);
        }
        for (path, field) in [("/name", "X Bad"), ("/value", "X-Bell"), ("/folded", "X-Folded"), ("/large", "X-Large")]
        {
            let reply = raw.exchange("GET", path, "a").await;
            assert_eq!((reply.status, reply.header("tulle-reason")), (502, Some("protocol_error")), "{}", lane.name);
            let log = lane.proxies.last().expect("a proxy").process().line(&format!(" {path} HTTP/1.1")).await;
            assert!(log.contains(&format!("field `{field}`")), "{log}");
        }
        lane.refused(b"GET / HTTP/1.1\r\nHost: a\r\nX-Name : value\r\n\r\n", &[400]).await;
    }
}

#[tokio::test]
async fn mend_07_http2_responses_that_break_the_rules_name_their_field() {
    let control = mesh::control().await;
    let large = "v".repeat(70_000);
    let app = Http2Upstream::start(move |head| match head.uri().path() {
        "/trailers" => Http2Reply::head(200, &[]).data("x").trailers(&[("x-sum", &large)]),
        _ => Http2Reply::head(200, &[("x-large", &large)]),
    })
    .await;
    control.publish(&Service::http2(&mesh::name("app")).endpoint(&app.addr().to_string(), None));
    let sidecar = mesh::client(&control, &["app"]).await;
    let mut raw = Raw::connect(sidecar.outbound(&mesh::name("app"))).await;
    let reply = raw.exchange("GET", "/head", "app.shop").await;
    assert_eq!((reply.status, reply.header("tulle-reason")), (502, Some("protocol_error")), "{reply:?}");
    assert!(sidecar.process().line(" /head HTTP/1.1").await.contains("field `x-large`"));
    raw.send(raw::request("GET", "/trailers", "app.shop", &[], &[])).await;
    let _ = raw.try_response("GET").await;
    assert!(sidecar.process().line(" /trailers HTTP/1.1").await.contains("trailer `x-sum`"));
}

/// Sends everything first, as many clients do, and reads then. The error of the sending, if there was one.
async fn upload(lane: &Lane, path: &str, framing: &str, body: &[u8]) -> (std::io::Result<()>, Raw) {
    let mut raw = lane.connect().await;
    raw.send(format!("POST {path} HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n")).await;
    let sent = raw.try_send(body).await;
    (sent, raw)
}

#[tokio::test]
async fn mend_10_an_upload_that_is_refused_early_gets_its_response() {
    const SIZE: usize = 32 * 1024 * 1024;
    let answer = |request: &Recorded| match request.path() {
        "/closes" => Reply::status(413, &[("connection", "close")], "too much").early().close(),
        _ => Reply::status(413, &[], "too much").early(),
    };
    let length = format!("Content-Length: {SIZE}");
    let chunked = [format!("{SIZE:x}\r\n").into_bytes(), vec![b'x'; SIZE], b"\r\n0\r\n\r\n".to_vec()].concat();
    let body = vec![b'x'; SIZE];
    for lane in Lane::both(answer).await {
        for path in ["/reads", "/closes"] {
            for (framing, body) in [(length.as_str(), &body), ("Transfer-Encoding: chunked", &chunked)] {
                for _ in 0..3 {
                    let (sent, mut raw) = upload(&lane, path, framing, body).await;
                    assert!(sent.is_ok(), "{}: {path} {framing}: {sent:?}", lane.name);
                    let reply = raw.response().await;
                    assert_eq!((reply.status, reply.text().as_str()), (413, "too much"), "{}: {path}", lane.name);
                }
            }
        }
    }
}

#[tokio::test]
async fn mend_10_an_upload_whose_head_is_refused_gets_its_response() {
    const SIZE: usize = 8 * 1024 * 1024;
    for lane in Lane::both(|_| Reply::ok("x")).await {
        let framing = format!("Content-Length: {SIZE}\r\nX: {}", "a".repeat(70_000));
        let (sent, mut raw) = upload(&lane, "/", &framing, &vec![b'x'; SIZE]).await;
        assert!(sent.is_ok(), "{}: {sent:?}", lane.name);
        assert_eq!(raw.response().await.status, 431, "{}", lane.name);
    }
}

#[tokio::test]
async fn mend_12_framing_follows_the_method_and_the_content() {
    let control = mesh::control().await;
    let app = Upstream::http1(|_| Reply::ok("x")).await;
    publish_http1_only(&control, &Service::http(&mesh::name("old")).endpoint(&app.addr().to_string(), None));
    let sidecar = mesh::client(&control, &["old"]).await;
    let client = Http2Client::connect(sidecar.outbound(&mesh::name("old"))).await;
    let mut at = 0;
    let mut seen = async || {
        at += 1;
        let seen = app.request(at - 1).await;
        let field = |name: &str| seen.header(name).map(str::to_owned);
        (field("content-length"), field("transfer-encoding"), String::from_utf8_lossy(&seen.body).into_owned())
    };
    let none = (None, None, String::new());
    for method in ["GET", "DELETE", "OPTIONS", "HEAD"] {
        // Ended by its head, and by an empty frame behind it, at once and later.
        for late in [None, Some(false), Some(true)] {
            let (response, mut send) =
                client.start(request(method, "old.shop", "/", &[]), late.is_none()).await.expect("a stream");
            if late == Some(true) {
                // By then its head is there.
                client.exchange(request("POST", "old.shop", "/", &[]), "between", None).await.expect("a response");
                assert_eq!(seen().await.2, "between");
            }
            if late.is_some() {
                send.send_data(bytes::Bytes::new(), true).expect("an open stream");
            }
            wait::within("a response", response).await.expect("a response");
            assert_eq!(seen().await, none, "{method} {late:?}");
        }
    }
    let chunked = |body: &str| (None, Some("chunked".to_owned()), body.to_owned());
    client.exchange(request("GET", "old.shop", "/", &[]), "content", None).await.expect("a response");
    assert_eq!(seen().await, chunked("content"));
    let empty = (Some("0".to_owned()), None, String::new());
    for method in ["POST", "PUT", "PATCH"] {
        for fields in [&[][..], &[("content-length", "0")]] {
            client.exchange(request(method, "old.shop", "/", fields), "", None).await.expect("a response");
            assert_eq!(seen().await, empty, "{method} {fields:?}");
        }
    }
    // Trailers without content are kept.
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-sum", http::HeaderValue::from_static("5"));
    client.exchange(request("GET", "old.shop", "/", &[]), "", Some(trailers)).await.expect("a response");
    assert_eq!(seen().await, chunked(""));
    assert_eq!(app.requests().last().expect("a request").trailers, [("x-sum".to_owned(), "5".to_owned())]);
}
