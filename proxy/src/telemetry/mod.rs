//! Metrics and access log: `Telemetry` for the process, `WorkerTelemetry` for each worker.
//!
//! A worker writes only what it owns, with plain loads and stores; the control thread reads and sums when it is
//! scraped. Nothing here waits, and everything has a bound: series are folded into one labelled `overflow` when there
//! are too many, access-log records are dropped and counted when the writer is behind.

/// Label sets of the metrics.
pub mod labels;

/// Counters of a label set.
pub mod counters;

/// Counters without a label set.
pub mod events;

/// Log lines about refused connections.
pub mod refusals;

/// Interning, the bound and expiry of label sets.
mod registry;

/// Points in time as text.
pub(crate) mod rfc3339;

/// Prometheus' text format.
pub(crate) mod exposition;

/// Facts the kernel knows about this process.
mod process;

/// The metrics as text.
mod scrape;

/// One line for each request and connection.
pub mod access_log;

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::Hash;
use std::rc::{Rc, Weak};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use access_log::{AccessLog, AccessRecord, Producer};
use counters::{RequestSeries, TcpSeries};
use events::Events;
use labels::{RequestLabels, TcpLabels};
use registry::Registry;

/// Series of a process when nothing else is configured.
pub const MAX_SERIES: usize = 10_000;

/// What is measured and logged by the process.
#[derive(Debug)]
pub struct Telemetry {
    registry: Mutex<Registry>,
    workers: Mutex<Vec<Arc<Events>>>,
    access: Option<AccessLog>,
}

impl Telemetry {
    /// Metrics bounded by about `max_series` time series, and an access log when there is one.
    pub fn new(max_series: usize, access: Option<AccessLog>) -> Arc<Self> {
        Arc::new(Self { registry: Mutex::new(Registry::new(max_series)), workers: Mutex::default(), access })
    }

    /// The part of one worker; called once by each worker, on its thread.
    pub fn worker(self: &Arc<Self>) -> Rc<WorkerTelemetry> {
        let events = Arc::<Events>::default();
        let mut workers = locked(&self.workers);
        let index = workers.len();
        workers.push(events.clone());
        Rc::new(WorkerTelemetry {
            telemetry: self.clone(),
            index,
            events,
            requests: RefCell::default(),
            tcp: RefCell::default(),
            access: self.access.as_ref().map(|log| RefCell::new(log.producer())),
        })
    }

    /// All metrics in Prometheus' text format 0.0.4.
    pub fn render(&self) -> String {
        self.render_at(Instant::now())
    }

    /// As [`Telemetry::render`], with the time by which idle series expire.
    fn render_at(&self, now: Instant) -> String {
        let workers = locked(&self.workers).clone();
        scrape::render(&self.registry, &workers, now)
    }
}

/// A panic while the lock was held leaves whole values behind: counters are independent of one another.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The part of one worker. It stays on the worker's thread.
#[derive(Debug)]
pub struct WorkerTelemetry {
    telemetry: Arc<Telemetry>,
    index: usize,
    events: Arc<Events>,
    requests: RefCell<Interned<RequestLabels, RequestSeries>>,
    tcp: RefCell<Interned<TcpLabels, TcpSeries>>,
    access: Option<RefCell<Producer>>,
}

impl WorkerTelemetry {
    /// The series of a label set. For setting up views and connections: hashes the labels, and takes a lock when they
    /// are new to this worker. Above the bound it is the series labelled `overflow`.
    pub fn requests(&self, labels: &RequestLabels) -> Rc<RequestSeries> {
        self.requests.borrow_mut().series(labels, || {
            let (slots, own) = locked(&self.telemetry.registry).request(labels, self.index, Instant::now());
            (RequestSeries::new(slots), own)
        })
    }

    /// As [`WorkerTelemetry::requests`], for opaque connections.
    pub fn tcp(&self, labels: &TcpLabels) -> Rc<TcpSeries> {
        self.tcp.borrow_mut().series(labels, || {
            let (slots, own) = locked(&self.telemetry.registry).tcp(labels, self.index, Instant::now());
            (TcpSeries::new(slots), own)
        })
    }

    /// Counters without a label set.
    pub fn events(&self) -> &Arc<Events> {
        &self.events
    }

    /// Whether records are written at all; spares the path from putting one together.
    pub const fn access_enabled(&self) -> bool {
        self.access.is_some()
    }

    /// Writes one access-log record. Never blocks: it is dropped and counted when the writer is behind.
    pub fn access(&self, record: &AccessRecord<'_>) {
        if let Some(producer) = &self.access
            && !producer.borrow_mut().push(record)
        {
            self.events.access_dropped.increment();
        }
    }
}

/// Series handed out by this worker that are still held by someone.
#[derive(Debug)]
struct Interned<L, T> {
    map: HashMap<L, Weak<T>>,
    /// Size at which dead entries are looked for next.
    sweep_at: usize,
}

impl<L, T> Default for Interned<L, T> {
    fn default() -> Self {
        Self { map: HashMap::new(), sweep_at: 64 }
    }
}

impl<L: Clone + Eq + Hash, T> Interned<L, T> {
    fn series(&mut self, labels: &L, make: impl FnOnce() -> (T, bool)) -> Rc<T> {
        if let Some(series) = self.map.get(labels).and_then(Weak::upgrade) {
            return series;
        }
        let (series, own) = make();
        let series = Rc::new(series);
        // Folded sets are not remembered: they are what there are too many of.
        if own {
            if self.map.len() >= self.sweep_at {
                self.map.retain(|_, series| series.strong_count() > 0);
                self.sweep_at = (self.map.len() * 2).max(64);
            }
            self.map.insert(labels.clone(), Rc::downgrade(&series));
        }
        series
    }
}

#[cfg(test)]
mod tests;
