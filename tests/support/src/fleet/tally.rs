//! What happened, counted over all simulated proxies.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Sums over all proxies since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Proxies with a stream now.
    pub connected: usize,
    /// Proxies that have an answer for everything they ask for, from whichever stream.
    pub synced: usize,
    /// Streams opened.
    pub streams: usize,
    /// Attempts to connect that came to no stream, and streams that ended.
    pub failures: usize,
    /// Responses; each was acknowledged.
    pub responses: usize,
    /// Resources in them.
    pub resources: usize,
    /// Resources whose version the proxy had already.
    pub unchanged: usize,
    /// Names answered as absent, or removed.
    pub removed: usize,
    /// Bytes of the responses, with the framing of HTTP/2 and gRPC, without TLS.
    pub bytes: usize,
}

/// Word of one endpoint change, from the proxies that were told.
#[derive(Clone, Debug)]
pub struct Arrivals {
    service: Arc<str>,
    generation: u32,
    since: Instant,
    /// Time from the change to its arrival at each proxy, in the order of arrival.
    pub after: Vec<Duration>,
}

impl Arrivals {
    /// The arrival that `share` (0..1) of all were no later than.
    pub fn quantile(&self, share: f64) -> Duration {
        let at = (self.after.len().saturating_sub(1) as f64 * share).round() as usize;
        self.after.get(at).copied().unwrap_or_default()
    }
}

/// Counters that proxies write and tests read.
#[derive(Debug, Default)]
pub struct Tally(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    totals: Totals,
    arrivals: Option<Arrivals>,
    /// When connections were accepted.
    accepted: Vec<Instant>,
}

impl Tally {
    /// Sums of now.
    pub fn totals(&self) -> Totals {
        self.state().totals
    }

    /// From now on, and from now in time, notes which proxies learn that `service` is at `generation`.
    pub fn expect(&self, service: Arc<str>, generation: u32) {
        let arrivals = Arrivals { service, generation, since: Instant::now(), after: Vec::new() };
        self.state().arrivals = Some(arrivals);
    }

    /// How many learnt of what [`Self::expect`] named last.
    pub fn arrived(&self) -> usize {
        self.state().arrivals.as_ref().map_or(0, |arrivals| arrivals.after.len())
    }

    /// Who learnt of it and when; ends the noting.
    pub fn take_arrivals(&self) -> Option<Arrivals> {
        self.state().arrivals.take()
    }

    /// When connections were accepted since the last call.
    pub fn take_accepted(&self) -> Vec<Instant> {
        std::mem::take(&mut self.state().accepted)
    }

    /// The generation that is waited for, if it is one of `service`.
    pub(super) fn expected(&self, service: &str) -> Option<u32> {
        self.state()
            .arrivals
            .as_ref()
            .filter(|arrivals| *arrivals.service == *service)
            .map(|arrivals| arrivals.generation)
    }

    pub(super) fn note_arrival(&self) {
        if let Some(arrivals) = &mut self.state().arrivals {
            arrivals.after.push(arrivals.since.elapsed());
        }
    }

    pub(super) fn note_accepted(&self) {
        self.state().accepted.push(Instant::now());
    }

    pub(super) fn note_opened(&self) {
        let mut state = self.state();
        state.totals.streams += 1;
        state.totals.connected += 1;
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Totals)) {
        change(&mut self.state().totals);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
