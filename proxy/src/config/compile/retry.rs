//! RetryPolicy -> [`RetryPolicy`]: Envoy's words for when to try again.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::unreachable
)]

use std::time::Duration;

use tulle_proto::envoy::config::route::v3 as rds;

use super::fields::{self, printable};
use super::matcher;
use crate::config::reject::{Fault, Within};
use crate::config::route::{HeaderMatch, RetryOn, RetryPolicy, ValueMatch};

/// Most retries a policy may ask for; more would only multiply an outage.
const MOST_RETRIES: u32 = 10;

/// First pause when the policy names none. Source: `RetryPolicy.retry_back_off` of Envoy's API.
const BACKOFF_BASE: Duration = Duration::from_millis(25);

/// gRPC statuses by the names Envoy and gRPC use in `retry_on`.
const GRPC: [(&str, u8); 16] = [
    ("cancelled", 1),
    ("unknown", 2),
    ("invalid-argument", 3),
    ("deadline-exceeded", 4),
    ("not-found", 5),
    ("already-exists", 6),
    ("permission-denied", 7),
    ("resource-exhausted", 8),
    ("failed-precondition", 9),
    ("aborted", 10),
    ("out-of-range", 11),
    ("unimplemented", 12),
    ("internal", 13),
    ("unavailable", 14),
    ("data-loss", 15),
    ("unauthenticated", 16),
];

/// Compiles a retry policy; without one nothing is tried again.
///
/// # Errors
/// When a condition is not known: a retry that silently never happens, or one too many, is worse than a refusal.
pub(super) fn compile(policy: Option<&rds::RetryPolicy>) -> Result<RetryPolicy, Fault> {
    let Some(policy) = policy else {
        return Ok(RetryPolicy { on: nothing(), limit: 0, ..RetryPolicy::default() });
    };
    fields::unset("retriable_request_headers", !policy.retriable_request_headers.is_empty())?;
    let back_off = policy.retry_back_off.as_ref();
    let base = fields::nonzero(back_off.and_then(|b| b.base_interval.as_ref()), "retry_back_off.base_interval")?
        .unwrap_or(BACKOFF_BASE);
    let max = fields::nonzero(back_off.and_then(|b| b.max_interval.as_ref()), "retry_back_off.max_interval")?
        .unwrap_or_else(|| base.saturating_mul(10));
    if max < base {
        return Err(Fault::new("retry_back_off.max_interval", "is shorter than base_interval"));
    }
    Ok(RetryPolicy {
        on: conditions(policy)?,
        limit: policy.num_retries.as_ref().map_or(1, |retries| retries.value).min(MOST_RETRIES),
        per_try_timeout: fields::nonzero(policy.per_try_timeout.as_ref(), "per_try_timeout")?,
        backoff_base: base,
        backoff_max: max,
    })
}

const fn nothing() -> RetryOn {
    RetryOn {
        connect_failure: false,
        refused_stream: false,
        reset_before_request: false,
        reset: false,
        statuses: Vec::new(),
        grpc: Vec::new(),
        headers: Vec::new(),
    }
}

fn conditions(policy: &rds::RetryPolicy) -> Result<RetryOn, Fault> {
    let mut on = nothing();
    for word in policy.retry_on.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        match word {
            "connect-failure" => on.connect_failure = true,
            "refused-stream" => on.refused_stream = true,
            "reset-before-request" => on.reset_before_request = true,
            "reset" => {
                on.reset = true;
                on.reset_before_request = true;
            }
            // Envoy: also when there was no reply at all.
            "5xx" => broad(&mut on, (500, 599)),
            "gateway-error" => broad(&mut on, (502, 504)),
            "retriable-4xx" => on.statuses.push((409, 409)),
            "retriable-headers" => headers(&policy.retriable_headers, &mut on)?,
            "retriable-status-codes" => statuses(&policy.retriable_status_codes, &mut on)?,
            _ => {
                let status = GRPC.iter().find(|(name, _)| *name == word).map(|(_, status)| *status);
                let unknown = || Fault::new("retry_on", format!("names the unknown condition `{}`", printable(word)));
                on.grpc.push(status.ok_or_else(unknown)?);
            }
        }
    }
    Ok(on)
}

fn broad(on: &mut RetryOn, statuses: (u16, u16)) {
    on.connect_failure = true;
    on.refused_stream = true;
    on.reset_before_request = true;
    on.reset = true;
    on.statuses.push(statuses);
}

/// Adds header fields whose presence calls for another attempt.
fn headers(matchers: &[rds::HeaderMatcher], on: &mut RetryOn) -> Result<(), Fault> {
    for (index, matcher) in matchers.iter().enumerate() {
        let HeaderMatch { name, value, invert } = matcher::header(matcher).within_item("retriable_headers", index)?;
        fields::unset("retriable_headers", value != ValueMatch::Present || invert)?;
        on.headers.push(name);
    }
    Ok(())
}

/// Adds single statuses, neighbours joined to ranges.
fn statuses(codes: &[u32], on: &mut RetryOn) -> Result<(), Fault> {
    let mut sorted = Vec::with_capacity(codes.len().min(500));
    for code in codes {
        let status = u16::try_from(*code).ok().filter(|status| (100..600).contains(status));
        sorted.push(status.ok_or_else(|| Fault::new("retriable_status_codes", "holds a number outside of 100..=599"))?);
    }
    sorted.sort_unstable();
    sorted.dedup();
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for status in sorted {
        match ranges.last_mut() {
            Some((_, last)) if last.saturating_add(1) == status => *last = status,
            Some(_) | None => ranges.push((status, status)),
        }
    }
    on.statuses.extend(ranges);
    Ok(())
}
