//! HTTP connections of a downstream: requests off them, replies back. The two versions differ in how requests arrive;
//! what is done with one is in `forward`.

/// HTTP/1: one request at a time.
mod h1;

/// HTTP/2: many at a time.
mod h2;

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::base::addr::Downstream;
use crate::base::failure::Reason;
use crate::base::host;
use crate::codec::body::BodyIn;
use crate::codec::head::RequestHead;
use crate::codec::reply::Reply;
use crate::config::Known;
use crate::config::demand::DemandKey;
use crate::config::listener::Outbound;
use crate::conn::Io;
use crate::drain::Guard;
use crate::forward::{self, Context, End, Target};
use crate::lifetime::Lifetime;
use crate::telemetry::counters::RequestSeries;
use crate::telemetry::labels::{Direction, Party};
use crate::view::{ClusterState, View};
use crate::worker::Worker;

/// How long what a peer still sends is read and dropped after the end, so that it sees the last words and not a reset.
const LINGER: Duration = Duration::from_secs(1);

/// A downstream connection that speaks HTTP, and where its requests go.
#[derive(Debug)]
pub(crate) struct Connection {
    /// This core.
    pub(crate) worker: Rc<Worker>,
    /// Which way it goes.
    pub(crate) direction: Direction,
    /// Who connected.
    pub(crate) downstream: Downstream,
    /// The verified peer, or ourselves on the way out.
    pub(crate) source: Party,
    /// What the application is told of the peer.
    pub(crate) peer_header: Option<Box<str>>,
    /// It came in by mesh TLS.
    pub(crate) tls: bool,
    /// Where its requests go.
    pub(crate) place: Place,
    /// Series of its requests.
    pub(crate) series: RefCell<Option<Rc<RequestSeries>>>,
    /// Until its first request a connection counts as work: its sender could not know whether that was served.
    pub(crate) arriving: RefCell<Option<Guard>>,
    /// How long it may live; none: as long as its client likes.
    pub(crate) life: Option<Rc<Lifetime>>,
}

/// Where the requests of a connection go.
#[derive(Debug)]
pub(crate) enum Place {
    /// To the service that the connection was made to.
    Service {
        /// What it was asked for as.
        key: DemandKey,
        /// What that stands for, with the view it is part of.
        known: RefCell<(Rc<View>, Arc<Outbound>)>,
    },
    /// To the service that each request names.
    Authority,
    /// To the local application.
    Local {
        /// The port that peers know it by.
        port: u16,
        /// The application by the rules of that port, with the view they are part of.
        known: RefCell<(Rc<View>, Rc<ClusterState>)>,
    },
}

/// The HTTP version of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// HTTP/1.x.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Serves a connection until it ends.
pub(crate) async fn serve(connection: Connection, io: Io, version: Version) {
    match version {
        Version::Http1 => h1::serve(&connection, io).await,
        // Boxed: an HTTP/1 connection that waits must not hold the room of an HTTP/2 one.
        Version::Http2 => Box::pin(h2::serve(Rc::new(connection), io)).await,
    }
}

impl Connection {
    /// Why no further request is served; none: it is.
    fn over(&self) -> Option<Reason> {
        let life = self.life.as_ref()?;
        let reason = life.over()?;
        // A peer of the mesh learns that its request was not delivered, and sends it on a new connection.
        Some(if life.is_meshed() { Reason::Draining } else { reason })
    }

    /// Waits until no further request is served.
    fn poll_ended(&self, cx: &task::Context<'_>) -> Poll<()> {
        self.life.as_ref().map_or(Poll::Pending, |life| life.poll_ended(cx).map(|_| ()))
    }

    /// Serves one request, with the configuration as it is now.
    async fn request(&self, head: &RequestHead, body: &mut BodyIn<'_>, reply: &mut Reply<'_>) -> End {
        let cx = self.context();
        match &self.place {
            Place::Service { key, known } => {
                let (view, service) = self.current(key, known);
                let target = service.routes.as_deref().map_or(Target::Unknown, Target::Routes);
                forward::request(&cx, &view, &target, head, body, reply).await
            }
            Place::Authority => {
                let key = DemandKey::Name(self.service_name(head.authority()));
                let (view, known) = Box::pin(self.worker.resolve(&key)).await;
                let service = match &known {
                    Some(Known::Service(service)) => service.routes.as_deref(),
                    Some(Known::Absent) | None => None,
                };
                let target = service.map_or(Target::Unknown, Target::Routes);
                forward::request(&cx, &view, &target, head, body, reply).await
            }
            Place::Local { port, known } => {
                let (view, cluster) = self.local(*port, known);
                forward::request(&cx, &view, &Target::Local(&cluster), head, body, reply).await
            }
        }
    }

    /// What is the same for all of its requests.
    fn context(&self) -> Context<'_> {
        Context {
            worker: &self.worker,
            direction: self.direction,
            downstream: self.downstream,
            source: &self.source,
            peer_header: self.peer_header.as_deref(),
            tls: self.tls,
            series: &self.series,
        }
    }

    /// The service as the newest configuration has it. Looked up once per configuration, not per request. One that
    /// has gone is kept: a connection that is open goes on.
    fn current(&self, key: &DemandKey, known: &RefCell<(Rc<View>, Arc<Outbound>)>) -> (Rc<View>, Arc<Outbound>) {
        let view = self.worker.view();
        let mut known = known.borrow_mut();
        if !Rc::ptr_eq(&view, &known.0)
            && let Some(Known::Service(service)) = view.snapshot.known(key)
        {
            let service = Arc::clone(service);
            *known = (view, service);
        }
        known.clone()
    }

    /// The application as the newest rules of its port name it. Looked up once per configuration, not per request.
    fn local(&self, port: u16, known: &RefCell<(Rc<View>, Rc<ClusterState>)>) -> (Rc<View>, Rc<ClusterState>) {
        let view = self.worker.view();
        let mut known = known.borrow_mut();
        if !Rc::ptr_eq(&view, &known.0) {
            let application = known.1.config.endpoints.list.first().map(|endpoint| endpoint.address);
            if let (Some(inbound), Some(address)) = (&view.snapshot.inbound, application) {
                let cluster = self.worker.local(address, inbound.port(port));
                if !Rc::ptr_eq(&cluster, &known.1) {
                    known.1 = cluster;
                    self.series.take();
                }
            }
            known.0 = view;
        }
        known.clone()
    }

    /// The full name of the service that an authority means.
    fn service_name(&self, authority: &str) -> Arc<str> {
        let (host, port) = host::split(authority);
        let settings = &self.worker.settings;
        host::service(host, port.unwrap_or("80"), &settings.node.namespace, &settings.cluster_domain)
    }
}

/// The idle time of a connection. The timer is armed once and looked at again when it goes off: an exchange costs
/// no timer operation.
struct Idle {
    limit: Duration,
    since: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Idle {
    fn new(limit: Duration) -> Self {
        Self { limit, since: Instant::now(), timer: Box::pin(tokio::time::sleep(limit)) }
    }

    fn begin(&mut self) {
        self.since = Instant::now();
    }

    async fn over(&mut self) {
        loop {
            self.timer.as_mut().await;
            if self.since.elapsed() >= self.limit {
                return;
            }
            self.timer.as_mut().reset(self.since + self.limit);
        }
    }
}
