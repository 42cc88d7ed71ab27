//! HTTP/2 connections: shared by many streams, one per endpoint and worker until its peer allows no more.

use std::cell::Cell;
use std::rc::Rc;

use tokio::sync::Notify;
use tokio::time::Instant;
use tulle_identity::tls::Alpn;

use super::{Admitted, Budget, Dial, Pending, Pool, Slot};
use crate::base::failure::{Failure, Reason};
use crate::base::standing::Standing;
use crate::codec::h2::client::Connection;
use crate::spawn;

/// A connection and how busy it is.
#[derive(Debug)]
pub(super) struct Shared {
    conn: Connection,
    streams: Cell<usize>,
    usable: Cell<bool>,
    since: Cell<Instant>,
    budget: Rc<Budget>,
    standing: Option<Box<Standing>>,
}

impl Shared {
    pub(super) const fn is_usable(&self) -> bool {
        self.usable.get()
    }

    pub(super) const fn is_busy(&self) -> bool {
        self.streams.get() > 0
    }

    /// Nobody uses it, though somebody could.
    pub(super) const fn is_idle(&self) -> bool {
        self.usable.get() && !self.is_busy()
    }

    pub(super) const fn since(&self) -> Instant {
        self.since.get()
    }

    fn is_unsettled(&self) -> bool {
        self.usable.get() && !self.conn.is_settled() && self.conn.max_streams() > 0
    }

    pub(super) const fn standing(&self) -> &Option<Box<Standing>> {
        &self.standing
    }

    fn has_room(&self) -> bool {
        self.usable.get() && self.streams.get() < self.conn.max_streams()
    }
}

/// The right to open one stream; held until the exchange is over.
#[derive(Debug)]
pub(crate) struct Lease {
    shared: Rc<Shared>,
    reused: bool,
}

impl Lease {
    fn new(shared: Rc<Shared>, reused: bool) -> Self {
        shared.streams.set(shared.streams.get().saturating_add(1));
        Self { shared, reused }
    }

    /// The connection was there before: its peer may be closing it.
    pub(crate) const fn reused(&self) -> bool {
        self.reused
    }

    /// The connection.
    pub(crate) fn conn(&self) -> &Connection {
        &self.shared.conn
    }

    /// Keeps others from opening streams on it: the peer is going away.
    pub(crate) fn retire(&self) {
        self.shared.usable.set(false);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.shared.streams.set(self.shared.streams.get().saturating_sub(1));
        if !self.shared.is_busy() {
            self.shared.since.set(Instant::now());
        }
        self.shared.budget.has_use();
    }
}

/// Lets one caller dial while the others wait for its result.
#[derive(Debug, Default)]
pub(super) struct Gate {
    busy: Cell<bool>,
    failed: Cell<Option<Reason>>,
    done: Notify,
}

/// Held by the caller that dials.
struct Dialing<'g>(&'g Gate);

impl Drop for Dialing<'_> {
    fn drop(&mut self) {
        self.0.busy.set(false);
        self.0.done.notify_waiters();
    }
}

impl Pool {
    /// Room on a connection, a new one if none has any.
    ///
    /// # Errors
    /// What [`Pool::dial`] says; nothing was sent.
    pub(crate) async fn h2(&self, dial: Dial<'_>) -> Result<Lease, Failure> {
        match self.shared_h2() {
            Some(lease) => Ok(lease),
            None => Box::pin(self.wait_h2(dial)).await,
        }
    }

    fn shared_h2(&self) -> Option<Lease> {
        let shared = self.shared.borrow();
        shared.iter().find(|shared| shared.has_room()).map(|shared| Lease::new(Rc::clone(shared), true))
    }

    /// No connection has room: one that is being made will have, or the caller makes one.
    async fn wait_h2(&self, dial: Dial<'_>) -> Result<Lease, Failure> {
        let _pending = Pending::new(&self.budget.events);
        loop {
            if let Some(lease) = self.shared_h2() {
                return Ok(lease);
            }
            let unsettled = self.shared.borrow().iter().find(|shared| shared.is_unsettled()).map(Rc::clone);
            if let Some(shared) = unsettled {
                // It says in a moment how many streams it takes: many, mostly.
                let settled = tokio::time::timeout(dial.timeout, shared.conn.settled()).await;
                if settled.is_err() {
                    shared.usable.set(false);
                    return Err(Failure::safe(Reason::ConnectTimeout).because("no SETTINGS from the peer"));
                }
                continue;
            }
            if !self.dialing.busy.replace(true) {
                break;
            }
            self.dialing.failed.set(None);
            self.dialing.done.notified().await;
            // A failure is everybody's: a crowd must not dial a dead endpoint one after the other.
            if let Some(reason) = self.dialing.failed.get() {
                return Err(Failure::safe(reason));
            }
        }
        let _dialing = Dialing(&self.dialing);
        let dialled = self.dial_h2(dial).await;
        self.dialing.failed.set(dialled.as_ref().err().map(|failure| failure.reason));
        dialled
    }

    async fn dial_h2(&self, dial: Dial<'_>) -> Result<Lease, Failure> {
        let slot = match self.admit(dial.timeout, || self.shared_h2()).await? {
            Admitted::Slot(slot) => slot,
            Admitted::Instead(lease) => return Ok(lease),
        };
        let (io, standing) = self.dial(dial, Alpn::H2).await?;
        let (conn, driver) = Connection::connect(io, dial.heads)
            .await
            .map_err(|error| Failure::safe(Reason::ConnectFailed).because(error))?;
        let shared = Rc::new(Shared {
            conn,
            streams: Cell::new(0),
            usable: Cell::new(true),
            since: Cell::new(Instant::now()),
            budget: Rc::clone(&self.budget),
            standing,
        });
        let lease = Lease::new(Rc::clone(&shared), false);
        let weak = Rc::downgrade(&shared);
        self.shared.borrow_mut().push(shared);
        spawn::local(async move {
            let _counted: Slot = slot;
            // Why it ended shows in each of its streams.
            let _ = driver.await;
            if let Some(shared) = weak.upgrade() {
                shared.usable.set(false);
            }
        });
        Ok(lease)
    }
}
