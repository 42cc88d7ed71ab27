//! Certificates that live for a few seconds: each sidecar replaces its own several times, under load.

use std::time::{Duration, Instant};

use tulle_testing::control::Service;
use tulle_testing::upstream::{Reply, TcpUpstream, Upstream};

use super::load::Load;
use super::races::until;
use super::{Outcome, Scale, mesh};

/// Requests on kept connections, and opaque connections with a handshake each.
pub(crate) async fn run(scale: Scale) -> Outcome {
    let time = scale.pick(Duration::from_secs(15), Duration::from_secs(60));
    // Shorter lives end on a busy machine before another certificate is made.
    let life = scale.pick(Duration::from_secs(8), Duration::from_secs(3));
    let control = mesh::control().await;
    control.certificate_ttl(life);
    let app = Upstream::http1(|_| Reply::ok("hello")).await;
    let echo = TcpUpstream::echo().await;
    let ports = [(8080, "http", app.addr()), (9000, "tcp", echo.addr())];
    let server = mesh::server(&control, &ports).start().await;
    mesh::publish(&control, Service::http(&mesh::name("app")), &[&server], 8080);
    mesh::publish(&control, Service::tcp(&mesh::name("echo")), &[&server], 9000);
    let sidecar = mesh::client(&control, &["app", "echo"]).await;
    let load = Load::default();
    let started = Instant::now();
    let watch = async {
        until(|| started.elapsed() >= time).await;
        load.finish();
    };
    let (http, tcp) = (sidecar.outbound(&mesh::name("app")), sidecar.outbound(&mesh::name("echo")));
    let pace = Duration::from_millis(2);
    tokio::join!(watch, load.http1(http, "app.shop", pace), load.http1(http, "app.shop", pace), load.opaque(tcp, pace));
    let issued = control.certificates().len();
    let mut outcome = load.into_outcome(format!("{issued} certificates in {} s", time.as_secs()));
    let expected = usize::try_from(2 * time.as_secs() / life.as_secs()).unwrap_or_default();
    outcome.check(issued >= expected, || format!("only {issued} certificates were issued"));
    outcome
}
