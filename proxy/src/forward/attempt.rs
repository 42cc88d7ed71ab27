//! One attempt: an endpoint, a connection, the exchange on it.
//!
//! Both directions of an exchange are one future: the request's side and the reply's side are polled together, so
//! that a reply may begin, or end, while the request is still being sent.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use smallvec::SmallVec;

use super::{Context, Progress, judge, retry};
use crate::base::failure::{Failure, Reason, Retry};
use crate::codec::body::{BodyError, BodyIn, BodyOut, Gone, RelayError, relay};
use crate::codec::buffer;
use crate::codec::fields::{PROXY_HEADER, REASON_HEADER};
use crate::codec::h1::conn::{BodyWriter, HeadReader, ReadError};
use crate::codec::h1::parse::{self, Framing};
use crate::codec::h1::write;
use crate::codec::h2::client::{Incoming, ReplyReader};
use crate::codec::h2::{Fault, H2Error};
use crate::codec::head::{Edit, RequestHead, ResponseHead, Rewritten};
use crate::codec::reply::Reply;
use crate::config::cluster::HttpVersion;
use crate::config::route::RetryPolicy;
use crate::pool::{H1Lease, H2Lease};
use crate::telemetry::labels::Direction;
use crate::view::{Active, ClusterState, EndpointState};

/// How far the request has gone out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    /// Not to its end yet.
    Part,
    /// Whole.
    Whole,
    /// The upstream takes no more of it.
    Cut,
}

/// How long an HTTP/2 request without `content-length`, of a method that gives content no meaning, is held back for its
/// first frame of content or its end: only then is it known whether the request has content.
const FIRST_CONTENT: Duration = Duration::from_secs(2);

/// What an attempt is made of.
#[derive(Clone, Copy)]
pub(super) struct Attempt<'a> {
    pub(super) cx: &'a Context<'a>,
    pub(super) cluster: &'a Rc<ClusterState>,
    pub(super) retry: &'a RetryPolicy,
    /// What the route changes.
    pub(super) route: Option<&'a Rewritten<'a>>,
    pub(super) head: &'a RequestHead,
    /// An idle connection turned out to be closed: none of the others is tried.
    pub(super) fresh: bool,
    pub(super) progress: &'a Progress,
}

/// An attempt that came to its end.
#[derive(Debug)]
pub(super) enum Attempted {
    /// The reply was passed on.
    Complete,
    /// The peers switched to another protocol.
    Switched(Box<H1Lease>),
}

/// Why an attempt stopped.
#[derive(Debug)]
pub(super) enum Stop {
    /// The upstream, or we, failed.
    Failed(Failure),
    /// The reply is one that the policy would rather replace; the budget has granted it.
    Again,
    /// The downstream went away, or its body is malformed.
    Downstream(Reason),
}

impl<'a> Attempt<'a> {
    /// Makes the attempt. `tried` holds the endpoints of earlier ones and gains this one; `last`: none will follow.
    pub(super) async fn run(
        self,
        body: &mut BodyIn<'_>,
        reply: &mut Reply<'_>,
        tried: &mut SmallVec<[usize; 4]>,
        last: bool,
    ) -> Result<Attempted, Stop> {
        let Self { cx, cluster, progress, .. } = self;
        if reply.is_gone() {
            return Err(Stop::Downstream(Reason::DownstreamClosed));
        }
        progress.attempts.set(progress.attempts.get().saturating_add(1));
        progress.reset.set(None);
        progress.told_by_peer.set(false);
        let (index, active) = cluster.pick(&mut *cx.worker.rng.borrow_mut(), tried).map_err(Failure::from)?;
        tried.push(index);
        let endpoint = active.endpoint();
        progress.endpoint.replace(Some(Rc::clone(endpoint)));
        let http2 = match cluster.config.http {
            HttpVersion::AsDownstream => matches!(self.head, RequestHead::H2(_)),
            HttpVersion::Http1 => false,
            HttpVersion::Http2 => true,
        } && !self.head.upgrade();
        let done =
            if http2 { self.h2(endpoint, body, reply, last).await } else { self.h1(endpoint, body, reply, last).await };
        mark(endpoint, &done);
        judge::attempt(&self, endpoint, &done);
        drop::<Active>(active);
        done
    }

    fn edit(&self) -> Edit<'a> {
        Edit { peer: self.cx.peer_header, route: self.route, ..Edit::default() }
    }

    /// Replies of a mesh peer may say that its proxy made them; those of an application may not.
    fn reply_edit(&self, endpoint: &EndpointState) -> Edit<'a> {
        let from_proxy = self.cx.direction == Direction::Outbound && endpoint.config.identity.is_some();
        Edit { keep_ours: from_proxy, route: self.route, back: true, ..Edit::default() }
    }

    async fn h1(
        &self,
        endpoint: &EndpointState,
        body: &mut BodyIn<'_>,
        reply: &mut Reply<'_>,
        last: bool,
    ) -> Result<Attempted, Stop> {
        let worker = self.cx.worker;
        if matches!(self.head, RequestHead::H2(head) if head.length.is_none()) && self.head.is_contentless() {
            // Boxed: rare, and with a timer.
            Box::pin(self.begin(body, reply)).await?;
        }
        let keys = worker.keys();
        let mut lease = endpoint.live.pool.h1(worker.dial(&self.cluster.config, keys.as_ref()), self.fresh).await?;
        let patient = !last || retry::is_patient(self.cx, self.progress);
        if lease.reused || patient && endpoint.config.identity.is_some() {
            body.keep();
        }
        let reused = lease.reused;
        let (duplex, reader) = lease.conn.halves();
        let (framing, frame) = request_framing(self.head, body);
        let mut out = buffer::take();
        write::request(self.head, self.edit(), framing, &mut out);
        let mut to = BodyOut::H1(BodyWriter::new(duplex, out, frame));
        let sent = Cell::new(Sent::Part);
        let incoming = H1Incoming { attempt: self, reader, reused, sent: &sent };
        let exchanged = self.exchange(body, &mut to, &sent, pin!(incoming.reply(endpoint, reply, last))).await;
        drop(to);
        match exchanged? {
            Finish::Reusable(secs) if sent.get() == Sent::Whole => {
                lease.park(secs.map(|secs| Duration::from_secs(secs.into())));
            }
            Finish::Switched => return Ok(Attempted::Switched(Box::new(lease))),
            Finish::Reusable(_) | Finish::Done => {}
        }
        Ok(Attempted::Complete)
    }

    async fn h2(
        &self,
        endpoint: &EndpointState,
        body: &mut BodyIn<'_>,
        reply: &mut Reply<'_>,
        last: bool,
    ) -> Result<Attempted, Stop> {
        let worker = self.cx.worker;
        let keys = worker.keys();
        // HTTP/1.0 may name no host; HTTP/2 cannot say that.
        if self.head.authority().is_empty() {
            return Err(Failure::new(Reason::BadRequest).because("no host").into());
        }
        body.keep();
        let (lease, (reader, writer)) = loop {
            let lease = endpoint.live.pool.h2(worker.dial(&self.cluster.config, keys.as_ref())).await?;
            if reply.is_gone() {
                return Err(Stop::Downstream(Reason::DownstreamClosed));
            }
            let opened = tokio::select! {
                biased;
                opened = lease.conn().send(self.head, self.edit(), body.is_spent()) => opened,
                // The peer may have no room for another for long.
                () = reply.gone() => return Err(Stop::Downstream(Reason::DownstreamClosed)),
            };
            match opened {
                Ok(opened) => break (lease, opened),
                Err(H2Error::TooLarge) => {
                    return Err(Failure::new(Reason::HeadersTooLarge).because(H2Error::TooLarge).into());
                }
                // It was going away when we came: nothing was sent, and another one is no retry. It is not picked
                // again, so this comes to an end.
                Err(_) if lease.reused() => lease.retire(),
                Err(error) => {
                    lease.retire();
                    return Err(Failure::safe(Reason::UpstreamClosed).because(error).into());
                }
            }
        };
        let mut to = BodyOut::H2(writer);
        let sent = Cell::new(Sent::Part);
        let incoming = H2Incoming { attempt: self, reader, lease: &lease };
        self.exchange(body, &mut to, &sent, pin!(incoming.reply(endpoint, reply, last))).await?;
        Ok(Attempted::Complete)
    }

    /// Waits until it is known whether the request has content: framing follows that, not the time at which frames arrive.
    async fn begin(&self, body: &mut BodyIn<'_>, reply: &mut Reply<'_>) -> Result<(), Stop> {
        if body.is_spent() {
            return Ok(());
        }
        tokio::select! {
            biased;
            begun = tokio::time::timeout(FIRST_CONTENT, body.begin()) => match begun {
                Ok(Err(BodyError::Malformed(_) | BodyError::Rules(_))) => Err(Stop::Downstream(Reason::BadRequest)),
                Ok(Err(_)) => Err(Stop::Downstream(Reason::DownstreamClosed)),
                // Past the time it counts as content that is still to come.
                Ok(Ok(())) | Err(_) => Ok(()),
            },
            () = reply.gone() => Err(Stop::Downstream(Reason::DownstreamClosed)),
        }
    }

    /// Polls the request's side and the reply's side together until the reply is over.
    async fn exchange(
        &self,
        body: &mut BodyIn<'_>,
        to: &mut BodyOut<'_>,
        sent: &Cell<Sent>,
        reply: Pin<&mut impl Future<Output = Result<Finish, Stop>>>,
    ) -> Result<Finish, Stop> {
        let request = async {
            let moved = if matches!(to, BodyOut::H2(_)) && body.is_spent() {
                Ok(())
            } else {
                relay(body, to, &self.progress.sent, None).await
            };
            match moved {
                Ok(()) => {
                    sent.set(Sent::Whole);
                    self.progress.read.set(true);
                    if body.gone().await == Gone::Silent {
                        self.deserted().await;
                    }
                    Stop::Downstream(Reason::DownstreamClosed)
                }
                Err(RelayError::From(BodyError::Malformed(_) | BodyError::Rules(_))) => {
                    Stop::Downstream(Reason::BadRequest)
                }
                Err(RelayError::From(_)) => Stop::Downstream(Reason::DownstreamClosed),
                // Whether the upstream answered before it stopped listening shows on the reply's side.
                Err(RelayError::To | RelayError::Stalled) => {
                    sent.set(Sent::Cut);
                    std::future::pending().await
                }
            }
        };
        tokio::select! {
            // The request first: it is what there is to do at the beginning, and it is over soon.
            biased;
            stop = request => Err(stop),
            finish = reply => finish,
        }
    }

    /// Waits until nothing of a reply has come for a while, for a downstream that sends no more. It may have ended only
    /// its own direction and wait for the reply, or be gone altogether: the next bytes written to it would tell.
    async fn deserted(&self) {
        let patience = self.cx.worker.settings.limits.half_close_timeout;
        loop {
            let received = self.progress.received.bytes.get();
            tokio::time::sleep(patience).await;
            if self.progress.received.bytes.get() == received {
                return;
            }
        }
    }

    /// Deals with a final head: decides on another attempt, or starts the reply and passes the body on.
    async fn answer(
        &self,
        endpoint: &EndpointState,
        head: ResponseHead,
        mut from: BodyIn<'_>,
        reply: &mut Reply<'_>,
        last: bool,
    ) -> Result<(), Stop> {
        let edit = self.reply_edit(endpoint);
        if let Some(reason) = edit.keep_ours.then(|| spared(&head)).flatten()
            && (!last || retry::is_patient(self.cx, self.progress) && retry::is_absence(reason))
        {
            self.progress.told_by_peer.set(true);
            return Err(Failure::safe(reason).into());
        }
        if !last {
            // Whether the body is still at hand must be known before the reply is thrown away.
            let sent = self.progress.sent.bytes.get();
            if retry::wants(self.retry, self.head, &head) && sent == 0 && retry::spend(self.cx, &self.cluster.live) {
                self.progress.status.set(head.status());
                self.progress.grpc_status.set(head.grpc_status());
                return Err(Stop::Again);
            }
        }
        self.pass(head, &mut from, reply, edit).await
    }

    async fn pass(
        &self,
        head: ResponseHead,
        from: &mut BodyIn<'_>,
        reply: &mut Reply<'_>,
        edit: Edit<'_>,
    ) -> Result<(), Stop> {
        let progress = self.progress;
        progress.status.set(head.status());
        progress.grpc_status.set(head.grpc_status());
        progress.replied.set(true);
        if let Some(reason) = header_reason(&head).filter(|_| edit.keep_ours) {
            progress.reason.set(Some(reason));
        }
        if !progress.read.get() {
            reply.close();
        }
        let end = from.is_done();
        let mut to = reply.start(head, edit, end).map_err(|_| Stop::Downstream(Reason::DownstreamClosed))?;
        if end && matches!(to, BodyOut::H2(_)) {
            return Ok(());
        }
        let patience = Some(self.cx.worker.settings.limits.stall_timeout);
        let moved = relay(from, &mut to, &progress.received, patience).await;
        if let Some(status) = progress.received.grpc_status.get() {
            progress.grpc_status.set(Some(status));
        }
        match moved {
            Ok(()) => Ok(()),
            Err(RelayError::To) => Err(Stop::Downstream(Reason::DownstreamClosed)),
            Err(RelayError::Stalled) => Err(Stop::Downstream(Reason::IdleTimeout)),
            Err(RelayError::From(error)) => {
                if let BodyError::Reset(code) = &error {
                    progress.reset.set(Some(*code));
                }
                // A reply of which no byte was written was not sent: the downstream gets the reason instead.
                if to.withdraw() {
                    reply.restart();
                    progress.replied.set(false);
                }
                Err(body_failure(error).into())
            }
        }
    }
}

/// Bounds some work; past the time it failed for `reason`. By reference: a future that is handed over by value is kept
/// twice in the one around it.
pub(super) async fn within<T>(
    timeout: Option<Duration>,
    reason: Reason,
    work: Pin<&mut impl Future<Output = Result<T, Stop>>>,
) -> Result<T, Stop> {
    match timeout {
        None => work.await,
        Some(timeout) => tokio::time::timeout(timeout, work).await.unwrap_or_else(|_| Err(Stop::Failed(reason.into()))),
    }
}

/// What is left of the upstream connection after a reply.
enum Finish {
    /// It can take another request, if this one was sent whole; for so many seconds, if the upstream says so.
    Reusable(Option<u32>),
    /// It is closed, or shared.
    Done,
    /// It carries another protocol now.
    Switched,
}

/// The reply's side of an exchange over HTTP/1.
struct H1Incoming<'c> {
    attempt: &'c Attempt<'c>,
    reader: HeadReader<'c>,
    reused: bool,
    sent: &'c Cell<Sent>,
}

impl H1Incoming<'_> {
    async fn reply(mut self, endpoint: &EndpointState, reply: &mut Reply<'_>, last: bool) -> Result<Finish, Stop> {
        let attempt = self.attempt;
        let timeout = attempt.retry.per_try_timeout;
        let head = within(timeout, Reason::PerTryTimeout, pin!(self.final_head(reply))).await?;
        // Sent to the idle connection before the request reached it (RFC 9110 section 15.5.9).
        if head.status == 408 && self.reused && !head.keep_alive && !last && attempt.head.is_idempotent() {
            return Err(Failure::if_idempotent(Reason::UpstreamClosed).into());
        }
        let (framing, keep_alive, idle) = (head.framing, head.keep_alive, head.idle_secs);
        let switched = head.switches() && attempt.head.upgrade();
        let head = ResponseHead::H1(head);
        if switched {
            attempt.progress.status.set(head.status());
            attempt.progress.replied.set(true);
            let edit = attempt.reply_edit(endpoint);
            reply.switch(head, edit).await.map_err(|_| Stop::Downstream(Reason::DownstreamClosed))?;
            return self.content_sent().await.map(|()| Finish::Switched);
        }
        let body = BodyIn::from(self.reader.into_body(framing));
        attempt.answer(endpoint, head, body, reply, last).await?;
        Ok(if keep_alive { Finish::Reusable(idle) } else { Finish::Done })
    }

    /// Waits until the request's content was sent: the other protocol begins behind it (RFC 9110 section 7.8). The request's
    /// side is polled by the same task, before this.
    async fn content_sent(&self) -> Result<(), Stop> {
        let sent = poll_fn(|_| match self.sent.get() {
            Sent::Part => Poll::Pending,
            sent @ (Sent::Whole | Sent::Cut) => Poll::Ready(sent),
        });
        if sent.await == Sent::Cut {
            return Err(Failure::new(Reason::UpstreamClosed).because("closed in the middle of the request").into());
        }
        Ok(())
    }

    async fn final_head(&mut self, reply: &mut Reply<'_>) -> Result<parse::Response, Stop> {
        let attempt = self.attempt;
        let limits = attempt.cx.worker.head_limits();
        loop {
            let head = tokio::select! {
                // A reply that is there is passed on even if the downstream has just left.
                biased;
                head = self.reader.head(attempt.head.is_head(), limits) => head,
                () = reply.gone() => return Err(Stop::Downstream(Reason::DownstreamClosed)),
            };
            let head = head.map_err(|error| self.failure(error))?;
            match head.status {
                101 if attempt.head.upgrade() && head.switches() => return Ok(head),
                101 => return Err(Failure::new(Reason::ProtocolError).because("unasked switch of protocols").into()),
                100..=199 => {
                    let interim = reply.informational(ResponseHead::H1(head)).await;
                    interim.map_err(|_| Stop::Downstream(Reason::DownstreamClosed))?;
                }
                _ => return Ok(head),
            }
        }
    }

    /// No head came. On a reused connection that ended before any byte, the upstream most likely closed it for being
    /// idle; if not even the request was sent whole, it cannot have been served. The workload's own application also ends
    /// fresh ones when it ends itself, those it has not looked at among them; the next attempt then finds it gone, and says
    /// so to the peer.
    fn failure(&self, error: ReadError) -> Failure {
        let own = self.attempt.cx.direction == Direction::Inbound;
        let retry = match (self.reused, self.sent.get() == Sent::Whole) {
            _ if self.reader.has_received() => Retry::Never,
            (true, false) => Retry::Safe,
            (true, true) => Retry::IfIdempotent,
            (false, _) if own && self.attempt.head.is_safe() => Retry::IfIdempotent,
            (false, _) => Retry::Never,
        };
        match error {
            ReadError::Closed => Failure { reason: Reason::UpstreamClosed, retry, source: None },
            // What was on its way to a closed socket comes back as a reset.
            ReadError::Io(error) if self.reused && retry != Retry::Never => {
                Failure { reason: Reason::UpstreamClosed, retry, source: Some(error.into()) }
            }
            ReadError::Io(error) => Failure { reason: Reason::UpstreamReset, retry, source: Some(error.into()) },
            ReadError::Head(_) | ReadError::Timeout => {
                let field = self.reader.culprit(&error);
                let failure = Failure::new(Reason::ProtocolError);
                match field {
                    Some(field) => failure.because(format!("{error}: field `{field}`")),
                    None => failure.because(error),
                }
            }
        }
    }
}

/// The reply's side of an exchange over HTTP/2.
struct H2Incoming<'c> {
    attempt: &'c Attempt<'c>,
    reader: ReplyReader,
    lease: &'c H2Lease,
}

impl H2Incoming<'_> {
    async fn reply(self, endpoint: &EndpointState, reply: &mut Reply<'_>, last: bool) -> Result<Finish, Stop> {
        let attempt = self.attempt;
        let timeout = attempt.retry.per_try_timeout;
        let (head, body) = within(timeout, Reason::PerTryTimeout, pin!(self.final_head(reply))).await?;
        attempt.answer(endpoint, head, body, reply, last).await?;
        Ok(Finish::Done)
    }

    async fn final_head(&self, reply: &mut Reply<'_>) -> Result<(ResponseHead, BodyIn<'static>), Stop> {
        loop {
            let incoming = tokio::select! {
                // A reply that is there is passed on even if the downstream has just left.
                biased;
                incoming = self.reader.head() => incoming,
                () = reply.gone() => return Err(Stop::Downstream(Reason::DownstreamClosed)),
            };
            match incoming.map_err(|error| self.failure(error))? {
                Incoming::Interim(head) => {
                    let interim = reply.informational(head).await;
                    interim.map_err(|_| Stop::Downstream(Reason::DownstreamClosed))?;
                }
                Incoming::Final(head, body) => return Ok((head, body.into())),
            }
        }
    }

    fn failure(&self, error: H2Error) -> Failure {
        // A reply that breaks the rules is one: the request was looked at.
        let wrong = error.fault() != Fault::Lost;
        let reset = error.reset();
        if reset.is_none() && !matches!(error, H2Error::Given(_)) {
            self.lease.retire();
        }
        let retry = match reset {
            _ if wrong => Retry::Never,
            _ if error.is_refused() || error == H2Error::Unsent => Retry::Safe,
            // The connection was lost. On one that was there before, that is most likely the peer closing it.
            None if self.lease.reused() => Retry::IfIdempotent,
            Some(_) | None => Retry::Never,
        };
        // A stream that was refused was not looked at: that is between us and the peer.
        self.attempt.progress.reset.set(reset.filter(|_| !error.is_refused()));
        let reason = match reset {
            _ if wrong => Reason::ProtocolError,
            Some(_) => Reason::UpstreamReset,
            None => Reason::UpstreamClosed,
        };
        let failure = Failure { reason, retry, source: None };
        match self.reader.fault().filter(|_| wrong) {
            Some(field) => failure.because(format!("{error}: field `{field}`")),
            None => failure.because(error),
        }
    }
}

/// How the request's body is framed towards an HTTP/1 upstream, in the head and on the wire.
fn request_framing(head: &RequestHead, body: &BodyIn<'_>) -> (write::Framing, Framing) {
    match head {
        RequestHead::H1(head) => (write::Framing::Same, head.framing),
        RequestHead::H2(received) => match received.length {
            Some(length) => (write::Framing::Length(length), Framing::Length(length)),
            // A method that gives content a meaning says that there is none (RFC 9110 section 8.6).
            None if body.is_spent() && !head.is_contentless() => (write::Framing::Length(0), Framing::None),
            None if body.is_spent() => (write::Framing::None, Framing::None),
            None => (write::Framing::Chunked, Framing::Chunked),
        },
    }
}

/// The reason of a peer proxy's own reply, if it says that its application was spared.
fn spared(head: &ResponseHead) -> Option<Reason> {
    header_reason(head).filter(|reason| reason.spared_the_application())
}

fn header_reason(head: &ResponseHead) -> Option<Reason> {
    head.header(PROXY_HEADER)?;
    Reason::from_name(head.header(REASON_HEADER)?)
}

fn body_failure(error: BodyError) -> Failure {
    let reason = match &error {
        BodyError::Closed => Reason::UpstreamClosed,
        BodyError::Io(_) | BodyError::Reset(_) => Reason::UpstreamReset,
        BodyError::Malformed(_) | BodyError::Rules(_) => Reason::ProtocolError,
    };
    Failure::new(reason).because(error)
}

/// Remembers for a moment that an endpoint could not be reached, so that the balancer does not take it for an idle one.
fn mark(endpoint: &EndpointState, done: &Result<Attempted, Stop>) {
    match done {
        Ok(_) => endpoint.reached(),
        Err(Stop::Failed(failure)) if failure.reason.is_unreachable() => endpoint.missed(),
        Err(_) => {}
    }
}
