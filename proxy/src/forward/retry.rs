//! What may be tried again, how often and how soon.
//!
//! A retry needs three things: the failure is one that the policy names and that does no harm to repeat, the body is
//! still at hand, and the cluster's budget has a token. Each request earns a share of a token, time earns the minimum.

use std::num::NonZeroUsize;
use std::rc::Rc;
use std::time::Duration;

use rand::RngExt;
use tokio::time::Instant;

use super::{Context, Progress};
use crate::base::failure::{Failure, Reason, Retry};
use crate::codec::head::{RequestHead, ResponseHead};
use crate::config::cluster::RetryBudget;
use crate::config::route::RetryPolicy;
use crate::telemetry::events::RetryOutcome;
use crate::telemetry::labels::Direction;
use crate::view::{ClusterState, Live};

/// Most tokens that are saved up: a burst of failures when an endpoint dies under load.
const MAX_TOKENS: f64 = 100.0;

/// Whether `policy` allows another attempt after `failure`.
pub(super) fn permits(policy: &RetryPolicy, failure: &Failure, head: &RequestHead) -> bool {
    let on = &policy.on;
    match failure.retry {
        Retry::Never => {
            let broke =
                matches!(failure.reason, Reason::UpstreamReset | Reason::UpstreamClosed | Reason::PerTryTimeout);
            on.reset && broke && head.is_safe()
        }
        Retry::IfIdempotent => on.reset_before_request && head.is_idempotent(),
        Retry::Safe if failure.reason == Reason::UpstreamReset => on.refused_stream,
        Retry::Safe if failure.is_stale() => on.reset_before_request,
        Retry::Safe => on.connect_failure,
    }
}

/// Attempts of one request that provably were not processed. They are no retries: neither policy nor budget is asked, and
/// no attempt is counted (RFC 9113 section 6.8, gRFC A6 "transparent retries"). Their number is bounded all the same.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Unprocessed {
    refused: u8,
    ended: u8,
}

/// Streams of one request that may be refused: a server that refuses everything gets so many for each request.
const MAX_REFUSED: u8 = 8;

/// Connections that may end under one request. Servers end them after some number of requests, with many streams waiting:
/// those that came too late meet again on the next one.
const MAX_ENDED: u8 = 16;

/// Attempts that follow each other without a pause.
const AT_ONCE: u8 = 2;

/// Counts an attempt that failed. `None`: it may have been processed, or there were too many; else how long to wait before
/// the next one.
pub(super) fn unprocessed(
    failure: &Failure,
    policy: &RetryPolicy,
    cx: &Context<'_>,
    progress: &Progress,
) -> Option<Duration> {
    if !failure.is_unprocessed() {
        return None;
    }
    let Unprocessed { mut refused, mut ended } = progress.unprocessed.get();
    if failure.reason == Reason::UpstreamReset {
        refused = refused.saturating_add(1);
    } else {
        ended = ended.saturating_add(1);
    }
    progress.unprocessed.set(Unprocessed { refused, ended });
    let late = refused.saturating_add(ended).saturating_sub(AT_ONCE);
    let allowed = refused <= MAX_REFUSED && ended <= MAX_ENDED;
    allowed.then(|| if late == 0 { Duration::ZERO } else { pause(policy, late.into(), cx) })
}

/// Whether `policy` wants another attempt instead of this reply.
pub(super) fn wants(policy: &RetryPolicy, head: &RequestHead, reply: &ResponseHead) -> bool {
    let on = &policy.on;
    let status = reply.status();
    let named = on.statuses.iter().any(|(low, high)| (*low..=*high).contains(&status))
        || reply.grpc_status().is_some_and(|grpc| on.grpc.contains(&grpc))
        || on.headers.iter().any(|name| reply.header(name).is_some());
    named && head.is_safe() || !on.grpc.is_empty() && head.is_grpc() && named
}

/// Credits one request and the time since the last one.
pub(super) fn earn(live: &Live, budget: &RetryBudget, workers: NonZeroUsize) {
    let mut state = live.retries.get();
    let now = Instant::now();
    let minimum = f64::from(budget.min_per_second) / workers.get() as f64;
    let by_time = now.saturating_duration_since(state.counted).as_secs_f64() * minimum;
    state.counted = now;
    state.tokens = (state.tokens + by_time + budget.percent / 100.0).min(MAX_TOKENS);
    live.retries.set(state);
}

/// Takes the token of one retry; `false` when there is none.
pub(super) fn spend(cx: &Context<'_>, live: &Live) -> bool {
    let mut state = live.retries.get();
    let granted = state.tokens >= 1.0;
    if granted {
        state.tokens -= 1.0;
        live.retries.set(state);
    } else {
        cx.worker.telemetry.events().retry_budget_exhausted.increment();
    }
    granted
}

/// Whether a reason says that nobody is there.
pub(super) const fn is_absence(reason: Reason) -> bool {
    use Reason::{ConnectFailed, ConnectRefused, ConnectTimeout, Draining, TlsHandshake};
    // One that ends breaks off handshakes.
    matches!(reason, ConnectTimeout | ConnectRefused | ConnectFailed | Draining | TlsHandshake)
}

/// How long newer endpoints are waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether newer endpoints may be waited for. Only towards others: an own application is there or not.
pub(super) fn is_patient(cx: &Context<'_>, progress: &Progress) -> bool {
    cx.direction == Direction::Outbound && progress.patience.get().is_none_or(|until| Instant::now() < until)
}

/// The cluster with other endpoints than those that were tried; none when they stay as they are. Endpoints that all have gone
/// were replaced, and word of that is on its way: a request that nobody took waits for it.
pub(super) async fn replaced(
    cx: &Context<'_>,
    progress: &Progress,
    cluster: &Rc<ClusterState>,
    failure: &Failure,
) -> Option<Rc<ClusterState>> {
    if !is_patient(cx, progress) || failure.retry != Retry::Safe || !is_absence(failure.reason) {
        return None;
    }
    let until = progress.patience.get().unwrap_or_else(|| Instant::now() + PATIENCE);
    progress.patience.set(Some(until));
    cx.worker.replaced(cluster, until).await
}

/// How long to wait before the next attempt: doubling, with full jitter.
pub(super) fn pause(policy: &RetryPolicy, attempts: u32, cx: &Context<'_>) -> Duration {
    let doubled = policy.backoff_base.saturating_mul(1 << attempts.saturating_sub(1).min(16));
    doubled.min(policy.backoff_max).mul_f64(cx.worker.rng.borrow_mut().random::<f64>())
}

/// Counts a request that was retried.
pub(super) fn tell(cx: &Context<'_>, progress: &Progress, success: bool) {
    if progress.attempts.get() > 1 {
        let outcome = if success { RetryOutcome::Success } else { RetryOutcome::Failure };
        cx.worker.telemetry.events().retried(outcome);
    }
}
