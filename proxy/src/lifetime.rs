//! How long a connection may live: no longer than the certificates it was made with, than the root that vouched for its
//! peer, than the policy of its port lets plain connections in, and than the configured age.
//!
//! Inbound connections are listed by their worker, which reviews them once a second and at each change of trust or
//! policy, so that a request costs one look at a cell. Connections that a worker keeps for reuse are reviewed where they
//! are kept (`pool`).

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use crate::base::failure::Reason;
use crate::base::standing::{Standing, Trust};
use crate::config::listener::{Inbound, MtlsMode};

/// How long exchanges under way may go on once their connection has ended.
pub(crate) const GRACE: Duration = Duration::from_secs(30);

/// One inbound connection.
pub(crate) struct Lifetime {
    /// Of mesh TLS; none: it is plain.
    standing: Option<Standing>,
    port: u16,
    /// End of the configured age.
    oldest: Option<Instant>,
    over: Cell<Option<(Reason, Instant)>>,
    cut: Cell<bool>,
    waker: Cell<Option<Waker>>,
    /// Its place in the list of its worker.
    at: usize,
    list: Rc<Lifetimes>,
}

impl fmt::Debug for Lifetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lifetime").field("port", &self.port).field("over", &self.over).finish_non_exhaustive()
    }
}

impl Lifetime {
    /// Why no further request is served on the connection; none: it is.
    pub(crate) fn over(&self) -> Option<Reason> {
        self.over.get().map(|(reason, _)| reason)
    }

    /// Whether the peer is in mesh TLS: it dials again by itself.
    pub(crate) const fn is_meshed(&self) -> bool {
        self.standing.is_some()
    }

    /// Waits until the connection is over. One task may wait, for this and in [`Lifetime::poll_held`].
    pub(crate) fn poll_ended(&self, cx: &Context<'_>) -> Poll<Reason> {
        let Some(reason) = self.over() else {
            self.register(cx.waker());
            return Poll::Pending;
        };
        Poll::Ready(reason)
    }

    /// Polls what serves the connection, until it is done or the connection was over for [`GRACE`]: then `serving` is to be
    /// dropped, and with it both connections; why is returned.
    pub(crate) fn poll_held<F: Future>(
        &self,
        serving: Pin<&mut F>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<F::Output, Reason>> {
        if let Poll::Ready(done) = serving.poll(cx) {
            return Poll::Ready(Ok(done));
        }
        if let (true, Some(reason)) = (self.cut.get(), self.over()) {
            return Poll::Ready(Err(reason));
        }
        self.register(cx.waker());
        Poll::Pending
    }

    fn register(&self, waker: &Waker) {
        let known = self.waker.take().filter(|known| known.will_wake(waker));
        self.waker.set(Some(known.unwrap_or_else(|| waker.clone())));
    }

    fn review(&self, trust: &Trust, now: Instant, inbound: Option<&Inbound>) {
        if let Some((_, since)) = self.over.get() {
            if now.saturating_duration_since(since) >= GRACE {
                self.cut.set(true);
                self.wake();
            }
            return;
        }
        let refused = match &self.standing {
            Some(standing) => standing.refusal(trust),
            None => {
                inbound.filter(|inbound| inbound.port(self.port).mtls == MtlsMode::Strict).map(|_| Reason::AuthnFailed)
            }
        };
        let aged = || self.oldest.filter(|oldest| *oldest <= now).map(|_| Reason::Draining);
        if let Some(reason) = refused.or_else(aged) {
            self.over.set(Some((reason, now)));
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// The inbound connections of a worker; as many places as there ever were at once.
#[derive(Debug, Default)]
pub(crate) struct Lifetimes {
    places: RefCell<Places>,
}

#[derive(Debug, Default)]
struct Places {
    all: Vec<Weak<Lifetime>>,
    free: Vec<usize>,
}

impl Lifetimes {
    /// Lists a connection to `port`, until its lifetime is dropped. It is over after `age`, where there is one.
    pub(crate) fn list(self: &Rc<Self>, standing: Option<Standing>, port: u16, age: Option<Duration>) -> Rc<Lifetime> {
        let oldest = age.and_then(|age| Instant::now().checked_add(age));
        let (over, cut, waker) = (Cell::default(), Cell::default(), Cell::default());
        let mut places = self.places.borrow_mut();
        let at = places.free.pop().unwrap_or(places.all.len());
        let life = Rc::new(Lifetime { standing, port, oldest, over, cut, waker, at, list: Rc::clone(self) });
        match places.all.get_mut(at) {
            Some(place) => *place = Rc::downgrade(&life),
            None => places.all.push(Rc::downgrade(&life)),
        }
        life
    }

    /// Ends those that may not go on, and cuts those that ended long ago.
    pub(crate) fn review(&self, trust: &Trust, now: Instant, inbound: Option<&Inbound>) {
        let count = self.places.borrow().all.len();
        for at in 0..count {
            // The list is not borrowed meanwhile: the last handle of a connection leaves it.
            let life = self.places.borrow().all.get(at).and_then(Weak::upgrade);
            if let Some(life) = life {
                life.review(trust, now, inbound);
            }
        }
    }
}

impl Drop for Lifetime {
    fn drop(&mut self) {
        let mut places = self.list.places.borrow_mut();
        if let Some(place) = places.all.get_mut(self.at) {
            *place = Weak::new();
        }
        places.free.push(self.at);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::future::poll_fn;
    use std::pin::pin;
    use std::sync::Arc;
    use std::time::SystemTime;

    use super::*;
    use crate::base::protocol::Protocol;
    use crate::config::listener::InboundPort;

    fn rules(mtls: MtlsMode) -> Inbound {
        let port = Arc::new(InboundPort { protocol: Protocol::Http, mtls, service: "".into(), namespace: "".into() });
        Inbound { ports: HashMap::from([(8080, Arc::clone(&port))]), default: port }
    }

    fn at(seconds: u64) -> Trust {
        Trust { now: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds), bundle: None }
    }

    fn standing(until: u64) -> Standing {
        Standing::until(at(until).now)
    }

    /// The wall clock decides, whichever way it moves.
    #[tokio::test(start_paused = true)]
    async fn hostile_13_a_connection_ends_with_its_certificate() {
        let list = Rc::<Lifetimes>::default();
        let life = list.list(Some(standing(1_000)), 8080, None);
        let (now, strict) = (Instant::now(), rules(MtlsMode::Strict));
        for seconds in [500, 1_000, 10] {
            list.review(&at(seconds), now, Some(&strict));
            assert_eq!(life.over(), None, "{seconds}");
        }
        list.review(&at(1_001), now, Some(&strict));
        assert_eq!(life.over(), Some(Reason::CertExpired));
        list.review(&at(500), now, Some(&strict));
        assert_eq!(life.over(), Some(Reason::CertExpired), "what has ended stays so");
    }

    #[tokio::test(start_paused = true)]
    async fn hostile_29_plain_connections_end_when_their_port_becomes_strict() {
        let list = Rc::<Lifetimes>::default();
        let (plain, meshed) = (list.list(None, 8080, None), list.list(Some(standing(1_000)), 8080, None));
        let now = Instant::now();
        for (mtls, over) in
            [(MtlsMode::Permissive, None), (MtlsMode::Disable, None), (MtlsMode::Strict, Some(Reason::AuthnFailed))]
        {
            list.review(&at(0), now, Some(&rules(mtls)));
            assert_eq!((plain.over(), meshed.over()), (over, None), "{mtls:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn hostile_13_what_is_under_way_has_a_while_and_is_then_cut() {
        let list = Rc::<Lifetimes>::default();
        let life = list.list(None, 8080, Some(Duration::from_secs(60)));
        let reviews = async {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                list.review(&at(0), Instant::now(), None);
            }
        };
        let start = Instant::now();
        {
            let mut serving = pin!(async {
                assert_eq!(poll_fn(|cx| life.poll_ended(cx)).await, Reason::Draining);
                assert_eq!(start.elapsed(), Duration::from_secs(60));
                std::future::pending::<()>().await;
            });
            let held = poll_fn(|cx| life.poll_held(serving.as_mut(), cx));
            tokio::select! {
                cut = held => assert_eq!(cut, Err(Reason::Draining)),
                () = reviews => {}
            }
            assert_eq!(start.elapsed(), Duration::from_secs(60) + GRACE);
        }
        drop(life);
        assert!(list.places.borrow().all.iter().all(|place| place.strong_count() == 0), "taken off the list");
        let (life, mut seven) = (life_of(&list), pin!(async { 7 }));
        assert_eq!(poll_fn(|cx| life.poll_held(seven.as_mut(), cx)).await, Ok(7));
    }

    fn life_of(list: &Rc<Lifetimes>) -> Rc<Lifetime> {
        let life = list.list(None, 1, None);
        assert_eq!(list.places.borrow().all.len(), 1, "places are used again");
        life
    }
}
