//! Attempts: what is tried again, elsewhere or on another connection, and what never is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tulle_testing::client::http2::{Http2Response, request};
use tulle_testing::client::{Http2Client, Raw, raw};
use tulle_testing::control::Service;
use tulle_testing::ports;
use tulle_testing::sidecar::Sidecar;
use tulle_testing::upstream::http2::grpc_frame;
use tulle_testing::upstream::{Http2Reply, Http2Upstream, Reply, Upstream};
use tulle_testing::wait;

use crate::mesh;

#[tokio::test]
async fn http2_streams_that_were_not_served_are_sent_again() {
    let control = mesh::control().await;
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    // Every 50th request is the last one of its connection; every 7th is refused.
    let app = Http2Upstream::start(move |_| match counter.fetch_add(1, Ordering::SeqCst) + 1 {
        n if n % 50 == 0 => Http2Reply::grpc(&[b"pong"], 0).goaway(),
        n if n % 7 == 0 => Http2Reply::refuse(),
        _ => Http2Reply::grpc(&[b"pong"], 0),
    })
    .await;
    let server = mesh::server(&control, "echo", &[(8080, "grpc", app.addr())]).await;
    let endpoint = server.inbound(8080).to_string();
    control
        .publish(&Service::grpc(&mesh::name("echo")).endpoint(&endpoint, Some(&mesh::id("echo"))).retry(mesh::SAFE, 2));
    control.publish(&Service::grpc(&mesh::name("plain")).endpoint(&app.addr().to_string(), None).retry(mesh::SAFE, 2));
    let sidecar = mesh::client(&control, &["echo", "plain"]).await;
    for service in ["echo", "plain"] {
        let client = Http2Client::connect(sidecar.outbound(&mesh::name(service))).await;
        let before = app.connections();
        for batch in 0..125 {
            let mut replies = Vec::new();
            for _ in 0..8 {
                let head = request("POST", "echo.shop", "/echo.Echo/Unary", &[("content-type", "application/grpc")]);
                let (reply, mut send) = client.start(head, false).await.expect("room");
                send.send_data(grpc_frame(b"ping"), true).expect("an open stream");
                replies.push(reply);
            }
            for reply in replies {
                let reply = Http2Response::read(reply.await.expect("a head")).await.expect("no reset");
                assert_eq!(reply.grpc_status(), Some("0"), "{service}, batch {batch}: {reply:?}");
                assert_eq!(reply.body, grpc_frame(b"pong"));
            }
        }
        assert!(app.connections() > before + 10, "each GOAWAY ends a connection");
    }
    let lost = app.requests().iter().filter(|request| request.body != grpc_frame(b"ping")).count();
    assert_eq!(lost, 0, "a body is sent again with its request");
}

#[tokio::test]
async fn http1_attempts() {
    let control = mesh::control().await;
    let (alive, other) = (Upstream::http1(|_| Reply::ok("alive")).await, Upstream::http1(|_| Reply::ok("alive")).await);
    let app = Upstream::http1(|request| match request.path() {
        "/close" => Reply::ok("last").close(),
        "/vanish" => Reply::default().close(),
        "/503" => Reply::status(503, &[], "busy"),
        "/forged" => Reply::status(503, &[("tulle-reason", "connect_refused"), ("tulle-proxy", "inbound")], "busy"),
        _ => Reply::ok("hello"),
    })
    .await;
    let ports = [(8080, "http", alive.addr()), (8081, "http", ports::free())];
    let server = mesh::server(&control, "half", &ports).await;
    let plain = |name: &str| Service::http(&mesh::name(name)).retry(mesh::SAFE, 2);
    let half = plain("half").endpoint(&server.inbound(8080).to_string(), Some(&mesh::id("half")));
    control.publish(&half.endpoint(&server.inbound(8081).to_string(), Some(&mesh::id("half"))));
    let dead = ports::free().to_string();
    control.publish(&plain("some").endpoint(&dead, None).endpoint(&other.addr().to_string(), None));
    let wrong = plain("wrong").endpoint(&server.inbound(8080).to_string(), Some(&mesh::id("somebody-else")));
    control.publish(&wrong);
    control.publish(&plain("app").endpoint(&app.addr().to_string(), None));
    control.publish(&plain("eager").endpoint(&app.addr().to_string(), None).retry("5xx", 2));
    let sidecar = mesh::client(&control, &["half", "some", "app", "eager", "wrong"]).await;

    elsewhere(&sidecar).await;
    identity_is_checked(&sidecar, &alive).await;
    what_was_sent_whole_is_not_repeated(&sidecar, &app).await;
    budget(&sidecar, &app).await;
    telemetry(&sidecar).await;
}

/// Neither a dead endpoint nor a dead application behind a live proxy is seen by the client.
async fn elsewhere(sidecar: &Sidecar) {
    for service in ["half", "some"] {
        let mut client = Raw::connect(sidecar.outbound(&mesh::name(service))).await;
        for turn in 0..60 {
            let body = if turn % 2 == 0 { &b""[..] } else { b"payload" };
            let method = if turn % 2 == 0 { "GET" } else { "POST" };
            client.send(raw::request(method, "/", service, &[], body)).await;
            let reply = client.response().await;
            assert_eq!((reply.status, reply.text().as_str()), (200, "alive"), "{service} {turn}: {reply:?}");
        }
    }
    assert!(mesh::metric(sidecar, "tulle_retries_total", &["outcome=\"success\""]).await >= 2.0);
}

async fn identity_is_checked(sidecar: &Sidecar, app: &Upstream) {
    let before = app.requests().len();
    let reply = raw::get(sidecar.outbound(&mesh::name("wrong")), "/", "wrong.shop").await;
    assert_eq!((reply.status, reply.header("tulle-reason")), (503, Some("identity_mismatch")), "{reply:?}");
    assert_eq!(app.requests().len(), before);
}

async fn what_was_sent_whole_is_not_repeated(sidecar: &Sidecar, app: &Upstream) {
    let mut client = Raw::connect(sidecar.outbound(&mesh::name("app"))).await;
    assert_eq!(client.exchange("GET", "/", "app.shop").await.status, 200);
    // On the connection that was just used; the application takes the request and closes without a word.
    client.send(raw::request("POST", "/vanish", "app.shop", &[], b"order")).await;
    let reply = client.response().await;
    assert_eq!((reply.status, reply.header("tulle-reason")), (502, Some("upstream_closed")), "{reply:?}");
    let orders = |app: &Upstream| app.requests().iter().filter(|request| request.method() == "POST").count();
    assert_eq!(orders(app), 1, "it may have been carried out");
    // The application's connections end with each answer: none of it is seen.
    for _ in 0..20 {
        assert_eq!(client.exchange("GET", "/close", "app.shop").await.text(), "last");
    }
    let forged = client.exchange("GET", "/forged", "app.shop").await;
    assert_eq!((forged.status, forged.header("tulle-reason")), (503, None), "only a proxy may say that: {forged:?}");
}

/// A service that only fails gets a bounded number of retries: what was saved up, then a share of the requests.
async fn budget(sidecar: &Sidecar, app: &Upstream) {
    let count = |app: &Upstream| app.requests().iter().filter(|request| request.path() == "/503").count();
    let mut client = Raw::connect(sidecar.outbound(&mesh::name("eager"))).await;
    let started = std::time::Instant::now();
    for _ in 0..200 {
        let reply = client.exchange("GET", "/503", "eager.shop").await;
        assert_eq!((reply.status, reply.text().as_str()), (503, "busy"), "the application's answer is passed on");
    }
    let earned = 30 + 200 / 5 + 10 * (1 + started.elapsed().as_secs() as usize);
    assert!((201..=200 + earned).contains(&count(app)), "{} of at most {}", count(app), 200 + earned);
    assert!(mesh::metric(sidecar, "tulle_retry_budget_exhausted_total", &[]).await >= 1.0);
}

async fn telemetry(sidecar: &Sidecar) {
    let labels = ["destination_service=\"app\"", "reason=\"upstream_closed\"", "source_workload=\"web\""];
    assert_eq!(mesh::metric(sidecar, "tulle_requests_total", &labels).await, 1.0, "{}", sidecar.metrics().await);
    let line = sidecar.process().line("/vanish").await;
    for part in ["outbound", "\"POST app.shop /vanish HTTP/1.1\"", "502", "reason=upstream_closed", "attempts=1"] {
        assert!(line.contains(part), "no {part} in {line}");
    }
    let retried = sidecar.process().line("attempts=2").await;
    assert!(retried.contains(" 200 "), "{retried}");
}

/// The application closes each idle connection 0 to 5 ms after its answer, as servers with a short idle timeout do.
#[tokio::test]
async fn connections_that_the_application_closes_at_random_cost_no_request() {
    let control = mesh::control().await;
    let count = AtomicUsize::new(0);
    let app = Upstream::http1(move |_| {
        let pause = (count.fetch_add(1, Ordering::SeqCst) * 2_654_435_761) % 5_000;
        let answer = Reply::ok("hello");
        if pause.is_multiple_of(3) { answer } else { answer.pause(Duration::from_micros(pause as u64)).close() }
    })
    .await;
    let server = mesh::server(&control, "app", &[(8080, "http", app.addr())]).await;
    let meshed = Service::http(&mesh::name("app")).endpoint(&server.inbound(8080).to_string(), Some(&mesh::id("app")));
    control.publish(&meshed.retry(mesh::SAFE, 2));
    control.publish(&Service::http(&mesh::name("plain")).endpoint(&app.addr().to_string(), None).retry(mesh::SAFE, 2));
    let sidecar = mesh::client(&control, &["app", "plain"]).await;
    let load = |service: &'static str| {
        let addr = sidecar.outbound(&mesh::name(service));
        async move {
            let mut client = Raw::connect(addr).await;
            for turn in 0..800 {
                let reply = client.exchange("GET", "/", "app.shop").await;
                assert_eq!(reply.status, 200, "{service}, request {turn}: {reply:?}");
            }
        }
    };
    tokio::join!(load("app"), load("app"), load("plain"), load("plain"));
    assert!(app.connections() > 100, "only {} connections", app.connections());
}

/// An application that ends closes connections it has accepted and not looked at: fresh ones too.
#[tokio::test]
async fn fresh_connections_that_the_application_closes_cost_no_safe_request() {
    let control = mesh::control().await;
    let count = AtomicUsize::new(0);
    // No connection is used twice, and every other one ends without a word.
    let app = Upstream::http1(move |_| match count.fetch_add(1, Ordering::SeqCst) % 2 {
        0 => Reply::default().close(),
        _ => Reply::ok("hello").close(),
    })
    .await;
    let server = mesh::server(&control, "app", &[(8080, "http", app.addr())]).await;
    let meshed = Service::http(&mesh::name("app")).endpoint(&server.inbound(8080).to_string(), Some(&mesh::id("app")));
    control.publish(&meshed.retry(mesh::SAFE, 2));
    let sidecar = mesh::client(&control, &["app"]).await;
    let mut client = Raw::connect(sidecar.outbound(&mesh::name("app"))).await;
    for turn in 0..20 {
        let reply = client.exchange("GET", "/", "app.shop").await;
        assert_eq!(reply.status, 200, "request {turn}: {reply:?}");
    }
    assert_eq!(app.requests().len(), 40);
    client.send(raw::request("POST", "/", "app.shop", &[], b"order")).await;
    let reply = client.response().await;
    assert_eq!((reply.status, reply.header("tulle-reason")), (502, Some("upstream_closed")), "{reply:?}");
    assert_eq!(app.requests().len(), 41, "it may have been carried out");
}

/// All replicas have ended and were replaced, and word of the new ones comes a moment later.
#[tokio::test]
async fn a_request_that_nobody_takes_waits_for_the_endpoints_that_replace_them() {
    let control = mesh::control().await;
    let app = Upstream::http1(|_| Reply::ok("here")).await;
    let ended = mesh::server(&control, "app", &[(8080, "http", ports::free())]).await;
    let service = || Service::http(&mesh::name("app")).retry(mesh::SAFE, 2);
    control.publish(&service().endpoint(&ended.inbound(8080).to_string(), Some(&mesh::id("app"))));
    let sidecar = mesh::client(&control, &["app"]).await;
    let refused = async || mesh::metric(&ended, "tulle_requests_total", &["reason=\"connect_refused\""]).await;
    // Those that are not replaced are waited for in vain, for a moment.
    let reply = raw::get(sidecar.outbound(&mesh::name("app")), "/", "app.shop").await;
    assert_eq!((reply.status, reply.header("tulle-reason")), (503, Some("connect_refused")), "{reply:?}");
    let before = refused().await;
    let replace = async {
        wait::until_ready("the request to be refused", || async { (refused().await > before).then_some(()) }).await;
        control.publish(&service().endpoint(&app.addr().to_string(), None));
    };
    let (reply, ()) = tokio::join!(raw::get(sidecar.outbound(&mesh::name("app")), "/", "app.shop"), replace);
    assert_eq!((reply.status, reply.text().as_str()), (200, "here"), "{reply:?}");
}
