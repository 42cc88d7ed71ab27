//! Opaque bytes through two sidecars, and what one port without a declared protocol takes: HTTP of both versions,
//! anything else, the application's own TLS.

use tulle_testing::certs::application_tls;
use tulle_testing::client::{Http2Client, Raw, raw};
use tulle_testing::control::{Control, Service};
use tulle_testing::sidecar::Sidecar;
use tulle_testing::upstream::http1::Options;
use tulle_testing::upstream::{Http2Reply, Http2Upstream, Reply, TcpUpstream, Upstream};

use crate::mesh;

fn publish(control: &Control, server: &Sidecar, service: Service, port: u16) {
    control.publish(&service.endpoint(&server.inbound(port).to_string(), Some(&mesh::id("app"))));
}

#[tokio::test]
async fn bytes_of_any_protocol_cross_two_sidecars() {
    let control = mesh::control().await;
    let (echo, mail) = (TcpUpstream::echo().await, TcpUpstream::greeting("220 mail ready\r\n").await);
    let http1 = Upstream::http1(|_| Reply::ok("http1")).await;
    let http2 = Http2Upstream::start(|_| Http2Reply::ok("http2")).await;
    let (server_tls, client_tls) = application_tls("app.shop", &[]);
    let secure = Options { at: None, tls: Some(server_tls) };
    let secure = Upstream::http1_with(secure, |_| Reply::ok("secure")).await;
    let ports = [
        (9000, "tcp", echo.addr()),
        (9001, "tcp", mail.addr()),
        (3306, "auto", mail.addr()),
        (9002, "auto", echo.addr()),
        (9003, "auto", http1.addr()),
        (9004, "auto", http2.addr()),
        (9005, "auto", secure.addr()),
        (9006, "auto", mail.addr()),
        (9007, "tcp", tulle_testing::ports::free()),
    ];
    let server = mesh::server(&control, "app", &ports).await;
    let services: Vec<String> = ports.iter().map(|(port, ..)| format!("app:{port}")).collect();
    for ((port, protocol, _), service) in ports.iter().zip(&services) {
        let new = if *protocol == "tcp" { Service::tcp } else { Service::auto };
        publish(&control, &server, new(&mesh::name(service)), *port);
    }
    let services: Vec<&str> = services.iter().map(String::as_str).collect();
    // Long, so that a test that waits for it would fail: what is declared or known is not waited for.
    let sidecar = mesh::client_builder(&control, &services).arg("--detect-timeout", "15s").start().await;
    let at = |port: u16| sidecar.outbound(&mesh::name(&format!("app:{port}")));

    let mut client = Raw::connect(at(9000)).await;
    client.send("ping").await;
    assert_eq!(client.read_exact(4).await, b"ping");
    half_close(client).await;
    for port in [9001, 3306] {
        let mut client = Raw::connect(at(port)).await;
        assert_eq!(client.read_until("\r\n").await, b"220 mail ready\r\n", "the server speaks first on {port}");
        client.send("EHLO\r\n").await;
        assert_eq!(client.read_until("\r\n").await, b"EHLO\r\n");
        half_close(client).await;
    }
    let mut client = Raw::connect(at(9002)).await;
    client.send("\x00\x01 not HTTP").await;
    assert_eq!(client.read_exact(11).await, b"\x00\x01 not HTTP");
    half_close(client).await;
    assert_eq!(raw::get(at(9003), "/", "app.shop").await.text(), "http1");
    assert!(http1.request(0).await.header("x-forwarded-client-cert").is_some(), "HTTP is recognised");
    let reply = Http2Client::connect(at(9004)).await.get("app.shop", "/").await.expect("an answer");
    assert_eq!(&reply.body[..], b"http2");
    assert!(http2.request(0).await.header("x-forwarded-client-cert").is_some(), "HTTP/2 is recognised");
    let mut client = Raw::connect_tls(at(9005), client_tls, "app.shop").await;
    assert_eq!(client.exchange("GET", "/", "app.shop").await.text(), "secure");
    assert!(secure.request(0).await.header("x-forwarded-client-cert").is_none(), "nobody looked inside");
    // Nobody there: a broken connection, as without proxies.
    Raw::connect(at(9007)).await.expect_close().await;

    let opened = mesh::metric(&sidecar, "tulle_tcp_connections_opened_total", &["tls=\"true\""]).await;
    assert!(opened >= 5.0, "{opened}");
    let inbound = mesh::metric(&server, "tulle_tcp_connections_opened_total", &[&mesh::id("web")]).await;
    assert!(inbound >= 5.0, "{inbound}");
}

/// The client says that it is done, and still gets what is under way.
async fn half_close(mut client: Raw) {
    let large = vec![b'x'; 1 << 20];
    let sent = async {
        client.send(&large).await;
        client.half_close().await;
        client.read_to_close().await
    };
    // An echo server sends back while we send: more than fits in the sockets' buffers would block a client that
    // does not read, so this is what fits.
    let back = sent.await;
    assert_eq!(back.len(), large.len());
}

#[tokio::test]
async fn a_server_that_speaks_first_on_an_undeclared_port_is_heard_after_the_detection_time() {
    let control = mesh::control().await;
    let mail = TcpUpstream::greeting("220 mail ready\r\n").await;
    let server = mesh::server(&control, "app", &[(9006, "auto", mail.addr())]).await;
    publish(&control, &server, Service::auto(&mesh::name("app:9006")), 9006);
    let sidecar = mesh::client_builder(&control, &["app:9006"]).arg("--detect-timeout", "200ms").start().await;
    let mut client = Raw::connect(sidecar.outbound(&mesh::name("app:9006"))).await;
    assert_eq!(client.read_until("\r\n").await, b"220 mail ready\r\n");
    assert_eq!(mesh::metric(&sidecar, "tulle_protocol_detect_total", &["result=\"timeout\""]).await, 1.0);
}
