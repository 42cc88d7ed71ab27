//! A connection lives no longer than what it proved, and than the policy that let it in.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tulle_identity::tls::Alpn;
use tulle_proto::{ResourceType, names};
use tulle_testing::certs::Ca;
use tulle_testing::client::{Http2Client, Raw, raw};
use tulle_testing::control::resources::trust_bundle;
use tulle_testing::control::{Control, Inbound, Mtls};
use tulle_testing::sidecar::Sidecar;
use tulle_testing::upstream::{Http2Reply, Http2Upstream, Reply, TcpUpstream, Upstream};
use tulle_testing::wait;

use crate::mesh;

const HTTP: u16 = 8080;
const HTTP2: u16 = 8081;
const TCP: u16 = 9000;
const REVIEWS: (&str, &str) = ("shop", "reviews");

/// A sidecar with an HTTP port and an opaque one.
struct Server {
    control: Control,
    _apps: (Upstream, Http2Upstream, TcpUpstream),
    sidecar: Sidecar,
}

impl Server {
    async fn start(mtls: Mtls, flags: &[(&str, &str)]) -> Self {
        let control = mesh::control().await;
        let (app, echo) = (Upstream::http1(|_| Reply::ok("hello")).await, TcpUpstream::echo().await);
        let new = Http2Upstream::start(|_| Http2Reply::head(200, &[])).await;
        control.publish_inbound(&rules(mtls));
        let builder = Sidecar::of("shop", "reviews")
            .control(&control)
            .receive(HTTP, app.addr())
            .receive(HTTP2, new.addr())
            .receive(TCP, echo.addr());
        let builder = flags.iter().fold(builder, |builder, (flag, value)| builder.arg(flag, value));
        let sidecar = builder.arg("--workers", "1").start().await;
        Self { control, _apps: (app, new, echo), sidecar }
    }

    fn ca(&self) -> &Ca {
        self.control.ca().expect("a control plane with an authority")
    }

    /// Mesh TLS of a peer whose certificate ends in `ttl`.
    fn peer(&self, ttl: Duration, alpn: Alpn) -> Arc<rustls::ClientConfig> {
        let identity = self.ca().identity_for(&self.ca().id("shop", "web"), ttl);
        tulle_testing::certs::mesh(&identity).client(&self.ca().id(REVIEWS.0, REVIEWS.1), alpn)
    }

    async fn http1(&self, tls: Option<Arc<rustls::ClientConfig>>) -> Raw {
        match tls {
            Some(tls) => Raw::connect_tls(self.sidecar.inbound(HTTP), tls, "localhost").await,
            None => Raw::connect(self.sidecar.inbound(HTTP)).await,
        }
    }

    async fn http2(&self, tls: Option<Arc<rustls::ClientConfig>>) -> Http2Client {
        let client = match tls {
            Some(tls) => Http2Client::connect_tls(self.sidecar.inbound(HTTP2), tls, "localhost").await,
            None => Http2Client::connect(self.sidecar.inbound(HTTP2)).await,
        };
        assert_eq!(client.get("a", "/").await.expect("a response").status, 200);
        client
    }

    async fn opaque(&self, tls: Option<Arc<rustls::ClientConfig>>) -> Raw {
        let mut raw = match tls {
            Some(tls) => Raw::connect_tls(self.sidecar.inbound(TCP), tls, "localhost").await,
            None => Raw::connect(self.sidecar.inbound(TCP)).await,
        };
        raw.send("ping").await;
        assert_eq!(raw.read_exact(4).await, b"ping");
        raw
    }

    /// One connection of each kind, in use until it ends. None of them serves anything from then on.
    async fn ends(&self, connections: Connections) {
        let Connections { mut http1, http2, mut opaque } = connections;
        let busy = async {
            while let Some(200) = exchange(&mut http1).await {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            assert_eq!(exchange(&mut http1).await, None, "it is closed");
        };
        let streams = async {
            while http2.get("a", "/").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            assert!(http2.get("a", "/").await.is_err(), "it takes no more streams");
        };
        let bytes = opaque.read_to_close();
        wait::within("the connections to end", async { tokio::join!(busy, streams, bytes) }).await;
    }
}

struct Connections {
    http1: Raw,
    http2: Http2Client,
    opaque: Raw,
}

/// The status of one more request; none: the connection has ended.
async fn exchange(raw: &mut Raw) -> Option<u16> {
    raw.try_send(raw::request("GET", "/", "a", &[], &[])).await.ok()?;
    raw.try_response("GET").await.map(|reply| reply.status)
}

fn rules(mtls: Mtls) -> Inbound {
    Inbound::new("shop", "reviews").port(HTTP, "http", mtls).port(HTTP2, "http2", mtls).port(TCP, "tcp", mtls)
}

#[tokio::test]
async fn hostile_13_connections_end_with_the_certificate_they_were_made_with() {
    let server = Server::start(Mtls::Strict, &[]).await;
    let ttl = Duration::from_secs(5);
    let end = SystemTime::now() + ttl;
    let peer = |alpn| Some(server.peer(ttl, alpn));
    let connections = Connections {
        http1: server.http1(peer(Alpn::H1)).await,
        http2: server.http2(peer(Alpn::H2)).await,
        opaque: server.opaque(peer(Alpn::Opaque)).await,
    };
    // One whose certificate is good for longer goes on.
    let mut other = server.http1(Some(server.ca().client(("shop", "web"), REVIEWS, Alpn::H1))).await;
    assert_eq!(exchange(&mut other).await, Some(200));
    server.ends(connections).await;
    // Certificates end with a whole second.
    assert!(SystemTime::now() + Duration::from_secs(1) >= end, "not before its end");
    assert_eq!(exchange(&mut other).await, Some(200));
}

#[tokio::test]
async fn hostile_13_connections_end_when_the_root_that_vouched_is_removed() {
    let server = Server::start(Mtls::Strict, &[]).await;
    let peer = |alpn| Some(server.ca().client(("shop", "web"), REVIEWS, alpn));
    let both = format!("{}{}", server.ca().bundle_pem(), Ca::new().bundle_pem());
    let connections = Connections {
        http1: server.http1(peer(Alpn::H1)).await,
        http2: server.http2(peer(Alpn::H2)).await,
        opaque: server.opaque(peer(Alpn::Opaque)).await,
    };
    // A root more ends nothing.
    server.control.set(ResourceType::Secret, names::TRUST_BUNDLE, &trust_bundle(&both));
    server.control.acknowledged(names::TRUST_BUNDLE).await;
    let Connections { mut http1, http2, opaque } = connections;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(exchange(&mut http1).await, Some(200));
        assert_eq!(http2.get("a", "/").await.expect("a response").status, 200);
    }
    let other = trust_bundle(&Ca::new().bundle_pem());
    server.control.set(ResourceType::Secret, names::TRUST_BUNDLE, &other);
    server.ends(Connections { http1, http2, opaque }).await;
}

#[tokio::test]
async fn hostile_13_connections_have_a_greatest_age() {
    let server = Server::start(Mtls::Permissive, &[("--max-connection-age", "3s")]).await;
    let connections = Connections {
        http1: server.http1(None).await,
        http2: server.http2(None).await,
        opaque: server.opaque(None).await,
    };
    server.ends(connections).await;
    assert_eq!(exchange(&mut server.http1(None).await).await, Some(200), "new ones are taken");
}

/// Strict means strict for connections that exist, and whoever is refused is seen.
#[tokio::test]
async fn mend_29_a_stricter_policy_ends_plain_connections() {
    let server = Server::start(Mtls::Permissive, &[("--log-level", "warn")]).await;
    let (mut plain, http2, opaque) = (server.http1(None).await, server.http2(None).await, server.opaque(None).await);
    let mut idle = server.http1(None).await;
    let meshed = Some(server.ca().client(("shop", "web"), REVIEWS, Alpn::H1));
    let mut meshed = server.http1(meshed).await;
    for raw in [&mut plain, &mut idle, &mut meshed] {
        assert_eq!(exchange(raw).await, Some(200));
    }
    server.control.publish_inbound(&rules(Mtls::Strict));
    server.ends(Connections { http1: plain, http2, opaque }).await;
    assert!(idle.read_to_close().await.is_empty(), "an idle one is closed without a request");
    assert_eq!(exchange(&mut meshed).await, Some(200), "mesh peers go on");

    let before = mesh::metric(&server.sidecar, "tulle_connection_failures_total", &["authn_failed"]).await;
    for _ in 0..20 {
        let mut refused = server.http1(None).await;
        assert_eq!(exchange(&mut refused).await, None);
    }
    wait::until_ready("the refusals to be counted", || async {
        let now = mesh::metric(&server.sidecar, "tulle_connection_failures_total", &["authn_failed"]).await;
        (now >= before + 20.0).then_some(())
    })
    .await;
    let lines = server.sidecar.process().lines();
    let refusals = lines.iter().filter(|line| line.contains("connection refused")).count();
    assert_eq!(refusals, 1, "one line for all: {lines:?}");
}
