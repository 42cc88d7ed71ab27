//! What one identity may have of a replica: streams, bytes of demands, signatures. A stolen token costs what its owner
//! may cost, and leaves room for everybody else.
//!
//! The pods of a ServiceAccount share an identity, so each pod, where it is known, has a smaller share of its own.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tonic::Status;
use tulle_identity::spiffe::SpiffeId;

use crate::metrics::{Metrics, QuotaLabels};
use crate::model::Key;

/// Shares.
#[derive(Clone, Copy, Debug)]
pub struct Quotas {
    /// Of an identity, all its pods together.
    pub identity: Share,
    /// Of a pod.
    pub pod: Share,
}

/// What one holder may have.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// Streams at once.
    pub streams: usize,
    /// Bytes of the names and versions its streams ask for, with what keeping each of them takes.
    pub demand_bytes: usize,
    /// Signatures at once, after a while without any.
    pub signature_burst: u32,
    /// Signatures a second.
    pub signatures_per_sec: u32,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            identity: Share {
                streams: IDENTITY_STREAMS,
                demand_bytes: IDENTITY_DEMAND_BYTES,
                signature_burst: IDENTITY_SIGNATURE_BURST,
                signatures_per_sec: IDENTITY_SIGNATURES_PER_SEC,
            },
            pod: Share {
                streams: POD_STREAMS,
                demand_bytes: POD_DEMAND_BYTES,
                signature_burst: POD_SIGNATURE_BURST,
                signatures_per_sec: POD_SIGNATURES_PER_SEC,
            },
        }
    }
}

/// A quarter of the streams of a replica: no deployment has that many replicas on one of ours, and three others find room.
const IDENTITY_STREAMS: usize = 5_000;
/// 1,000 proxies with 100 destinations each.
const IDENTITY_DEMAND_BYTES: usize = 128 << 20;
/// All proxies of a large deployment start at the same time.
const IDENTITY_SIGNATURE_BURST: u32 = 1_000;
const IDENTITY_SIGNATURES_PER_SEC: u32 = 100;

/// A proxy has one stream, and another while it moves to another replica; applications that speak xDS add theirs.
const POD_STREAMS: usize = 16;
/// As many destinations as a proxy keeps at most.
const POD_DEMAND_BYTES: usize = 16 << 20;
const POD_SIGNATURE_BURST: u32 = 20;
/// Certificates that live for two seconds, the shortest there are, are replaced every second.
const POD_SIGNATURES_PER_SEC: u32 = 2;

/// Identities that have a series of their own in the metric of refusals; further ones count as `other`.
const SERIES: usize = 100;

/// Holders that are remembered though they hold nothing now.
const IDLE: usize = 16_384;

/// Who asks: an identity, and the pod where it is known.
pub(crate) type Who<'a> = (&'a SpiffeId, Option<&'a Key>);

/// Who holds something.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Holder {
    identity: SpiffeId,
    pod: Option<Key>,
}

#[derive(Clone, Copy, Debug)]
struct Usage {
    streams: usize,
    demand_bytes: usize,
    /// Signatures it may have now, as of `counted`.
    signatures: f64,
    counted: Instant,
}

/// What is in use. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct InUse(Arc<Table>);

#[derive(Debug)]
struct Table {
    quotas: Quotas,
    metrics: Metrics,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    usage: HashMap<Holder, Usage>,
    series: HashSet<String>,
}

/// The share of one stream; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct StreamShare {
    in_use: InUse,
    holders: Vec<Holder>,
    demand_bytes: usize,
}

impl InUse {
    /// Nothing is in use.
    pub(crate) fn new(quotas: Quotas, metrics: Metrics) -> Self {
        Self(Arc::new(Table { quotas, metrics, state: Mutex::default() }))
    }

    /// A stream of `who`; an anonymous one, on loopback, has no bound here.
    ///
    /// # Errors
    /// `ResourceExhausted` when the identity or the pod has as many as it may.
    pub(crate) fn stream(&self, who: Option<Who<'_>>) -> Result<StreamShare, Status> {
        let holders = who.map(holders).unwrap_or_default();
        let mut state = self.0.lock();
        for holder in &holders {
            let share = self.0.share(holder);
            if state.usage(holder, share).streams >= share.streams {
                drop(state);
                return Err(self.refused(holder, "streams", format!("{} streams", share.streams)));
            }
        }
        for holder in &holders {
            let usage = state.usage(holder, self.0.share(holder));
            usage.streams = usage.streams.saturating_add(1);
        }
        drop(state);
        Ok(StreamShare { in_use: self.clone(), holders, demand_bytes: 0 })
    }

    /// A signature for `who`.
    ///
    /// # Errors
    /// `ResourceExhausted` when it had too many lately; later there is one again.
    pub(crate) fn signature(&self, who: Who<'_>) -> Result<(), Status> {
        self.signature_at(who, Instant::now())
    }

    fn signature_at(&self, who: Who<'_>, now: Instant) -> Result<(), Status> {
        let holders = holders(who);
        let mut state = self.0.lock();
        for holder in &holders {
            let share = self.0.share(holder);
            let usage = state.usage(holder, share);
            usage.refill(share, now);
            if usage.signatures < 1.0 {
                drop(state);
                let most = format!("{} signatures a second", share.signatures_per_sec);
                return Err(self.refused(holder, "signatures", most));
            }
        }
        for holder in &holders {
            state.usage(holder, self.0.share(holder)).signatures -= 1.0;
        }
        Ok(())
    }

    fn refused(&self, holder: &Holder, quota: &'static str, most: String) -> Status {
        let identity = self.0.lock().series(holder.identity.as_str());
        self.0.metrics.quota_refused.get_or_create(&QuotaLabels { identity, quota }).inc();
        let who = match &holder.pod {
            Some(pod) => format!("pod {pod}"),
            None => format!("identity {}", holder.identity),
        };
        tracing::debug!(%who, quota, most, "the quota is used up");
        Status::resource_exhausted(format!("{who} has used up its quota of this replica: {most}"))
    }
}

impl StreamShare {
    /// Notes that the stream's demands now take `bytes`.
    ///
    /// # Errors
    /// `ResourceExhausted` when that is more than the identity or the pod may have; the stream ends then.
    pub(crate) fn demand(&mut self, bytes: usize) -> Result<(), Status> {
        let table = &self.in_use.0;
        let more = bytes.saturating_sub(self.demand_bytes);
        let mut state = table.lock();
        for holder in &self.holders {
            let share = table.share(holder);
            if more > 0 && state.usage(holder, share).demand_bytes.saturating_add(more) > share.demand_bytes {
                drop(state);
                let most = format!("{} bytes of names", share.demand_bytes);
                return Err(self.in_use.refused(holder, "demand_bytes", most));
            }
        }
        for holder in &self.holders {
            let usage = state.usage(holder, table.share(holder));
            usage.demand_bytes = usage.demand_bytes.saturating_sub(self.demand_bytes).saturating_add(bytes);
        }
        self.demand_bytes = bytes;
        Ok(())
    }
}

impl Drop for StreamShare {
    fn drop(&mut self) {
        let table = &self.in_use.0;
        let mut state = table.lock();
        for holder in &self.holders {
            let usage = state.usage(holder, table.share(holder));
            usage.streams = usage.streams.saturating_sub(1);
            usage.demand_bytes = usage.demand_bytes.saturating_sub(self.demand_bytes);
        }
    }
}

impl Table {
    const fn share(&self, holder: &Holder) -> Share {
        if holder.pod.is_some() { self.quotas.pod } else { self.quotas.identity }
    }

    /// The state is whole whatever panicked while holding it: counts are changed one by one.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn usage(&mut self, holder: &Holder, share: Share) -> &mut Usage {
        if self.usage.len() >= IDLE && !self.usage.contains_key(holder) {
            let now = Instant::now();
            // Whoever has not asked for a minute has all of its signatures again.
            self.usage.retain(|_, usage| {
                usage.streams > 0 || now.saturating_duration_since(usage.counted) < Duration::from_secs(60)
            });
        }
        let fresh = || Usage {
            streams: 0,
            demand_bytes: 0,
            signatures: f64::from(share.signature_burst),
            counted: Instant::now(),
        };
        self.usage.entry(holder.clone()).or_insert_with(fresh)
    }

    /// The name under which refusals of an identity are counted.
    fn series(&mut self, identity: &str) -> String {
        if self.series.len() < SERIES && !self.series.contains(identity) {
            self.series.insert(identity.to_owned());
        }
        if self.series.contains(identity) { identity.to_owned() } else { "other".to_owned() }
    }
}

impl Usage {
    fn refill(&mut self, share: Share, now: Instant) {
        let seconds = now.saturating_duration_since(self.counted).as_secs_f64();
        let grown = seconds.mul_add(f64::from(share.signatures_per_sec), self.signatures);
        self.signatures = grown.min(f64::from(share.signature_burst));
        self.counted = now;
    }
}

/// The identity, and the pod where it is known.
fn holders((id, pod): Who<'_>) -> Vec<Holder> {
    let identity = Holder { identity: id.clone(), pod: None };
    let pod = pod.map(|pod| Holder { identity: id.clone(), pod: Some(pod.clone()) });
    pod.into_iter().chain([identity]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> InUse {
        let identity = Share { streams: 3, demand_bytes: 100, signature_burst: 4, signatures_per_sec: 2 };
        let pod = Share { streams: 2, demand_bytes: 60, signature_burst: 2, signatures_per_sec: 1 };
        InUse::new(Quotas { identity, pod }, Metrics::default())
    }

    struct Caller(SpiffeId, Option<Key>);

    impl Caller {
        fn who(&self) -> Who<'_> {
            (&self.0, self.1.as_ref())
        }
    }

    fn caller(account: &str, pod: Option<&str>) -> Caller {
        let id = SpiffeId::parse(&format!("spiffe://cluster.local/ns/shop/sa/{account}")).unwrap();
        Caller(id, pod.map(|name| Key::new("shop", name)))
    }

    fn code<T: std::fmt::Debug>(result: Result<T, Status>) -> tonic::Code {
        result.unwrap_err().code()
    }

    #[test]
    fn hostile_04_streams_and_demands_have_a_share_each() {
        let in_use = small();
        let (one, two, other) = (caller("web", Some("web-1")), caller("web", Some("web-2")), caller("bank", None));
        let mut first = in_use.stream(Some(one.who())).unwrap();
        let second = in_use.stream(Some(one.who())).unwrap();
        assert_eq!(code(in_use.stream(Some(one.who()))), tonic::Code::ResourceExhausted, "of the pod");
        let mut third = in_use.stream(Some(two.who())).unwrap();
        assert_eq!(code(in_use.stream(Some(two.who()))), tonic::Code::ResourceExhausted, "of the identity");
        assert!(in_use.stream(Some(other.who())).is_ok() && in_use.stream(None).is_ok(), "others find room");
        first.demand(60).unwrap();
        assert_eq!(code(first.demand(61)), tonic::Code::ResourceExhausted, "of the pod");
        first.demand(50).unwrap();
        assert_eq!(code(third.demand(51)), tonic::Code::ResourceExhausted, "of the identity");
        third.demand(50).unwrap();
        drop((first, second));
        third.demand(60).unwrap();
        assert!(in_use.stream(Some(one.who())).is_ok(), "what is given back may be had again");
    }

    #[test]
    fn hostile_04_signatures_have_a_rate() {
        let (in_use, start) = (small(), Instant::now());
        let pod = |name| caller("web", Some(name));
        let sign =
            |caller: &Caller, after: u64| in_use.signature_at(caller.who(), start + Duration::from_secs(after)).is_ok();
        assert_eq!([sign(&pod("a"), 0), sign(&pod("a"), 0), sign(&pod("a"), 0)], [true, true, false]);
        assert_eq!([sign(&pod("b"), 0), sign(&pod("b"), 0), sign(&pod("c"), 0)], [true, true, false], "the identity's");
        assert!(sign(&caller("bank", None), 0));
        assert_eq!([sign(&pod("a"), 1), sign(&pod("a"), 1), sign(&pod("c"), 1)], [true, false, true]);
    }

    #[test]
    fn hostile_04_series_of_refusals_are_bounded() {
        let mut state = State::default();
        for number in 0..SERIES {
            let name = number.to_string();
            assert_eq!(state.series(&name), name);
        }
        assert_eq!(state.series("more"), "other");
        assert_eq!(state.series("5"), "5");
    }
}
