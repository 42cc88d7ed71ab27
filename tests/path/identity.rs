//! Who may come in and who is called: mutual TLS at the wire, from both sides of a proxy.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};
use tulle_identity::tls::Alpn;
use tulle_testing::certs::{Ca, application_tls};
use tulle_testing::client::{Raw, raw};
use tulle_testing::control::{Control, Inbound, Mtls, Service};
use tulle_testing::forge::{Forged, anonymous, uri};
use tulle_testing::sidecar::Sidecar;
use tulle_testing::upstream::http1::Options;
use tulle_testing::upstream::{Reply, Upstream};
use tulle_testing::wait;

use crate::boundary_lanes::IDENTITY;

const PEER: &str = "x-forwarded-client-cert";
const REVIEWS: (&str, &str) = ("shop", "reviews");
const SECOND: Duration = Duration::from_secs(1);

/// A proxy for an application: port 8080 strict, 8081 permissive, 8082 without the mesh.
struct Server {
    control: Control,
    app: Upstream,
    sidecar: Sidecar,
}

impl Server {
    async fn start() -> Self {
        let control = Control::start(Arc::new(Ca::new())).await;
        let app = Upstream::http1(|_| Reply::ok("hello")).await;
        let inbound = Inbound::new("shop", "reviews")
            .port(8080, "http", Mtls::Strict)
            .port(8081, "http", Mtls::Permissive)
            .port(8082, "http", Mtls::Disable);
        control.publish_inbound(&inbound);
        let builder = Sidecar::of("shop", "reviews").control(&control);
        let builder = [8080, 8081, 8082].into_iter().fold(builder, |b, port| b.receive(port, app.addr()));
        let sidecar = builder.start().await;
        Self { control, app, sidecar }
    }

    fn ca(&self) -> &Ca {
        self.control.ca().expect("a control plane with an authority")
    }

    /// One request with this TLS; the status, or none when no reply came.
    async fn ask(&self, port: u16, config: Arc<rustls::ClientConfig>) -> Option<u16> {
        let mut raw = Raw::try_connect_tls(self.sidecar.inbound(port), config, "localhost").await.ok()?;
        // With TLS 1.3 a refusal of the client's certificate comes after the handshake.
        raw.try_send(raw::request("GET", "/", "a", &[], &[])).await.ok()?;
        raw.try_response("GET").await.map(|reply| reply.status)
    }
}

/// Client certificates that must not open anything, each signed by the right authority.
fn spoilt(ca: &Ca) -> Vec<(String, Forged)> {
    let now = SystemTime::now();
    let mut all: Vec<(String, Forged)> = Vec::new();
    let mut row = |what: &str, change: &dyn Fn(&mut CertificateParams)| {
        all.push((what.to_owned(), Forged::leaf(ca, change)));
    };
    row("ID-03 expired a second ago", &|p| p.not_after = (now - SECOND).into());
    row("ID-03 not valid yet", &|p| p.not_before = (now + 30 * SECOND).into());
    row("ID-04 another trust domain", &|p| p.subject_alt_names = vec![uri("spiffe://clusterset.local/ns/shop/sa/web")]);
    row("ID-06 two ids", &|p| p.subject_alt_names.push(uri("spiffe://cluster.local/ns/shop/sa/admin")));
    row("ID-06 no id", &|p| {
        p.subject_alt_names = vec![SanType::DnsName("web.shop".try_into().expect("a DNS name"))];
    });
    row("ID-06 no alternative names", &|p| p.subject_alt_names.clear());
    row("ID-07 an authority", &|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    row("ID-07 may sign certificates", &|p| p.key_usages.push(KeyUsagePurpose::KeyCertSign));
    row("ID-07 may sign revocations", &|p| p.key_usages.push(KeyUsagePurpose::CrlSign));
    row("ID-07 for servers only", &|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    let long = format!("spiffe://cluster.local/ns/shop/sa/{}", "a".repeat(2048));
    for id in [
        "spiffe://cluster.local",
        "spiffe://cluster.local/",
        "spiffe://cluster.local/ns/shop/sa/web/",
        "spiffe://cluster.local/ns//shop/sa/web",
        "spiffe://cluster.local/ns/x/../shop/sa/web",
        "spiffe://cluster.local/ns/shop/sa/%77eb",
        "spiffe://CLUSTER.local/ns/shop/sa/web",
        "spiffe://u@cluster.local/ns/shop/sa/web",
        "spiffe://cluster.local:80/ns/shop/sa/web",
        "spiffe://cluster.local/ns/shop/sa/web?x=1",
        "spiffe://cluster.local/ns/shop/sa/web#x",
        "https://cluster.local/ns/shop/sa/web",
        &long,
    ] {
        row(&format!("ID-06 {id:.80}"), &|p| p.subject_alt_names = vec![uri(id)]);
    }
    all
}

#[tokio::test]
async fn a_mesh_port_takes_peers_of_the_mesh_and_nobody_else() {
    let server = Server::start().await;
    let ca = server.ca();
    let good = Forged::leaf(ca, |_| ());
    // The control plane's clock may be 20 s ahead of ours: a certificate that is young is good.
    let young = Forged::leaf(ca, |p| p.not_before = (SystemTime::now() - SECOND).into());
    for (at, good) in [good, young].into_iter().enumerate() {
        assert_eq!(server.ask(8080, good.client(ca, REVIEWS)).await, Some(200));
        let seen = server.app.request(at).await;
        let peer = seen.header(PEER).unwrap_or_default();
        assert!(peer.ends_with(";URI=spiffe://cluster.local/ns/shop/sa/web"), "{peer}");
    }

    let connections = server.app.connections();
    let (stranger, foreign) = (Ca::new(), Ca::of_domain("clusterset.local"));
    let (_, application) = application_tls("localhost", &[]);
    let mut refused = vec![
        ("ID-01 no certificate".to_owned(), anonymous(ca, REVIEWS)),
        ("ID-03 another authority".to_owned(), Forged::leaf(&stranger, |_| ()).client(ca, REVIEWS)),
        ("ID-03 self-signed".to_owned(), Forged::self_signed(ca).client(ca, REVIEWS)),
        ("ID-04 another mesh".to_owned(), Forged::leaf(&foreign, |_| ()).client(ca, REVIEWS)),
        ("ID-07 the authority's own".to_owned(), Forged::authority(ca).client(ca, REVIEWS)),
    ];
    refused.extend(spoilt(ca).into_iter().map(|(what, forged)| (what, forged.client(ca, REVIEWS))));
    for (what, config) in refused {
        for port in [8080, 8081] {
            assert_eq!(server.ask(port, Arc::clone(&config)).await, None, "{what} at {port}");
        }
    }
    assert_eq!(server.ask(8080, application).await, None, "the application's own TLS");
    let mut plain = Raw::connect(server.sidecar.inbound(8080)).await;
    let _ = plain.try_send(raw::request("GET", "/", "a", &[], &[])).await;
    plain.expect_close().await;
    assert_eq!(server.app.requests().len(), 2, "somebody reached the application");
    assert_eq!(server.app.connections(), connections, "somebody reached the application");
}

#[tokio::test]
async fn a_plain_caller_reaches_a_permissive_port_without_an_identity() {
    let server = Server::start().await;
    for (at, port) in [8081, 8082].into_iter().enumerate() {
        let mut raw = Raw::connect(server.sidecar.inbound(port)).await;
        let forged = [(PEER, "By=x;URI=spiffe://cluster.local/ns/shop/sa/web")];
        raw.send(raw::request("GET", "/", "a", &forged, &[])).await;
        assert_eq!(raw.response().await.status, 200, "ID-02 at {port}");
        assert_eq!(server.app.request(at).await.header(PEER), None, "ID-02 at {port}");
    }
    let web = server.ca().client(("shop", "web"), REVIEWS, Alpn::H1);
    assert_eq!(server.ask(8081, web).await, Some(200));
    assert!(server.app.request(2).await.header(PEER).is_some_and(|peer| peer.contains("/sa/web")));
    assert_eq!(server.app.requests().len(), 3);
}

/// An endpoint that speaks TLS with this configuration and records what it is asked.
async fn endpoint(tls: Option<Arc<rustls::ServerConfig>>) -> Upstream {
    Upstream::http1_with(Options { tls, at: None }, |_| Reply::ok("hello")).await
}

#[tokio::test]
async fn a_server_that_is_somebody_else_gets_nothing() {
    let control = Control::start(Arc::new(Ca::new())).await;
    let ca = control.ca().expect("a control plane with an authority");
    control.publish_inbound(&Inbound::new("shop", "web"));
    let reviews = |p: &mut CertificateParams| p.subject_alt_names = vec![uri(IDENTITY)];
    let expired = |p: &mut CertificateParams| {
        reviews(p);
        p.not_after = (SystemTime::now() - SECOND).into();
    };
    let client_only = |p: &mut CertificateParams| {
        reviews(p);
        p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    };
    let stranger = Ca::new();
    let (application, _) = application_tls("localhost", &[]);
    let cases = [
        ("another service account", Some(ca.server("shop", "ratings")), "identity_mismatch"),
        ("another namespace", Some(ca.server("other", "reviews")), "identity_mismatch"),
        ("another authority", Some(stranger.server("shop", "reviews")), "tls_handshake"),
        ("expired", Some(Forged::leaf(ca, expired).server(ca)), "cert_expired"),
        ("for clients only", Some(Forged::leaf(ca, client_only).server(ca)), "tls_handshake"),
        ("a web server", Some(application), "tls_handshake"),
        ("no TLS at all", None, "connect_timeout"),
    ];
    let name = |at: usize, set: &str| format!("{set}{at}.shop.svc.cluster.local:80");
    let real = endpoint(Some(ca.server("shop", "reviews"))).await;
    let address = real.addr().to_string();
    let mut builder = Sidecar::of("shop", "web").control(&control);
    let mut imposters = Vec::new();
    for (at, (what, tls, reason)) in cases.into_iter().enumerate() {
        // One that speaks no TLS waits for more of what it takes for a request.
        let timeout = if tls.is_some() { 20 * SECOND } else { SECOND / 4 };
        let imposter = endpoint(tls).await;
        let alone = Service::http(&name(at, "alone"))
            .endpoint(&imposter.addr().to_string(), Some(IDENTITY))
            .connect_timeout(timeout);
        let beside = Service::http(&name(at, "beside"))
            .endpoint(&imposter.addr().to_string(), Some(IDENTITY))
            .endpoint(&address, Some(IDENTITY))
            .connect_timeout(timeout)
            .retry("connect-failure", 2);
        control.publish(&alone);
        control.publish(&beside);
        builder = builder.send(alone.name()).send(beside.name());
        imposters.push((what, imposter, alone, beside, reason));
    }
    let client = builder.start().await;
    for (what, imposter, alone, beside, reason) in imposters {
        let reply = raw::get(client.outbound(alone.name()), "/", "a").await;
        let seen = (reply.status, reply.header("tulle-reason"), reply.header("tulle-proxy"));
        assert_eq!(seen, (503, Some(reason), Some("outbound")), "ID-05 {what}");
        for _ in 0..10 {
            let reply = raw::get(client.outbound(beside.name()), "/", "a").await;
            assert_eq!(reply.status, 200, "ID-05 {what}: {reply:?}");
        }
        assert!(imposter.connections() > 0, "ID-05 {what}: never tried");
        assert!(imposter.requests().is_empty(), "ID-05 {what}: it was told something");
    }
}

#[tokio::test]
async fn an_http_port_reads_every_request_whatever_its_sender_calls_it() {
    let control = Control::start(Arc::new(Ca::new())).await;
    let ca = control.ca().expect("a control plane with an authority");
    let app = Upstream::http1(|_| Reply::ok("hello")).await;
    let inbound = Inbound::new("shop", "reviews").port(8080, "http", Mtls::Strict).port(8081, "http", Mtls::Permissive);
    control.publish_inbound(&inbound);
    let builder = Sidecar::of("shop", "reviews").control(&control).arg("--idle-timeout", "1s");
    let server = builder.receive(8080, app.addr()).receive(8081, app.addr()).start().await;
    let forged = [(PEER, "URI=spiffe://cluster.local/ns/shop/sa/admin")];
    let request = raw::request("GET", "/", "a", &forged, &[]);

    // A peer of the mesh that says nothing of HTTP in its handshake.
    let opaque = ca.client(("shop", "web"), REVIEWS, Alpn::Opaque);
    let mut raw = Raw::connect_tls(server.inbound(8080), Arc::clone(&opaque), "localhost").await;
    raw.send(&request).await;
    assert_eq!(raw.response().await.status, 200);
    let seen = app.request(0).await;
    let peers: Vec<_> = seen.headers().iter().filter(|(name, _)| name == PEER).map(|(_, value)| value).collect();
    assert_eq!(peers, ["By=spiffe://cluster.local/ns/shop/sa/reviews;URI=spiffe://cluster.local/ns/shop/sa/web"]);
    let mut raw = Raw::connect_tls(server.inbound(8080), opaque, "localhost").await;
    raw.send("G").await;
    raw.send(&request[1..]).await;
    assert_eq!(raw.response().await.status, 200);
    assert!(app.request(1).await.header(PEER).is_some_and(|peer| peer.starts_with("By=")));

    // A plain caller that waits until nobody expects a request any more.
    let mut raw = Raw::connect(server.inbound(8081)).await;
    let rest = raw.read_to_close().await;
    assert!(rest.is_empty(), "{:?}", String::from_utf8_lossy(&rest));
    let _ = raw.try_send(&request).await;
    assert!(raw.try_response("GET").await.is_none());
    assert_eq!(app.requests().len(), 2);
}

#[tokio::test]
async fn where_nothing_is_declared_a_request_is_read_however_late_and_whatever_it_is_called() {
    let control = Control::start(Arc::new(Ca::new())).await;
    let ca = control.ca().expect("a control plane with an authority");
    let app = Upstream::http1(|_| Reply::ok("hello")).await;
    let inbound = Inbound::new("shop", "reviews").port(8080, "auto", Mtls::Permissive);
    control.publish_inbound(&inbound);
    let builder = Sidecar::of("shop", "reviews").control(&control).arg("--detect-timeout", "50ms");
    let server = builder.receive(8080, app.addr()).start().await;
    let forged = [(PEER, "URI=spiffe://cluster.local/ns/shop/sa/admin")];
    let request = raw::request("GET", "/", "a", &forged, &[]);

    // A peer of the mesh that calls it opaque, at once and in two parts.
    let opaque = ca.client(("shop", "web"), REVIEWS, Alpn::Opaque);
    for parts in [vec![&request[..]], vec![&request[..1], &request[1..]]] {
        let mut raw = Raw::connect_tls(server.inbound(8080), Arc::clone(&opaque), "localhost").await;
        for part in parts {
            raw.send(part).await;
        }
        assert_eq!(raw.response().await.status, 200);
        let seen = app.requests().last().and_then(|seen| seen.header(PEER).map(str::to_owned));
        assert!(seen.is_some_and(|peer| peer.ends_with("URI=spiffe://cluster.local/ns/shop/sa/web")));
    }

    // A plain caller that waits until nobody expects a request any more: the application was connected to.
    let connections = app.connections();
    let mut raw = Raw::connect(server.inbound(8080)).await;
    wait::until("the time for detection is up", || app.connections() > connections).await;
    raw.send(&request).await;
    assert_eq!(raw.response().await.status, 200);
    assert!(app.requests().last().is_some_and(|seen| seen.header(PEER).is_none()));
}
