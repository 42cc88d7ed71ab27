//! Connections to one endpoint, kept for reuse by one worker. What makes two of them interchangeable is the endpoint:
//! its address and the identity expected there.

/// HTTP/1: idle connections, last in first out.
mod h1;

/// HTTP/2: shared connections.
mod h2;

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio::time::Instant;
use tulle_identity::spiffe::SpiffeId;
use tulle_identity::tls::{Alpn, MeshTls};

use crate::base::addr::Upstream;
use crate::base::failure::{Failure, Reason};
use crate::base::standing::{Standing, Trust};
use crate::codec::h1::parse::Limits;
use crate::conn::{Io, Socket};
use crate::connect::own::Own;
use crate::connect::{self, SocketOptions};
use crate::telemetry::events::Events;
use crate::tls::handshake;

pub(crate) use self::h1::Lease as H1Lease;
pub(crate) use self::h2::Lease as H2Lease;

/// How to make a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dial<'d> {
    /// Our identity, for meshed endpoints.
    pub(crate) keys: Option<&'d Arc<MeshTls>>,
    /// Longest time for TCP and TLS together.
    pub(crate) timeout: Duration,
    /// Socket options.
    pub(crate) options: &'d SocketOptions,
    /// Addresses of this very workload: no sidecar but ours stands there, and traffic to them stays in the pod.
    pub(crate) own: &'d [IpAddr],
    /// The proxy's own listeners, which are never dialled.
    pub(crate) own_sockets: &'d Own,
    /// Limits on the heads of HTTP/2 responses.
    pub(crate) heads: Limits,
}

/// Connections of one cluster on one worker, against its limit. Idle ones are no load: whichever pool they are in, they
/// make room for a connection that is needed.
#[derive(Debug)]
pub(crate) struct Budget {
    open: Cell<u32>,
    waiting: Cell<u32>,
    freed: Notify,
    max_open: Cell<u32>,
    max_waiting: Cell<u32>,
    pools: RefCell<Vec<Weak<Pool>>>,
    events: Arc<Events>,
}

impl Budget {
    /// No connection yet. What becomes of them is counted in `events`.
    pub(crate) fn new(events: &Arc<Events>) -> Rc<Self> {
        Rc::new(Self {
            open: Cell::new(0),
            waiting: Cell::new(0),
            freed: Notify::new(),
            max_open: Cell::new(u32::MAX),
            max_waiting: Cell::new(u32::MAX),
            pools: RefCell::default(),
            events: Arc::clone(events),
        })
    }

    /// Sets this worker's share of the limits.
    pub(crate) fn limit(&self, max_open: u32, max_waiting: u32) {
        self.max_open.set(max_open);
        self.max_waiting.set(max_waiting);
    }

    /// Open connections.
    pub(crate) const fn open(&self) -> u32 {
        self.open.get()
    }

    /// A place for one more connection: a free one, or that of the connection that has been idle for longest.
    fn slot(self: &Rc<Self>) -> Option<Slot> {
        if self.open.get() >= self.max_open.get() {
            self.close_idle();
        }
        (self.open.get() < self.max_open.get()).then(|| {
            self.open.set(self.open.get().saturating_add(1));
            self.events.upstream_connections.increment();
            Slot(Rc::clone(self))
        })
    }

    /// Closes the connection that has been idle for longest. An HTTP/2 connection gives its place back a moment later,
    /// when its last frame has gone out.
    fn close_idle(&self) {
        let pools = self.pools.borrow();
        let idle =
            pools.iter().filter_map(Weak::upgrade).filter_map(|pool| pool.idle_since().map(|since| (since, pool)));
        if let Some((_, pool)) = idle.min_by_key(|(since, _)| *since) {
            pool.close_idle();
        }
    }

    /// A connection became idle, or has room again: somebody who waits may have use for it.
    fn has_use(&self) {
        if self.waiting.get() > 0 {
            self.freed.notify_waiters();
        }
    }
}

/// One connection, counted against its cluster's limit until dropped.
#[derive(Debug)]
pub(crate) struct Slot(Rc<Budget>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get().saturating_sub(1));
        self.0.events.upstream_connections.decrement();
        self.0.freed.notify_one();
    }
}

/// Connections to one endpoint.
#[derive(Debug)]
pub(crate) struct Pool {
    address: SocketAddr,
    identity: Option<SpiffeId>,
    budget: Rc<Budget>,
    idle: RefCell<Vec<h1::Parked>>,
    shared: RefCell<Vec<Rc<h2::Shared>>>,
    dialing: h2::Gate,
    /// A connection whose certificates end before this is not used again.
    ending: Cell<SystemTime>,
}

/// How long before the end of its certificates a connection is given up: its peer closes it then, and a request must not
/// cross that. Twice the time between two sweeps.
const LAST_USE: Duration = Duration::from_secs(2);

impl Pool {
    /// A pool without connections.
    pub(crate) fn new(address: SocketAddr, identity: Option<SpiffeId>, budget: Rc<Budget>) -> Rc<Self> {
        let pool = Rc::new(Self {
            address,
            identity,
            budget: Rc::clone(&budget),
            idle: RefCell::default(),
            shared: RefCell::default(),
            dialing: h2::Gate::default(),
            ending: Cell::new(SystemTime::UNIX_EPOCH),
        });
        let mut pools = budget.pools.borrow_mut();
        pools.retain(|pool| pool.strong_count() > 0);
        pools.push(Rc::downgrade(&pool));
        drop(pools);
        pool
    }

    /// Since when the connection that has been idle for longest is so.
    fn idle_since(&self) -> Option<Instant> {
        // Parked in the order in which they became idle.
        let parked = self.idle.borrow().first().map(|parked| parked.since);
        let shared = self.shared.borrow().iter().filter(|shared| shared.is_idle()).map(|shared| shared.since()).min();
        parked.into_iter().chain(shared).min()
    }

    /// Closes the connection that [`Pool::idle_since`] tells of.
    fn close_idle(&self) {
        let Some(since) = self.idle_since() else { return };
        let mut idle = self.idle.borrow_mut();
        if idle.first().is_some_and(|parked| parked.since == since) {
            drop(idle.remove(0));
            return;
        }
        let mut shared = self.shared.borrow_mut();
        if let Some(at) = shared.iter().position(|shared| shared.is_idle() && shared.since() == since) {
            drop(shared.remove(at));
        }
    }

    /// Closes connections that were idle for longer than `idle_timeout`, those that ended meanwhile, and those whose peers
    /// can no longer prove who they are: no request begins on these, and streams that are open end by themselves.
    pub(crate) fn sweep(&self, now: Instant, idle_timeout: Duration, trust: &Trust) {
        let fresh = |since: Instant| now.saturating_duration_since(since) < idle_timeout;
        let ending = trust.now + LAST_USE;
        self.ending.set(ending);
        let trusted = |standing: &Option<Box<Standing>>| {
            standing.as_ref().is_none_or(|standing| !standing.ends_before(ending) && standing.refusal(trust).is_none())
        };
        self.idle.borrow_mut().retain(|parked| fresh(parked.since) && trusted(&parked.standing) && parked.is_usable());
        self.shared.borrow_mut().retain(|shared| {
            shared.is_usable() && trusted(shared.standing()) && (shared.is_busy() || fresh(shared.since()))
        });
    }

    /// A connection for opaque bytes; never reused.
    pub(crate) async fn opaque(&self, dial: Dial<'_>) -> Result<(Io, Slot), Failure> {
        let _pending = Pending::new(&self.budget.events);
        match Box::pin(self.admit(dial.timeout, || None::<Infallible>)).await? {
            Admitted::Slot(slot) => Ok((Box::pin(self.dial(dial, Alpn::Opaque)).await?.0, slot)),
            Admitted::Instead(never) => match never {},
        }
    }

    /// Waits for room under the cluster's connection limit, or for what may be had `instead` of a new connection.
    async fn admit<T>(&self, timeout: Duration, instead: impl Fn() -> Option<T>) -> Result<Admitted<T>, Failure> {
        if let Some(slot) = self.budget.slot() {
            return Ok(Admitted::Slot(slot));
        }
        if self.budget.waiting.get() >= self.budget.max_waiting.get() {
            return Err(Failure::safe(Reason::MaxPending));
        }
        let _waiting = Waiting::new(&self.budget);
        let free = async {
            loop {
                self.budget.freed.notified().await;
                if let Some(instead) = instead() {
                    return Admitted::Instead(instead);
                }
                if let Some(slot) = self.budget.slot() {
                    return Admitted::Slot(slot);
                }
            }
        };
        tokio::time::timeout(timeout, free).await.map_err(|_| Failure::safe(Reason::MaxConnections))
    }

    /// A new connection, and for how long its peer has proved who it is; none: it is plain.
    async fn dial(&self, dial: Dial<'_>, alpn: Alpn) -> Result<(Io, Option<Box<Standing>>), Failure> {
        if dial.own_sockets.listens_at(self.address) {
            let why = format!("{} is a listener of this proxy itself", self.address);
            return Err(Failure::safe(Reason::Loop).because(why));
        }
        let start = Instant::now();
        let tcp = connect::dial(Upstream(self.address), dial.timeout, dial.options).await?;
        let socket = Socket::new(tcp, Vec::new());
        let expected = self.identity.as_ref().filter(|_| !dial.own.contains(&self.address.ip()));
        let Some(expected) = expected else { return Ok((Io::Plain(socket), None)) };
        let Some(keys) = dial.keys else {
            return Err(Failure::safe(Reason::CertExpired).because("this proxy has no certificate"));
        };
        let left = dial.timeout.saturating_sub(start.elapsed());
        let (io, standing) = handshake::connect(keys, socket, self.address.ip(), expected, alpn, left).await?;
        Ok((io, Some(Box::new(standing))))
    }
}

/// What a request that needs a connection has got.
enum Admitted<T> {
    /// Room for a new one.
    Slot(Slot),
    /// One that is there.
    Instead(T),
}

/// Counts a request that waits for a connection: for room, for a connect or for another's connect.
struct Pending<'e>(&'e Events);

impl<'e> Pending<'e> {
    fn new(events: &'e Events) -> Self {
        events.upstream_pending.increment();
        Self(events)
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.upstream_pending.decrement();
    }
}

/// Counts a request that waits for room under the limit.
struct Waiting<'b>(&'b Budget);

impl<'b> Waiting<'b> {
    fn new(budget: &'b Budget) -> Self {
        budget.waiting.set(budget.waiting.get().saturating_add(1));
        Self(budget)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get().saturating_sub(1));
    }
}
