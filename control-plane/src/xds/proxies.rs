//! The clients connected now: a bounded table, and a way to ask each stream what it sent and was answered.
//!
//! The answer comes from the stream's own task, so looking takes no lock that sending would wait for.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use super::node::Client;
use super::session::Report;

/// Streams at once. At about 30 KiB each this is 0.6 GiB, the most a replica should spend on them.
const MAX_STREAMS: usize = 20_000;

/// A stream that does not answer within this is listed without its state.
const ANSWER: Duration = Duration::from_secs(1);

/// How a stream is asked for its state.
pub(crate) type Question = oneshot::Sender<Report>;

/// The table of streams.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proxies(Arc<Table>);

#[derive(Debug, Default)]
struct Table {
    next: AtomicU64,
    streams: Mutex<HashMap<u64, Entry>>,
}

#[derive(Clone, Debug)]
struct Entry {
    client: Client,
    variant: &'static str,
    since: SystemTime,
    ask: mpsc::Sender<Question>,
}

/// A stream's place in the table; dropping it takes the stream out.
#[derive(Debug)]
pub(crate) struct Registration {
    table: Arc<Table>,
    id: u64,
    /// Questions to the stream.
    pub(crate) questions: mpsc::Receiver<Question>,
}

impl Proxies {
    /// Enters a stream; `None` when the table is full.
    pub(crate) fn register(&self, client: &Client, variant: &'static str) -> Option<Registration> {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        let (ask, questions) = mpsc::channel(1);
        let entry = Entry { client: client.clone(), variant, since: SystemTime::now(), ask };
        let mut streams = self.0.lock();
        if streams.len() >= MAX_STREAMS {
            return None;
        }
        streams.insert(id, entry);
        Some(Registration { table: self.0.clone(), id, questions })
    }

    /// Every stream and its state, oldest first.
    pub(crate) async fn report(&self) -> Vec<ProxyReport> {
        let mut entries: Vec<(u64, Entry)> = self.0.lock().iter().map(|(id, entry)| (*id, entry.clone())).collect();
        entries.sort_by_key(|(id, _)| *id);
        let mut asked = Vec::with_capacity(entries.len());
        for (_, entry) in entries {
            let (question, answer) = oneshot::channel();
            // A full channel is a stream that is being asked already, or is stuck: listed without its state.
            let answer = entry.ask.try_send(question).is_ok().then_some(answer);
            asked.push((entry, answer));
        }
        let deadline = tokio::time::Instant::now() + ANSWER;
        let mut reports = Vec::with_capacity(asked.len());
        for (entry, answer) in asked {
            let types = match answer {
                Some(answer) => tokio::time::timeout_at(deadline, answer).await.ok().and_then(Result::ok),
                None => None,
            };
            reports.push(ProxyReport::new(&entry, types));
        }
        reports
    }
}

impl Table {
    /// The map is whole whatever panicked while holding it: each change is one call.
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Entry>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.table.lock().remove(&self.id);
    }
}

/// One stream in the dump. Holds no secrets: names, versions and the client's own words.
#[derive(Debug, Serialize)]
pub(crate) struct ProxyReport {
    node: String,
    client: &'static str,
    variant: &'static str,
    namespace: Arc<str>,
    workload: Arc<str>,
    identity: Option<String>,
    /// The pod it is, in a cluster.
    pod: Option<String>,
    /// Unix time of the stream's start, seconds.
    since: u64,
    /// State per type; absent when the stream did not answer in time.
    types: Option<Report>,
}

impl ProxyReport {
    fn new(entry: &Entry, types: Option<Report>) -> Self {
        let Client { id, scope, identity, pod } = &entry.client;
        Self {
            node: id.clone(),
            client: super::node::kind_name(scope.client),
            variant: entry.variant,
            namespace: scope.namespace.clone(),
            workload: scope.workload.clone(),
            identity: identity.as_ref().map(ToString::to_string),
            pod: pod.as_ref().map(ToString::to_string),
            since: entry.since.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            types,
        }
    }
}
