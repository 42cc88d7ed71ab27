//! Connections to endpoints: idle ones are no load, their number is published, and what is known of an endpoint stays
//! when the endpoint changes.

use std::time::Duration;

use tokio::net::TcpListener;
use tulle_testing::client::frames::{END_HEADERS, END_STREAM, block, frame, kind};
use tulle_testing::client::{Frames, Http2Client, Raw, raw};
use tulle_testing::control::{Endpoint, Inbound, Mtls, Service};
use tulle_testing::sidecar::Sidecar;
use tulle_testing::upstream::{Reply, Upstream};
use tulle_testing::wait::{Gate, until_ready, within};

use crate::mesh;

/// Waits until a metric has this value.
async fn reaches(sidecar: &Sidecar, family: &str, value: f64) {
    until_ready(&format!("{family} to be {value}"), || async move {
        (mesh::metric(sidecar, family, &[]).await == value).then_some(())
    })
    .await;
}

const CONNECTIONS: &str = "tulle_upstream_connections";
const PENDING: &str = "tulle_upstream_pending_requests";

#[tokio::test]
async fn mend_03_idle_connections_make_room_for_other_endpoints() {
    let control = mesh::control().await;
    let mut service = Service::http(&mesh::name("app")).limits(1, 100, 100);
    let mut apps = Vec::new();
    for _ in 0..6 {
        let app = Upstream::http1(|_| Reply::ok("hello")).await;
        service = service.endpoint(&app.addr().to_string(), None);
        apps.push(app);
    }
    control.publish(&service);
    let sidecar = mesh::client(&control, &["app"]).await;
    let mut client = Raw::connect(sidecar.outbound(&mesh::name("app"))).await;
    for turn in 0..60 {
        let reply = client.exchange("GET", "/", "app.shop").await;
        assert_eq!(reply.status, 200, "request {turn}: {reply:?}");
        assert_eq!(mesh::metric(&sidecar, CONNECTIONS, &[]).await, 1.0, "request {turn}");
    }
    let asked = apps.iter().filter(|app| !app.requests().is_empty()).count();
    assert!(asked > 1, "one endpoint took all requests");
}

#[tokio::test]
async fn mend_03_an_idle_connection_of_either_protocol_makes_room_for_the_other() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let control = mesh::control().await;
    let address = listener.local_addr().expect("bound").to_string();
    control.publish(&Service::http(&mesh::name("app")).endpoint(&address, None).limits(1, 100, 100));
    let sidecar = mesh::client(&control, &["app"]).await;
    let to = sidecar.outbound(&mesh::name("app"));
    let accept = || async { Raw::over(within("a connection", listener.accept()).await.expect("a socket").0) };
    let http1 = || async {
        let mut app = accept().await;
        assert!(app.read_until("\r\n\r\n").await.starts_with(b"GET / HTTP/1.1"));
        app.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        app
    };
    let (reply, mut first) = tokio::join!(raw::get(to, "/", "app.shop"), http1());
    assert_eq!(reply.status, 200);
    // HTTP/2 to the same endpoint: the idle HTTP/1 connection ends.
    let client = Http2Client::connect(to).await;
    let http2 = async {
        first.expect_close().await;
        let mut app = Frames::accept(accept().await).await;
        let stream = app.find(|frame| frame.kind == kind::HEADERS).await.expect("a request").stream;
        let head = block(&[(b":status", b"200")]);
        app.send(frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, &head)).await;
        app
    };
    let (reply, mut second) = tokio::join!(client.get("app.shop", "/"), http2);
    assert_eq!(reply.expect("a reply").status, 200);
    // And back.
    let back = async {
        assert!(second.farewell().await.is_some(), "GOAWAY");
        http1().await
    };
    let (reply, _third) = tokio::join!(raw::get(to, "/", "app.shop"), back);
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn mend_03_mend_16_who_waits_for_room_gets_what_becomes_idle() {
    let gate = Gate::closed();
    let held = gate.clone();
    let app = Upstream::http1(move |request| match request.path() {
        "/held" => Reply::default().after(&held).write("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nheld"),
        _ => Reply::ok("next"),
    })
    .await;
    let control = mesh::control().await;
    control.publish(&Service::http(&mesh::name("app")).endpoint(&app.addr().to_string(), None).limits(1, 1, 100));
    let sidecar = mesh::client(&control, &["app"]).await;
    let to = sidecar.outbound(&mesh::name("app"));
    reaches(&sidecar, CONNECTIONS, 0.0).await;
    let waits = async {
        app.request(0).await;
        let act = async {
            reaches(&sidecar, PENDING, 1.0).await;
            reaches(&sidecar, CONNECTIONS, 1.0).await;
            let more = raw::get(to, "/more", "app.shop").await;
            assert_eq!((more.status, more.header("tulle-reason")), (503, Some("max_pending")));
            gate.open();
        };
        tokio::join!(raw::get(to, "/next", "app.shop"), act).0
    };
    let (held, next) = tokio::join!(raw::get(to, "/held", "app.shop"), waits);
    assert_eq!((held.text().as_str(), next.text().as_str()), ("held", "next"));
    assert_eq!(app.connections(), 1, "the one that became idle");
    reaches(&sidecar, PENDING, 0.0).await;
    // It is closed when it was idle for long.
    reaches(&sidecar, CONNECTIONS, 1.0).await;
}

#[tokio::test]
async fn mend_15_an_ejected_endpoint_stays_so_when_its_weight_changes() {
    let control = mesh::control().await;
    let bad = Upstream::http1(|_| Reply::status(503, &[], "broken")).await;
    let good = Upstream::http1(|_| Reply::ok("good")).await;
    let service = |weight: u32| {
        let with_zone =
            |upstream: &Upstream| Endpoint { weight, zone: format!("zone-{weight}"), ..Endpoint::at(upstream.addr()) };
        let service = Service::http(&mesh::name("app")).outlier(2, Duration::from_secs(3600));
        service.with(with_zone(&bad)).with(with_zone(&good))
    };
    control.publish(&service(1));
    let sidecar = mesh::client(&control, &["app"]).await;
    let mut client = Raw::connect(sidecar.outbound(&mesh::name("app"))).await;
    until_ready("an ejection", || async {
        raw::get(sidecar.outbound(&mesh::name("app")), "/", "app.shop").await;
        (mesh::metric(&sidecar, "tulle_endpoint_ejections_total", &[]).await >= 1.0).then_some(())
    })
    .await;
    for weight in 2..5 {
        let before = mesh::metric(&sidecar, "tulle_config_generation", &[]).await;
        control.publish(&service(weight));
        until_ready("the change", || async {
            (mesh::metric(&sidecar, "tulle_config_generation", &[]).await > before).then_some(())
        })
        .await;
        for _ in 0..20 {
            let reply = client.exchange("GET", "/", "app.shop").await;
            assert_eq!(reply.text(), "good", "with weight {weight}");
        }
    }
    assert_eq!(bad.requests().len(), 2);
}

#[tokio::test]
async fn mend_15_requests_count_for_the_service_that_the_port_belongs_to_now() {
    let control = mesh::control().await;
    let app = Upstream::http1(|_| Reply::ok("hello")).await;
    let server = mesh::server(&control, "app", &[(8080, "http", app.addr())]).await;
    let service = Service::http(&mesh::name("app"));
    control.publish(&service.endpoint(&server.inbound(8080).to_string(), Some(&mesh::id("app"))));
    let sidecar = mesh::client(&control, &["app"]).await;
    let mut client = Raw::connect(sidecar.outbound(&mesh::name("app"))).await;
    let counted = async |name: &str| {
        let label = format!("destination_service=\"{name}\"");
        mesh::metric(&server, "tulle_requests_total", &[&label, "direction=\"inbound\""]).await
    };
    assert_eq!(client.exchange("GET", "/", "app.shop").await.status, 200);
    assert_eq!(counted("app").await, 1.0);
    let before = mesh::metric(&server, "tulle_config_generation", &[]).await;
    control.publish_inbound(&Inbound::new("shop", "app").port(8080, "http", Mtls::Strict).service("shop-front"));
    until_ready("the change", || async {
        (mesh::metric(&server, "tulle_config_generation", &[]).await > before).then_some(())
    })
    .await;
    // On the connections that are open, and on new ones.
    assert_eq!(client.exchange("GET", "/", "app.shop").await.status, 200);
    assert_eq!((counted("app").await, counted("shop-front").await), (1.0, 1.0));
    assert_eq!(app.connections(), 1, "the connection to the application stays");
}
