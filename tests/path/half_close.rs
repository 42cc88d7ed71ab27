//! Clients that end their own direction after a request: those that wait for the reply get it, those that left are
//! given up.

use tulle_testing::upstream::http1::Recorded;
use tulle_testing::upstream::{Reply, Upstream};
use tulle_testing::wait::{self, Gate};

use crate::boundary_lanes::Lane;
use crate::mesh;

const ASK: &str = "GET /held HTTP/1.1\r\nHost: a\r\n\r\n";

/// A lane whose proxies have one worker, so that what came first was seen first.
async fn lane(pair: bool, gate: &Gate) -> Lane {
    let held = gate.clone();
    let app = Upstream::http1(move |request: &Recorded| match request.path() {
        "/held" => Reply::raw("").after(&held).write("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
        _ => Reply::ok("next"),
    });
    let one =
        |builder: tulle_testing::sidecar::Builder| builder.arg("--workers", "1").arg("--half-close-timeout", "1s");
    let app = app.await;
    if pair { Lane::pair(app, one).await } else { Lane::plain(app, one).await }
}

#[tokio::test]
async fn a_reply_reaches_a_client_that_said_it_is_done() {
    for pair in [false, true] {
        let gate = Gate::closed();
        let lane = lane(pair, &gate).await;
        let mut at_once = lane.connect().await;
        at_once.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n").await;
        at_once.half_close().await;
        assert_eq!(at_once.response().await.text(), "next", "{}", lane.name);
        at_once.expect_close().await;

        let mut raw = lane.connect().await;
        raw.send(ASK).await;
        raw.half_close().await;
        lane.app.request(1).await;
        // By the end of another exchange the proxy has seen that this client is done.
        lane.connect().await.exchange("GET", "/next", "a").await;
        gate.open();
        assert_eq!(raw.response().await.text(), "hello", "{}", lane.name);
        raw.expect_close().await;
    }
}

#[tokio::test]
async fn a_client_that_left_is_given_up() {
    for pair in [false, true] {
        let lane = lane(pair, &Gate::closed()).await;
        let mut broken = lane.connect().await;
        broken.send(ASK).await;
        lane.app.request(0).await;
        broken.reset();
        given_up(&lane, 1.0).await;
        let mut ended = lane.connect().await;
        ended.send(ASK).await;
        lane.app.request(1).await;
        drop(ended);
        given_up(&lane, 2.0).await;
    }
}

/// Waits until every proxy has recorded `count` requests as given up by their sender.
async fn given_up(lane: &Lane, count: f64) {
    for proxy in &lane.proxies {
        wait::until_ready("a request given up", || async {
            let labels = ["reason=\"downstream_closed\""];
            (mesh::metric(proxy, "tulle_requests_total", &labels).await == count).then_some(())
        })
        .await;
    }
}
