//! Interim replies and `Expect: 100-continue` end to end: the application decides, the proxies pass on what it says.

use tulle_testing::client::Raw;
use tulle_testing::upstream::Reply;
use tulle_testing::upstream::http1::Recorded;

use crate::boundary_lanes::Lane;

const ASKING: &str = "POST /f HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";

#[tokio::test]
async fn a_client_that_waits_is_told_by_the_application_to_go_on() {
    for lane in Lane::both(|_| Reply::ok("done").asks_for_body()).await {
        let mut raw = lane.connect().await;
        raw.send(ASKING).await;
        assert_eq!(raw.response().await.status, 100, "{}", lane.name);
        raw.send("hello").await;
        let reply = raw.response().await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "done"), "{}", lane.name);
        let seen = lane.app.request(0).await;
        assert_eq!(
            (seen.header("expect"), seen.body.as_slice()),
            (Some("100-continue"), &b"hello"[..]),
            "{}",
            lane.name
        );
        assert!(!seen.cut, "{}", lane.name);
    }
}

#[tokio::test]
async fn no_proxy_says_continue_by_itself() {
    for lane in Lane::both(|_| Reply::ok("done")).await {
        let mut raw = lane.connect().await;
        raw.send(ASKING).await;
        // The application waits for the body without a word; the first answer the client sees is the final one.
        raw.send("hello").await;
        assert_eq!(raw.response().await.status, 200, "{}", lane.name);
        let mut old = lane.connect().await;
        old.send("POST /f HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello").await;
        assert_eq!(old.response().await.status, 200, "{}", lane.name);
    }
}

#[tokio::test]
async fn a_body_that_is_refused_is_never_sent() {
    let answer = |request: &Recorded| match request.path() {
        "/f" => Reply::status(417, &[], "no").early(),
        "/g" => Reply::status(401, &[], "no").early(),
        _ => Reply::ok("next"),
    };
    for lane in Lane::both(answer).await {
        for (target, status) in [("/f", 417), ("/g", 401)] {
            let mut raw = lane.connect().await;
            raw.send(ASKING.replace("/f", target)).await;
            let reply = raw.response().await;
            assert_eq!((reply.status, reply.text().as_str()), (status, "no"), "{}", lane.name);
            // What follows cannot be told from the body: the connection says that it ends.
            assert_eq!(reply.header("connection"), Some("close"), "{}", lane.name);
            raw.expect_close().await;
        }
        for at in 0..2 {
            let seen = lane.app.request(at).await;
            assert!(seen.cut && seen.body.is_empty(), "{}: {:?}", lane.name, seen.body);
        }
        assert_eq!(lane.connect().await.exchange("GET", "/next", "a").await.text(), "next", "{}", lane.name);
        let next = lane.app.request(2).await;
        assert_eq!(next.connection, 2, "{}: reused with a body outstanding", lane.name);
    }
}

#[tokio::test]
async fn interim_replies_are_passed_on_in_order() {
    let answer = |_: &Recorded| {
        Reply::head(100, &[])
            .then_head(103, &[("link", "</a.css>"), ("content-length", "7"), ("connection", "x-a"), ("x-a", "1")])
            .then_head(103, &[("link", "</b.css>")])
            .then_head(200, &[("content-length", "4")])
            .write("done")
    };
    for lane in Lane::both(answer).await {
        let mut raw = lane.connect().await;
        for _ in 0..2 {
            raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            assert_eq!(raw.response().await.status, 100, "{}", lane.name);
            let hint = raw.response().await;
            assert_eq!((hint.status, hint.header("link")), (103, Some("</a.css>")), "{}", lane.name);
            for gone in ["content-length", "connection", "x-a"] {
                assert_eq!(hint.header(gone), None, "{}", lane.name);
            }
            assert_eq!(raw.response().await.header("link"), Some("</b.css>"), "{}", lane.name);
            assert_eq!(raw.response().await.text(), "done", "{}", lane.name);
        }
        // HTTP/1.0 knows none of them.
        let mut old = Raw::connect(lane.entry).await;
        old.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
        assert_eq!(old.response().await.text(), "done", "{}", lane.name);
    }
}
