//! The proxy does not call itself for others: endpoints that are its own listeners, and such as lead back to the caller.

use tokio::net::TcpStream;
use tulle_proto::ResourceType;
use tulle_testing::client::{Raw, raw};
use tulle_testing::control::{Inbound, Service};
use tulle_testing::sidecar::Sidecar;
use tulle_testing::upstream::{Reply, Upstream};
use tulle_testing::wait;

use crate::mesh;

/// A tenant may route a host to any endpoint: of the caller's proxy it gets neither pages nor commands, nor a loop.
#[tokio::test]
async fn hostile_06_own_listeners_are_never_dialled() {
    let control = mesh::control().await;
    let names = ["admin", "status", "again", "byname", "opaque"];
    let sidecar = mesh::client_builder(&control, &names).start().await;
    let (again, by_name) = (sidecar.outbound(&mesh::name("again")), sidecar.outbound_http());
    let (admin, status) = (sidecar.admin(), sidecar.status());
    for (service, at) in [("admin", admin), ("status", status), ("again", again), ("byname", by_name)] {
        control.publish(&Service::http(&mesh::name(service)).endpoint(&at.to_string(), None));
    }
    control.publish(&Service::tcp(&mesh::name("opaque")).endpoint(&admin.to_string(), None));
    for service in &names[..4] {
        control.acknowledged(&mesh::name(service)).await;
        let entry = sidecar.outbound(&mesh::name(service));
        for path in ["/certs", "/config_dump", "/metrics", "/healthz/ready"] {
            let reply = raw::get(entry, path, "localhost").await;
            assert_eq!((reply.status, reply.header("tulle-reason")), (508, Some("loop")), "{service}{path}: {reply:?}");
        }
        let mut post = Raw::connect(entry).await;
        post.send(raw::request("POST", "/quitquitquit", "localhost", &[("tulle-admin", "1")], &[])).await;
        assert_eq!(post.response().await.header("tulle-reason"), Some("loop"), "{service}");
    }
    let loops = ["reason=\"loop\""];
    let before = mesh::metric(&sidecar, "tulle_connection_failures_total", &loops).await;
    // It may be reset before it is of any use.
    if let Ok(tcp) = TcpStream::connect(sidecar.outbound(&mesh::name("opaque"))).await {
        let mut opaque = Raw::over(tcp);
        let _ = opaque.try_send(raw::request("GET", "/certs", "localhost", &[("connection", "close")], &[])).await;
        assert!(opaque.read_to_close().await.is_empty(), "bytes of the admin listener");
    }
    wait::until_ready("the refusal to be counted", || async {
        let now = mesh::metric(&sidecar, "tulle_connection_failures_total", &loops).await;
        (now > before).then_some(())
    })
    .await;
    assert_eq!(raw::get(status, "/healthz/ready", "localhost").await.status, 200, "it still runs");
}

/// In a pod every loopback endpoint is the caller's own pod; link-local ones are the node's and the cloud's.
#[tokio::test]
async fn hostile_06_a_pod_takes_no_endpoint_that_leads_back_to_it() {
    let control = mesh::control().await;
    let app = Upstream::http1(|_| Reply::ok("secret")).await;
    control.publish_inbound(&Inbound::new("shop", "web"));
    let names = ["loop", "mapped", "cloud"];
    let builder = Sidecar::of("shop", "web").control(&control).arg("--workers", "1").arg("--pod-ip", "10.1.0.5");
    let sidecar = names.iter().fold(builder, |builder, name| builder.send(&mesh::name(name))).start().await;
    let port = app.addr().port();
    let endpoints =
        [format!("127.0.0.1:{port}"), format!("[::ffff:127.0.0.1]:{port}"), "169.254.169.254:80".to_owned()];
    for (name, endpoint) in names.iter().zip(&endpoints) {
        let name = mesh::name(name);
        control.publish(&Service::http(&name).endpoint(endpoint, None));
        wait::until(&format!("{endpoint} to be refused"), || {
            let refused = control.refused();
            refused.iter().any(|refused| refused.kind == ResourceType::Endpoint && refused.reason.contains(&name))
        })
        .await;
        // Without a good version there is no answer.
        let reply = raw::get(sidecar.outbound_http(), "/", &name).await;
        assert!(reply.status >= 500, "{endpoint}: {reply:?}");
    }
    assert_eq!(app.requests().len(), 0);
}
