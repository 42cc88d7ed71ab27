//! HTTP/1 connections: one request at a time, parked unpolled between them, the most recently used taken first.

use std::rc::Rc;

use tokio::time::Instant;
use tulle_identity::tls::Alpn;

use super::{Dial, Pool, Slot};
use crate::base::failure::Failure;
use crate::codec::buffer::Received;
use crate::codec::h1::conn::Connection;
use crate::conn::Io;

/// Idle connections kept per endpoint and worker.
const MAX_IDLE: usize = 1024;

/// An idle connection.
#[derive(Debug)]
pub(super) struct Parked {
    pub(super) conn: Connection,
    pub(super) since: Instant,
    slot: Slot,
}

/// A connection in use. Dropped without [`Lease::park`], it is closed.
#[derive(Debug)]
pub(crate) struct Lease {
    /// The connection.
    pub(crate) conn: Connection,
    /// It served a request before: the peer may have closed it just now.
    pub(crate) reused: bool,
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
        if fresh && !self.budget.has_room() {
            // One of those that are likely closed too makes room.
            self.idle.borrow_mut().pop();
        }
        let slot = Box::pin(self.admit(dial.timeout)).await?;
        // While we waited for room, one may have been parked.
        if !fresh && let Some(lease) = self.idle_h1() {
            return Ok(lease);
        }
        // Boxed: rare, and large beside an exchange on a connection that is there.
        let io = Box::pin(self.dial(dial, Alpn::H1)).await?;
        Ok(Lease { conn: Connection::new(io), reused: false, slot, pool: Rc::clone(self) })
    }

    fn idle_h1(self: &Rc<Self>) -> Option<Lease> {
        loop {
            let Parked { conn, slot, .. } = self.idle.borrow_mut().pop()?;
            if conn.is_quiet() {
                return Some(Lease { conn, reused: true, slot, pool: Rc::clone(self) });
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

    /// Gives the connection back for reuse. Its last exchange must be complete on both sides.
    pub(crate) fn park(self) {
        let Self { conn, slot, pool, .. } = self;
        let mut idle = pool.idle.borrow_mut();
        if idle.len() < MAX_IDLE && conn.is_quiet() {
            pool.budget.freed.notify_one();
            idle.push(Parked { conn, since: Instant::now(), slot });
        }
    }
}
