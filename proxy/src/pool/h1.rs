//! HTTP/1 connections: one request at a time, parked unpolled between them, the most recently used taken first.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;
use tulle_identity::tls::Alpn;

use super::{Admitted, Dial, Pending, Pool, Slot};
use crate::base::failure::Failure;
use crate::base::standing::Standing;
use crate::codec::buffer::Received;
use crate::codec::h1::conn::Connection;
use crate::conn::Io;

/// Idle connections kept per endpoint and worker.
const MAX_IDLE: usize = 1024;

/// How much sooner than its peer a connection is given up.
const MARGIN: Duration = Duration::from_secs(1);

/// An idle connection.
#[derive(Debug)]
pub(super) struct Parked {
    pub(super) conn: Connection,
    pub(super) since: Instant,
    /// When its peer closes it, as far as the peer has said so.
    pub(super) until: Option<Instant>,
    pub(super) standing: Option<Box<Standing>>,
    slot: Slot,
}

impl Parked {
    /// Whether its peer still keeps it, and nothing arrived on it.
    pub(super) fn is_usable(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() < until) && self.conn.is_quiet()
    }
}

/// A connection in use. Dropped without [`Lease::park`], it is closed.
#[derive(Debug)]
pub(crate) struct Lease {
    /// The connection.
    pub(crate) conn: Connection,
    /// It served a request before: the peer may have closed it just now.
    pub(crate) reused: bool,
    standing: Option<Box<Standing>>,
    slot: Slot,
    pool: Rc<Pool>,
}

impl Pool {
    /// An idle connection, or a new one; `fresh`: a new one in any case.
    ///
    /// # Errors
    /// What [`Pool::dial`] says; nothing was sent.
    pub(crate) async fn h1(self: &Rc<Self>, dial: Dial<'_>, fresh: bool) -> Result<Lease, Failure> {
        if !fresh && let Some(lease) = self.idle_h1() {
            return Ok(lease);
        }
        Box::pin(self.new_h1(dial, fresh)).await
    }

    /// A new connection, unless an idle one comes first.
    async fn new_h1(self: &Rc<Self>, dial: Dial<'_>, fresh: bool) -> Result<Lease, Failure> {
        let _pending = Pending::new(&self.budget.events);
        let idle = || if fresh { None } else { self.idle_h1() };
        let slot = match self.admit(dial.timeout, idle).await? {
            Admitted::Slot(slot) => slot,
            Admitted::Instead(lease) => return Ok(lease),
        };
        let (io, standing) = self.dial(dial, Alpn::H1).await?;
        Ok(Lease { conn: Connection::new(io), reused: false, standing, slot, pool: Rc::clone(self) })
    }

    fn idle_h1(self: &Rc<Self>) -> Option<Lease> {
        loop {
            let parked = self.idle.borrow_mut().pop()?;
            if parked.is_usable() {
                let Parked { conn, standing, slot, .. } = parked;
                return Some(Lease { conn, reused: true, standing, slot, pool: Rc::clone(self) });
            }
        }
    }
}

impl Lease {
    /// The stream and what was received on it, for another protocol, and the place it is counted in.
    pub(crate) fn into_parts(self) -> (Io, Received, Slot) {
        let (io, received) = self.conn.into_parts();
        (io, received, self.slot)
    }

    /// Gives the connection back for reuse. Its last exchange must be complete on both sides. `kept`: how long its peer
    /// keeps it idle; it is not used in the last second of that, in which a request could cross the peer's end.
    pub(crate) fn park(self, kept: Option<Duration>) {
        let kept = kept.map(|kept| kept.saturating_sub(MARGIN.min(kept / 2)));
        if kept.is_some_and(|kept| kept.is_zero()) {
            return;
        }
        let Self { conn, standing, slot, pool, .. } = self;
        if standing.as_ref().is_some_and(|standing| standing.ends_before(pool.ending.get())) {
            return;
        }
        let mut idle = pool.idle.borrow_mut();
        if idle.len() < MAX_IDLE && conn.is_quiet() {
            let since = Instant::now();
            let until = kept.and_then(|kept| since.checked_add(kept));
            idle.push(Parked { conn, since, until, standing, slot });
            pool.budget.has_use();
        }
    }
}
