//! Discovery: connect, keep the session, publish snapshots. One future on the control thread; it imports nothing of
//! the path, and the path nothing of it.

/// One value for each resource type.
mod per_type;

/// The session without its socket.
mod session;

/// The gRPC stream.
mod stream;

/// The last-good file.
mod last_good;

/// What the fuzz target of the session runs.
#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info, warn};
use tulle_identity::svid::TrustBundle;
use tulle_proto::discovery::DeltaDiscoveryResponse;
use tulle_proto::envoy::config::core::v3 as core;
use tulle_proto::google::protobuf as google;
use tulle_proto::names as called;

use crate::config::bootstrap::{Bootstrap, ControlPlane, Node};
use crate::config::demand::{DemandKey, Demands};
use crate::config::names::Names;
use crate::config::publish::Publisher;
use crate::config::status::Status;
use crate::control_plane;
use last_good::LastGoodFile;
use session::{Config, Demanded, Outcome, Session};
use stream::{Outage, Stream};

/// Responses that are taken in before their snapshot is published, when they are there already.
const BATCH: usize = 64;

/// How long a destination or DNS name that was asked for on demand is kept without use. Longer than idle connections are, so
/// that nothing that is open loses its configuration, and long enough for what happens every quarter of an hour.
const IDLE_AFTER: Duration = Duration::from_secs(20 * 60);

/// Why a stream ended that the control plane ended in good order.
const CLOSED: &str = "the control plane closed the stream";

/// Everything discovery needs.
#[derive(Debug)]
pub struct Deps {
    /// Settings of the process.
    pub bootstrap: Arc<Bootstrap>,
    /// Where snapshots go.
    pub publisher: Publisher,
    /// What the path asks for.
    pub demands: Demands,
    /// Where the mesh's trust bundle goes; read by `identity::run`.
    pub bundle: watch::Sender<Option<Arc<TrustBundle>>>,
    /// Where DNS names go.
    pub names: watch::Sender<Arc<Names>>,
    /// Where facts for readiness go.
    pub status: Status,
}

/// Keeps the configuration current until dropped. Starts from the last-good file, then follows the control plane; while
/// that is away everything stays as it is. Without a control plane it publishes nothing and only waits.
///
/// Dropping the future closes the stream; at most the last second of changes is missing from the last-good file.
pub async fn run(deps: Deps) -> Infallible {
    let Some(control_plane) = deps.bootstrap.control_plane.clone() else {
        return std::future::pending().await;
    };
    deps.status.update(|facts| facts.control_plane_configured = true);
    let mut control = Control::new(deps);
    control.restore();
    let mut outage = Outage::default();
    loop {
        let started = Instant::now();
        let error = Box::pin(control.follow(&control_plane)).await;
        if started.elapsed() >= stream::HEALTHY && control.opened {
            outage.end();
        }
        control.disconnected(&error);
        let wait = outage.wait(Instant::now(), rand::random());
        control.attend(sleep(wait)).await;
    }
}

/// The session and everything it is connected to, but for the stream.
struct Control {
    session: Session,
    publisher: Publisher,
    demands: Demands,
    bundle: watch::Sender<Option<Arc<TrustBundle>>>,
    names: watch::Sender<Arc<Names>>,
    status: Status,
    file: Option<LastGoodFile>,
    /// When to write the last-good file.
    save_at: Option<Instant>,
    /// The current or last connection came to a stream.
    opened: bool,
}

impl Control {
    fn new(deps: Deps) -> Self {
        let Deps { bootstrap, publisher, demands, bundle, names, status } = deps;
        let node = &bootstrap.node;
        let session = Session::new(Config {
            node: node_message(node),
            inbound: called::inbound_listener(&node.namespace, &node.workload).into(),
            loopback: bootstrap.allows_loopback_endpoints(),
            permanent: bootstrap.permanent_names().cloned().collect(),
            absent_ttl: bootstrap.absent_ttl,
            idle_after: IDLE_AFTER,
        });
        let file = bootstrap.state_dir.as_ref().and_then(|dir| match LastGoodFile::new(dir, node.id()) {
            Ok(file) => Some(file),
            Err(error) => {
                warn!(dir = %dir.display(), %error, "no last-good file: the state directory cannot be used");
                None
            }
        });
        Self { session, publisher, demands, bundle, names, status, file, save_at: None, opened: false }
    }

    fn restore(&mut self) {
        match self.file.as_ref().map(LastGoodFile::load) {
            Some(Ok(Some(saved))) => {
                info!(
                    resources = saved.resources.len(),
                    written_at = saved.written_at_seconds,
                    "starting from the last-good file"
                );
                self.session.restore(saved, Instant::now());
                self.status.update(|facts| facts.from_last_good = true);
                self.publish();
            }
            Some(Err(error)) => warn!(%error, "the last-good file is not used"),
            Some(Ok(None)) | None => {}
        }
    }

    /// One stream from connect to its end, and why it ended.
    async fn follow(&mut self, settings: &ControlPlane) -> String {
        self.opened = false;
        let connection = match self.attend(Box::pin(control_plane::connect(settings))).await {
            Ok(connection) => connection,
            Err(error) => return error.to_string(),
        };
        self.session.connect();
        let first = std::iter::from_fn(|| self.session.next_request()).collect();
        let mut stream = match self.attend(Box::pin(stream::open(connection, first))).await {
            Ok(stream) => stream,
            Err(status) => return refused(&status, settings),
        };
        info!("connected to the control plane");
        self.opened = true;
        // Not at the first response: a control plane that knows from the session what the proxy has may have none.
        self.status.update(|facts| {
            facts.streams = facts.streams.saturating_add(1);
            facts.connected = true;
        });
        loop {
            let sending = self.session.has_request();
            // Biased: answers go out before more is read, so a control plane that floods waits for itself; demands
            // come last because a stream that is behind cannot serve them anyway.
            let response = tokio::select! {
                biased;
                permit = stream.requests.reserve(), if sending => {
                    let Ok(permit) = permit else { return CLOSED.to_owned() };
                    if let Some(request) = self.session.next_request() {
                        permit.send(request);
                    }
                    continue;
                }
                response = stream.responses.message() => response,
                () = self.chores() => continue,
            };
            let end = match response {
                Ok(Some(response)) => self.receive(response, &mut stream),
                Ok(None) => Some(CLOSED.to_owned()),
                Err(status) => Some(refused(&status, settings)),
            };
            if let Some(end) = end {
                return end;
            }
        }
    }

    /// Takes in a response and those right behind it, then publishes once. Some: the stream ended meanwhile.
    fn receive(&mut self, first: DeltaDiscoveryResponse, stream: &mut Stream) -> Option<String> {
        let mut next = Some(first);
        let mut end = None;
        for _ in 0..BATCH {
            let Some(response) = next.take() else { break };
            self.take_in(response);
            match stream.responses.message().now_or_never() {
                Some(Ok(Some(response))) => next = Some(response),
                Some(Ok(None)) => end = Some(CLOSED.to_owned()),
                Some(Err(status)) => end = Some(status.to_string()),
                None => {}
            }
        }
        if let Some(response) = next {
            self.take_in(response);
        }
        self.publish();
        end
    }

    fn take_in(&mut self, response: DeltaDiscoveryResponse) {
        let (type_url, count) = (response.type_url.clone(), response.resources.len());
        let outcome = self.session.receive(response, Instant::now());
        self.status.update(|facts| match &outcome {
            Outcome::Acked => {
                facts.acks = facts.acks.saturating_add(1);
                facts.last_error = None;
            }
            Outcome::Nacked(reason) => {
                facts.nacks = facts.nacks.saturating_add(1);
                facts.last_error = Some(reason.as_str().into());
            }
        });
        match outcome {
            Outcome::Acked => debug!(type_url, count, "accepted"),
            Outcome::Nacked(reason) => warn!(type_url, reason, "refused a response of the control plane"),
        }
    }

    fn disconnected(&mut self, error: &str) {
        self.session.disconnect();
        let first = self.status.facts().connected || self.status.facts().last_error.as_deref() != Some(error);
        self.status.update(|facts| {
            facts.connected = false;
            facts.last_error = Some(error.into());
        });
        if first {
            warn!(error, "no connection to the control plane; the configuration stays as it is");
        } else {
            debug!(error, "still no connection to the control plane");
        }
    }

    /// Waits for `future` while everything that needs no stream goes on.
    async fn attend<F: Future>(&mut self, future: F) -> F::Output {
        let mut future = pin!(future);
        loop {
            // Biased: what is waited for decides; the rest has time.
            tokio::select! {
                biased;
                output = &mut future => return output,
                () = self.chores() => {}
            }
        }
    }

    /// Waits for demands, lapsing answers and the time to save, and does what is due. Loses nothing when dropped.
    async fn chores(&mut self) {
        let expiry = self.session.next_expiry();
        let save_at = self.save_at;
        tokio::select! {
            Some(key) = self.demands.queue.recv() => self.demand(&key),
            Some(clusters) = self.demands.uses.recv() => self.used(clusters),
            () = sleep_until(expiry.unwrap_or_else(Instant::now)), if expiry.is_some() => {
                self.session.expire(Instant::now());
                self.publish();
            }
            () = sleep_until(save_at.unwrap_or_else(Instant::now)), if save_at.is_some() => self.save(),
        }
    }

    /// Takes in a demand and those right behind it.
    fn demand(&mut self, first: &DemandKey) {
        let now = Instant::now();
        let mut refused = u64::from(self.session.demand(first, now) == Demanded::Refused);
        while let Ok(key) = self.demands.queue.try_recv() {
            refused += u64::from(self.session.demand(&key, now) == Demanded::Refused);
        }
        if refused > 0 {
            self.status.update(|facts| facts.demands_refused = facts.demands_refused.saturating_add(refused));
        }
    }

    /// Takes in a worker's report of what it used.
    fn used(&mut self, clusters: Vec<Arc<str>>) {
        let forgotten = self.session.used(clusters, Instant::now());
        if forgotten > 0 {
            debug!(forgotten, "unsubscribed from what nobody used for long");
            let forgotten = u64::try_from(forgotten).unwrap_or(u64::MAX);
            self.status.update(|facts| facts.forgotten = facts.forgotten.saturating_add(forgotten));
            self.publish();
        }
    }

    fn publish(&mut self) {
        if let Some(snapshot) = self.session.snapshot() {
            let inbound = snapshot.inbound.is_some();
            let generation = self.publisher.publish(snapshot);
            debug!(generation, "published");
            self.status.update(|facts| {
                facts.generation = generation;
                facts.inbound_config = inbound;
                facts.from_last_good &= !facts.connected;
            });
        }
        if let Some(names) = self.session.names() {
            self.names.send_replace(Arc::new(names));
        }
        if let Some(bundle) = self.session.bundle() {
            self.bundle.send_if_modified(|current| {
                let same = current.as_ref().is_some_and(|current| Arc::ptr_eq(current, bundle));
                if !same {
                    *current = Some(Arc::clone(bundle));
                }
                !same
            });
        }
        if self.file.is_some() && self.session.take_unsaved() && self.save_at.is_none() {
            self.save_at = Instant::now().checked_add(last_good::DEBOUNCE);
        }
    }

    fn save(&mut self) {
        self.save_at = None;
        let Some(file) = &self.file else { return };
        match file.save(self.session.saved(), SystemTime::now()) {
            Ok(()) => self.status.update(|facts| facts.saves = facts.saves.saturating_add(1)),
            Err(error) => warn!(%error, "cannot write the last-good file"),
        }
    }
}

/// What the control plane's status means for the user.
fn refused(status: &tonic::Status, settings: &ControlPlane) -> String {
    let text = control_plane::causes(status);
    let hint = if status.code() == tonic::Code::Unauthenticated {
        format!(" (check the workload token in {})", settings.token.display())
    } else if status.code() == tonic::Code::PermissionDenied {
        " (check --namespace and --service-account against the workload token)".to_owned()
    } else {
        String::new()
    };
    text + &hint
}

fn node_message(node: &Node) -> core::Node {
    let text = |value: &str| google::Value { kind: Some(google::value::Kind::StringValue(value.to_owned())) };
    let fields = HashMap::from([
        (called::node::NAMESPACE.to_owned(), text(&node.namespace)),
        (called::node::WORKLOAD.to_owned(), text(&node.workload)),
        (called::node::SERVICE_ACCOUNT.to_owned(), text(&node.service_account)),
    ]);
    core::Node {
        id: node.id(),
        metadata: Some(google::Struct { fields }),
        locality: Some(core::Locality { region: node.region.clone(), zone: node.zone.clone(), ..Default::default() }),
        user_agent_name: called::node::USER_AGENT.to_owned(),
        user_agent_version_type: Some(core::node::UserAgentVersionType::UserAgentVersion(
            env!("CARGO_PKG_VERSION").to_owned(),
        )),
        ..Default::default()
    }
}
