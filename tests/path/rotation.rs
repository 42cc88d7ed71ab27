//! Certificates and roots are replaced while requests run: none fails, and each new connection has the new ones.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use tulle_proto::{ResourceType, names};
use tulle_testing::client::Raw;
use tulle_testing::control::resources::trust_bundle;
use tulle_testing::control::{Control, Service};
use tulle_testing::sidecar::Sidecar;
use tulle_testing::upstream::{Reply, TcpUpstream, Upstream};
use tulle_testing::wait;

use crate::mesh;

/// Waits until both proxies have got `count` more certificates.
async fn renewed(control: &Control, count: usize) {
    let have = |account: &str| control.certificates().iter().filter(|id| **id == mesh::id(account)).count();
    let (app, web) = (have("app"), have("web"));
    wait::until("certificates to be renewed", || have("app") >= app + count && have("web") >= web + count).await;
}

/// Requests on one connection, and an opaque connection with a handshake of its own for each of them, until `done`.
async fn load(sidecar: &Sidecar, done: &AtomicBool, served: &AtomicUsize) {
    let mut client = Raw::connect(sidecar.outbound(&mesh::name("app"))).await;
    while !done.load(Ordering::SeqCst) {
        let reply = client.exchange("GET", "/", "app.shop").await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let mut opaque = Raw::connect(sidecar.outbound(&mesh::name("echo"))).await;
        opaque.send("ping").await;
        assert_eq!(opaque.read_exact(4).await, b"ping");
        served.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn leaves_and_roots_rotate_under_load() {
    let control = mesh::control().await;
    control.certificate_ttl(Duration::from_secs(4));
    let app = Upstream::http1(|_| Reply::ok("hello")).await;
    let echo = TcpUpstream::echo().await;
    let server = mesh::server(&control, "app", &[(8080, "http", app.addr()), (9000, "tcp", echo.addr())]).await;
    let at = |service: Service, port| service.endpoint(&server.inbound(port).to_string(), Some(&mesh::id("app")));
    control.publish(&at(Service::http(&mesh::name("app")), 8080));
    control.publish(&at(Service::tcp(&mesh::name("echo")), 9000));
    let sidecar = mesh::client(&control, &["app", "echo"]).await;
    let (done, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let rotate = async {
        renewed(&control, 1).await;
        let ca = control.ca().expect("an authority").signer();
        let publish = |pem: &str| control.set(ResourceType::Secret, names::TRUST_BUNDLE, &trust_bundle(pem));
        let old = control.ca().expect("an authority").bundle_pem();
        // Both roots are trusted everywhere before the new one signs, and until nothing of the old one is in use.
        publish(&ca.begin_rotation(SystemTime::now()).expect("a new root").pem());
        control.acknowledged(names::TRUST_BUNDLE).await;
        renewed(&control, 1).await;
        publish(&ca.activate().expect("the new root signs").pem());
        renewed(&control, 2).await;
        let new = ca.finish().expect("the old root goes").pem();
        publish(&new);
        control.acknowledged(names::TRUST_BUNDLE).await;
        renewed(&control, 1).await;
        assert!(!new.contains(old.trim()), "the old root is gone");
        done.store(true, Ordering::SeqCst);
    };
    tokio::join!(rotate, load(&sidecar, &done, &served), load(&sidecar, &done, &served));
    assert!(served.load(Ordering::SeqCst) > 100, "{served:?}");
    let failures = mesh::metric(&server, "tulle_tls_handshakes_total", &["direction=\"inbound\""]).await
        - mesh::metric(&server, "tulle_tls_handshakes_total", &["direction=\"inbound\"", "result=\"ok\""]).await;
    assert_eq!(failures, 0.0, "{}", server.metrics().await);
}
