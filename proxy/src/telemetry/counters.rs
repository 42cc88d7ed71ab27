//! Per-worker counters: plain load and store by the worker that owns them, summed by whoever scrapes.
//!
//! Each slot has one writer, so no store is lost without a `lock` prefix; a reader may see the parts of one request at
//! slightly different times, which a metric allows. Slots are aligned so that two workers never share a cache line.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::base::failure::Reason;

/// A number with one writer that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `n`; wraps at 2^64.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// The present value.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number with one writer that goes up and down. A worker's share may be negative for a moment; sums are not.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Adds one.
    pub fn increment(&self) {
        self.set(self.value().wrapping_add(1));
    }

    /// Takes one away.
    pub fn decrement(&self) {
        self.set(self.value().wrapping_sub(1));
    }

    /// Replaces the value.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The present value.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of the duration histogram, in nanoseconds: 0.5 ms, below which a proxy hop is noise, to 60 s, the
/// longest timeout people set. The last bucket, above all of them, is `+Inf`.
pub(super) const BOUNDS_NANOS: [u64; 16] = [
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
    60_000_000_000,
];

/// Number of buckets with `+Inf`.
pub(super) const BUCKETS: usize = BOUNDS_NANOS.len() + 1;

/// Combinations of status, gRPC status and reason that a series tells apart; further ones share one slot. A service
/// has a handful; the bound holds off peers that invent statuses.
const VARIANTS: usize = 16;

/// How one request ended.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// HTTP status sent downstream; 0 when there was no reply.
    pub status: u16,
    /// gRPC status, for gRPC.
    pub grpc_status: Option<u8>,
    /// Why it did not go the ordinary way.
    pub reason: Option<Reason>,
    /// From the first byte of the request to the last of the reply.
    pub duration: Duration,
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// Bytes of the reply's body.
    pub response_bytes: u64,
}

/// Status, gRPC status and reason in one number that is never 0.
fn variant_key(outcome: &Outcome) -> u32 {
    // Statuses that gRPC does not define count as UNKNOWN (2), as its clients take them.
    let grpc = outcome.grpc_status.map_or(0, |s| if s <= 16 { u32::from(s) + 1 } else { 3 });
    let reason = outcome.reason.map_or(0, |r| u32::from(r as u8) + 1);
    1 << 31 | (u32::from(outcome.status) & 0x3fff) << 16 | grpc << 8 | reason
}

/// One combination as it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Variant {
    /// Its parts: status (0: none), gRPC status plus one (0: none), reason's discriminant plus one (0: none).
    Of(u16, u8, u8),
    /// All combinations above the bound.
    Other,
}

impl Variant {
    fn of(key: u32) -> Self {
        let [high, low, grpc, reason] = key.to_be_bytes();
        Self::Of(u16::from_be_bytes([high & 0x3f, low]), grpc, reason)
    }
}

/// Slots of one request label set on one worker. 128: x86 fetches cache lines in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct RequestSlots {
    keys: [AtomicU32; VARIANTS],
    counts: [Counter; VARIANTS],
    other: Counter,
    used: AtomicUsize,
    buckets: [Counter; BUCKETS],
    nanos: Counter,
    request_bytes: Counter,
    response_bytes: Counter,
}

impl RequestSlots {
    /// The slot of a combination, taking a free one on first use.
    fn variant(&self, key: u32) -> Option<usize> {
        let used = self.used.load(Ordering::Relaxed);
        if let Some(at) = self.keys.iter().take(used).position(|k| k.load(Ordering::Relaxed) == key) {
            return Some(at);
        }
        self.keys.get(used)?.store(key, Ordering::Relaxed);
        // Release: a reader that sees the new length sees the key.
        self.used.store(used + 1, Ordering::Release);
        Some(used)
    }

    /// Counts by combination.
    pub(super) fn variants(&self) -> impl Iterator<Item = (Variant, u64)> {
        let used = self.used.load(Ordering::Acquire);
        let known = self.keys.iter().zip(&self.counts).take(used);
        known
            .map(|(key, count)| (Variant::of(key.load(Ordering::Relaxed)), count.value()))
            .chain(Some((Variant::Other, self.other.value())).filter(|(_, n)| *n > 0))
    }

    /// Requests by bucket, not cumulative.
    pub(super) fn buckets(&self) -> [u64; BUCKETS] {
        std::array::from_fn(|at| self.buckets.get(at).map_or(0, Counter::value))
    }

    /// Sum of durations in nanoseconds, request bytes, response bytes.
    pub(super) fn sums(&self) -> [u64; 3] {
        [self.nanos.value(), self.request_bytes.value(), self.response_bytes.value()]
    }
}

/// The handle of one request label set on one worker.
#[derive(Debug)]
pub struct RequestSeries {
    slots: Arc<RequestSlots>,
    /// The combination of the last request and its slot: mostly the next one's as well.
    last: Cell<(u32, usize)>,
}

impl RequestSeries {
    pub(super) const fn new(slots: Arc<RequestSlots>) -> Self {
        Self { slots, last: Cell::new((0, 0)) }
    }

    /// Counts one finished request. No lock, no allocation, no lookup by text.
    pub fn record(&self, outcome: &Outcome) {
        let slots = &*self.slots;
        let key = variant_key(outcome);
        let (last, at) = self.last.get();
        let at = if last == key { Some(at) } else { slots.variant(key) };
        let count = at.and_then(|at| {
            self.last.set((key, at));
            slots.counts.get(at)
        });
        count.unwrap_or(&slots.other).increment();

        let nanos = u64::try_from(outcome.duration.as_nanos()).unwrap_or(u64::MAX);
        // Comparing with every bound has no branch to mispredict.
        let bucket: usize = BOUNDS_NANOS.iter().map(|bound| usize::from(nanos > *bound)).sum();
        if let Some(bucket) = slots.buckets.get(bucket) {
            bucket.increment();
        }
        slots.nanos.add(nanos);
        slots.request_bytes.add(outcome.request_bytes);
        slots.response_bytes.add(outcome.response_bytes);
    }
}

/// Counters by reason, one more for "no reason".
#[derive(Debug)]
pub(super) struct ByReason([Counter; Reason::COUNT + 1]);

impl Default for ByReason {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl ByReason {
    pub(super) fn increment(&self, reason: Option<Reason>) {
        if let Some(counter) = self.0.get(reason.map_or(0, |r| r as usize + 1)) {
            counter.increment();
        }
    }

    /// Values by the reason's discriminant plus one; 0 is "no reason".
    pub(super) fn values(&self) -> impl Iterator<Item = u64> {
        self.0.iter().map(Counter::value)
    }
}

/// Slots of one TCP label set on one worker.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct TcpSlots {
    pub(super) opened: Counter,
    pub(super) sent: Counter,
    pub(super) received: Counter,
    pub(super) nanos: Counter,
    pub(super) closed: ByReason,
}

/// The handle of one TCP label set on one worker.
#[derive(Debug)]
pub struct TcpSeries {
    slots: Arc<TcpSlots>,
}

impl TcpSeries {
    pub(super) const fn new(slots: Arc<TcpSlots>) -> Self {
        Self { slots }
    }

    /// A connection is relayed from now on.
    pub fn opened(&self) {
        self.slots.opened.increment();
    }

    /// A connection is over, `duration` after it was opened; `reason` is none when both sides closed in order.
    pub fn closed(&self, reason: Option<Reason>, duration: Duration) {
        self.slots.closed.increment(reason);
        self.slots.nanos.add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Bytes that went from the downstream to the upstream.
    pub fn sent(&self, bytes: u64) {
        self.slots.sent.add(bytes);
    }

    /// Bytes that came from the upstream to the downstream.
    pub fn received(&self, bytes: u64) {
        self.slots.received.add(bytes);
    }
}

/// The slots of one label set on one worker.
pub(super) trait Slots: Default {
    /// Time series one label set is charged with against the bound.
    const COST: usize;

    /// A number that differs whenever something was counted.
    fn activity(&self) -> u64;
}

impl Slots for RequestSlots {
    // Buckets, sum, count, two byte counters, and three combinations of status and reason, as is usual.
    const COST: usize = BUCKETS + 2 + 2 + 3;

    fn activity(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, bucket| sum.wrapping_add(bucket.value()))
    }
}

impl Slots for TcpSlots {
    // Opened, sent, received, seconds, and closed with two reasons.
    const COST: usize = 6;

    fn activity(&self) -> u64 {
        let closed = self.closed.values().fold(0, u64::wrapping_add);
        [self.sent.value(), self.received.value(), closed].into_iter().fold(self.opened.value(), u64::wrapping_add)
    }
}
