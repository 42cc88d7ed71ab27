//! The two ways to an application that every row about HTTP/1 is sent on: through its own proxy in plain, and through
//! the proxies of both sides with mutual TLS between them.

use std::net::SocketAddr;
use std::sync::Arc;

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
        Self { name: "plain", app, entry: server.inbound(8080), proxies: vec![server], _control: control }
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
        Self { name: "pair", app, entry: client.outbound(SERVICE), proxies: vec![client, server], _control: control }
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
        Raw::connect(self.entry).await
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
