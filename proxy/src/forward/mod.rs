//! One request: route, attempts, reply. Every reply a proxy makes itself starts here, from the table of reasons in
//! `base/failure.rs`.

/// One attempt: an endpoint, a connection, the exchange on it.
mod attempt;

/// What may be tried again, how often and how soon.
mod retry;

/// What attempts say of their endpoints.
mod judge;

/// What a request amounted to: counters and access log.
mod record;

/// What a request becomes after a switch of protocols.
mod tunnel;

use std::cell::{Cell, OnceCell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::base::addr::Downstream;
use crate::base::failure::{Failure, Reason, Retry};
use crate::codec::body::{BodyIn, Relayed};
use crate::codec::h2::ResetCode;
use crate::codec::head::{Outline, RequestHead, Rewritten};
use crate::codec::reply::Reply;
use crate::config::changes::{Changes, Redirect};
use crate::config::route::{RetryPolicy, RouteTable};
use crate::route::{self, RequestView, Verdict};
use crate::telemetry::counters::RequestSeries;
use crate::telemetry::labels::{Direction, Party};
use crate::view::{ClusterState, EndpointState, View};
use crate::worker::Worker;

use attempt::{Attempted, Stop};

pub(crate) use tunnel::Tunnel;

/// Where the requests of a downstream connection go.
#[derive(Debug)]
pub(crate) enum Target<'t> {
    /// To a service, by these routes.
    Routes(&'t RouteTable),
    /// To the local application.
    Local(&'t Rc<ClusterState>),
    /// Nowhere: nothing is known of the destination.
    Unknown,
}

/// Everything that is the same for all requests of a downstream connection.
#[derive(Debug)]
pub(crate) struct Context<'x> {
    /// This core.
    pub(crate) worker: &'x Rc<Worker>,
    /// Which way the connection goes.
    pub(crate) direction: Direction,
    /// Who connected.
    pub(crate) downstream: Downstream,
    /// The verified peer, for telemetry; empty identity when the connection is plain.
    pub(crate) source: &'x Party,
    /// What the application is told of the peer.
    pub(crate) peer_header: Option<&'x str>,
    /// The connection came in by mesh TLS.
    pub(crate) tls: bool,
    /// Series of the connection's requests, once there was one.
    pub(crate) series: &'x RefCell<Option<Rc<RequestSeries>>>,
}

/// What became of the connections a request used.
#[derive(Debug)]
pub(crate) enum End {
    /// The exchange is complete on the downstream's side.
    Complete,
    /// The downstream connection is of no more use.
    Broken,
    /// Both connections now carry another protocol; the request is recorded when they end.
    Switched(Box<Tunnel>),
}

/// What is known of a request while it is under way; recorded when it is over.
#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) started: Instant,
    pub(crate) status: Cell<u16>,
    pub(crate) grpc_status: Cell<Option<u8>>,
    pub(crate) reason: Cell<Option<Reason>>,
    pub(crate) attempts: Cell<u32>,
    /// Anything of a reply was sent: nothing can be answered instead any more.
    pub(crate) replied: Cell<bool>,
    /// The request was read to its end.
    pub(crate) read: Cell<bool>,
    /// The code with which the upstream reset the stream of the last attempt.
    pub(crate) reset: Cell<Option<ResetCode>>,
    /// What the lower layer said of the failure.
    pub(crate) detail: OnceCell<Box<str>>,
    /// The last attempt failed in its peer proxy's words.
    pub(crate) told_by_peer: Cell<bool>,
    /// Attempts that were not processed.
    pub(crate) unprocessed: Cell<retry::Unprocessed>,
    /// Until when newer endpoints are waited for, once they are.
    pub(crate) patience: Cell<Option<Instant>>,
    pub(crate) sent: Relayed,
    pub(crate) received: Relayed,
    pub(crate) endpoint: RefCell<Option<Rc<EndpointState>>>,
}

impl Progress {
    fn new() -> Self {
        Self {
            started: Instant::now(),
            status: Cell::new(0),
            grpc_status: Cell::new(None),
            reason: Cell::new(None),
            attempts: Cell::new(0),
            replied: Cell::new(false),
            read: Cell::new(false),
            reset: Cell::new(None),
            detail: OnceCell::new(),
            told_by_peer: Cell::new(false),
            unprocessed: Cell::default(),
            patience: Cell::new(None),
            sent: Relayed::default(),
            received: Relayed::default(),
            endpoint: RefCell::default(),
        }
    }

    /// The attempt was not processed: it counts as not made, and its body as not sent.
    fn not_sent(&self) {
        self.attempts.set(self.attempts.get().saturating_sub(1));
        self.sent.bytes.set(0);
    }
}

/// One route's decision for one request.
struct Decision<'v> {
    cluster: &'v Rc<ClusterState>,
    retry: &'v RetryPolicy,
    timeout: Option<Duration>,
    changes: Option<&'v Changes>,
    route: Arc<str>,
}

/// Serves one request: decides, tries, replies and records. Dropped before its end, the upstream is given up
/// (RST_STREAM or close) and nothing is recorded.
pub(crate) async fn request(
    cx: &Context<'_>,
    view: &Rc<View>,
    target: &Target<'_>,
    head: &RequestHead,
    body: &mut BodyIn<'_>,
    reply: &mut Reply<'_>,
) -> End {
    let progress = Progress::new();
    let local = RetryPolicy::default();
    let decided = decide(cx, view, target, head, &local);
    let outcome = match &decided {
        Ok(decision) => {
            let sending = pin!(send(cx, decision, head, body, reply, &progress));
            attempt::within(decision.timeout, Reason::RequestTimeout, sending).await
        }
        Err(Refused::Failure(reason)) => Err(Stop::Failed((*reason).into())),
        Err(Refused::Status(status)) => {
            end_unread(body, reply);
            respond(cx, *status, head, reply, &progress).await;
            Ok(Attempted::Complete)
        }
        Err(Refused::Redirect(redirect)) => {
            end_unread(body, reply);
            progress.status.set(redirect.status);
            let location = redirect.location(head.authority(), head.path());
            reply.redirect(redirect.status, &location, cx.direction.as_str()).await;
            Ok(Attempted::Complete)
        }
    };
    let outcome = match (outcome, &decided) {
        (Ok(Attempted::Switched(lease)), Ok(decision)) => {
            let (cluster, route) = (Rc::clone(decision.cluster), Arc::clone(&decision.route));
            return End::Switched(Box::new(Tunnel { lease: *lease, progress, cluster, route }));
        }
        (outcome, _) => outcome,
    };
    let end = conclude(cx, head, body, reply, &progress, outcome).await;
    record::finish(cx, decided.as_ref().ok().map(|d| (&**d.cluster, &d.route)), head, &progress);
    end
}

/// A request whose head was refused.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// What could be read of it.
    pub(crate) outline: Outline,
    /// HTTP status of the response; none: the stream is reset.
    pub(crate) status: Option<u16>,
    /// Why.
    pub(crate) reason: Reason,
    /// What is wrong with the head.
    pub(crate) detail: String,
    /// How long it took.
    pub(crate) duration: Duration,
}

/// Answers a request whose head was refused, in the terms of its caller, and records it like the others.
pub(crate) async fn refuse(cx: &Context<'_>, refusal: &Refusal, reply: &mut Reply<'_>) {
    let Refusal { outline, status, reason, detail, .. } = refusal;
    tracing::debug!(downstream = %cx.downstream, %reason, cause = detail, path = &*outline.path, "request rejected");
    let grpc = outline.grpc.as_deref().filter(|_| status.is_some()).map(|kind| (reason.row().grpc, kind));
    match status {
        Some(status) => reply.own(*status, grpc, reason.as_str(), cx.direction.as_str()).await,
        None => reply.abort(ResetCode::PROTOCOL),
    }
    record::refused(cx, refusal, grpc.map(|(code, _)| code));
}

enum Refused<'v> {
    Failure(Reason),
    Status(u16),
    Redirect(&'v Redirect),
}

/// Answers as a route says, in the terms of gRPC where these are spoken.
async fn respond(cx: &Context<'_>, status: u16, head: &RequestHead, reply: &mut Reply<'_>, progress: &Progress) {
    // Source: the gRPC protocol's mapping of HTTP statuses; what a route cannot serve is unavailable (Gateway API,
    // `GRPCRouteRule.backendRefs`).
    let grpc = head.grpc().map(|kind| (if status == 404 { 12 } else { 14 }, kind));
    progress.status.set(if grpc.is_some() { 200 } else { status });
    progress.grpc_status.set(grpc.map(|(code, _)| code));
    reply.own(status, grpc, "route", cx.direction.as_str()).await;
}

fn decide<'v>(
    cx: &Context<'_>,
    view: &'v Rc<View>,
    target: &'v Target<'_>,
    head: &RequestHead,
    local: &'v RetryPolicy,
) -> Result<Decision<'v>, Refused<'v>> {
    let table = match target {
        Target::Routes(table) => table,
        Target::Local(cluster) => {
            let route = Arc::clone(&cluster.config.name);
            return Ok(Decision { cluster, retry: local, timeout: None, changes: None, route });
        }
        Target::Unknown if cx.worker.untold(view) => return Err(Refused::Failure(Reason::NoConfig)),
        Target::Unknown => return Err(Refused::Failure(Reason::UnknownDestination)),
    };
    let route = route::decide(table, &Asked(head)).ok_or(Refused::Failure(Reason::NoRoute))?;
    let id = match route::verdict(&route.action, || rand::Rng::next_u32(&mut *cx.worker.rng.borrow_mut())) {
        Verdict::Cluster(id) => id,
        Verdict::Local => return Err(Refused::Failure(Reason::NoRoute)),
        Verdict::Respond(status) => return Err(Refused::Status(status)),
        Verdict::Redirect(redirect) => return Err(Refused::Redirect(redirect)),
    };
    let cluster = view.cluster(id).ok_or(Refused::Failure(Reason::NoRoute))?;
    let (timeout, changes) = (route.timeout, route.changes.as_deref());
    Ok(Decision { cluster, retry: &route.retry, timeout, changes, route: Arc::clone(&route.name) })
}

/// A request as routes look at it.
struct Asked<'h>(&'h RequestHead);

impl RequestView for Asked<'_> {
    fn method(&self) -> &str {
        self.0.method()
    }

    fn authority(&self) -> &str {
        self.0.authority()
    }

    fn path(&self) -> &str {
        self.0.path()
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        self.0.header(name)
    }
}

/// Makes attempts until one is answered or no further one is allowed.
async fn send(
    cx: &Context<'_>,
    decision: &Decision<'_>,
    head: &RequestHead,
    body: &mut BodyIn<'_>,
    reply: &mut Reply<'_>,
    progress: &Progress,
) -> Result<Attempted, Stop> {
    let live = &decision.cluster.live;
    let _counted = InFlight::new(cx, decision.cluster)?;
    retry::earn(live, &decision.cluster.config.budget, cx.worker.settings.workers);
    let rewritten = decision
        .changes
        .map(|changes| Rewritten { changes, path: changes.path.as_ref().map(|path| path.apply(head.path())) });
    let mut tried = smallvec::SmallVec::<[usize; 4]>::new();
    let mut fresh = false;
    let (mut limit, mut newer) = (decision.retry.limit, None);
    loop {
        let cluster = newer.as_ref().unwrap_or(decision.cluster);
        let (retry, route) = (decision.retry, rewritten.as_ref());
        let attempt = attempt::Attempt { cx, cluster, retry, route, head, fresh, progress };
        let last = progress.attempts.get() >= limit;
        let stop = match attempt.run(body, reply, &mut tried, last).await {
            Ok(done) => {
                retry::tell(cx, progress, true);
                return Ok(done);
            }
            Err(stop) => stop,
        };
        let failure = match stop {
            Stop::Failed(failure) => failure,
            Stop::Again if body.rewind() => {
                tokio::time::sleep(retry::pause(decision.retry, progress.attempts.get(), cx)).await;
                continue;
            }
            Stop::Again | Stop::Downstream(_) => return Err(stop),
        };
        if !progress.replied.get()
            && let Some(pause) = retry::unprocessed(&failure, decision.retry, cx, progress)
            && body.rewind()
        {
            progress.not_sent();
            if failure.is_stale() {
                // The connection has ended, not the endpoint: a new one to it will do.
                fresh = true;
                tried.pop();
            }
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            continue;
        }
        let repeatable = !progress.replied.get() && retry::permits(decision.retry, &failure, head) && body.rewind();
        // Once for each request a closed idle connection is free: an application that closes them all the time is not
        // thereby asked more often than its clients ask.
        let free = failure.is_stale() && !fresh;
        fresh |= free;
        if !repeatable || last || !(free || retry::spend(cx, live)) {
            if repeatable && let Some(now) = Box::pin(retry::replaced(cx, progress, cluster, &failure)).await {
                newer = Some(now);
                tried.clear();
                limit = progress.attempts.get().saturating_add(decision.retry.limit);
                continue;
            }
            retry::tell(cx, progress, false);
            return Err(Stop::Failed(failure));
        }
        // What provably went nowhere is tried elsewhere at once, the first time.
        if failure.retry == Retry::Never || (progress.attempts.get() > 1 && !free) {
            tokio::time::sleep(retry::pause(decision.retry, progress.attempts.get(), cx)).await;
        }
    }
}

/// Counts a request against its cluster's limit.
struct InFlight<'c>(&'c Cell<u32>);

impl<'c> InFlight<'c> {
    fn new(cx: &Context<'_>, cluster: &'c ClusterState) -> Result<Self, Stop> {
        let workers = u32::try_from(cx.worker.settings.workers.get()).unwrap_or(u32::MAX);
        let limit = (cluster.config.limits.max_requests / workers.max(1)).max(1);
        let count = &cluster.live.requests;
        if count.get() >= limit {
            return Err(Stop::Failed(Reason::MaxRequests.into()));
        }
        count.set(count.get().saturating_add(1));
        Ok(Self(count))
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// Answers what failed, or breaks off what can no longer be answered.
async fn conclude(
    cx: &Context<'_>,
    head: &RequestHead,
    body: &BodyIn<'_>,
    reply: &mut Reply<'_>,
    progress: &Progress,
    outcome: Result<Attempted, Stop>,
) -> End {
    let failure = match outcome {
        // A reply that came before the request was complete: what is left of it would be taken for the next one.
        Ok(Attempted::Complete | Attempted::Switched(_)) => {
            return if body.is_done() { End::Complete } else { End::Broken };
        }
        Err(Stop::Downstream(reason)) => {
            progress.reason.set(Some(reason));
            reply.abort(if reason == Reason::BadRequest { ResetCode::PROTOCOL } else { ResetCode::CANCEL });
            if reason == Reason::BadRequest && !progress.replied.get() {
                answer(cx, head, reply, progress, reason).await;
            }
            return End::Broken;
        }
        Err(Stop::Failed(failure)) => failure,
        Err(Stop::Again) => Reason::UpstreamReset.into(),
    };
    progress.reason.set(Some(failure.reason));
    if let Some(source) = &failure.source {
        // A request fails once.
        let _ = progress.detail.set(source.to_string().into());
    }
    tracing::debug!(reason = %failure.reason, cause = %failure, path = head.path(), "request failed");
    // NO_ERROR would say that what there is of a reply is all of it.
    let reset = progress.reset.get().filter(|code| failure.reason == Reason::UpstreamReset && !code.is_none());
    // A stream that the application reset is reset here too, in its own words: CANCEL stays CANCEL.
    if progress.replied.get() || (reset.is_some() && matches!(reply, Reply::H2(_))) {
        reply.abort(reset.unwrap_or(ResetCode::INTERNAL));
        return End::Broken;
    }
    end_unread(body, reply);
    answer(cx, head, reply, progress, failure.reason).await;
    if body.is_done() { End::Complete } else { End::Broken }
}

/// A request that is not read to its end is the last one of its connection, as the response says.
fn end_unread(body: &BodyIn<'_>, reply: &mut Reply<'_>) {
    if !body.is_done() {
        reply.close();
    }
}

async fn answer(cx: &Context<'_>, head: &RequestHead, reply: &mut Reply<'_>, progress: &Progress, reason: Reason) {
    let row = reason.row();
    let grpc = head.grpc().map(|kind| (row.grpc, kind));
    progress.status.set(if grpc.is_some() { 200 } else { row.status });
    progress.grpc_status.set(grpc.map(|(code, _)| code));
    // Who said it is not changed by passing it on.
    let who = if progress.told_by_peer.get() { Direction::Inbound } else { cx.direction };
    reply.own(row.status, grpc, row.name, who.as_str()).await;
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}
