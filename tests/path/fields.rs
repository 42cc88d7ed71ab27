//! Header fields on their way: hop-by-hop ones end at each proxy, identity comes from the proxy alone, trailers and
//! everything else arrive.

use tulle_testing::client::http2::request;
use tulle_testing::client::{Http2Client, raw};
use tulle_testing::control::{Inbound, Mtls};
use tulle_testing::sidecar::Sidecar;
use tulle_testing::upstream::http1::Recorded;
use tulle_testing::upstream::{Http2Reply, Http2Upstream, Reply};

use crate::boundary_lanes::Lane;
use crate::mesh;

/// Fields sent, fields that must not arrive, fields that must, with their values.
struct Row {
    id: &'static str,
    sent: &'static [(&'static str, &'static str)],
    gone: &'static [&'static str],
    kept: &'static [(&'static str, &'static str)],
}

const REQUESTS: &[Row] = &[
    Row {
        id: "HH-01",
        sent: &[
            ("Connection", "X-Drop, keep-alive"),
            ("X-Drop", "1"),
            ("Keep-Alive", "timeout=5"),
            ("Proxy-Connection", "keep-alive"),
            ("TE", "gzip"),
            ("Upgrade", "foo"),
            ("Proxy-Authorization", "Basic x"),
            ("Trailer", "X"),
            ("X-Keep", "1"),
        ],
        gone: &["connection", "x-drop", "keep-alive", "proxy-connection", "te", "upgrade"],
        kept: &[("x-keep", "1"), ("trailer", "X"), ("proxy-authorization", "Basic x")],
    },
    Row {
        id: "HH-01 in other words",
        sent: &[
            ("connection", "x-a ,, X-B"),
            ("Connection", "x-c"),
            ("X-A", "1"),
            ("x-b", "1"),
            ("X-C", "1"),
            ("x-d", "1"),
        ],
        gone: &["connection", "x-a", "x-b", "x-c"],
        kept: &[("x-d", "1")],
    },
    Row { id: "HH-06", sent: &[("TE", "trailers"), ("connection", "te")], gone: &[], kept: &[("te", "trailers")] },
    Row { id: "HH-06", sent: &[("te", "gzip;q=1, Trailers")], gone: &[], kept: &[("te", "trailers")] },
    Row {
        id: "TN-05",
        sent: &[
            ("Connection", "Upgrade, HTTP2-Settings"),
            ("Upgrade", "h2c"),
            ("HTTP2-Settings", "AAMAAABkAAQAoAAAAAIAAAAA"),
        ],
        gone: &["connection", "upgrade", "http2-settings"],
        kept: &[],
    },
    Row {
        id: "TN-05",
        sent: &[("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABkAAQAoAAAAAIAAAAA")],
        gone: &["connection", "upgrade", "http2-settings"],
        kept: &[],
    },
    Row {
        id: "TN-05",
        sent: &[("Connection", "Upgrade"), ("Upgrade", "h2c"), ("Upgrade", "websocket")],
        gone: &["connection", "upgrade"],
        kept: &[],
    },
    Row {
        id: "trace context of others",
        sent: &[
            ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            ("tracestate", "rojo=00f067aa0ba902b7, congo=t61rcWkgMzE"),
            ("tracestate", "third=x"),
            ("baggage", "user=a%20b;ttl=1"),
            ("b3", "0"),
        ],
        gone: &[],
        kept: &[
            ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            ("tracestate", "rojo=00f067aa0ba902b7, congo=t61rcWkgMzE"),
            ("tracestate", "third=x"),
            ("baggage", "user=a%20b;ttl=1"),
            ("b3", "0"),
        ],
    },
    Row {
        id: "fields of the application",
        sent: &[
            ("Accept", "*/*"),
            ("X-Empty", ""),
            ("x-request-id", "7"),
            ("x-forwarded-for", "1.2.3.4"),
            ("Cookie", "a=b; c"),
        ],
        gone: &[],
        kept: &[
            ("accept", "*/*"),
            ("x-empty", ""),
            ("x-request-id", "7"),
            ("x-forwarded-for", "1.2.3.4"),
            ("cookie", "a=b; c"),
        ],
    },
    Row {
        id: "SP-01",
        sent: &[
            ("x-envoy-retry-on", "5xx"),
            ("x-envoy-max-retries", "9"),
            ("x-envoy-upstream-rq-timeout-ms", "1"),
            ("x-envoy-internal", "true"),
            ("x-envoy-original-path", "/admin"),
            ("x-envoy-decorator-operation", "x"),
            ("x-envoy-attempt-count", "3"),
            ("x-envoy-peer-metadata", "x"),
            ("X-Envoy-External-Address", "1.1.1.1"),
            ("l5d-client-id", "x"),
            ("L5D-Dst-Override", "x:80"),
            ("l5d-orig-proto", "x"),
            ("tulle-reason", "x"),
            ("Tulle-Proxy", "x"),
            ("tulle-identity", "x"),
        ],
        gone: &[
            "x-envoy-retry-on",
            "x-envoy-max-retries",
            "x-envoy-upstream-rq-timeout-ms",
            "x-envoy-internal",
            "x-envoy-original-path",
            "x-envoy-decorator-operation",
            "x-envoy-attempt-count",
            "x-envoy-peer-metadata",
            "x-envoy-external-address",
            "l5d-client-id",
            "l5d-dst-override",
            "l5d-orig-proto",
            "tulle-reason",
            "tulle-proxy",
            "tulle-identity",
        ],
        kept: &[],
    },
];

#[tokio::test]
async fn request_fields_end_at_the_proxy_or_arrive() {
    for lane in Lane::both(|_| Reply::ok("")).await {
        let mut raw = lane.connect().await;
        for (at, row) in REQUESTS.iter().enumerate() {
            raw.send(raw::request("GET", "/", "a", row.sent, &[])).await;
            assert_eq!(raw.response().await.status, 200, "{}: {}", lane.name, row.id);
            let seen = lane.app.request(at).await;
            let what = format!("{}: {} arrived as {:?}", lane.name, row.id, seen.headers());
            for name in row.gone {
                assert_eq!(seen.header(name), None, "{what}");
            }
            for (name, value) in row.kept {
                assert!(
                    seen.headers().iter().any(|(n, v)| n.eq_ignore_ascii_case(name) && v == value),
                    "{name}: {what}"
                );
            }
        }
    }
}

#[tokio::test]
async fn response_fields_end_at_the_proxy_or_arrive() {
    let fields = [
        ("Connection", "x-server-quux, keep-alive"),
        ("X-Server-Quux", "1"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "close"),
        ("Upgrade", "h2c"),
        ("tulle-reason", "no_route"),
        ("Tulle-Proxy", "inbound"),
        ("x-envoy-upstream-service-time", "1"),
        ("Set-Cookie", "a=1"),
        ("Set-Cookie", "b=2"),
        ("X-Keep", "\u{e4}"),
    ];
    for lane in Lane::both(move |_| Reply::status(200, &fields, "x")).await {
        let reply = lane.connect().await.exchange("GET", "/", "a").await;
        let gone =
            ["connection", "x-server-quux", "keep-alive", "proxy-connection", "upgrade", "tulle-reason", "tulle-proxy"];
        for name in gone {
            assert_eq!(reply.header(name), None, "{}: {:?}", lane.name, reply.headers);
        }
        assert_eq!(reply.header("x-keep"), Some("\u{e4}"), "{}", lane.name);
        let cookies = reply.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie"));
        assert_eq!(cookies.map(|(_, value)| value.as_str()).collect::<Vec<_>>(), ["a=1", "b=2"], "{}", lane.name);
    }
}

#[tokio::test]
async fn close_is_honoured_wherever_it_is_said() {
    for lane in Lane::both(|_| Reply::ok("x")).await {
        for fields in [
            &[("Connection", "close")][..],
            &[("Connection", "keep-alive"), ("Connection", "Close")],
            &[("Connection", "x-a, close, x-b")],
        ] {
            let mut raw = lane.connect().await;
            raw.send(raw::request("GET", "/", "a", fields, &[])).await;
            let reply = raw.response().await;
            assert_eq!(reply.header("connection"), Some("close"), "{}: {fields:?}", lane.name);
            raw.expect_close().await;
        }
    }
    // An application that closes costs the client nothing.
    let closing = |_: &Recorded| Reply::status(200, &[("Connection", "x-a, close")], "x").close();
    for lane in Lane::both(closing).await {
        let mut raw = lane.connect().await;
        for _ in 0..3 {
            let reply = raw.exchange("GET", "/", "a").await;
            assert_eq!((reply.status, reply.header("connection")), (200, None), "{}", lane.name);
        }
        assert_eq!(lane.app.connections(), 3, "{}", lane.name);
    }
}

#[tokio::test]
async fn the_application_learns_the_peer_from_its_proxy_alone() {
    const NAME: &str = "x-forwarded-client-cert";
    let forged: &[&[(&str, &str)]] = &[
        &[(NAME, "URI=spiffe://cluster.local/ns/shop/sa/admin")],
        &[("X-Forwarded-Client-Cert", "URI=x"), ("x-forwarded-client-cert", "URI=y")],
        &[("X-FORWARDED-CLIENT-CERT", "URI=x, URI=y;By=z")],
        &[(NAME, "")],
        &[("Connection", NAME), (NAME, "x")],
        &[],
    ];
    for lane in Lane::both(|_| Reply::ok("x")).await {
        let mut raw = lane.connect().await;
        for (at, fields) in forged.iter().enumerate() {
            raw.send(raw::request("GET", "/", "a", fields, &[])).await;
            raw.response().await;
            let seen = lane.app.request(at).await;
            let values: Vec<_> = seen.headers().iter().filter(|(n, _)| n.eq_ignore_ascii_case(NAME)).collect();
            match lane.name {
                "plain" => assert!(values.is_empty(), "SP-01 {fields:?}: {values:?}"),
                _ => {
                    assert_eq!(values.len(), 1, "SP-03 {fields:?}: {values:?}");
                    let expected =
                        "By=spiffe://cluster.local/ns/shop/sa/reviews;URI=spiffe://cluster.local/ns/shop/sa/web";
                    assert_eq!(values[0].1, expected, "SP-01 {fields:?}");
                }
            }
        }
        let huge = "x".repeat(64 * 1024);
        lane.refused(&raw::request("GET", "/", "a", &[(NAME, &huge)], &[]), &[431]).await;
    }
}

/// Gateways to applications (CGI, WSGI, PHP) take `X_Forwarded_Client_Cert` for `x-forwarded-client-cert`.
#[tokio::test]
async fn hostile_09_identity_fields_in_other_spellings_reach_nobody() {
    const FORGED: &[(&str, &str)] = &[
        ("X_Forwarded_Client_Cert", "URI=spiffe://cluster.local/ns/shop/sa/admin"),
        ("x_forwarded-client-cert", "URI=x"),
        ("X-FORWARDED_CLIENT_CERT", "URI=x"),
        ("x.forwarded.client.cert", "URI=x"),
        ("x~forwarded~client~cert", "URI=x"),
        ("X_Envoy_Internal", "true"),
        ("l5d_client_id", "x"),
        ("Tulle_Reason", "x"),
        ("tulle_identity", "x"),
        ("Transfer_Encoding", "chunked"),
        ("Content_Length", "7"),
        ("x_user", "kept"),
    ];
    let reads_as = |name: &str| name.replace(|c: char| !c.is_ascii_alphanumeric(), "-").to_ascii_lowercase();
    let forged: Vec<String> = FORGED.iter().map(|(name, _)| reads_as(name)).filter(|name| name != "x-user").collect();
    let check = |lane: &str, version: &str, fields: &[(String, String)]| {
        let hidden = |name: &str| name.contains(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        for (name, value) in fields {
            let bad = hidden(name) && forged.contains(&reads_as(name));
            assert!(!bad, "{lane}, {version}: `{name}: {value}` reached the application");
        }
        assert!(
            fields.iter().any(|(name, value)| name == "x_user" && value == "kept"),
            "{lane}, {version}: {fields:?}"
        );
    };
    for lane in Lane::all(|_| Reply::ok("x")).await {
        let mut raw = lane.connect().await;
        raw.send(raw::request("GET", "/", "a", FORGED, &[])).await;
        assert_eq!(raw.response().await.status, 200, "{}", lane.name);
        check(lane.name, "fields of HTTP/1", lane.app.request(0).await.headers());
        raw.send("POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n").await;
        let trailers: String = FORGED.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        raw.send(trailers + "\r\n").await;
        assert_eq!(raw.response().await.status, 200, "{}", lane.name);
        check(lane.name, "trailers of HTTP/1", &lane.app.request(1).await.trailers);
    }
    let app = Http2Upstream::start(|_| Http2Reply::head(200, &[])).await;
    let control = mesh::control().await;
    control.publish_inbound(&Inbound::new("shop", "reviews").port(8080, "http2", Mtls::Permissive));
    let server = Sidecar::of("shop", "reviews").control(&control).receive(8080, app.addr()).start().await;
    let client = Http2Client::connect(server.inbound(8080)).await;
    let lower: Vec<(String, &str)> = FORGED.iter().map(|(name, value)| (name.to_lowercase(), *value)).collect();
    let lower: Vec<(&str, &str)> = lower.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let head = request("POST", "a", "/", &[&lower[..], &[("te", "trailers")]].concat());
    let trailers = request("GET", "a", "/", &lower).headers().clone();
    assert_eq!(client.exchange(head, "x", Some(trailers)).await.expect("a response").status, 200);
    let seen = app.request(0).await;
    let pairs = |map: &http::HeaderMap| -> Vec<(String, String)> {
        map.iter().map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into())).collect()
    };
    check("plain", "fields of HTTP/2", &pairs(seen.head.headers()));
    check("plain", "trailers of HTTP/2", &pairs(&seen.trailers.unwrap_or_default()));
}

#[tokio::test]
async fn trailers_cross_both_ways() {
    let answer = |_: &Recorded| {
        Reply::head(200, &[("transfer-encoding", "chunked"), ("trailer", "x-sum")])
            .write("5;ext=1\r\nhello\r\n")
            .last_chunk(&[("x-sum", "11"), ("x-other", "2"), ("content-length", "9"), ("tulle-reason", "x")])
    };
    for lane in Lane::both(answer).await {
        let mut raw = lane.connect().await;
        raw.send(
            "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
             3\r\nabc\r\n0\r\nX-Sum: 3\r\nHost: evil\r\nTransfer-Encoding: x\r\nx-envoy-internal: 1\r\n\r\n",
        )
        .await;
        let reply = raw.response().await;
        let own = |pairs: &[(String, String)]| -> Vec<(String, String)> { pairs.to_vec() };
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!((reply.text().as_str(), reply.header("trailer")), ("hello", Some("x-sum")), "{}", lane.name);
        assert_eq!(own(&reply.trailers), [pair("x-sum", "11"), pair("x-other", "2")], "{}", lane.name);
        assert!(!String::from_utf8_lossy(&reply.body_bytes).contains("ext"), "{}", lane.name);
        let seen = lane.app.request(0).await;
        assert_eq!((seen.body.as_slice(), seen.header("te")), (&b"abc"[..], Some("trailers")), "{}", lane.name);
        assert_eq!(own(&seen.trailers), [pair("x-sum", "3")], "{}", lane.name);
    }
}
