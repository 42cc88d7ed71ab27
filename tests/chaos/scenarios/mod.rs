//! The scenarios, at either scale.

/// Requests that go on while things happen.
mod load;

/// Sidecars and services.
mod mesh;

/// RB-01: without a control plane.
pub(crate) mod outage;

/// RB-02: many proxies come back to it at the same time.
pub(crate) mod storm;

/// RB-05, RB-20: connections that go away as they are used.
pub(crate) mod races;

/// RB-04, RB-08: replicas that come and go.
pub(crate) mod replicas;

/// RB-09: certificates.
pub(crate) mod rotation;

/// RB-12, RB-14: bounds.
pub(crate) mod limits;

/// RB-15, RB-17: applications that fail.
pub(crate) mod failing;

/// RB-21: half-close and reset.
pub(crate) mod breaks;

/// RB-06: drain.
pub(crate) mod drain;

use std::pin::Pin;

/// How much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// Seconds, in CI.
    Quick,
    /// As long as the goal says.
    Full,
}

impl Scale {
    /// The whole of it, or a little.
    pub(crate) const fn of(full: bool) -> Self {
        if full { Self::Full } else { Self::Quick }
    }

    /// One of two.
    pub(crate) fn pick<T>(self, quick: T, full: T) -> T {
        if self == Self::Full { full } else { quick }
    }
}

/// What came of a scenario.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Requests made.
    pub(crate) requests: usize,
    /// What was wrong, in words.
    pub(crate) wrong: Vec<String>,
    /// What was seen.
    pub(crate) note: String,
}

impl Outcome {
    /// One that went wrong altogether.
    pub(crate) fn failed(why: impl Into<String>) -> Self {
        Self { wrong: vec![why.into()], ..Self::default() }
    }

    /// Notes `what` unless `holds`.
    pub(crate) fn check(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.wrong.push(what());
        }
    }
}

type Run = fn(Scale) -> Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// Every scenario: its id, its name, how to run it.
pub(crate) const ALL: [(&str, &str, Run); 14] = [
    ("RB-01", "the control plane is away", |scale| Box::pin(outage::run(scale))),
    ("RB-02", "reconnect storm", |scale| Box::pin(storm::run(scale))),
    ("RB-04", "a replica is killed under load", |scale| Box::pin(replicas::killed(scale))),
    ("RB-05", "idle connections close at random", |scale| Box::pin(races::keep_alive(scale))),
    ("RB-06", "SIGTERM with a long reply under way", |scale| Box::pin(drain::run(scale))),
    ("RB-08", "rolling restarts", |scale| Box::pin(replicas::rolling(scale))),
    ("RB-09", "certificates are replaced all the time", |scale| Box::pin(rotation::run(scale))),
    ("RB-12", "file descriptors run out", |scale| Box::pin(limits::descriptors(scale))),
    ("RB-14", "a slow reader", |scale| Box::pin(limits::slow_reader(scale))),
    ("RB-15", "retry storm", |scale| Box::pin(failing::retry_storm(scale))),
    ("RB-17a", "one of three endpoints fails", |scale| Box::pin(failing::outlier(scale))),
    ("RB-17b", "one of five endpoints is slow", |scale| Box::pin(failing::slow(scale))),
    ("RB-20", "GOAWAY every 100 requests", |scale| Box::pin(races::goaway(scale))),
    ("RB-21", "half-close and reset", |scale| Box::pin(breaks::run(scale))),
];
