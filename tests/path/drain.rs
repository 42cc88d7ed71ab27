//! The way down: SIGTERM while requests and streams are under way, a deadline, a second SIGTERM.

use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tulle_testing::client::http2::{Http2Response, request};
use tulle_testing::client::{Http2Client, Raw, raw};
use tulle_testing::control::{Control, Inbound, Mtls, Service};
use tulle_testing::sidecar::Sidecar;
use tulle_testing::upstream::{Http2Reply, Http2Upstream, Reply, Upstream};
use tulle_testing::wait::{self, Gate, within};

use crate::mesh;

/// Sends SIGTERM and does not wait.
fn sigterm(sidecar: &Sidecar) {
    sidecar.process().signal("TERM");
}

async fn unready(sidecar: &Sidecar) {
    let status = sidecar.status();
    wait::until_ready("readiness to fail", || async move {
        (raw::get(status, "/healthz/ready", "localhost").await.status == 503).then_some(())
    })
    .await;
}

/// Waits until the process has ended by itself.
async fn ended(sidecar: &Sidecar) {
    let stat = format!("/proc/{}/stat", sidecar.process().pid());
    wait::until("the process to end", || std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z")))
        .await;
}

async fn applications(gate: &Gate) -> (Upstream, Http2Upstream) {
    let (one, two) = (gate.clone(), gate.clone());
    let http1 = Upstream::http1(move |request| match request.path() {
        "/held" => Reply::head(200, &[("content-length", "4")]).after(&one).write("late"),
        _ => Reply::ok("hello"),
    })
    .await;
    let http2 = Http2Upstream::start(move |head| match head.uri().path() {
        "/held" => Http2Reply::head(200, &[]).data("early").after(&two).data("late"),
        _ => Http2Reply::ok("hello"),
    })
    .await;
    (http1, http2)
}

/// A sidecar that takes plain connections, with a request and a stream under way.
struct Busy {
    sidecar: Sidecar,
    http1: Raw,
    http2: Http2Client,
    stream: http::Response<h2::RecvStream>,
}

async fn busy(control: &Control, apps: &(Upstream, Http2Upstream), min: &str, deadline: &str) -> Busy {
    let inbound =
        Inbound::new("shop", "app").port(8080, "http", Mtls::Permissive).port(8081, "http2", Mtls::Permissive);
    control.publish_inbound(&inbound);
    let builder = Sidecar::of("shop", "app").control(control).arg("--drain-min", min).arg("--drain-deadline", deadline);
    let sidecar = builder.receive(8080, apps.0.addr()).receive(8081, apps.1.addr()).start().await;
    let mut http1 = Raw::connect(sidecar.inbound(8080)).await;
    http1.send(raw::request("GET", "/held", "app.shop", &[], &[])).await;
    let http2 = Http2Client::connect(sidecar.inbound(8081)).await;
    let (stream, _) = http2.start(request("GET", "app.shop", "/held", &[]), true).await.expect("room");
    let stream = within("a head", stream).await.expect("a head");
    http1.read_until("\r\n\r\n").await;
    Busy { sidecar, http1, http2, stream }
}

#[tokio::test]
async fn what_is_under_way_finishes_and_new_work_is_still_taken_for_a_while() {
    let (control, gate) = (mesh::control().await, Gate::closed());
    let apps = applications(&gate).await;
    let Busy { sidecar, mut http1, http2, stream } = busy(&control, &apps, "6s", "60s").await;

    sigterm(&sidecar);
    let begun = Instant::now();
    unready(&sidecar).await;
    assert!(begun.elapsed() < Duration::from_secs(6), "others must learn of it while it still takes connections");
    // A core hears of it a moment after the process does.
    let mut late = wait::until_ready("a reply that says close", || async {
        let mut late = Raw::connect(sidecar.inbound(8080)).await;
        let reply = late.exchange("GET", "/", "app.shop").await;
        assert_eq!(reply.text(), "hello", "{reply:?}");
        (reply.header("connection") == Some("close")).then_some(late)
    })
    .await;
    late.expect_close().await;
    let reply = Http2Client::connect(sidecar.inbound(8081)).await.get("app.shop", "/").await.expect("an answer");
    assert_eq!(reply.status, 200, "a new connection is served, and told to go");
    wait::until_ready("GOAWAY on the old connection", || async {
        http2.get("app.shop", "/").await.is_err_and(|error| error.is_go_away()).then_some(())
    })
    .await;
    wait::until_ready("new connections to be refused", || async {
        let error = within("an answer of the kernel", TcpStream::connect(sidecar.inbound(8080))).await.err()?;
        (error.kind() == std::io::ErrorKind::ConnectionRefused).then_some(())
    })
    .await;

    gate.open();
    assert_eq!(http1.read_to_close().await, b"late", "the reply is whole, and the connection ends with it");
    let rest = Http2Response::read(stream).await.expect("no reset");
    assert_eq!(&rest.body[..], b"earlylate");
    let finished = Instant::now();
    ended(&sidecar).await;
    assert!(finished.elapsed() < Duration::from_secs(30), "it ends with the last work, not at the deadline");
    assert_eq!(sidecar.terminate().await.code(), Some(0));
}

#[tokio::test]
async fn at_the_deadline_streams_are_cut_with_a_word() {
    let (control, gate) = (mesh::control().await, Gate::closed());
    let apps = applications(&gate).await;
    let Busy { sidecar, mut http1, http2, stream } = busy(&control, &apps, "100ms", "1s").await;
    sigterm(&sidecar);
    let cut = Http2Response::read(stream).await.expect_err("cut");
    assert!(cut.is_go_away() || cut.is_io() || cut.is_reset(), "{cut}");
    let refused = http2.get("app.shop", "/").await.expect_err("no new streams");
    assert!(refused.is_go_away() && refused.reason() == Some(h2::Reason::NO_ERROR), "{refused:?}");
    assert!(http1.read_to_close().await.is_empty());
    ended(&sidecar).await;
    assert_eq!(sidecar.terminate().await.code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once_and_outbound_stays_open_until_then() {
    let (control, gate) = (mesh::control().await, Gate::closed());
    let apps = applications(&gate).await;
    control.publish(&Service::http(&mesh::name("app")).endpoint(&apps.0.addr().to_string(), None));
    let builder = mesh::client_builder(&control, &["app"]).arg("--drain-min", "100ms").arg("--drain-deadline", "60s");
    let sidecar = builder.start().await;
    let addr = sidecar.outbound(&mesh::name("app"));
    let mut held = Raw::connect(addr).await;
    held.send(raw::request("GET", "/held", "app.shop", &[], &[])).await;
    held.read_until("\r\n\r\n").await;
    sigterm(&sidecar);
    unready(&sidecar).await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(300) {
        assert_eq!(raw::get(addr, "/", "app.shop").await.text(), "hello", "the application still needs its peers");
    }
    let asked = Instant::now();
    sidecar.terminate().await;
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    gate.open();
}
