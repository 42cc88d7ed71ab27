//! One stream: requests, the newest mesh and the client's readiness to receive, brought together.
//!
//! A response is made only when there is room for it on the wire, from the mesh that is newest at that moment.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tonic::{Status, Streaming};
use tulle_proto::names;

use super::admission::{TURN, Turn};
use super::interest::{Interests, Touched};
use super::node::{self, Client};
use super::proxies::Registration;
use super::service::Shared;
use super::session::{Heard, Refused, Sent, Session};
use super::world::View;
use crate::caller::Caller;
use crate::clock::Clock;
use crate::metrics::{ReasonLabel, StreamLabels, TypeLabel};
use crate::model::Key;
use crate::quota::StreamShare;
use crate::registry::{Topic, WorkloadView};

/// A client that opens a stream says who it is within this.
const FIRST_REQUEST: Duration = Duration::from_secs(10);

/// Sources that are not synced within this make a stream end, so that the client tries another replica.
const SYNC: Duration = Duration::from_secs(60);

/// A pod that the mesh does not have within this is served without what is known of it.
const NEW_POD: Duration = Duration::from_secs(2);

type Responses<S> = mpsc::Sender<Result<<S as Session>::Response, Status>>;

/// Serves one stream to its end. Dropping the future closes the stream.
pub(super) async fn run<S: Session>(
    shared: Arc<Shared>,
    (caller, share): (Option<Caller>, StreamShare),
    requests: Streaming<S::Request>,
    responses: Responses<S>,
) {
    let shutdown = shared.shutdown.clone();
    let expires = caller.as_ref().map(|caller| caller.expires);
    let served = tokio::select! {
        biased; // a shutdown ends streams that never pause, and so does the end of the caller's proof
        () = shutdown.cancelled() => Err(Status::unavailable("the control plane is shutting down")),
        () = passed(&shared.clock, expires) => Err(Status::unauthenticated("the workload token has expired: come back with a new one")),
        served = serve::<S>(&shared, (caller, share), requests, &responses) => served,
    };
    if let Err(status) = served {
        tracing::debug!(code = ?status.code(), reason = status.message(), "discovery stream ended");
        // There may be no room, or nobody left to read it: then the stream just closes.
        let _ = tokio::time::timeout(Duration::from_secs(1), responses.send(Err(status))).await;
    }
}

/// Waits until `time` has passed; for ever without one.
async fn passed(clock: &Clock, time: Option<SystemTime>) {
    match time {
        Some(time) => clock.passed(time).await,
        None => std::future::pending().await,
    }
}

async fn serve<S: Session>(
    shared: &Shared,
    (caller, share): (Option<Caller>, StreamShare),
    mut requests: Streaming<S::Request>,
    responses: &Responses<S>,
) -> Result<(), Status> {
    let refuse = |reason: &'static str, status: Status| {
        shared.metrics.refused.get_or_create(&ReasonLabel { reason }).inc();
        status
    };
    let first = tokio::time::timeout(FIRST_REQUEST, requests.message()).await;
    let Some(mut first) = first.map_err(|_| refuse("slow", Status::deadline_exceeded("no request within 10 s")))??
    else {
        return Ok(());
    };
    let node = S::take_node(&mut first)
        .ok_or_else(|| refuse("node", Status::invalid_argument("the first request of a stream needs a node")))?;
    let mut client = node::check(&node, caller).map_err(|error| refuse("node", status_of(&error)))?;
    let registration = shared
        .proxies
        .register(&client, S::VARIANT)
        .ok_or_else(|| refuse("full", Status::resource_exhausted("this replica has no room for another stream")))?;
    // Before that, names that exist would be answered as absent.
    let _ = tokio::time::timeout(SYNC, shared.registry.wait_synced()).await;
    if !shared.registry.synced() {
        return Err(refuse("unsynced", Status::unavailable("the sources are not synced yet")));
    }
    let pod = match &client.pod {
        Some(pod) => pod_of(shared, pod).await,
        None => None,
    };
    if let Some(pod) = &pod {
        client.join(&pod.workload).map_err(|error| refuse("node", status_of(&error)))?;
    }
    let turn = shared.admission.turn().await;
    let turn = turn.ok_or_else(|| refuse("busy", Status::unavailable("too many clients are synchronising")))?;
    let labels = StreamLabels { client: node::kind_name(client.scope.client), variant: S::VARIANT };
    let open = shared.metrics.streams.get_or_create_owned(&labels);
    open.inc();
    let _closed = Defer(|| {
        open.dec();
    });
    tracing::debug!(node = client.id, client = labels.client, variant = S::VARIANT, "discovery stream open");
    let mut stream = Stream::<S>::new(shared, &client, registration, share);
    stream.pod = pod;
    stream.heard(first)?;
    stream.serve(requests, responses, turn).await
}

/// The pod of a client; it may be so new that the mesh has it only in a moment.
async fn pod_of(shared: &Shared, pod: &Key) -> Option<Arc<WorkloadView>> {
    let mut meshes = shared.registry.subscribe();
    let there = meshes.wait_for(|mesh| mesh.workload(pod).is_some());
    let mesh = tokio::time::timeout(NEW_POD, there).await.ok()?.ok()?;
    mesh.workload(pod).cloned()
}

fn status_of(error: &node::NodeError) -> Status {
    match error {
        node::NodeError::Mismatch { .. } | node::NodeError::OtherWorkload { .. } => {
            Status::permission_denied(error.to_string())
        }
        node::NodeError::Missing(_) | node::NodeError::TooLong(_) | node::NodeError::BadAddress(_) => {
            Status::invalid_argument(error.to_string())
        }
    }
}

/// Runs a closure when dropped.
struct Defer<F: Fn()>(F);

impl<F: Fn()> Drop for Defer<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// A session and what it looks at.
struct Stream<'a, S: Session> {
    shared: &'a Shared,
    client: &'a Client,
    session: S,
    view: View,
    interests: Interests,
    registration: Registration,
    share: StreamShare,
    /// The client's pod as it was at the start, in a cluster.
    pod: Option<Arc<WorkloadView>>,
}

impl<'a, S: Session> Stream<'a, S> {
    fn new(shared: &'a Shared, client: &'a Client, registration: Registration, share: StreamShare) -> Self {
        let (mesh, bundle) = (shared.registry.mesh(), shared.bundle.borrow().clone());
        let view = View::new(shared.translator.clone(), client.scope.clone(), mesh, &bundle);
        let interests = shared.interest.join();
        Self { shared, client, session: S::default(), view, interests, registration, share, pod: None }
    }

    async fn serve(
        &mut self,
        mut requests: Streaming<S::Request>,
        responses: &Responses<S>,
        turn: Turn,
    ) -> Result<(), Status> {
        let mut bundles = self.shared.bundle.clone();
        bundles.mark_unchanged();
        let mut turn = Some(turn);
        let turn_over = tokio::time::sleep(TURN);
        tokio::pin!(turn_over);
        // Whether the session may have something to say; each request and each change makes it so.
        let mut curious = true;
        loop {
            tokio::select! {
                biased; // what the client says comes before what it is sent: an unsubscription saves a push
                request = requests.next() => match request {
                    None => return Ok(()),
                    Some(request) => {
                        self.heard(request?)?;
                        curious = true;
                    }
                },
                touched = self.interests.word() => {
                    self.view.set_mesh(self.shared.registry.mesh(), touched);
                    self.alive()?;
                    curious = true;
                }
                changed = bundles.changed() => {
                    changed.map_err(|_| Status::unavailable("the control plane is shutting down"))?;
                    let bundle = bundles.borrow_and_update().clone();
                    self.view.set_bundle(&bundle);
                    curious = true;
                }
                Some(question) = self.registration.questions.recv() => {
                    let _ = question.send(self.session.report());
                }
                () = &mut turn_over, if turn.is_some() => turn = None,
                room = responses.reserve(), if curious => {
                    let Ok(room) = room else { return Ok(()) };
                    match self.session.next(&self.view) {
                        Some(sent) => room.send(Ok(self.note(sent))),
                        None => {
                            self.view.settle();
                            curious = false;
                            turn = None;
                        }
                    }
                }
            }
        }
    }

    /// Nothing is told to a pod that is gone, though its token has not expired (CP-02).
    fn alive(&self) -> Result<(), Status> {
        let Some(pod) = &self.pod else { return Ok(()) };
        let key = &pod.workload.key;
        match self.shared.registry.mesh().workload(key) {
            Some(now) if now.workload.pod == pod.workload.pod => Ok(()),
            Some(_) | None => Err(Status::unauthenticated(format!("pod {key} does not exist any more"))),
        }
    }

    /// Takes in a request and notes what it says.
    fn heard(&mut self, request: S::Request) -> Result<(), Status> {
        let asks = S::asks(&request);
        let heard = self.session.on_request(request).map_err(|refused| status_of_refusal(&refused))?;
        if asks {
            self.share.demand(self.session.demand_bytes())?;
            let mut topics = self.session.topics();
            topics.extend(
                self.pod
                    .iter()
                    .map(|pod| Topic::of(&names::inbound_listener(&pod.workload.key.namespace, &pod.workload.owner))),
            );
            self.interests.set(topics);
            // Read after: what is published from now on is told.
            self.view.set_mesh(self.shared.registry.mesh(), Touched::Nothing);
            self.alive()?;
        }
        match heard {
            Heard::Subscribe | Heard::Ack(_) => {}
            Heard::Nack { ty, names, reason } => {
                self.shared.metrics.nacks.get_or_create(&TypeLabel::of(ty)).inc();
                tracing::warn!(node = self.client.id, r#type = %ty, ?names, reason, "a client refused configuration");
            }
            Heard::UnknownType(url) => {
                tracing::debug!(node = self.client.id, url, "a client asked for a type that is not served");
            }
        }
        Ok(())
    }

    fn note(&self, sent: Sent<S::Response>) -> S::Response {
        let Sent { ty, resources, removed, response } = sent;
        let label = TypeLabel::of(ty);
        self.shared.metrics.pushes.get_or_create(&label).inc();
        let count = u64::try_from(resources).unwrap_or(u64::MAX);
        self.shared.metrics.resources.get_or_create(&label).inc_by(count);
        tracing::debug!(node = self.client.id, r#type = %ty, resources, removed, "sent");
        response
    }
}

fn status_of_refusal(refused: &Refused) -> Status {
    match refused {
        Refused::TooManyNames => Status::resource_exhausted(refused.to_string()),
        Refused::BadName(_) => Status::invalid_argument(refused.to_string()),
    }
}
