//! The ways to an application that rows about HTTP/1 are sent on: through its own proxy in plain, through the proxies of
//! both sides with mutual TLS between them, and through mutual TLS as a peer that minds no rules.

use std::net::SocketAddr;
use std::sync::Arc;

use tulle_identity::tls::Alpn;
use tulle_testing::certs::Ca;
use tulle_testing::client::Raw;
use tulle_testing::control::{Control, Inbound, Mtls, Service};
use tulle_testing::sidecar::{Builder, Sidecar};
use tulle_testing::upstream::http1::Recorded;
use tulle_testing::upstream::{Reply, Upstream};

/// The service behind both lanes.
pub(crate) const SERVICE: &str = "reviews.shop.svc.cluster.local:80";
/// Its identity.
pub(crate) const IDENTITY: &str = "spiffe://cluster.local/ns/shop/sa/reviews";

/// One way to an application that records what it gets.
pub(crate) struct Lane {
    /// For messages.
    pub(crate) name: &'static str,
    /// The application.
    pub(crate) app: Upstream,
    /// Where requests go in.
    pub(crate) entry: SocketAddr,
    /// TLS of a peer of the mesh, where requests go in through that.
    tls: Option<Arc<rustls::ClientConfig>>,
    /// The proxies on the way.
    pub(crate) proxies: Vec<Sidecar>,
    _control: Control,
}

impl Lane {
    /// One proxy, which takes plain requests for the application beside it.
    pub(crate) async fn plain(app: Upstream, configure: impl Fn(Builder) -> Builder) -> Self {
        let control = Control::start(Arc::new(Ca::new())).await;
        control.publish_inbound(&Inbound::new("shop", "reviews").port(8080, "http", Mtls::Permissive));
        let builder = Sidecar::of("shop", "reviews").control(&control).receive(8080, app.addr());
        let server = configure(builder).start().await;
        Self { name: "plain", app, entry: server.inbound(8080), tls: None, proxies: vec![server], _control: control }
    }

    /// Two proxies: the caller's, then by mutual TLS the application's.
    pub(crate) async fn pair(app: Upstream, configure: impl Fn(Builder) -> Builder) -> Self {
        let control = Control::start(Arc::new(Ca::new())).await;
        control.publish_inbound(&Inbound::new("shop", "reviews").port(8080, "http", Mtls::Strict));
        control.publish_inbound(&Inbound::new("shop", "web"));
        let builder = Sidecar::of("shop", "reviews").control(&control).receive(8080, app.addr());
        let server = configure(builder).start().await;
        control.publish(&Service::http(SERVICE).endpoint(&server.inbound(8080).to_string(), Some(IDENTITY)));
        let client = configure(Sidecar::of("shop", "web").control(&control).send(SERVICE)).start().await;
        Self {
            name: "pair",
            app,
            entry: client.outbound(SERVICE),
            tls: None,
            proxies: vec![client, server],
            _control: control,
        }
    }

    /// One proxy, which takes requests of a peer of the mesh that says what it likes.
    pub(crate) async fn mesh(app: Upstream) -> Self {
        let control = Control::start(Arc::new(Ca::new())).await;
        control.publish_inbound(&Inbound::new("shop", "reviews").port(8080, "http", Mtls::Strict));
        let server = Sidecar::of("shop", "reviews").control(&control).receive(8080, app.addr()).start().await;
        let ca = control.ca().expect("a control plane with an authority");
        let tls = Some(ca.client(("shop", "web"), ("shop", "reviews"), Alpn::H1));
        Self { name: "mesh", app, entry: server.inbound(8080), tls, proxies: vec![server], _control: control }
    }

    /// All three, each with an application that answers by `handler`.
    pub(crate) async fn all(handler: impl Fn(&Recorded) -> Reply + Clone + Send + Sync + 'static) -> [Self; 3] {
        let [plain, pair] = Self::both(handler.clone()).await;
        [plain, pair, Self::mesh(Upstream::http1(handler).await).await]
    }

    /// Both, each with an application that answers by `handler`.
    pub(crate) async fn both(handler: impl Fn(&Recorded) -> Reply + Clone + Send + Sync + 'static) -> [Self; 2] {
        Self::both_with(handler, |builder| builder).await
    }

    /// [`Lane::both`], with flags for the proxies.
    pub(crate) async fn both_with(
        handler: impl Fn(&Recorded) -> Reply + Clone + Send + Sync + 'static,
        configure: impl Fn(Builder) -> Builder,
    ) -> [Self; 2] {
        let (first, second) = (Upstream::http1(handler.clone()).await, Upstream::http1(handler).await);
        [Self::plain(first, &configure).await, Self::pair(second, &configure).await]
    }

    /// A connection to the entrance.
    pub(crate) async fn connect(&self) -> Raw {
        match &self.tls {
            None => Raw::connect(self.entry).await,
            Some(tls) => Raw::connect_tls(self.entry, Arc::clone(tls), "localhost").await,
        }
    }

    /// Sends `bytes` on a connection of their own and expects a refusal with one of `statuses`, then the end. Returns
    /// the status.
    pub(crate) async fn refused(&self, bytes: &[u8], statuses: &[u16]) -> u16 {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
        let mut raw = self.connect().await;
        // It may close while it is being sent to.
        let _ = raw.try_send(bytes).await;
        let Some(reply) = raw.try_response("GET").await else { panic!("{}: no answer to {shown:?}", self.name) };
        assert!(statuses.contains(&reply.status), "{}: {} to {shown:?}", self.name, reply.status);
        assert_eq!(reply.header("connection"), Some("close"), "{}: {shown:?}", self.name);
        let rest = raw.read_to_close().await;
        assert!(rest.is_empty(), "{}: more than one answer to {shown:?}", self.name);
        reply.status
    }
}
