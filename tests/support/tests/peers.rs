//! The peers against each other: what they record, script and await is what the tests above them rely on.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio_stream::wrappers::ReceiverStream;
use tulle_identity::csr::PendingKey;
use tulle_identity::svid::verify_leaf;
use tulle_identity::tls::Alpn;
use tulle_proto::ResourceType;
use tulle_proto::auth::IstioCertificateRequest;
use tulle_proto::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use tulle_proto::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use tulle_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use tulle_testing::certs::{self, Ca};
use tulle_testing::client::{self, Http2Client, Raw};
use tulle_testing::control::{Control, Inbound, Mtls, Service};
use tulle_testing::upstream::http1::Options;
use tulle_testing::upstream::{Http2Reply, Http2Upstream, Reply, TcpUpstream, Upstream};
use tulle_testing::wait::{self, Gate, within};

#[tokio::test]
async fn an_origin_records_exact_bytes_and_writes_exact_bytes() {
    let origin = Upstream::scripted([
        Reply::chunked(&[b"one", b"two"], &[("x-sum", "6")]),
        Reply::status(404, &[("x-a", "b")], "gone"),
        Reply::until_close("end"),
    ])
    .await;
    let mut raw = Raw::connect(origin.addr()).await;
    let sent = "POST /a?b HTTP/1.1\r\nHost:  x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nt: u\r\n\r\n";
    raw.send(sent).await;
    let reply = raw.response().await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "onetwo"));
    assert_eq!(reply.trailers, [("x-sum".to_owned(), "6".to_owned())]);
    let seen = origin.request(0).await;
    assert_eq!([seen.head_bytes.clone(), seen.body_bytes.clone()].concat(), sent.as_bytes());
    assert_eq!((seen.method(), seen.path(), seen.header("host")), ("POST", "/a?b", Some("x")));
    assert_eq!((seen.body.as_slice(), seen.cut), (&b"abc"[..], false));
    assert_eq!(raw.exchange("GET", "/", "x").await.status, 404);
    assert_eq!(raw.exchange("GET", "/", "x").await.text(), "end");
    raw.expect_close().await;
    assert_eq!((origin.requests().len(), origin.connections()), (3, 1));
}

#[tokio::test]
async fn an_origin_can_hold_reset_echo_and_stop() {
    let gate = Gate::closed();
    let held = gate.clone();
    let origin = Upstream::http1(move |request| match request.path() {
        "/held" => Reply::head(200, &[("content-length", "4")]).write("ab").after(&held).write("cd"),
        "/reset" => Reply::raw("HTTP/1.1 2").reset(),
        _ => Reply::switch_and_echo("test"),
    })
    .await;
    let mut raw = Raw::connect(origin.addr()).await;
    raw.send(client::raw::request("GET", "/held", "x", &[], &[])).await;
    raw.read_until("\r\n\r\nab").await;
    gate.open();
    assert_eq!(raw.read_exact(2).await, b"cd");
    raw.send(client::raw::request("GET", "/up", "x", &[], &[])).await;
    assert_eq!(raw.response().await.status, 101);
    raw.send("ping").await;
    assert_eq!(raw.read_exact(4).await, b"ping");
    raw.half_close().await;
    raw.expect_close().await;
    let mut raw = Raw::connect(origin.addr()).await;
    raw.send(client::raw::request("GET", "/reset", "x", &[], &[])).await;
    assert!(raw.try_response("GET").await.is_none());
    wait::until("connections to close", || origin.open_connections() == 0).await;
    let addr = origin.addr();
    origin.stop().await;
    assert!(tokio::net::TcpStream::connect(addr).await.is_err());
}

#[tokio::test]
async fn tcp_servers_greet_first_and_echo() {
    let server = TcpUpstream::greeting("220 ready\r\n").await;
    let mut raw = Raw::connect(server.addr()).await;
    raw.read_until("ready\r\n").await;
    raw.send("hello").await;
    raw.half_close().await;
    assert_eq!(raw.read_to_close().await, b"hello");
}

#[tokio::test]
async fn http2_origins_answer_grpc_refuse_and_go_away() {
    let origin = Http2Upstream::start(|request| match request.uri().path() {
        "/refused" => Http2Reply::refuse(),
        "/last" => Http2Reply::ok("last").goaway(),
        "/echo" => Http2Reply::echo(),
        _ => Http2Reply::grpc(&[b"pong"], 0),
    })
    .await;
    let client = Http2Client::connect(origin.addr()).await;
    let reply = client.grpc("x", "/svc/Method", b"ping").await.expect("an answer");
    assert_eq!((reply.grpc_status(), &reply.body[5..]), (Some("0"), &b"pong"[..]));
    assert_eq!(&origin.request(0).await.body[5..], b"ping");
    let refused = client.get("x", "/refused").await.expect_err("refused");
    assert_eq!(refused.reason(), Some(h2::Reason::REFUSED_STREAM));
    let head = client::http2::request("POST", "x", "/echo", &[]);
    let mut trailers = http::HeaderMap::new();
    trailers.insert("sum", "1".parse().expect("a value"));
    let echoed = client.exchange(head, Bytes::from_static(b"body"), Some(trailers.clone())).await.expect("an echo");
    assert_eq!((&echoed.body[..], echoed.trailers), (&b"body"[..], Some(trailers)));
    assert_eq!(client.get("x", "/last").await.expect("an answer").body, "last");
    assert!(client.get("x", "/after").await.is_err(), "a connection that went away takes no more streams");
}

#[tokio::test]
async fn mesh_tls_proves_both_sides_and_strangers_fail() {
    let (ca, stranger) = (Ca::new(), Ca::new());
    let tls = Some(ca.server("shop", "reviews"));
    let origin = Upstream::http1_with(Options { at: None, tls }, |_| Reply::ok("in")).await;
    let config = ca.client(("shop", "web"), ("shop", "reviews"), Alpn::H1);
    let mut raw = Raw::connect_tls(origin.addr(), config, "ignored").await;
    assert_eq!(raw.exchange("GET", "/", "x").await.text(), "in");
    assert_eq!(verify_leaf(&raw.peer_certificates()[0]), Ok(ca.id("shop", "reviews")));
    assert_eq!(verify_leaf(&origin.request(0).await.certificates[0]), Ok(ca.id("shop", "web")));
    let other = ca.client(("shop", "web"), ("shop", "ratings"), Alpn::H1);
    assert!(Raw::try_connect_tls(origin.addr(), other, "ignored").await.is_err());
    let strange = stranger.client(("shop", "web"), ("shop", "reviews"), Alpn::H1);
    assert!(Raw::try_connect_tls(origin.addr(), strange, "ignored").await.is_err());
}

#[tokio::test]
async fn the_applications_own_tls_is_separate() {
    let (server, trusting) = certs::application_tls("shop.example", &[b"h2"]);
    let origin = Http2Upstream::start_with(Options { at: None, tls: Some(server) }, |_| Http2Reply::ok("mine")).await;
    let client = Http2Client::connect_tls(origin.addr(), trusting, "shop.example").await;
    assert_eq!(client.get("shop.example", "/").await.expect("an answer").body, "mine");
}

/// One request on a stream and the next response.
async fn ask(
    send: &tokio::sync::mpsc::Sender<DeltaDiscoveryRequest>,
    responses: &mut tonic::Streaming<DeltaDiscoveryResponse>,
    request: DeltaDiscoveryRequest,
) -> DeltaDiscoveryResponse {
    send.send(request).await.expect("an open stream");
    within("a response", responses.message()).await.expect("an open stream").expect("a response")
}

fn subscribe(kind: ResourceType, names: &[&str]) -> DeltaDiscoveryRequest {
    let resource_names_subscribe = names.iter().map(|name| (*name).to_owned()).collect();
    DeltaDiscoveryRequest { type_url: kind.url().to_owned(), resource_names_subscribe, ..Default::default() }
}

#[tokio::test]
async fn a_control_plane_says_what_it_is_told() {
    let mut control = Control::plaintext().await;
    let service = Service::http("reviews.shop.svc.cluster.local:80").endpoint("127.0.0.1:9", None);
    let name = service.name();
    control.publish(&service);
    control.keep_silent(ResourceType::Listener, "silent");
    let url = format!("http://{}", control.addr());
    let mut client = AggregatedDiscoveryServiceClient::connect(url).await.expect("a connection");
    let (send, requests) = tokio::sync::mpsc::channel(4);
    let opened = client.delta_aggregated_resources(ReceiverStream::new(requests)).await.expect("a stream");
    let mut responses = opened.into_inner();
    let first = ask(&send, &mut responses, subscribe(ResourceType::Listener, &[name, "none", "silent"])).await;
    assert_eq!(
        (first.resources[0].name.as_str(), first.removed_resources.as_slice()),
        (name, &["none".to_owned()][..])
    );
    assert!(control.requests()[0].authorization.is_none());
    let accept = DeltaDiscoveryRequest { response_nonce: first.nonce, ..subscribe(ResourceType::Listener, &[]) };
    send.send(accept).await.expect("an open stream");
    control.absence_acknowledged(ResourceType::Listener, "none").await;
    let next = ask(&send, &mut responses, subscribe(ResourceType::Endpoint, &[name])).await;
    let bad = tulle_proto::google::rpc::Status { message: "no good".to_owned(), ..Default::default() };
    let refuse = DeltaDiscoveryRequest {
        response_nonce: next.nonce,
        error_detail: Some(bad),
        ..subscribe(ResourceType::Endpoint, &[])
    };
    send.send(refuse).await.expect("an open stream");
    assert_eq!(control.refusal(0).await.reason, "no good");
    control.remove(ResourceType::Listener, name);
    let removed = within("a response", responses.message()).await.expect("an open stream").expect("a response");
    assert_eq!(removed.removed_resources, [name]);
    control.stop().await;
    assert!(!matches!(within("the end", responses.message()).await, Ok(Some(_))), "stopping cuts its streams");
    control.restart().await;
    assert_eq!(control.open_streams(), 0);
}

#[tokio::test]
async fn a_control_plane_signs_for_tokens_only() {
    let ca = Arc::new(Ca::new());
    let control = Control::start(Arc::clone(&ca)).await;
    control.publish_inbound(&Inbound::new("shop", "web").port(8080, "auto", Mtls::Permissive));
    let server = ca.id("tulle-system", "tulle-control-plane");
    let bundle = ca.identity("shop", "web").bundle;
    let config = tulle_identity::tls::control_plane_client(&bundle, &server).expect("a configuration");
    let http2 = Http2Client::connect_tls(control.addr(), config, "localhost").await;
    assert_eq!(http2.get("x", "/nothing").await.expect("an answer").grpc_status(), Some("12"));

    let plain = Control::plaintext().await;
    let url = format!("http://{}", plain.addr());
    let mut client = IstioCertificateServiceClient::connect(url).await.expect("a connection");
    let key = PendingKey::generate().expect("a key");
    let csr = key.csr_pem(&ca.id("shop", "web")).expect("a request");
    let request = IstioCertificateRequest { csr, ..Default::default() };
    let refused = client.create_certificate(request.clone()).await.expect_err("it has no authority");
    assert_eq!(refused.code(), tonic::Code::Unimplemented);

    let signed = sign(&http2, &request, &ca.token("shop", "web")).await;
    let chain = signed.expect("a certificate").cert_chain;
    let (svid, _) = key.into_svid(&chain, SystemTime::now()).expect("our certificate");
    assert_eq!(*svid.id(), ca.id("shop", "web"));
    assert_eq!(control.certificates(), [ca.id("shop", "web").as_str()]);
    assert_eq!(sign(&http2, &request, "rubbish").await.expect_err("no such token"), "16");
    control.certificate_ttl(Duration::from_secs(61));
    let short = sign(&http2, &request, &ca.token("shop", "web")).await.expect("a certificate");
    assert!(!short.cert_chain.is_empty());
}

/// Calls the signing service over `client`; the gRPC status where it is not 0.
async fn sign(
    client: &Http2Client,
    request: &IstioCertificateRequest,
    token: &str,
) -> Result<tulle_proto::auth::IstioCertificateResponse, String> {
    use prost::Message as _;
    let authorization = format!("Bearer {token}");
    let headers = [("content-type", "application/grpc"), ("te", "trailers"), ("authorization", authorization.as_str())];
    let path = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
    let head = client::http2::request("POST", "localhost", path, &headers);
    let body = tulle_testing::upstream::http2::grpc_frame(&request.encode_to_vec());
    let reply = client.exchange(head, body, None).await.expect("an answer");
    match reply.grpc_status() {
        Some("0") => Ok(tulle_proto::auth::IstioCertificateResponse::decode(&reply.body[5..]).expect("a response")),
        status => Err(status.unwrap_or("none").to_owned()),
    }
}

#[tokio::test]
#[should_panic(expected = "for the moon")]
async fn waiting_ends() {
    tokio::time::pause();
    wait::until("the moon", || false).await;
}
