//! Opaque connections: endpoint, connection, relay. Also connections of which it is not known yet whether they are HTTP.

/// The first bytes.
mod first;

/// What a connection amounted to: its series and its line in the access log.
mod record;

/// Bytes that a lenient server may take for requests.
mod screen;

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use self::first::First;
use self::record::Record;
use self::screen::Screened;
use crate::base::addr::Downstream;
use crate::base::failure::{Failure, Reason, Retry};
use crate::conn::Io;
use crate::detect::Spoken;
use crate::drain::Phase;
use crate::lifetime::Lifetime;
use crate::pool::Slot;
use crate::relay::{self, Counts as _};
use crate::telemetry::labels::{Direction, Party};
use crate::view::{Active, ClusterState};
use crate::worker::Worker;

/// Endpoints tried before a connection is given up: nothing was delivered, so another one may do.
const ATTEMPTS: usize = 3;

/// How long bytes of a peer are read and dropped after the report that none was delivered, so that a reset does not
/// overtake it.
const LINGER: Duration = Duration::from_secs(1);

/// How long newer endpoints are waited for when none of those known is there.
const PATIENCE: Duration = Duration::from_secs(1);

/// An opaque connection and where it goes.
#[derive(Debug)]
pub(crate) struct Opaque {
    /// This core.
    pub(crate) worker: Rc<Worker>,
    /// Which way it goes.
    pub(crate) direction: Direction,
    /// Who connected.
    pub(crate) downstream: Downstream,
    /// The verified peer, or ourselves on the way out.
    pub(crate) source: Party,
    /// It came in by mesh TLS.
    pub(crate) tls: bool,
    /// A lenient server may take its bytes for HTTP: they must not say who the peer is.
    pub(crate) http_like: bool,
    /// Where to.
    pub(crate) cluster: Rc<ClusterState>,
    /// How long the connection may live; none: as long as both ends like.
    pub(crate) life: Option<Rc<Lifetime>>,
}

impl Opaque {
    /// Waits until the connection may not go on; opaque bytes have no boundary to wait for.
    fn poll_ended(&self, cx: &Context<'_>) -> Poll<Reason> {
        self.life.as_ref().map_or(Poll::Pending, |life| life.poll_ended(cx))
    }
}

/// Relays `down` to an endpoint until both sides are done.
///
/// # Errors
/// No endpoint could be reached, or the relay broke. `down` is then ended as its peer would see it end without proxies.
pub(crate) async fn serve(opaque: Opaque, down: Io) -> Result<(), Failure> {
    run(opaque, down, false).await.map(|_| ())
}

/// [`serve`] for a connection of which it is not known whether it is HTTP. When it is, it is given back with all of its
/// bytes: a server of HTTP does not speak before a whole request line, and nobody has taken the bytes that came so far for
/// one.
///
/// # Errors
/// As [`serve`].
pub(crate) async fn undecided(opaque: Opaque, down: Io) -> Result<Option<(Io, Spoken)>, Failure> {
    run(opaque, down, true).await
}

async fn run(mut opaque: Opaque, mut down: Io, undecided: bool) -> Result<Option<(Io, Spoken)>, Failure> {
    let _busy = opaque.worker.drain.guard();
    let mut record = Record::new();
    let mut search = Search::default();
    loop {
        let Upstream { io: mut up, active, _slot } = match connect(&mut opaque, &mut search).await {
            Ok(upstream) => upstream,
            Err(failure) => {
                record.write(&opaque, search.attempts, Some(failure.reason));
                Box::pin(refuse(&opaque, down)).await;
                return Err(failure);
            }
        };
        record.connected(&opaque, &active);
        if !undecided {
            record.opened();
        }
        let relayed = tokio::select! {
            biased;
            relayed = relay(&opaque, &mut down, &mut up, &mut record, undecided) => relayed,
            () = opaque.worker.drain.reached(Phase::Forced) => Err(Reason::Draining.into()),
            reason = poll_fn(|cx| opaque.poll_ended(cx)) => {
                Err(Failure::new(reason).because("the connection may not go on"))
            }
        };
        let failure = match relayed {
            Ok(Relayed::Whole) => None,
            Ok(Relayed::Http(spoken)) => return Ok(Some((down, spoken))),
            Ok(Relayed::NotDelivered(failure)) => {
                active.endpoint().missed();
                record.closed(Some(failure.reason));
                search.failed = Some(failure);
                continue;
            }
            Err(failure) => {
                relay::abort(down.tcp());
                relay::abort(up.tcp());
                Some(failure)
            }
        };
        let reason = failure.as_ref().map(|failure| failure.reason);
        record.closed(reason);
        record.write(&opaque, search.attempts, reason);
        return failure.map_or(Ok(None), Err);
    }
}

/// What became of a connection to an endpoint.
enum Relayed {
    /// Both sides are done.
    Whole,
    /// It is HTTP; nothing was taken from the downstream.
    Http(Spoken),
    /// Its proxy reports that nothing was delivered; nothing was taken from the downstream.
    NotDelivered(Failure),
}

async fn relay(
    opaque: &Opaque,
    down: &mut Io,
    up: &mut Io,
    record: &mut Record,
    undecided: bool,
) -> Result<Relayed, Failure> {
    let idle = opaque.cluster.config.idle_timeout.max(MIN_IDLE);
    let mut screened = opaque.http_like;
    if undecided || matches!(up, Io::Tls(_)) {
        let first = Box::pin(first::exchange(down, up, &opaque.cluster, undecided));
        match tokio::time::timeout(idle, first).await.unwrap_or_else(|_| Err(Reason::IdleTimeout.into()))? {
            First::Opaque { http_like, sent } => {
                record.sent(sent);
                screened |= http_like;
            }
            First::Http(spoken) => return Ok(Relayed::Http(spoken)),
            First::NotDelivered(failure) => return Ok(Relayed::NotDelivered(failure)),
        }
        record.opened();
    }
    if !screened || opaque.direction == Direction::Outbound {
        return relay::copy_both(down, up, idle, record).await.map(|()| Relayed::Whole);
    }
    let found = Cell::new(false);
    let copied = relay::copy_both(&mut Screened::new(down, &found), up, idle, record).await;
    copied.map(|()| Relayed::Whole).map_err(|failure| if found.get() { Reason::BadRequest.into() } else { failure })
}

/// Ends a downstream of which nothing was delivered: a proxy learns just that, others see a broken connection, as they
/// would without proxies.
async fn refuse(opaque: &Opaque, mut down: Io) {
    let Io::Tls(stream) = &mut down else { return relay::abort(down.tcp()) };
    if opaque.direction == Direction::Outbound || stream.report_not_delivered().await.is_err() {
        return relay::abort(down.tcp());
    }
    let rest = async {
        let tcp = down.tcp();
        while tcp.readable().await.is_ok() {
            // Not kept while it waits.
            match tcp.try_read(&mut [0; 4096]) {
                Ok(1..) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Ok(_) | Err(_) => return,
            }
        }
    };
    // Whoever still sends after that has not listened.
    tokio::time::timeout(LINGER, rest).await.ok();
}

/// A connection to an endpoint, and its place among those of the cluster.
#[derive(Debug)]
struct Upstream {
    io: Io,
    active: Active,
    _slot: Slot,
}

/// Idle time of an opaque connection at least: databases keep theirs for hours.
const MIN_IDLE: Duration = Duration::from_secs(3600);

/// Which endpoints were tried.
#[derive(Debug, Default)]
struct Search {
    tried: smallvec::SmallVec<[usize; ATTEMPTS]>,
    attempts: u32,
    /// Why the last one was not reached.
    failed: Option<Failure>,
    /// Until when newer endpoints are waited for, once they are.
    patience: Option<Instant>,
}

/// Connects to an endpoint that was not tried yet.
///
/// # Errors
/// Why the last of a few could not be reached.
async fn connect(opaque: &mut Opaque, search: &mut Search) -> Result<Upstream, Failure> {
    loop {
        if search.tried.len() >= ATTEMPTS.min(opaque.cluster.len().max(1))
            && let Some(failure) = search.failed.take()
        {
            replaced(opaque, search, failure).await?;
        }
        let picked = opaque.cluster.pick(&mut *opaque.worker.rng.borrow_mut(), &search.tried);
        let (index, active) = picked.map_err(Failure::from)?;
        search.tried.push(index);
        search.attempts = search.attempts.saturating_add(1);
        let keys = opaque.worker.keys();
        let dial = opaque.worker.dial(&opaque.cluster.config, keys.as_ref());
        match active.endpoint().live.pool.opaque(dial).await {
            Ok((io, slot)) => {
                active.endpoint().reached();
                return Ok(Upstream { io, active, _slot: slot });
            }
            Err(failure) if failure.retry == Retry::Safe => {
                if failure.reason.is_unreachable() {
                    active.endpoint().missed();
                }
                search.failed = Some(failure);
            }
            Err(failure) => return Err(failure),
        }
    }
}

/// Waits for other endpoints than those that were tried: when all have gone they were replaced, and the newer
/// configuration is on its way.
///
/// # Errors
/// `failure`, when the endpoints stay as they are or waiting is of no use.
async fn replaced(opaque: &mut Opaque, search: &mut Search, failure: Failure) -> Result<(), Failure> {
    if opaque.direction == Direction::Inbound || !failure.reason.is_unreachable() {
        return Err(failure);
    }
    let until = *search.patience.get_or_insert_with(|| Instant::now() + PATIENCE);
    match opaque.worker.replaced(&opaque.cluster, until).await {
        Some(newer) => {
            opaque.cluster = newer;
            search.tried.clear();
            Ok(())
        }
        None => Err(failure),
    }
}
