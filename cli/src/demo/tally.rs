//! What the load has seen: totals, the step under way, and the last two seconds. Time is passed in.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::client::Refused;
use super::shop;

/// Span of the live numbers.
const WINDOW: Duration = Duration::from_secs(2);

/// Part of the window that is forgotten at once.
const SLOT: Duration = Duration::from_millis(200);

/// Failures that are kept word by word; the others are counted.
const KEPT: usize = 12;

/// A replica that took part in a reply, and who called it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sighting {
    pub(super) replica: String,
    pub(super) caller: String,
}

/// Numbers of some span of time.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub(super) succeeded: u64,
    pub(super) failed: u64,
    /// Replies each replica took part in.
    pub(super) replicas: BTreeMap<String, u64>,
    /// Who called each replica last, as its application was told.
    pub(super) last_callers: BTreeMap<String, String>,
    /// Latencies of successes in microseconds, unordered.
    pub(super) micros: Vec<u32>,
}

/// The numbers of a demo.
#[derive(Debug)]
pub(super) struct Tally {
    inner: RefCell<Inner>,
}

#[derive(Debug)]
struct Inner {
    started: Instant,
    total: Counts,
    step: Counts,
    slots: VecDeque<(Instant, Counts)>,
    failures: Vec<String>,
    callers: BTreeMap<String, u64>,
    strangers: u64,
}

impl Tally {
    /// Nothing seen yet.
    pub(super) fn new(now: Instant) -> Self {
        let inner = Inner {
            started: now,
            total: Counts::default(),
            step: Counts::default(),
            slots: VecDeque::new(),
            failures: Vec::new(),
            callers: BTreeMap::new(),
            strangers: 0,
        };
        Self { inner: RefCell::new(inner) }
    }

    /// Notes a request that took `latency` and ended at `now`.
    pub(super) fn record(&self, outcome: Result<Vec<Sighting>, Refused>, latency: Duration, now: Instant) {
        self.inner.borrow_mut().record(outcome, latency, now);
    }

    /// Begins a step: [`Self::step`] counts from here.
    pub(super) fn begin_step(&self) {
        self.inner.borrow_mut().step = Counts::default();
    }

    /// The numbers of the step under way.
    pub(super) fn step(&self) -> Counts {
        self.inner.borrow().step.clone()
    }

    /// The numbers of everything.
    pub(super) fn total(&self) -> Counts {
        self.inner.borrow().total.clone()
    }

    /// The numbers of the last two seconds, and how long that was.
    pub(super) fn recent(&self, now: Instant) -> (Counts, Duration) {
        let mut inner = self.inner.borrow_mut();
        inner.forget(now);
        let mut sum = Counts::default();
        inner.slots.iter().for_each(|(_, counts)| sum.add(counts));
        (sum, now.duration_since(inner.started).min(WINDOW))
    }

    /// What went wrong, the first few times.
    pub(super) fn failures(&self) -> Vec<String> {
        self.inner.borrow().failures.clone()
    }

    /// Callers the applications were told of, by identity, and how many were not the expected ones.
    pub(super) fn callers(&self) -> (BTreeMap<String, u64>, u64) {
        let inner = self.inner.borrow();
        (inner.callers.clone(), inner.strangers)
    }
}

impl Inner {
    fn record(&mut self, outcome: Result<Vec<Sighting>, Refused>, latency: Duration, now: Instant) {
        let mut counts = Counts::default();
        match outcome {
            Ok(sightings) => {
                counts.succeeded = 1;
                counts.micros.push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
                for sighting in sightings {
                    self.strangers += u64::from(sighting.caller != shop::caller_of(&sighting.replica));
                    *self.callers.entry(sighting.caller.clone()).or_default() += 1;
                    *counts.replicas.entry(sighting.replica.clone()).or_default() += 1;
                    counts.last_callers.insert(sighting.replica, sighting.caller);
                }
            }
            Err(Refused(why)) => {
                counts.failed = 1;
                if self.failures.len() < KEPT {
                    let at = now.duration_since(self.started).as_secs_f64();
                    self.failures.push(format!("at {at:.2} s: {why}"));
                }
            }
        }
        self.forget(now);
        if self.slots.back().is_none_or(|(begun, _)| now.duration_since(*begun) >= SLOT) {
            self.slots.push_back((now, Counts::default()));
        }
        let slot = self.slots.back_mut().map(|(_, slot)| slot);
        for sum in [&mut self.total, &mut self.step].into_iter().chain(slot) {
            sum.add(&counts);
        }
    }

    fn forget(&mut self, now: Instant) {
        while self.slots.front().is_some_and(|(begun, _)| now.duration_since(*begun) >= WINDOW) {
            self.slots.pop_front();
        }
    }
}

impl Counts {
    /// Requests that are over.
    pub(super) fn requests(&self) -> u64 {
        self.succeeded + self.failed
    }

    /// Replies this replica took part in.
    pub(super) fn replica(&self, name: &str) -> u64 {
        self.replicas.get(name).copied().unwrap_or(0)
    }

    /// Share of this replica among those of its workload, in percent; 0 when none was seen.
    pub(super) fn share(&self, name: &str) -> f64 {
        let workload = shop::pod(name).workload;
        let all: u64 = shop::PODS.iter().filter(|pod| pod.workload == workload).map(|pod| self.replica(pod.name)).sum();
        if all == 0 { 0.0 } else { self.replica(name) as f64 * 100.0 / all as f64 }
    }

    /// Latency that this percentage of successes stayed below.
    pub(super) fn percentile(&self, percent: usize) -> Duration {
        let mut micros = self.micros.clone();
        let at = (micros.len() * percent / 100).min(micros.len().saturating_sub(1));
        if micros.is_empty() {
            return Duration::ZERO;
        }
        let (_, value, _) = micros.select_nth_unstable(at);
        Duration::from_micros(u64::from(*value))
    }

    fn add(&mut self, other: &Self) {
        self.succeeded += other.succeeded;
        self.failed += other.failed;
        self.micros.extend_from_slice(&other.micros);
        for (replica, count) in &other.replicas {
            *self.replicas.entry(replica.clone()).or_default() += count;
        }
        let callers = other.last_callers.iter().map(|(replica, caller)| (replica.clone(), caller.clone()));
        self.last_callers.extend(callers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(replica: &str, caller: &str) -> Result<Vec<Sighting>, Refused> {
        Ok(vec![Sighting { replica: replica.to_owned(), caller: caller.to_owned() }])
    }

    #[test]
    fn counts_by_step_and_window() {
        let start = Instant::now();
        let tally = Tally::new(start);
        let at = |millis| start + Duration::from_millis(millis);
        let web = shop::identity("web");
        for millis in 0..100 {
            tally.record(seen("catalog-1", &web), Duration::from_millis(millis), at(millis));
        }
        tally.begin_step();
        tally.record(seen("catalog-3", &web), Duration::from_millis(7), at(2_300));
        assert_eq!(tally.total().requests(), 101);
        assert_eq!(tally.step().replica("catalog-3"), 1);
        let (recent, span) = tally.recent(at(2_400));
        assert_eq!((recent.requests(), span), (1, WINDOW));
        assert_eq!(tally.total().percentile(50), Duration::from_millis(49));
        assert!((tally.total().share("catalog-1") - 99.0).abs() < 0.1);
    }

    #[test]
    fn strangers_and_failures_are_noticed() {
        let now = Instant::now();
        let tally = Tally::new(now);
        tally.record(seen("catalog-1", &shop::identity("client")), Duration::ZERO, now);
        tally.record(seen("web-1", &shop::identity("client")), Duration::ZERO, now);
        tally.record(Err(Refused("503".to_owned())), Duration::ZERO, now);
        assert_eq!(tally.callers().1, 1);
        assert_eq!(tally.total().failed, 1);
        assert_eq!(tally.failures(), ["at 0.00 s: 503"]);
    }
}
