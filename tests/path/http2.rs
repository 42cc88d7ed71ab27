//! HTTP/2 at the sidecar of a client: conversion from and to HTTP/1.

use std::collections::HashMap;

use tulle_proto::{ResourceType, envoy};
use tulle_testing::client::http2::request;
use tulle_testing::client::{Http2Client, Raw, raw};
use tulle_testing::control::{Control, Service};
use tulle_testing::sidecar::Sidecar;
use tulle_testing::upstream::{Http2Reply, Http2Upstream, Reply, Upstream};

use crate::mesh;

/// A service whose endpoints speak HTTP/1 only, whatever the client speaks.
pub(crate) fn publish_http1_only(control: &Control, service: &Service) {
    use envoy::extensions::upstreams::http::v3::http_protocol_options as options;
    control.publish(service);
    let http1 = options::explicit_http_config::ProtocolConfig::HttpProtocolOptions(Default::default());
    let explicit = options::ExplicitHttpConfig { protocol_config: Some(http1) };
    let packed =
        tulle_testing::control::resources::pack(&envoy::extensions::upstreams::http::v3::HttpProtocolOptions {
            upstream_protocol_options: Some(options::UpstreamProtocolOptions::ExplicitHttpConfig(explicit)),
            ..Default::default()
        });
    let mut cluster = service.cluster();
    let key = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned();
    cluster.typed_extension_protocol_options = HashMap::from([(key, packed)]);
    control.set(ResourceType::Cluster, service.name(), &cluster);
}

fn http1_application() -> impl Future<Output = Upstream> {
    Upstream::http1(|request| match request.path() {
        "/empty" => Reply::head(204, &[]),
        "/cached" => Reply::head(304, &[("etag", "\"1\"")]),
        "/head" => Reply::head(200, &[("content-length", "11")]),
        "/chunks" => Reply::chunked(&[b"one ", b"two"], &[("x-sum", "7")]),
        "/hints" => {
            Reply::head(103, &[("link", "</style.css>")]).then_head(200, &[("content-length", "2")]).write("ok")
        }
        "/until-close" => Reply::until_close("all of it"),
        "/hop" => Reply::status(200, &[("connection", "x-drop"), ("x-drop", "1"), ("keep-alive", "timeout=5")], "ok"),
        _ => Reply::status(200, &[("set-cookie", "a=1"), ("set-cookie", "b=2")], "hello"),
    })
}

#[tokio::test]
async fn versions_are_converted() {
    let control = mesh::control().await;
    let old = http1_application().await;
    let new = Http2Upstream::start(|head| match head.uri().path() {
        "/empty" => Http2Reply::head(204, &[]),
        "/head" => Http2Reply::head(200, &[("content-length", "11")]),
        "/trailers" => Http2Reply::head(200, &[]).data("body").trailers(&[("x-sum", "4")]),
        "/length" => Http2Reply::head(200, &[("content-length", "4")]).data("body"),
        _ => Http2Reply::echo(),
    })
    .await;
    publish_http1_only(&control, &Service::http(&mesh::name("old")).endpoint(&old.addr().to_string(), None));
    control.publish(&Service::http2(&mesh::name("new")).endpoint(&new.addr().to_string(), None));
    let sidecar = mesh::client(&control, &["old", "new"]).await;

    http2_to_http1(&sidecar, &old).await;
    http1_to_http2(&sidecar, &new).await;
}

#[tokio::test]
async fn heads_have_as_many_fields_as_in_http1() {
    let control = mesh::control().await;
    let app = Upstream::http1(|_| Reply::ok("x")).await;
    publish_http1_only(&control, &Service::http(&mesh::name("old")).endpoint(&app.addr().to_string(), None));
    let sidecar = mesh::client(&control, &["old"]).await;
    let client = Http2Client::connect(sidecar.outbound(&mesh::name("old"))).await;
    // The authority is a field in HTTP/1, and counts here too.
    let many = |count: usize| request("GET", "old.shop", "/", &vec![("x", "y"); count - 1]);
    let good = client.exchange(many(100), "", None).await.expect("an answer");
    assert_eq!((good.status, app.requests().len()), (200, 1));
    for count in [101, 1_000] {
        let reply = client.exchange(many(count), "", None).await.expect("an answer");
        assert_eq!((reply.status, reply.header("tulle-reason")), (431, Some("headers_too_large")), "{count} fields");
    }
    let good = client.exchange(many(2), "", None).await.expect("an answer, on the same connection");
    assert_eq!((good.status, app.requests().len()), (200, 2));
}

async fn http2_to_http1(sidecar: &Sidecar, app: &Upstream) {
    let client = Http2Client::connect(sidecar.outbound(&mesh::name("old"))).await;
    let cookies = [("cookie", "a=1"), ("cookie", "b=2"), ("te", "trailers"), ("x-kept", "yes")];
    let reply = client.exchange(request("GET", "old.shop", "/?q=1", &cookies), "", None).await.expect("an answer");
    assert_eq!((reply.status, &reply.body[..]), (200, &b"hello"[..]), "{reply:?}");
    let set: Vec<_> = reply.headers.get_all("set-cookie").iter().collect();
    assert_eq!(set, ["a=1", "b=2"]);
    assert!(!reply.headers.contains_key("connection"));
    let seen = app.request(0).await;
    assert_eq!((seen.method(), seen.path(), seen.header("host")), ("GET", "/?q=1", Some("old.shop")));
    assert_eq!(seen.header("cookie"), Some("a=1; b=2"), "one field in HTTP/1 (RFC 9113 section 8.2.3)");
    assert_eq!(seen.header("x-kept"), Some("yes"));
    assert!(seen.header("transfer-encoding").is_none() && seen.header("content-length").is_none(), "{seen:?}");

    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-sum", http::HeaderValue::from_static("5"));
    let post = request("POST", "old.shop", "/", &[]);
    client.exchange(post, "hello", Some(trailers)).await.expect("an answer");
    let seen = app.request(1).await;
    assert_eq!((&seen.body[..], seen.header("transfer-encoding")), (&b"hello"[..], Some("chunked")), "{seen:?}");
    assert_eq!(seen.trailers, [("x-sum".to_owned(), "5".to_owned())]);
    let post = request("POST", "old.shop", "/", &[("content-length", "5")]);
    client.exchange(post, "hello", None).await.expect("an answer");
    let seen = app.request(2).await;
    assert_eq!((&seen.body[..], seen.header("content-length")), (&b"hello"[..], Some("5")), "{seen:?}");

    for (method, path, status, body) in [
        ("HEAD", "/head", 200, ""),
        ("GET", "/empty", 204, ""),
        ("GET", "/cached", 304, ""),
        ("GET", "/chunks", 200, "one two"),
        ("GET", "/hints", 200, "ok"),
        ("GET", "/until-close", 200, "all of it"),
        ("GET", "/hop", 200, "ok"),
    ] {
        let reply = client.exchange(request(method, "old.shop", path, &[]), "", None).await;
        let reply = reply.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        assert_eq!((reply.status, &reply.body[..]), (status, body.as_bytes()), "{path}: {reply:?}");
        assert_eq!(reply.trailers.is_some(), path == "/chunks", "{path}: {reply:?}");
        assert_eq!(
            reply.header("content-length"),
            match path {
                "/head" => Some("11"),
                "/hints" | "/hop" => Some("2"),
                _ => None,
            }
        );
        assert!(reply.header("x-drop").is_none() && reply.header("keep-alive").is_none(), "{reply:?}");
    }
}

async fn http1_to_http2(sidecar: &Sidecar, app: &Http2Upstream) {
    let mut client = Raw::connect(sidecar.outbound(&mesh::name("new"))).await;
    for (method, path, body) in [("GET", "/trailers", "body"), ("GET", "/length", "body"), ("HEAD", "/head", "")] {
        let reply = client.exchange(method, path, "new.shop").await;
        assert_eq!((reply.status, reply.text().as_str()), (200, body), "{path}: {reply:?}");
        assert_eq!(reply.trailers.len(), usize::from(path == "/trailers"), "{path}: {reply:?}");
        assert_eq!(reply.header("content-length").is_some(), path != "/trailers", "{path}: {reply:?}");
    }
    let reply = client.exchange("GET", "/empty", "new.shop").await;
    assert_eq!((reply.status, reply.header("transfer-encoding"), reply.body.len()), (204, None, 0));
    let headers = [("connection", "x-drop"), ("x-drop", "1"), ("x-kept", "yes"), ("Cookie", "a=1; b=2")];
    client.send(raw::request("POST", "/echo", "new.shop", &headers, b"hello")).await;
    let reply = client.response().await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "hello"));
    let seen = app.request(4).await;
    assert_eq!((seen.header("x-drop"), seen.header("x-kept")), (None, Some("yes")));
    assert_eq!((seen.header("cookie"), seen.header("host")), (Some("a=1; b=2"), None));
    assert_eq!(seen.head.uri().authority().map(http::uri::Authority::as_str), Some("new.shop"));
    let chunked =
        "POST /echo HTTP/1.1\r\nhost: new.shop\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 3\r\n\r\n";
    client.send(chunked).await;
    let reply = client.response().await;
    assert_eq!((reply.text().as_str(), reply.trailers.len()), ("abc", 1), "{reply:?}");
    assert_eq!(app.connections(), 1);
}
