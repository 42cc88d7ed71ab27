//! The control plane goes away and comes back, while the proxy serves and while it starts.

use tulle_proto::{ResourceType, names};
use tulle_testing::client::raw;
use tulle_testing::control::Service;
use tulle_testing::upstream::{Reply, TcpUpstream, Upstream};
use tulle_testing::wait;

use crate::mesh;

#[tokio::test]
async fn traffic_goes_on_without_the_control_plane_and_follows_it_when_it_is_back() {
    let mut control = mesh::control().await;
    let (one, two) = (Upstream::http1(|_| Reply::ok("one")).await, Upstream::http1(|_| Reply::ok("two")).await);
    let echo = TcpUpstream::echo().await;
    let ports = [(8080, "http", one.addr()), (8081, "http", two.addr()), (9000, "tcp", echo.addr())];
    let server = mesh::server(&control, "app", &ports).await;
    let at = |service: Service, port| service.endpoint(&server.inbound(port).to_string(), Some(&mesh::id("app")));
    control.publish(&at(Service::http(&mesh::name("app")), 8080));
    control.publish(&at(Service::tcp(&mesh::name("echo")), 9000));
    let sidecar = mesh::client(&control, &["app", "echo"]).await;
    let addr = sidecar.outbound(&mesh::name("app"));
    assert_eq!(raw::get(addr, "/", "app.shop").await.text(), "one");
    control.acknowledged(&mesh::name("echo")).await;
    let streams = control.streams();

    control.stop().await;
    for _ in 0..50 {
        assert_eq!(raw::get(addr, "/", "app.shop").await.text(), "one");
        // Opaque connections are not reused: each one is a new handshake.
        let mut client = tulle_testing::client::Raw::connect(sidecar.outbound(&mesh::name("echo"))).await;
        client.send("ping").await;
        assert_eq!(client.read_exact(4).await, b"ping");
    }
    let reply = raw::get(sidecar.outbound_http(), "/", "nobody.shop").await;
    assert_eq!((reply.status, reply.header("tulle-reason")), (502, Some("unknown_destination")), "{reply:?}");
    let ready = raw::get(sidecar.status(), "/healthz/ready", "localhost").await;
    assert_eq!(ready.status, 200, "what runs stays ready");

    control.restart().await;
    control.publish(&at(Service::http(&mesh::name("app")), 8081));
    wait::until_ready("the new endpoint in use", || async {
        (raw::get(addr, "/", "app.shop").await.text() == "two").then_some(())
    })
    .await;
    wait::until("both proxies to be back", || control.streams() >= streams + 2).await;
    control.publish(&at(Service::http(&mesh::name("new")), 8080));
    assert_eq!(raw::get(sidecar.outbound_http(), "/", "new.shop").await.text(), "one", "new names are asked for");
}

/// A key never leaves its process, so a proxy that starts without the control plane has no certificate: what is plain
/// works by the last good configuration, what is meshed fails closed, and readiness says what is missing.
#[tokio::test]
async fn a_proxy_that_restarts_meanwhile_has_its_last_configuration_but_no_identity() {
    let mut control = mesh::control().await;
    let app = Upstream::http1(|_| Reply::ok("hello")).await;
    let server = mesh::server(&control, "app", &[(8080, "http", app.addr())]).await;
    let meshed = Service::http(&mesh::name("app")).endpoint(&server.inbound(8080).to_string(), Some(&mesh::id("app")));
    control.publish(&meshed.retry(mesh::SAFE, 2));
    control.publish(&Service::http(&mesh::name("plain")).endpoint(&app.addr().to_string(), None));
    let dir = tulle_testing::certs::Ca::new();
    let state = dir.state_dir().join("proxy");
    let builder = mesh::client_builder(&control, &["app", "plain"]).arg("--state-dir", &state.to_string_lossy());
    let sidecar = builder.without_waiting().start().await;
    sidecar.process().ready(sidecar.status(), "/healthz/ready").await;
    for service in ["app", "plain"] {
        assert_eq!(raw::get(sidecar.outbound(&mesh::name(service)), "/", service).await.text(), "hello");
    }
    let inbound = names::inbound_listener("shop", "web");
    wait::until("the last good file to hold everything", || {
        let saved = std::fs::read(state.join("last-good.bin")).unwrap_or_default();
        let holds = |text: &str| saved.windows(text.len()).any(|window| window == text.as_bytes());
        [mesh::name("app"), mesh::name("plain"), inbound.clone()].iter().all(|name| holds(name))
    })
    .await;

    control.stop().await;
    let sidecar = sidecar.crash_and_restart().await;
    sidecar.process().listening(sidecar.status()).await;
    let reply = raw::get(sidecar.outbound(&mesh::name("plain")), "/", "plain.shop").await;
    assert_eq!(reply.text(), "hello", "{reply:?}");
    let before = app.requests().len();
    let reply = raw::get(sidecar.outbound(&mesh::name("app")), "/", "app.shop").await;
    assert_eq!((reply.status, reply.header("tulle-reason")), (503, Some("cert_expired")), "{reply:?}");
    assert_eq!(app.requests().len(), before, "nothing is sent without an identity");
    let ready = raw::get(sidecar.status(), "/healthz/ready", "localhost").await;
    assert_eq!(ready.status, 503);
    assert!(ready.text().contains("waiting for a certificate"), "{}", ready.text());

    control.restart().await;
    sidecar.process().ready(sidecar.status(), "/healthz/ready").await;
    control.asked_for(ResourceType::Listener, &inbound).await;
    wait::until_ready("the meshed service", || async {
        (raw::get(sidecar.outbound(&mesh::name("app")), "/", "app.shop").await.text() == "hello").then_some(())
    })
    .await;
}
