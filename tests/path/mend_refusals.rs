//! Requests that are refused by their head: in the terms of their caller, recorded, by limits that are the same for both
//! versions and that a setting sets.

use tulle_testing::client::Http2Client;
use tulle_testing::client::http2::request;
use tulle_testing::client::{Raw, raw};
use tulle_testing::control::Service;
use tulle_testing::sidecar::{Builder, Sidecar};
use tulle_testing::upstream::http2::grpc_frame;
use tulle_testing::upstream::{Http2Reply, Http2Upstream, Reply, Upstream};
use tulle_testing::wait;

use crate::boundary_lanes::Lane;
use crate::http2::publish_http1_only;
use crate::mesh;

#[tokio::test]
async fn mend_08_limits_are_the_same_for_both_versions() {
    let control = mesh::control().await;
    let app = Upstream::http1(|_| Reply::ok("x")).await;
    let new = Http2Upstream::start(|_| Http2Reply::ok("x")).await;
    publish_http1_only(&control, &Service::http(&mesh::name("old")).endpoint(&app.addr().to_string(), None));
    control.publish(&Service::http2(&mesh::name("new")).endpoint(&new.addr().to_string(), None));
    let sidecar = mesh::client(&control, &["old", "new"]).await;
    for service in ["old", "new"] {
        let client = Http2Client::connect(sidecar.outbound(&mesh::name(service))).await;
        let host = format!("{service}.shop");
        for count in [1, 120, 500] {
            let reply = client.exchange(request("GET", &host, "/", &vec![("cookie", "a=1"); count]), "", None).await;
            assert_eq!(reply.expect("a response").status, 200, "{service}: {count} cookies");
        }
        let joined = vec!["a=1"; 120].join("; ");
        let reply = client.exchange(request("GET", &host, "/", &[("cookie", &joined)]), "", None).await;
        assert_eq!(reply.expect("a response").status, 200, "{service}");
        // 63 KB in 99 fields: in HTTP/1 it fits.
        let value = "v".repeat(630);
        let wide = vec![("x-field", value.as_str()); 98];
        let reply = client.exchange(request("GET", &host, "/", &wide), "", None).await;
        assert_eq!(reply.expect("a response").status, 200, "{service}");
        let mut raw = Raw::connect(sidecar.outbound(&mesh::name(service))).await;
        raw.send(raw::request("GET", "/", &host, &wide, &[])).await;
        assert_eq!(raw.response().await.status, 200, "{service}");
    }
    let seen = app.request(1).await;
    assert_eq!(seen.header("cookie"), Some(vec!["a=1"; 120].join("; ").as_str()));
}

#[tokio::test]
async fn mend_08_limits_are_what_the_settings_say_or_the_proxy_does_not_start() {
    let fields = |count: usize| {
        let lines: String = (0..count).map(|n| format!("X-{n}: y\r\n")).collect();
        format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
    };
    let set = |builder: Builder| builder.arg("--max-headers", "128").arg("--max-header-bytes", "8192");
    for lane in Lane::both_with(|_| Reply::ok("x"), set).await {
        let mut raw = lane.connect().await;
        raw.send(fields(120)).await;
        assert_eq!(raw.response().await.status, 200, "{}", lane.name);
        lane.refused(fields(128).as_bytes(), &[431]).await;
        let padded = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(8_192));
        lane.refused(padded.as_bytes(), &[431]).await;
    }
    for (flag, value) in [
        ("--max-headers", "1000"),
        ("--max-headers", "129"),
        ("--max-header-bytes", "200000"),
        ("--max-header-bytes", "65536"),
    ] {
        let refused = Sidecar::of("shop", "web").arg(flag, value).without_waiting().start().await;
        let line = refused.process().line(flag).await;
        assert!(line.contains(value), "{line}");
    }
}

/// Metadata beyond every limit.
fn large() -> String {
    "m".repeat(70_000)
}

#[tokio::test]
async fn mend_09_grpc_calls_are_refused_in_their_own_terms_and_recorded() {
    let control = mesh::control().await;
    let app = Http2Upstream::start(|_| Http2Reply::grpc(&[b"pong"], 0)).await;
    let server = mesh::server(&control, "echo", &[(8080, "grpc", app.addr())]).await;
    let service = Service::grpc(&mesh::name("echo"));
    control.publish(&service.endpoint(&server.inbound(8080).to_string(), Some(&mesh::id("echo"))));
    let sidecar = mesh::client(&control, &["echo"]).await;
    let client = Http2Client::connect(sidecar.outbound(&mesh::name("echo"))).await;
    let large = large();
    let (kind, te, wide) = (("content-type", "application/grpc"), ("te", "trailers"), ("x-large", large.as_str()));
    // Wherever the call says what it is.
    let many = [vec![("x-many", "v"); 150], vec![kind, te]].concat();
    for fields in [vec![kind, te, wide], vec![wide, kind, te], many] {
        let head = request("POST", "echo.shop", "/echo.Echo/Large", &fields);
        let reply = client.exchange(head, grpc_frame(b"ping"), None).await.expect("a response");
        assert_eq!((reply.status, reply.header("grpc-status")), (200, Some("8")), "{reply:?}");
        let seen = (reply.header("content-type"), reply.header("tulle-reason"));
        assert_eq!(seen, (Some("application/grpc"), Some("headers_too_large")), "{reply:?}");
    }
    // Others in the terms of HTTP.
    let head = request("GET", "echo.shop", "/plain", &[wide]);
    assert_eq!(client.exchange(head, "", None).await.expect("a response").status, 431);
    let line = sidecar.process().line("/echo.Echo/Large").await;
    assert!(line.contains("POST echo.shop /echo.Echo/Large HTTP/2\" 200 grpc=8 reason=headers_too_large"), "{line}");
    assert!(line.contains("field `x-large`"), "{line}");
    let labels = ["reason=\"headers_too_large\"", "grpc_status=\"8\""];
    assert_eq!(mesh::metric(&sidecar, "tulle_requests_total", &labels).await, 3.0);
    assert_eq!(app.requests().len(), 0);
}

#[tokio::test]
async fn mend_08_a_response_beyond_the_limits_is_not_retried() {
    let control = mesh::control().await;
    let app = Http2Upstream::start(|head| match head.uri().path() {
        "/echo.Echo/Trailers" => {
            let head = Http2Reply::head(200, &[("content-type", "application/grpc")]);
            head.data(grpc_frame(b"pong")).trailers(&[("grpc-status", "3"), ("x-details", &large())])
        }
        "/echo.Echo/Only" => Http2Reply::head(
            200,
            &[("content-type", "application/grpc"), ("grpc-status", "3"), ("grpc-message", &large())],
        ),
        _ => Http2Reply::grpc(&[b"pong"], 0),
    })
    .await;
    let server = mesh::server(&control, "echo", &[(8080, "grpc", app.addr())]).await;
    let service = Service::grpc(&mesh::name("echo"));
    control.publish(&service.endpoint(&server.inbound(8080).to_string(), Some(&mesh::id("echo"))));
    let sidecar = mesh::client(&control, &["echo"]).await;
    let client = Http2Client::connect(sidecar.outbound(&mesh::name("echo"))).await;
    for path in ["/echo.Echo/Trailers", "/echo.Echo/Only"] {
        match client.grpc("echo.shop", path, b"ping").await {
            // Clients take this reset for INTERNAL (the gRPC protocol's table of HTTP/2 codes).
            Err(error) => assert_eq!(error.reason(), Some(h2::Reason::INTERNAL_ERROR), "{path}: {error}"),
            Ok(reply) => assert_eq!(reply.grpc_status(), Some("13"), "{path}: {reply:?}"),
        }
    }
    let ok = client.grpc("echo.shop", "/echo.Echo/Unary", b"ping").await.expect("the connection goes on");
    assert_eq!(ok.grpc_status(), Some("0"));
    assert_eq!(app.requests().len(), 3, "nothing was called twice");
}

#[tokio::test]
async fn mend_09_what_is_refused_before_it_is_a_request_is_recorded() {
    let fast = |builder: Builder| builder.arg("--header-timeout", "500ms").arg("--workers", "1");
    for lane in Lane::both_with(|_| Reply::ok("x"), fast).await {
        let long = format!("GET /long/{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(70_000));
        let wide = format!("GET /wide HTTP/1.1\r\nHost: a\r\nX-Wide: {}\r\n\r\n", "a".repeat(70_000));
        let cases: [(&[u8], u16, &str, &str); 5] = [
            (b"GET /bad HTTP/1.1\r\nHost: a\r\nX Y: z\r\n\r\n", 400, "bad_request", "\"GET a /bad HTTP/1.1\""),
            (b"CONNECT b:80 HTTP/1.1\r\nHost: b:80\r\n\r\n", 405, "bad_request", "\"CONNECT b:80 b:80 HTTP/1.1\""),
            (b"GET /slow HTTP/1.1\r\nHost: a\r\n", 408, "header_timeout", "\"GET a /slow HTTP/1.1\""),
            (long.as_bytes(), 414, "headers_too_large", "\"GET - /long/aaa"),
            (wide.as_bytes(), 431, "headers_too_large", "\"GET a /wide HTTP/1.1\""),
        ];
        let entry = &lane.proxies[0];
        for (bytes, status, reason, line) in cases {
            lane.refused(bytes, &[status]).await;
            let line = entry.process().line(line).await;
            assert!(line.contains(&format!("\" {status} grpc=- reason={reason} ")), "{}: {line}", lane.name);
            assert!(line.contains(" detail=\""), "{line}");
            let labels = [format!("status=\"{status}\""), format!("reason=\"{reason}\"")];
            let labels = [labels[0].as_str(), labels[1].as_str()];
            wait::until_ready("a request that is counted", || async {
                (mesh::metric(entry, "tulle_requests_total", &labels).await == 1.0).then_some(())
            })
            .await;
        }
        assert!(entry.process().line("\"GET a /bad HTTP/1.1\"").await.contains("field `X Y`"));
    }
}

#[tokio::test]
async fn mend_09_grpc_web_over_http1_is_refused_in_its_own_terms() {
    for lane in Lane::both(|_| Reply::ok("x")).await {
        let kind = "application/grpc-web+proto";
        let ask = |size: usize| {
            let wide = "m".repeat(size);
            format!("POST /a.B/C HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\nX: {wide}\r\nContent-Length: 0\r\n\r\n")
        };
        let mut raw = lane.connect().await;
        raw.send(ask(70_000)).await;
        let reply = raw.response().await;
        assert_eq!((reply.status, reply.header("grpc-status")), (200, Some("8")), "{}: {reply:?}", lane.name);
        let seen = (reply.header("content-type"), reply.header("connection"));
        assert_eq!(seen, (Some(kind), Some("close")), "{}: {reply:?}", lane.name);
        raw.expect_close().await;
    }
}
