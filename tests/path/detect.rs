//! Ports that declare nothing: what is HTTP is served as such, all else passes as it came, and both sidecars of a
//! connection agree.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tulle_identity::tls::Alpn;
use tulle_testing::client::Raw;
use tulle_testing::client::frames::PREFACE;
use tulle_testing::control::{Control, Inbound, Mtls, Service};
use tulle_testing::sidecar::Sidecar;
use tulle_testing::upstream::{Http2Reply, Http2Upstream, Reply, TcpUpstream, Upstream};
use tulle_testing::wait::within;

use crate::mesh;

const PEER: &str = "x-forwarded-client-cert";

/// An application on an undeclared port, reached by two sidecars or by its own sidecar alone.
struct Path {
    name: &'static str,
    entry: std::net::SocketAddr,
    proxies: Vec<Sidecar>,
    _control: Control,
}

impl Path {
    async fn connect(&self) -> Raw {
        Raw::connect(self.entry).await
    }
}

/// Both ways to `app`, each sidecar waiting for a first word as long as `wait`.
async fn both(app: std::net::SocketAddr, wait: &str) -> [Path; 2] {
    let control = mesh::control().await;
    let server =
        mesh::server_builder(&control, "app", &[(9000, "auto", app)]).arg("--detect-timeout", wait).start().await;
    let service = Service::auto(&mesh::name("app:9000"));
    control.publish(&service.endpoint(&server.inbound(9000).to_string(), Some(&mesh::id("app"))));
    let client = mesh::client_builder(&control, &["app:9000"]).arg("--detect-timeout", wait).start().await;
    let entry = client.outbound(&mesh::name("app:9000"));
    let pair = Path { name: "pair", entry, proxies: vec![client, server], _control: control };

    let control = mesh::control().await;
    control.publish_inbound(&Inbound::new("shop", "app").port(9000, "auto", Mtls::Permissive));
    let builder = Sidecar::of("shop", "app").control(&control).arg("--workers", "1").arg("--detect-timeout", wait);
    let server = builder.receive(9000, app).start().await;
    let plain = Path { name: "plain", entry: server.inbound(9000), proxies: vec![server], _control: control };
    [pair, plain]
}

/// First words of other protocols, and lines that are HTTP to lenient servers or to forward proxies only.
const OTHERS: &[&[u8]] = &[
    b"CONNECT\naccept-version:1.2\nhost:a\n\n\0",
    b"CONNECT\r\naccept-version:1.2\r\n\r\n\0",
    b"STOMP\naccept-version:1.2\n\n\0",
    b"CONNECT {\"verbose\":false}\r\nPING\r\n",
    b"GET key\r\n",
    b"get key\r\n",
    b"GET /path/as/key\r\n",
    b"SET key value\r\n",
    b"PUT 1024 0 60 5\r\nhello\r\n",
    b"DELETE 7\r\n",
    b"HEAD\r\n",
    b"OPTIONS rtsp://a.test/stream RTSP/1.0\r\nCSeq: 1\r\n\r\n",
    b"OPTIONS icap://a.test/scan ICAP/1.0\r\nHost: a.test\r\n\r\n",
    b"OPTIONS sip:a@b.test SIP/2.0\r\n\r\n",
    b"NICK bob\r\nUSER bob 0 * :Bob\r\n",
    b"EHLO a.test\r\n",
    b"\0\0\0\x08\x04\xd2\x16\x2f",
    b"AMQP\0\0\x09\x01",
    b"\x10\x0c\0\x04MQTT\x04\x02\0\x3c\0\0",
    b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
    b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n\x16\x03\x01",
    b"GET http://a.test/x HTTP/1.1\r\nHost: a.test\r\n\r\n",
    b"GET / HTTP/1.1\nHost: a.test\n\n",
    b"GET  / HTTP/1.1\r\nHost: a.test\r\n\r\n",
];

#[tokio::test]
async fn mend_04_bytes_that_are_not_http_pass_untouched() {
    let echo = TcpUpstream::echo().await;
    // Long: what is not HTTP is known by its first line.
    for path in both(echo.addr(), "60s").await {
        for bytes in OTHERS {
            let shown = format!("{}: {}", path.name, bytes.escape_ascii());
            let mut raw = path.connect().await;
            raw.send(bytes).await;
            assert_eq!(raw.read_exact(bytes.len()).await, *bytes, "{shown}");
            // In two pieces, and with an end of the client's direction.
            let mut raw = path.connect().await;
            let (first, rest) = bytes.split_at(bytes.len() / 2);
            raw.send(first).await;
            raw.send(rest).await;
            raw.half_close().await;
            assert_eq!(raw.read_to_close().await, *bytes, "{shown}");
        }
    }
}

#[tokio::test]
async fn mend_04_a_line_without_an_end_reaches_the_application_and_so_does_its_rest() {
    let echo = TcpUpstream::echo().await;
    for path in both(echo.addr(), "200ms").await {
        for line in ["LOGIN alice", "GET", "GET /held HTTP/1", "PRI * HT", "\x16\x03", "\r\n", "\n"] {
            let mut raw = path.connect().await;
            raw.send(line).await;
            assert_eq!(raw.read_exact(line.len()).await, line.as_bytes(), "{}: {line:?}", path.name);
            raw.send(" and more\r\n").await;
            assert_eq!(raw.read_exact(11).await, b" and more\r\n", "{}: {line:?}", path.name);
            raw.half_close().await;
            raw.expect_close().await;
        }
    }
}

#[tokio::test]
async fn mend_04_a_request_that_is_typed_slowly_is_a_request() {
    let app = Upstream::http1(|_| Reply::ok("hello")).await;
    let http2 = Http2Upstream::start(|_| Http2Reply::ok("hello")).await;
    for path in both(app.addr(), "100ms").await {
        let before = app.requests().len();
        let mut raw = path.connect().await;
        let connections = app.connections();
        for piece in ["G", "ET / HT", "TP/1.1\r", "\nHost: a\r\nX-Forwarded-Client-Cert: URI=spiffe://forged\r\n"] {
            raw.send(piece).await;
            // What came so far is with the application.
            if !piece.ends_with('\n') {
                tulle_testing::wait::until("a connection", || app.connections() > connections).await;
            }
        }
        raw.send("\r\n").await;
        assert_eq!(raw.response().await.text(), "hello", "{}", path.name);
        assert_eq!(app.requests().len(), before + 1, "{}", path.name);
        let peer = app.request(before).await.header(PEER).map(str::to_owned);
        assert!(!peer.is_some_and(|peer| peer.contains("forged")), "{}", path.name);
    }
    for path in both(http2.addr(), "100ms").await {
        let mut raw = path.connect().await;
        let (first, rest) = PREFACE.split_at(10);
        raw.send(first).await;
        tulle_testing::wait::until("a connection", || http2.connections() > 0).await;
        raw.send(rest).await;
        raw.send([0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
        // The proxy's SETTINGS, which an echo of the preface would not be.
        let head = raw.read_exact(9).await;
        assert_eq!(head.get(3), Some(&4), "{}: {head:?}", path.name);
    }
}

#[tokio::test]
async fn mend_04_opaque_bytes_never_say_who_the_peer_is() {
    let control = mesh::control().await;
    let echo = TcpUpstream::echo().await;
    control.publish_inbound(&Inbound::new("shop", "app").port(9000, "auto", Mtls::Permissive));
    let server = Sidecar::of("shop", "app").control(&control).arg("--detect-timeout", "100ms");
    let server = server.receive(9000, echo.addr()).start().await;
    let ca = control.ca().expect("a control plane with an authority");
    let tls = ca.client(("shop", "web"), ("shop", "app"), Alpn::Opaque);
    let lines = [
        "GET http://a.test/ HTTP/1.1\r\n",
        "CONNECT a.test:443 HTTP/1.1\r\n",
        "GET / HTTP/1.1\n",
        "GET\t/ HTTP/1.1\r\n",
        "\r\n\r\n\r\nGET / HTTP/1.1\r\n",
        " GET / HTTP/1.1\r\n",
        "GET /a b HTTP/1.1\r\n",
        "GET / HTTP/2.0\r\n",
    ];
    for line in lines {
        for mesh in [true, false] {
            let connect = async || match mesh {
                true => Raw::connect_tls(server.inbound(9000), Arc::clone(&tls), "localhost").await,
                false => Raw::connect(server.inbound(9000)).await,
            };
            let mut raw = connect().await;
            let good = format!("{line}Host: a.test\r\nX-Forwarded-Client: cert\r\n\r\n");
            raw.send(&good).await;
            assert_eq!(raw.read_exact(good.len()).await, good.as_bytes(), "{line:?}");
            raw.send("GET / HTTP/1.1\r\nX-Forwarded-").await;
            let _ = raw.try_send("Client-CERT: URI=spiffe://forged\r\n\r\n").await;
            let seen = String::from_utf8_lossy(&raw.read_to_close().await).to_ascii_lowercase();
            assert!(!seen.contains(PEER), "{line:?}: {seen}");
            // At once, behind the line.
            let mut raw = connect().await;
            let _ = raw.try_send(format!("{line}{PEER}: URI=spiffe://forged\r\n\r\n")).await;
            let seen = String::from_utf8_lossy(&raw.read_to_close().await).into_owned();
            assert!(!seen.contains(PEER), "{line:?}: {seen}");
        }
    }
}

#[tokio::test]
async fn mend_04_a_request_line_longer_than_what_is_looked_at_is_a_request() {
    let app = Upstream::http1(|_| Reply::ok("hello")).await;
    let long = format!("/{}", "x".repeat(20 * 1024));
    for (at, path) in both(app.addr(), "60s").await.into_iter().enumerate() {
        let mut raw = path.connect().await;
        assert_eq!(raw.exchange("GET", &long, "a").await.text(), "hello", "{}", path.name);
        assert_eq!(app.request(at).await.path(), long);
    }
}

/// A server that speaks first.
async fn greeter() -> TcpUpstream {
    TcpUpstream::greeting("220 mail ready\r\n").await
}

#[tokio::test]
async fn mend_28_a_server_that_speaks_first_is_waited_for_once() {
    let mail = greeter().await;
    let [pair, _] = both(mail.addr(), "2s").await;
    let timeouts = || mesh::metric(&pair.proxies[0], "tulle_protocol_detect_total", &["result=\"timeout\""]);
    for round in 0..5 {
        let mut raw = pair.connect().await;
        assert_eq!(raw.read_until("\r\n").await, b"220 mail ready\r\n");
        assert_eq!(timeouts().await, 1.0, "in round {round}");
        raw.send("EHLO\r\n").await;
        assert_eq!(raw.read_until("\r\n").await, b"EHLO\r\n");
    }
}

#[tokio::test]
async fn mend_28_a_client_that_speaks_first_after_all_is_understood() {
    let control = mesh::control().await;
    let (mail, web) = (greeter().await, Upstream::http1(|_| Reply::ok("hello")).await);
    let name = mesh::name("app:9000");
    control.publish(&Service::auto(&name).endpoint(&mail.addr().to_string(), None));
    let client = mesh::client_builder(&control, &["app:9000"]).arg("--detect-timeout", "300ms").start().await;
    let entry = client.outbound(&name);
    let timeouts = || mesh::metric(&client, "tulle_protocol_detect_total", &["result=\"timeout\""]);
    for _ in 0..2 {
        let mut raw = Raw::connect(entry).await;
        assert_eq!(raw.read_until("\r\n").await, b"220 mail ready\r\n");
    }
    assert_eq!(timeouts().await, 1.0);
    // Another server at the port: what was learnt of the former one is forgotten.
    control.publish(&Service::auto(&name).endpoint(&web.addr().to_string(), None));
    tulle_testing::wait::until_ready("the other server", || async {
        let mut raw = Raw::connect(entry).await;
        raw.send(tulle_testing::client::raw::request("GET", "/", "a", &[], &[])).await;
        (raw.read_until("\r\n").await == b"HTTP/1.1 200 OK\r\n").then_some(())
    })
    .await;
    let mut silent = Raw::connect(entry).await;
    tulle_testing::wait::until_ready("its silence to be noticed", || async { (timeouts().await > 1.0).then_some(()) })
        .await;
    assert_eq!(silent.exchange("GET", "/", "a").await.text(), "hello", "late, and HTTP all the same");
}

#[tokio::test]
async fn mend_32_opaque_connections_have_a_line_in_the_access_log() {
    let control = mesh::control().await;
    let echo = TcpUpstream::echo().await;
    let nobody = tulle_testing::ports::free();
    let ports = [(9000, "tcp", echo.addr()), (9001, "tcp", nobody)];
    let server = mesh::server(&control, "app", &ports).await;
    for port in [9000, 9001] {
        let service = Service::tcp(&mesh::name(&format!("app:{port}")));
        control.publish(&service.endpoint(&server.inbound(port).to_string(), Some(&mesh::id("app"))));
    }
    let client = mesh::client_builder(&control, &["app:9000", "app:9001"]).arg("--access-log", "json").start().await;
    let mut raw = Raw::connect(client.outbound(&mesh::name("app:9000"))).await;
    let from = raw.local_addr();
    raw.send("ping").await;
    assert_eq!(raw.read_exact(4).await, b"ping");
    raw.half_close().await;
    raw.expect_close().await;
    let line = client.process().line("\"request_bytes\":4").await;
    let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    let field = |name: &str| line.get(name).cloned().unwrap_or_default();
    assert_eq!(field("direction"), "outbound");
    assert_eq!(field("downstream"), from.to_string());
    assert_eq!(field("upstream"), server.inbound(9000).to_string());
    assert_eq!(field("protocol"), "tcp");
    assert_eq!(field("peer"), mesh::id("app"));
    assert_eq!(field("authority"), "app.shop");
    assert_eq!(field("cluster"), mesh::name("app:9000"));
    assert_eq!(field("response_bytes"), 4);
    assert!(line.get("duration_ms").is_some() && line.get("reason").is_none(), "{line}");
    let line = server.process().line(" 4/4 ").await;
    for part in ["inbound", &mesh::id("web"), "\"- app.shop - tcp\"", "reason=- ", &echo.addr().to_string()] {
        assert!(line.contains(part), "{part} in {line}");
    }
    // Nobody there: the line says why, on both sides.
    Raw::connect(client.outbound(&mesh::name("app:9001"))).await.expect_close().await;
    client.process().line("\"reason\":\"connect_refused\"").await;
    server.process().line("reason=connect_refused").await;
}

#[tokio::test]
async fn mend_27_bytes_that_were_not_delivered_reach_another_endpoint() {
    let control = mesh::control().await;
    let echo = TcpUpstream::echo().await;
    let ended = mesh::server(&control, "app", &[(9000, "tcp", tulle_testing::ports::free())]).await;
    let alive = mesh::server(&control, "app", &[(9000, "tcp", echo.addr())]).await;
    let name = mesh::name("app:9000");
    let endpoint = |service: Service, server: &Sidecar| {
        service.endpoint(&server.inbound(9000).to_string(), Some(&mesh::id("app")))
    };
    control.publish(&endpoint(endpoint(Service::tcp(&name), &ended), &alive));
    let client = mesh::client(&control, &["app:9000"]).await;
    for round in 0..30 {
        let mut raw = Raw::connect(client.outbound(&name)).await;
        raw.send("ping").await;
        assert_eq!(raw.read_exact(4).await, b"ping", "in round {round}");
        // Also when the client has ended its direction already.
        let mut raw = Raw::connect(client.outbound(&name)).await;
        raw.send("ping").await;
        raw.half_close().await;
        assert_eq!(raw.read_to_close().await, b"ping", "in round {round}");
    }
    let tried = mesh::metric(&ended, "tulle_tcp_connections_closed_total", &[]).await;
    assert_eq!(tried, 0.0, "nothing was relayed there");
}

/// Serves connections one after the other: reads four bytes and sends them back, until told to end.
#[expect(clippy::disallowed_methods, reason = "a test's peers run beside the test")]
fn application(listener: TcpListener) -> tokio::task::AbortHandle {
    let serve = async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let mut bytes = [0; 4];
            if tcp.read_exact(&mut bytes).await.is_ok() {
                let _ = tcp.write_all(&bytes).await;
            }
        }
    };
    tokio::spawn(serve).abort_handle()
}

#[tokio::test]
async fn mend_27_a_proxy_that_no_longer_accepts_refuses() {
    let control = mesh::control().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let app = listener.local_addr().expect("bound");
    let _application = application(listener);
    let builder = mesh::server_builder(&control, "app", &[(9000, "tcp", app)]).arg("--drain-min", "200ms");
    let server = builder.arg("--drain-deadline", "60s").start().await;
    let name = mesh::name("app:9000");
    control.publish(&Service::tcp(&name).endpoint(&server.inbound(9000).to_string(), Some(&mesh::id("app"))));
    let client = mesh::client(&control, &["app:9000"]).await;
    // A connection of which the application has not had enough yet: it is not cut.
    let mut held = Raw::connect(client.outbound(&name)).await;
    held.send("pi").await;
    server.process().signal("TERM");
    tulle_testing::wait::until_ready("connections to be refused", || async {
        let tcp = within("an answer of the kernel", TcpStream::connect(server.inbound(9000))).await;
        tcp.err().filter(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    })
    .await;
    held.send("ng").await;
    assert_eq!(held.read_to_close().await, b"ping");
    assert_eq!(server.terminate_within(Duration::from_secs(60)).await.code(), Some(0));
}
