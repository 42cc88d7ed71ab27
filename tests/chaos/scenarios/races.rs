//! Connections that go away as they are used: idle ones that the application closes, and HTTP/2 ones that say GOAWAY.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tulle_testing::control::Service;
use tulle_testing::upstream::{Http2Reply, Http2Upstream, Reply, Upstream};

use super::load::Load;
use super::{Outcome, Scale, mesh};

/// Requests are made by as many clients at once.
const CLIENTS: usize = 8;

/// The application closes each connection 0 to 100 ms after a reply, as servers with short idle timeouts do. One lane
/// through the pair, one straight from the client's sidecar.
pub(crate) async fn keep_alive(scale: Scale) -> Outcome {
    let (requests, longest_us) = scale.pick((1_500, 5_000), (100_000, 100_000));
    let control = mesh::control().await;
    let count = AtomicUsize::new(0);
    let app = Upstream::http1(move |_| {
        let turn = count.fetch_add(1, Ordering::SeqCst);
        // Most within the time in which a client that goes on at once uses the connection again.
        let longest = if turn.is_multiple_of(4) { longest_us } else { 1_000 };
        let pause = turn.wrapping_mul(2_654_435_761) % longest;
        Reply::ok("hello").pause(Duration::from_micros(pause as u64)).close()
    })
    .await;
    let server = mesh::server(&control, &[(8080, "http", app.addr())]).start().await;
    mesh::publish(&control, Service::http(&mesh::name("app")), &[&server], 8080);
    control.publish(&Service::http(&mesh::name("plain")).endpoint(&app.addr().to_string(), None).retry(mesh::SAFE, 2));
    let sidecar = mesh::client(&control, &["app", "plain"]).await;
    let load = Load::default();
    let watch = async {
        until(|| load.made() >= requests).await;
        load.finish();
    };
    let lanes = (0..CLIENTS).map(|at| {
        let service = if at.is_multiple_of(2) { "app" } else { "plain" };
        load.http1(sidecar.outbound(&mesh::name(service)), "app.shop", Duration::ZERO)
    });
    let lanes = all(lanes.collect());
    tokio::join!(watch, lanes);
    let (connections, retried) = (app.connections(), mesh::metric(&sidecar, "tulle_retries_total").await);
    load.into_outcome(format!("{connections} connections closed by the application, {retried} requests tried again"))
}

/// The application ends its connection with every hundredth request.
pub(crate) async fn goaway(scale: Scale) -> Outcome {
    let requests = scale.pick(1_000, 10_000);
    let control = mesh::control().await;
    let count = AtomicUsize::new(0);
    let app = Http2Upstream::start(move |_| {
        let reply = Http2Reply::grpc(&[b"pong"], 0);
        if (count.fetch_add(1, Ordering::SeqCst) + 1).is_multiple_of(100) { reply.goaway() } else { reply }
    })
    .await;
    let server = mesh::server(&control, &[(8080, "grpc", app.addr())]).start().await;
    mesh::publish(&control, Service::grpc(&mesh::name("app")), &[&server], 8080);
    control.publish(&Service::grpc(&mesh::name("plain")).endpoint(&app.addr().to_string(), None).retry(mesh::SAFE, 2));
    let sidecar = mesh::client(&control, &["app", "plain"]).await;
    let load = Load::default();
    let watch = async {
        until(|| load.made() >= requests).await;
        load.finish();
    };
    let lanes = (0..CLIENTS).map(|at| {
        let service = if at.is_multiple_of(2) { "app" } else { "plain" };
        load.grpc(sidecar.outbound(&mesh::name(service)), "app.shop", Duration::ZERO)
    });
    let lanes = all(lanes.collect());
    tokio::join!(watch, lanes);
    let connections = app.connections();
    let mut outcome = load.into_outcome(format!("{connections} connections ended by GOAWAY"));
    outcome.check(connections >= requests / 200, || format!("only {connections} connections: GOAWAY did nothing"));
    outcome
}

/// Runs all of them at once.
pub(super) async fn all<F: Future<Output = ()>>(futures: Vec<F>) {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    std::future::poll_fn(|cx| {
        futures.retain_mut(|future| future.as_mut().poll(cx).is_pending());
        if futures.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

/// Waits for a state that takes as long as it takes.
pub(super) async fn until(holds: impl Fn() -> bool) {
    while !holds() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
