//! Opaque connections: endpoint, connection, relay.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use crate::base::failure::{Failure, Reason, Retry};
use crate::conn::Io;
use crate::drain::Phase;
use crate::pool::Slot;
use crate::relay::{self, Counts};
use crate::telemetry::counters::TcpSeries;
use crate::telemetry::labels::{Destination, Direction, Party, TcpLabels};
use crate::view::{Active, ClusterState};
use crate::worker::Worker;

/// Endpoints tried before a connection is given up: nothing was sent, so another one may do.
const ATTEMPTS: usize = 3;

/// An opaque connection and where it goes.
#[derive(Debug)]
pub(crate) struct Opaque {
    /// This core.
    pub(crate) worker: Rc<Worker>,
    /// Which way it goes.
    pub(crate) direction: Direction,
    /// The verified peer, or ourselves on the way out.
    pub(crate) source: Party,
    /// It came in by mesh TLS.
    pub(crate) tls: bool,
    /// Where to.
    pub(crate) cluster: Rc<ClusterState>,
}

/// Connects `down` to an endpoint and relays until both sides are done.
///
/// # Errors
/// No endpoint could be reached, or the relay broke. `down` is then reset, as its peer would be told by a broken
/// connection to the application itself.
pub(crate) async fn serve(opaque: &Opaque, down: Io) -> Result<(), Failure> {
    let _busy = opaque.worker.drain.guard();
    match connect(opaque).await {
        Ok(upstream) => carry(opaque, down, upstream).await,
        Err(failure) => {
            relay::abort(down.tcp());
            Err(failure)
        }
    }
}

/// A connection to an endpoint, and its place among those of the cluster.
#[derive(Debug)]
pub(crate) struct Upstream {
    /// The connection.
    pub(crate) io: Io,
    active: Active,
    _slot: Slot,
}

/// Relays between `down` and an upstream until both are done.
///
/// # Errors
/// The relay broke; both connections are reset.
pub(crate) async fn carry(opaque: &Opaque, mut down: Io, upstream: Upstream) -> Result<(), Failure> {
    let _busy = opaque.worker.drain.guard();
    let Upstream { io: mut up, active, _slot } = upstream;
    let started = Instant::now();
    let series = opaque.worker.telemetry.tcp(&opaque.labels(&active));
    series.opened();
    let idle = opaque.cluster.config.idle_timeout.max(MIN_IDLE);
    let seen = Seen(&series);
    let copied = tokio::select! {
        biased;
        copied = relay::copy_both(&mut down, &mut up, idle, &seen) => copied,
        () = opaque.worker.drain.reached(Phase::Forced) => Err(Reason::Draining.into()),
    };
    if copied.is_err() {
        relay::abort(down.tcp());
        relay::abort(up.tcp());
    }
    series.closed(copied.as_ref().err().map(|failure| failure.reason), started.elapsed());
    copied
}

/// Idle time of an opaque connection at least: databases keep theirs for hours.
const MIN_IDLE: Duration = Duration::from_secs(3600);

/// Connects to an endpoint.
///
/// # Errors
/// Why the last of a few could not be reached.
pub(crate) async fn connect(opaque: &Opaque) -> Result<Upstream, Failure> {
    let worker = &opaque.worker;
    let mut tried = smallvec::SmallVec::<[usize; ATTEMPTS]>::new();
    loop {
        let (index, active) = opaque.cluster.pick(&mut *worker.rng.borrow_mut(), &tried).map_err(Failure::from)?;
        tried.push(index);
        let keys = worker.keys();
        let dialled = active.endpoint().pool.opaque(worker.dial(&opaque.cluster.config, keys.as_ref())).await;
        match dialled {
            Ok((io, slot)) => {
                active.endpoint().reached();
                return Ok(Upstream { io, active, _slot: slot });
            }
            Err(failure) if failure.retry == Retry::Safe && tried.len() < ATTEMPTS => active.endpoint().missed(),
            Err(failure) => return Err(failure),
        }
    }
}

impl Opaque {
    fn labels(&self, active: &Active) -> TcpLabels {
        let (cluster, endpoint) = (&self.cluster.config, &active.endpoint().config);
        TcpLabels {
            direction: self.direction,
            source: self.source.clone(),
            destination: Destination {
                service: cluster.service.clone(),
                namespace: cluster.namespace.clone(),
                workload: match self.direction {
                    Direction::Inbound => self.worker.own.workload.clone(),
                    Direction::Outbound => endpoint.workload.clone(),
                },
            },
            tls: self.tls || endpoint.identity.is_some(),
        }
    }
}

/// Counts the bytes of a relay.
struct Seen<'s>(&'s TcpSeries);

impl Counts for Seen<'_> {
    fn sent(&self, bytes: u64) {
        self.0.sent(bytes);
    }

    fn received(&self, bytes: u64) {
        self.0.received(bytes);
    }
}
