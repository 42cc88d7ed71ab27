//! Label sets of the process and their slots on every worker: interning, the bound, and expiry.
//!
//! Taken by a worker when a label set is new to it, and by the scrape; never by a request.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::counters::{RequestSlots, Slots, TcpSlots};
use super::labels::{Fold, RequestLabels, TcpLabels};

/// A series that did not change for this long is not shown any more.
pub(super) const IDLE: Duration = Duration::from_secs(15 * 60);

/// Everything with labels.
#[derive(Debug)]
pub(super) struct Registry {
    pub(super) requests: Sets<RequestLabels, RequestSlots>,
    pub(super) tcp: Sets<TcpLabels, TcpSlots>,
    /// Label sets asked for that were folded into the overflow series.
    pub(super) folded: u64,
    max_series: usize,
}

impl Registry {
    pub(super) fn new(max_series: usize) -> Self {
        Self { requests: Sets::default(), tcp: Sets::default(), folded: 0, max_series }
    }

    /// Slots of a label set on a worker; those of the overflow series when the bound is reached, and then false.
    pub(super) fn request(&mut self, labels: &RequestLabels, worker: usize, now: Instant) -> (Arc<RequestSlots>, bool) {
        let room = self.room(RequestSlots::COST);
        let (slots, own) = self.requests.intern(labels, worker, room, now);
        self.folded += u64::from(!own);
        (slots, own)
    }

    /// As [`Registry::request`], for opaque connections.
    pub(super) fn tcp(&mut self, labels: &TcpLabels, worker: usize, now: Instant) -> (Arc<TcpSlots>, bool) {
        let room = self.room(TcpSlots::COST);
        let (slots, own) = self.tcp.intern(labels, worker, room, now);
        self.folded += u64::from(!own);
        (slots, own)
    }

    fn room(&self, cost: usize) -> bool {
        self.requests.cost() + self.tcp.cost() + cost <= self.max_series
    }
}

/// Label sets with their slots on all workers.
pub(super) type Active<L, S> = Vec<(L, Vec<Arc<S>>)>;

/// Label sets of one kind.
#[derive(Debug)]
pub(super) struct Sets<L, S> {
    sets: HashMap<L, Set<S>>,
}

impl<L, S> Default for Sets<L, S> {
    fn default() -> Self {
        Self { sets: HashMap::new() }
    }
}

#[derive(Debug)]
struct Set<S> {
    /// By worker; a worker has slots when it asked for them.
    slots: Vec<Option<Arc<S>>>,
    activity: u64,
    changed: Instant,
}

impl<L: Fold + Clone + Eq + Hash, S: Slots> Sets<L, S> {
    fn cost(&self) -> usize {
        self.sets.len() * S::COST
    }

    fn intern(&mut self, labels: &L, worker: usize, room: bool, now: Instant) -> (Arc<S>, bool) {
        let own = room || self.sets.contains_key(labels);
        let labels = if own { labels.clone() } else { labels.fold() };
        let fresh = || Set { slots: Vec::new(), activity: 0, changed: now };
        let set = self.sets.entry(labels).or_insert_with(fresh);
        if set.slots.len() <= worker {
            set.slots.resize_with(worker + 1, || None);
        }
        let slots = set.slots.get_mut(worker).map(|slot| slot.get_or_insert_default().clone());
        (slots.unwrap_or_default(), own)
    }

    /// Forgets what was idle for [`IDLE`] and is held by no worker, and gives the slots of everything that counted
    /// something within that time. What is idle but held comes back as soon as it changes.
    /// Gives handles rather than references, so that no worker waits while they are made into text.
    pub(super) fn active(&mut self, now: Instant) -> Active<L, S> {
        self.sets.retain(|_, set| {
            let activity = set.slots.iter().flatten().fold(0, |sum: u64, slots| sum.wrapping_add(slots.activity()));
            if activity != set.activity {
                set.activity = activity;
                set.changed = now;
            }
            let held = set.slots.iter().flatten().any(|slots| Arc::strong_count(slots) > 1);
            held || !set.is_idle(now)
        });
        let shown = self.sets.iter().filter(|(_, set)| set.activity > 0 && !set.is_idle(now));
        shown.map(|(labels, set)| (labels.clone(), set.slots.iter().flatten().cloned().collect())).collect()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.sets.len()
    }
}

impl<S> Set<S> {
    fn is_idle(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.changed) >= IDLE
    }
}
