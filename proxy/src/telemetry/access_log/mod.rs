//! One line for each request and opaque connection, to standard output.
//!
//! A worker formats a record into its own ring; one named thread writes what is in the rings, every `INTERVAL` and
//! when a ring is half full. A slow reader of standard output costs records, which are counted, and never a request.

/// From a worker to the writer.
mod ring;

/// A record as a line.
mod format;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, SystemTime};

use ring::{Receiver, Sender, Sent};

use super::labels::Direction;
use crate::base::failure::Reason;

/// Longest time a line waits for the writer.
const INTERVAL: Duration = Duration::from_millis(100);

/// Words of one worker's ring: 512 KiB, about 2000 records of 250 bytes; with the wake-up at half of it some 100,000
/// records per second when the reader keeps up.
const RING_WORDS: usize = 64 * 1024;

/// How a record is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessFormat {
    /// For people.
    Text,
    /// One JSON object for each line.
    Json,
}

/// What is said of one request or opaque connection. Texts that are not there are empty.
#[derive(Clone, Copy, Debug)]
pub struct AccessRecord<'r> {
    /// When it began.
    pub time: SystemTime,
    /// Seen from the workload.
    pub direction: Direction,
    /// Who connected.
    pub downstream: SocketAddr,
    /// Its verified SPIFFE id.
    pub peer: Option<&'r str>,
    /// HTTP method.
    pub method: &'r str,
    /// Host the request named.
    pub authority: &'r str,
    /// Path; the query is left out unless the log is told otherwise.
    pub path: &'r str,
    /// `HTTP/1.1`, `HTTP/2`, `grpc`, `tcp`, `tls`.
    pub protocol: &'r str,
    /// HTTP status; none when there was no reply.
    pub status: Option<u16>,
    /// gRPC status.
    pub grpc_status: Option<u8>,
    /// Why it did not go the ordinary way.
    pub reason: Option<Reason>,
    /// What exactly was wrong.
    pub detail: &'r str,
    /// From the first byte of the request to the last of the reply.
    pub duration: Duration,
    /// Bytes of the request's body, or sent by the downstream.
    pub request_bytes: u64,
    /// Bytes of the reply's body, or sent by the upstream.
    pub response_bytes: u64,
    /// The endpoint of the last attempt.
    pub upstream: Option<SocketAddr>,
    /// Name of the cluster.
    pub cluster: &'r str,
    /// Name of the route.
    pub route: &'r str,
    /// Attempts made; 0 when no endpoint was tried.
    pub attempts: u32,
}

/// The log of the process.
#[derive(Debug)]
pub struct AccessLog {
    format: AccessFormat,
    with_query: bool,
    rings: Arc<Mutex<Vec<Receiver>>>,
    writer: Thread,
}

/// The writer thread; stops it when dropped or told to.
#[derive(Debug)]
pub struct AccessWriter {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl AccessLog {
    /// Starts the writer thread, which writes to `out`. Records written before the writer is stopped are not lost.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(
        format: AccessFormat,
        with_query: bool,
        out: impl Write + Send + 'static,
    ) -> io::Result<(Self, AccessWriter)> {
        let rings = Arc::<Mutex<Vec<Receiver>>>::default();
        let stop = Arc::<AtomicBool>::default();
        let thread = {
            let (rings, stop) = (rings.clone(), stop.clone());
            thread::Builder::new().name("tulle-access".into()).spawn(move || write_until(&stop, &rings, out))?
        };
        let writer = thread.thread().clone();
        Ok((Self { format, with_query, rings, writer }, AccessWriter { stop, thread: Some(thread) }))
    }

    /// The end of one worker.
    pub(super) fn producer(&self) -> Producer {
        let (ring, receiver) = ring::ring(RING_WORDS);
        self.rings.lock().unwrap_or_else(PoisonError::into_inner).push(receiver);
        Producer {
            format: self.format,
            with_query: self.with_query,
            line: Vec::with_capacity(512),
            ring,
            writer: self.writer.clone(),
        }
    }
}

impl AccessWriter {
    /// Writes what the workers have put into their rings, and ends the thread.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic of the writer has been reported by its thread; the log ends either way.
            let _ = thread.join();
        }
    }
}

impl Drop for AccessWriter {
    fn drop(&mut self) {
        self.end();
    }
}

/// A worker's end of the log.
#[derive(Debug)]
pub(super) struct Producer {
    format: AccessFormat,
    with_query: bool,
    /// Reused for every line.
    line: Vec<u8>,
    ring: Sender,
    writer: Thread,
}

impl Producer {
    /// Writes a record into the ring; false when it does not fit.
    pub(super) fn push(&mut self, record: &AccessRecord<'_>) -> bool {
        self.line.clear();
        format::line(self.format, self.with_query, record, &mut self.line);
        match self.ring.send(&self.line) {
            Sent::Queued => true,
            Sent::HalfFull => {
                self.writer.unpark();
                true
            }
            Sent::Refused => false,
        }
    }
}

fn write_until(stop: &AtomicBool, rings: &Mutex<Vec<Receiver>>, mut out: impl Write) {
    let mut batch = Vec::new();
    loop {
        // Read before the rings are: what was put into them before the stop is still written.
        let stopping = stop.load(Ordering::Acquire);
        let mut all = rings.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain_mut(|ring| {
            let abandoned = ring.is_abandoned();
            ring.receive(&mut batch);
            !abandoned
        });
        drop(all);
        if !batch.is_empty() {
            // Standard output may be closed: there is nobody left to tell.
            let _ = out.write_all(&batch).and_then(|()| out.flush());
            batch.clear();
        }
        if stopping {
            return;
        }
        thread::park_timeout(INTERVAL);
    }
}

#[cfg(test)]
mod tests;
