//! gRPC through two sidecars: messages both ways, trailers, errors, cancellation, and calls that reach nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tulle_testing::client::Http2Client;
use tulle_testing::client::http2::{Http2Response, request};
use tulle_testing::control::Service;
use tulle_testing::ports;
use tulle_testing::upstream::http2::grpc_frame;
use tulle_testing::upstream::{Http2Reply, Http2Upstream};
use tulle_testing::wait::{self, Gate, within};

use crate::mesh;

const AUTHORITY: &str = "echo.shop";
const HEADERS: [(&str, &str); 2] = [("content-type", "application/grpc"), ("te", "trailers")];

/// What the application does is in the path of the call. `begun` counts calls whose head has arrived.
async fn application(begun: &Arc<AtomicUsize>, gate: &Gate) -> Http2Upstream {
    let (begun, gate) = (Arc::clone(begun), gate.clone());
    Http2Upstream::start(move |head| {
        begun.fetch_add(1, Ordering::SeqCst);
        match head.uri().path() {
            "/echo.Echo/Unary" => Http2Reply::grpc(&[b"pong"], 0),
            "/echo.Echo/Feed" => Http2Reply::grpc(&[b"one", b"two", b"three"], 0),
            "/echo.Echo/Fails" => Http2Reply::grpc_trailers_only(5, "no such thing"),
            "/echo.Echo/FailsLate" => Http2Reply::grpc(&[b"one"], 13),
            "/echo.Echo/Chat" => Http2Reply::echo(),
            "/echo.Echo/Held" => Http2Reply::head(200, &HEADERS[..1])
                .after(&gate)
                .data(grpc_frame(b"late"))
                .trailers(&[("grpc-status", "0")]),
            "/echo.Echo/Breaks" => {
                Http2Reply::head(200, &HEADERS[..1]).data(grpc_frame(b"one")).after(&gate).reset(h2::Reason::CANCEL)
            }
            "/echo.Echo/Aborts" => Http2Reply::default().reset(h2::Reason::CANCEL),
            other => panic!("unexpected call of {other}"),
        }
    })
    .await
}

#[tokio::test]
async fn grpc_crosses_two_sidecars() {
    let control = mesh::control().await;
    let (begun, gate) = (Arc::default(), Gate::closed());
    let app = application(&begun, &gate).await;
    let dead_port = (8081, "grpc", ports::free());
    let server = mesh::server(&control, "echo", &[(8080, "grpc", app.addr()), dead_port]).await;
    let service = |name: &str, port| {
        let service = Service::grpc(&mesh::name(name));
        service.endpoint(&server.inbound(port).to_string(), Some(&mesh::id("echo"))).retry(mesh::SAFE, 1)
    };
    control.publish(&service("echo", 8080));
    control.publish(&service("dead", 8081));
    control.publish(&Service::grpc(&mesh::name("gone")).endpoint(&ports::free().to_string(), None));
    let sidecar = mesh::client(&control, &["echo", "dead", "gone"]).await;
    let client = Http2Client::connect(sidecar.outbound(&mesh::name("echo"))).await;

    unary_and_streaming(&client, &app).await;
    many_calls_share_one_connection(&client, &app, &begun, &gate).await;
    resets_travel_both_ways(&client, &app, &begun).await;

    let gone = Http2Client::connect(sidecar.outbound(&mesh::name("gone"))).await;
    let reply = gone.grpc("gone.shop", "/echo.Echo/Unary", b"ping").await.expect("an answer");
    assert_eq!((reply.status, reply.grpc_status()), (200, Some("14")), "{reply:?}");
    assert_eq!(reply.header("tulle-reason"), Some("connect_refused"), "{reply:?}");
    assert_eq!(reply.header("tulle-proxy"), Some("outbound"), "{reply:?}");
    let dead = Http2Client::connect(sidecar.outbound(&mesh::name("dead"))).await;
    let reply = dead.grpc("dead.shop", "/echo.Echo/Unary", b"ping").await.expect("an answer");
    assert_eq!((reply.status, reply.grpc_status()), (200, Some("14")), "{reply:?}");
    assert_eq!(reply.header("tulle-reason"), Some("connect_refused"), "{reply:?}");
    assert_eq!(reply.header("tulle-proxy"), Some("inbound"), "{reply:?}");

    let log = sidecar.process().line("/echo.Echo/FailsLate").await;
    assert!(log.contains("grpc=13"), "{log}");
    let failures = mesh::metric(&sidecar, "tulle_requests_total", &["reason=\"connect_refused\""]).await;
    assert!(failures >= 2.0, "{failures}");
}

async fn unary_and_streaming(client: &Http2Client, app: &Http2Upstream) {
    let reply = client.grpc(AUTHORITY, "/echo.Echo/Unary", b"ping").await.expect("an answer");
    assert_eq!((reply.status, reply.grpc_status()), (200, Some("0")), "{reply:?}");
    assert_eq!(reply.body, grpc_frame(b"pong"));
    let seen = app.request(0).await;
    assert_eq!(seen.body, grpc_frame(b"ping"));
    assert_eq!((seen.header("te"), seen.header("content-type")), (Some("trailers"), Some("application/grpc")));
    assert_eq!(seen.head.uri().authority().map(http::uri::Authority::as_str), Some(AUTHORITY));
    assert!(seen.header("x-forwarded-client-cert").is_some_and(|v| v.contains("sa/web")), "{seen:?}");

    let reply = client.grpc(AUTHORITY, "/echo.Echo/Feed", b"").await.expect("an answer");
    assert_eq!(reply.body, [grpc_frame(b"one"), grpc_frame(b"two"), grpc_frame(b"three")].concat());
    assert_eq!(reply.grpc_status(), Some("0"));

    let reply = client.grpc(AUTHORITY, "/echo.Echo/Fails", b"").await.expect("an answer");
    assert_eq!((reply.grpc_status(), reply.header("grpc-message")), (Some("5"), Some("no such thing")), "{reply:?}");
    assert_eq!(reply.header("tulle-reason"), None, "the application's own error is not ours");
    let reply = client.grpc(AUTHORITY, "/echo.Echo/FailsLate", b"").await.expect("an answer");
    assert_eq!((reply.grpc_status(), &reply.body), (Some("13"), &grpc_frame(b"one")));

    // Turn by turn: each message must come back before the next one is sent.
    let chat = request("POST", AUTHORITY, "/echo.Echo/Chat", &HEADERS);
    let (response, mut send) = client.start(chat, false).await.expect("room");
    let mut response = within("a head", response).await.expect("a head");
    for turn in 0..20 {
        let message = grpc_frame(format!("turn {turn}").as_bytes());
        send.send_data(message.clone(), false).expect("an open stream");
        let mut back = Vec::new();
        while back.len() < message.len() {
            let data = within("an echo", response.body_mut().data()).await.expect("more").expect("no reset");
            let _ = response.body_mut().flow_control().release_capacity(data.len());
            back.extend_from_slice(&data);
        }
        assert_eq!(back, message);
    }
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-end", http::HeaderValue::from_static("yes"));
    send.send_trailers(trailers).expect("an open stream");
    let rest = Http2Response::read(response).await.expect("no reset");
    assert!(rest.trailers.is_some_and(|trailers| trailers["x-end"] == "yes"), "trailers go both ways");

    // Larger than every window on the way.
    let large = Bytes::from(vec![7; 3 << 20]);
    let chat = request("POST", AUTHORITY, "/echo.Echo/Chat", &HEADERS);
    let reply = client.exchange(chat, large.clone(), None).await.expect("an answer");
    assert_eq!(reply.body.len(), large.len());
    assert_eq!(reply.body, large);
}

async fn many_calls_share_one_connection(client: &Http2Client, app: &Http2Upstream, begun: &AtomicUsize, gate: &Gate) {
    let before = begun.load(Ordering::SeqCst);
    let mut replies = Vec::new();
    for _ in 0..50 {
        let head = request("POST", AUTHORITY, "/echo.Echo/Held", &HEADERS);
        replies.push(client.start(head, true).await.expect("room").0);
    }
    wait::until("50 calls at the same time", || begun.load(Ordering::SeqCst) == before + 50).await;
    gate.open();
    for reply in replies {
        let reply = Http2Response::read(within("a head", reply).await.expect("a head")).await.expect("no reset");
        assert_eq!((reply.body, reply.trailers.is_some()), (grpc_frame(b"late"), true));
    }
    assert_eq!(app.connections(), 1, "streams are multiplexed");
}

async fn resets_travel_both_ways(client: &Http2Client, app: &Http2Upstream, begun: &AtomicUsize) {
    let broken = client.grpc(AUTHORITY, "/echo.Echo/Breaks", b"").await.expect_err("the stream is reset");
    assert_eq!((broken.is_reset(), broken.reason()), (true, Some(h2::Reason::CANCEL)), "{broken}");
    let aborted = client.grpc(AUTHORITY, "/echo.Echo/Aborts", b"").await.expect_err("the stream is reset");
    assert_eq!((aborted.is_reset(), aborted.reason()), (true, Some(h2::Reason::CANCEL)), "{aborted}");

    let before = begun.load(Ordering::SeqCst);
    // The request stays open: the application reads it and is told that the client gave up.
    let head = request("POST", AUTHORITY, "/echo.Echo/Unary", &[("x-cancelled", "yes")]);
    let (reply, mut send) = client.start(head, false).await.expect("room");
    wait::until("the call to arrive", || begun.load(Ordering::SeqCst) == before + 1).await;
    send.send_reset(h2::Reason::CANCEL);
    drop(reply);
    let cancelled = wait::until_some("the cancelled call at the application", || {
        app.requests().into_iter().find(|request| request.header("x-cancelled").is_some())
    })
    .await;
    assert_eq!(cancelled.reset, Some(h2::Reason::CANCEL));
}
