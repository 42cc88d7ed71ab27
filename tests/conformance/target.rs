//! A proxy with applications behind it, and the two ways in: plain, and mutual TLS as a peer of the mesh.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::net::TcpListener;
use tulle_identity::tls::Alpn;
use tulle_testing::certs::Ca;
use tulle_testing::client::{Frames, Http2Client, Raw};
use tulle_testing::control::{Control, Inbound, Mtls};
use tulle_testing::sidecar::{Builder, Sidecar};
use tulle_testing::upstream::{Http2Reply, Http2Upstream, Reply, Upstream};

/// A way in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Without TLS.
    Plain,
    /// Mutual TLS with a good certificate of the mesh.
    Mtls,
}

impl Way {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::Plain, Self::Mtls];

    /// As the ledger calls it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Mtls => "mtls",
        }
    }

    fn port(self, app: App) -> u16 {
        app as u16 + u16::from(self == Self::Mtls)
    }
}

/// Who is behind a port. Each has two: an even one that takes plain connections, and the next that wants mutual TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum App {
    /// An application that speaks HTTP/2 and records what it gets.
    Http2 = 8080,
    /// One that speaks HTTP/1.
    Http1 = 8082,
    /// One that takes connections and reads nothing.
    Deaf = 8084,
}

/// The proxy and what belongs to it.
pub(crate) struct Target {
    pub(crate) http2: Http2Upstream,
    pub(crate) http1: Upstream,
    pub(crate) proxy: Sidecar,
    control: Control,
    /// Never accepted from: the kernel does that.
    _deaf: TcpListener,
}

/// A large body.
const LARGE: usize = 32 << 20;

impl Target {
    /// Applications that answer `hello`, at `/large` a large body, behind a proxy with one worker.
    pub(crate) async fn start(configure: impl Fn(Builder) -> Builder) -> Self {
        let control = Control::start(Arc::new(Ca::new())).await;
        let large = Bytes::from(vec![b'x'; LARGE]);
        let http2 = Http2Upstream::start(move |head| match (head.method().as_str(), head.uri().path()) {
            ("HEAD", _) => Http2Reply::head(200, &[("content-length", "5")]),
            (_, "/large") => Http2Reply::ok(large.clone()),
            _ => Http2Reply::ok("hello"),
        })
        .await;
        let http1 = Upstream::http1(|request| match request.path() {
            "/large" => Reply::ok(vec![b'x'; LARGE]),
            _ => Reply::ok("hello"),
        })
        .await;
        let deaf = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let apps = [
            (App::Http2, http2.addr()),
            (App::Http1, http1.addr()),
            (App::Deaf, deaf.local_addr().expect("a bound socket")),
        ];
        let mut inbound = Inbound::new("shop", "reviews");
        let mut builder = Sidecar::of("shop", "reviews").control(&control);
        builder = builder.arg("--workers", "1").arg("--access-log", "off");
        for (app, address) in apps {
            inbound = inbound.port(Way::Plain.port(app), "http", Mtls::Permissive);
            inbound = inbound.port(Way::Mtls.port(app), "http", Mtls::Strict);
            builder = Way::ALL.into_iter().fold(builder, |builder, way| builder.receive(way.port(app), address));
        }
        control.publish_inbound(&inbound);
        Self { http2, http1, proxy: configure(builder).start().await, control, _deaf: deaf }
    }

    /// Where connections of this way to the application that speaks HTTP/2 go.
    pub(crate) fn address(&self, way: Way) -> SocketAddr {
        self.at(way, App::Http2)
    }

    /// Where connections of this way to `app` go.
    pub(crate) fn at(&self, way: Way, app: App) -> SocketAddr {
        self.proxy.inbound(way.port(app))
    }

    /// TLS of another workload of the mesh, which speaks HTTP/2.
    pub(crate) fn tls(&self) -> Arc<rustls::ClientConfig> {
        let ca = self.control.ca().expect("a control plane with an authority");
        ca.client(("shop", "web"), ("shop", "reviews"), Alpn::H2)
    }

    /// A connection for frames, to `app`.
    pub(crate) async fn frames(&self, way: Way, app: App) -> Frames {
        Frames::open(match way {
            Way::Plain => Raw::connect(self.at(way, app)).await,
            Way::Mtls => Raw::connect_tls(self.at(way, app), self.tls(), "localhost").await,
        })
        .await
    }

    /// Requests that the applications have seen, but those of [`Target::ask`]. Those of HTTP/1 may be incomplete.
    pub(crate) fn seen(&self) -> usize {
        let http2 = self.http2.requests().into_iter().filter(|seen| seen.head.uri().path() != "/other").count();
        http2 + self.http1.requests().into_iter().filter(|seen| seen.path() != "/other").count()
    }

    /// One good request from somebody else, which must be served whatever else goes on.
    pub(crate) async fn ask(&self, way: Way) {
        let client = match way {
            Way::Plain => Http2Client::connect(self.address(way)).await,
            Way::Mtls => Http2Client::connect_tls(self.address(way), self.tls(), "localhost").await,
        };
        let reply = client.get("a.test", "/other").await.unwrap_or_else(|error| panic!("{}: {error}", way.name()));
        assert_eq!((reply.status, &reply.body[..]), (200, &b"hello"[..]), "{}", way.name());
    }

    /// Resident memory of the proxy, in KiB.
    pub(crate) fn memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.proxy.process().pid());
        let status = std::fs::read_to_string(path).expect("the status of a running process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// The sum of all series of `family` that have every one of `labels`, written `name="value"`.
    pub(crate) async fn metric(&self, family: &str, labels: &[&str]) -> f64 {
        let text = self.proxy.metrics().await;
        let of_family = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(family));
        let matching = of_family.filter(|line| labels.iter().all(|label| line.contains(label)));
        matching.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Inbound connections that failed for `reason`.
    pub(crate) async fn failures(&self, reason: &str) -> f64 {
        self.metric("tulle_connection_failures_total", &["direction=\"inbound\"", &format!("reason=\"{reason}\"")])
            .await
    }
}
