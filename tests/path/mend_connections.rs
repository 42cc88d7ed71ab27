//! Connections of real applications and clients: how long they are kept, and how names are written on them.

use std::time::Duration;

use tulle_testing::sidecar::Builder;
use tulle_testing::upstream::http1::Recorded;
use tulle_testing::upstream::{Reply, Upstream};
use tulle_testing::wait::Gate;

use crate::boundary_lanes::Lane;

#[tokio::test]
async fn mend_14_an_application_says_how_long_it_keeps_a_connection() {
    let answer = |request: &Recorded| match request.path() {
        "/never" => Reply::status(200, &[("Keep-Alive", "timeout=0")], "x"),
        "/long" => Reply::status(200, &[("Keep-Alive", "max=100, timeout=60")], "x"),
        _ => Reply::status(200, &[("Keep-Alive", "timeout=2")], "x"),
    };
    let one = |builder: Builder| builder.arg("--workers", "1");
    let lane = Lane::plain(Upstream::http1(answer).await, one).await;
    let mut raw = lane.connect().await;
    for (path, connections) in [("/long", 1), ("/long", 1), ("/short", 1), ("/never", 1), ("/never", 2), ("/short", 3)]
    {
        let reply = raw.exchange("GET", path, "a").await;
        assert_eq!((reply.status, reply.header("keep-alive")), (200, None));
        assert_eq!(lane.app.connections(), connections, "{path}");
    }
    // About time itself: past what the application said less a second, the connection is not used again.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(raw.exchange("GET", "/long", "a").await.status, 200);
    assert_eq!(lane.app.connections(), 4);
}

#[tokio::test]
async fn mend_14_http_1_0_clients_keep_their_connection() {
    let answer = |request: &Recorded| match request.path() {
        "/chunks" => Reply::chunked(&[b"hello"], &[]),
        "/none" => Reply::head(204, &[]),
        _ => Reply::ok("hello"),
    };
    for lane in Lane::both(answer).await {
        let mut raw = lane.connect().await;
        let ask = |path: &str| format!("GET {path} HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n");
        for (path, body) in [("/length", "hello"), ("/none", ""), ("/length", "hello")] {
            raw.send(ask(path)).await;
            let reply = raw.response().await;
            assert_eq!(
                (reply.text().as_str(), reply.header("connection")),
                (body, Some("keep-alive")),
                "{}",
                lane.name
            );
        }
        // A response of unknown length ends with the connection, and says so.
        raw.send(ask("/chunks")).await;
        let reply = raw.response().await;
        assert_eq!((reply.text().as_str(), reply.header("connection")), ("hello", Some("close")), "{}", lane.name);
        raw.expect_close().await;
        let mut raw = lane.connect().await;
        raw.send("GET /length HTTP/1.0\r\nHost: a\r\n\r\n").await;
        assert_eq!(raw.response().await.header("connection"), Some("close"), "{}", lane.name);
        raw.expect_close().await;
    }
}

#[tokio::test]
async fn mend_14_http_1_0_applications_keep_theirs() {
    let old = |_: &Recorded| Reply::raw("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello");
    let one = |builder: Builder| builder.arg("--workers", "1");
    let lane = Lane::plain(Upstream::http1(old).await, one).await;
    let mut raw = lane.connect().await;
    for _ in 0..3 {
        assert_eq!(raw.exchange("GET", "/", "a").await.text(), "hello");
    }
    assert_eq!(lane.app.connections(), 1);
}

#[tokio::test]
async fn mend_14_a_half_closed_client_is_waited_for_as_long_as_the_setting_says() {
    for pair in [false, true] {
        let gate = Gate::closed();
        let held = gate.clone();
        let app = Upstream::http1(move |request: &Recorded| match request.path() {
            "/held" => Reply::raw("").after(&held).write("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
            _ => Reply::ok("next"),
        })
        .await;
        let one = |builder: Builder| builder.arg("--workers", "1");
        let lane = if pair { Lane::pair(app, one).await } else { Lane::plain(app, one).await };
        let mut raw = lane.connect().await;
        raw.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n").await;
        raw.half_close().await;
        // About time itself: longer than a proxy used to wait.
        tokio::time::sleep(Duration::from_secs(6)).await;
        gate.open();
        assert_eq!(raw.response().await.text(), "hello", "{}", lane.name);
        raw.expect_close().await;
    }
}

#[tokio::test]
async fn mend_14_names_keep_the_case_they_came_in() {
    let answer = |request: &Recorded| match request.path() {
        "/switch" => {
            Reply::raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: foo\r\nConnection: Upgrade\r\n\r\n").echo()
        }
        _ => Reply::raw(
            "HTTP/1.1 200 OK\r\nServer: x\r\nX-MiXed: y\r\nConnection: Keep-Alive\r\nCONTENT-LENGTH: 2\r\n\r\nok",
        ),
    };
    for lane in Lane::both(answer).await {
        let mut raw = lane.connect().await;
        raw.send("POST / HTTP/1.1\r\nUser-Agent: x\r\nHOST: a\r\nTE: trailers\r\nConnection: TE\r\nContent-LENGTH: 2\r\n\r\nok")
            .await;
        let reply = raw.response().await;
        let name = |headers: &[(String, String)], wanted: &str| {
            headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(name, _)| name.clone())
        };
        let seen = lane.app.request(0).await;
        for wanted in ["HOST", "User-Agent", "TE", "Connection", "Content-LENGTH"] {
            assert_eq!(name(seen.headers(), wanted).as_deref(), Some(wanted), "{}: {seen:?}", lane.name);
        }
        for wanted in ["Server", "X-MiXed", "CONTENT-LENGTH"] {
            assert_eq!(name(&reply.headers, wanted).as_deref(), Some(wanted), "{}: {reply:?}", lane.name);
        }
        raw.send("GET /switch HTTP/1.1\r\nHost: a\r\nUpgrade: foo\r\nConnection: Upgrade\r\n\r\n").await;
        let head = String::from_utf8(raw.read_until("\r\n\r\n").await).expect("an ASCII head");
        assert!(head.contains("\r\nConnection: upgrade\r\n") && head.contains("\r\nUpgrade: foo\r\n"), "{head}");
        let seen = lane.app.request(1).await;
        assert_eq!(name(seen.headers(), "connection").as_deref(), Some("Connection"), "{}", lane.name);
    }
}
