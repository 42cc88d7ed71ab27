//! Accepts connections: within a limit, and never in a busy loop when the kernel has nothing left to give.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use crate::base::addr::Downstream;

/// First pause after the process or the host ran out of something.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// Longest pause: half of the second within which accepting must go on once descriptors are free (security.md RB-12).
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Where connections come from; a seam for tests, as a kernel without descriptors is hard to come by.
pub trait Incoming {
    /// The next connection.
    fn accept(&self) -> impl Future<Output = io::Result<(TcpStream, Downstream)>>;
}

impl Incoming for TcpListener {
    async fn accept(&self) -> io::Result<(TcpStream, Downstream)> {
        let (stream, from) = Self::accept(self).await?;
        Ok((stream, Downstream(from)))
    }
}

/// The connections a worker may hold at once, over all of its listeners.
#[derive(Debug)]
pub struct Slots {
    taken: Cell<usize>,
    limit: usize,
    /// Connections that ended; wraps round.
    ended: Cell<u64>,
    /// Accept loops that wait for a slot to become free; no more than the worker has listeners.
    waiting: RefCell<Vec<Waker>>,
}

/// One connection's place; free again when dropped.
#[derive(Debug)]
pub struct Slot(Rc<Slots>);

impl Slots {
    /// Places for `limit` connections, at least one.
    pub fn new(limit: usize) -> Rc<Self> {
        Rc::new(Self { taken: Cell::new(0), limit: limit.max(1), ended: Cell::new(0), waiting: RefCell::default() })
    }

    /// Connections held now.
    pub fn taken(&self) -> usize {
        self.taken.get()
    }

    /// A place, as soon as there is one.
    async fn take(self: &Rc<Self>) -> Slot {
        loop {
            if let Some(slot) = self.try_take() {
                return slot;
            }
            self.freed().await;
        }
    }

    /// A place, if there is one.
    fn try_take(self: &Rc<Self>) -> Option<Slot> {
        (self.taken.get() < self.limit).then(|| {
            self.taken.set(self.taken.get() + 1);
            Slot(Rc::clone(self))
        })
    }

    /// Waits until a connection ends.
    async fn freed(&self) {
        let before = self.ended.get();
        poll_fn(|cx| {
            if self.ended.get() != before {
                return Poll::Ready(());
            }
            let mut waiting = self.waiting.borrow_mut();
            // One entry per task, also when it comes back before a connection has ended.
            if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.taken.set(self.0.taken.get() - 1);
        self.0.ended.set(self.0.ended.get().wrapping_add(1));
        for waker in self.0.waiting.take() {
            waker.wake();
        }
    }
}

/// Accepts until it is dropped, which closes nothing but what the caller gave away with `incoming`.
///
/// Connections beyond the limit of `slots` wait in the kernel's queue. Each connection accepted has `TCP_NODELAY` and
/// is handed to `handler` with its slot, which must be kept as long as the connection. `failed` hears of every error.
/// When descriptors or buffers are used up, it pauses for 10 ms, doubled up to 500 ms, or until one of this worker's
/// connections ends.
pub async fn accept_loop(
    incoming: &impl Incoming,
    slots: &Rc<Slots>,
    handler: impl Fn(TcpStream, Downstream, Slot),
    failed: impl Fn(&io::Error),
) {
    let mut pause = FIRST_PAUSE;
    loop {
        let slot = slots.take().await;
        match incoming.accept().await {
            Ok((stream, from)) => {
                pause = FIRST_PAUSE;
                // It fails only when the peer is gone already, which the first read will tell.
                stream.set_nodelay(true).ok();
                handler(stream, from, slot);
            }
            Err(error) => {
                failed(&error);
                if is_of_connection(&error) {
                    continue;
                }
                // Not by our own slot: it is not a connection that ended.
                let rest = tokio::time::sleep(pause);
                pause = (pause * 2).min(LONGEST_PAUSE);
                tokio::select! {
                    // Biased by nothing but order: either one ends the pause.
                    biased;
                    () = slots.freed() => {}
                    () = rest => {}
                }
                drop(slot);
            }
        }
    }
}

/// Accepts what the kernel has queued on `listener`, as [`accept_loop`] does, and closes it: from then on the kernel refuses
/// connections. A listener that stayed open would let clients connect that nobody serves.
pub fn accept_last(listener: TcpListener, slots: &Rc<Slots>, handler: impl Fn(TcpStream, Downstream, Slot)) {
    // Beside the driver, which may not have heard of the last ones yet.
    let Ok(listener) = listener.into_std() else { return };
    while let Some(slot) = slots.try_take()
        && let Ok((stream, from)) = listener.accept()
    {
        if stream.set_nonblocking(true).is_ok()
            && let Ok(stream) = TcpStream::from_std(stream)
        {
            stream.set_nodelay(true).ok();
            handler(stream, Downstream(from), slot);
        }
    }
}

/// Whether the error is about the connection that was to be accepted, so that the next one can be tried at once.
fn is_of_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use tokio::time::Instant;

    const EMFILE: i32 = 24;

    /// Fails as told, then accepts from a real listener.
    struct Flaky {
        errors: RefCell<VecDeque<io::Error>>,
        listener: TcpListener,
    }

    impl Flaky {
        async fn new(errors: impl IntoIterator<Item = io::Error>) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            Self { errors: RefCell::new(errors.into_iter().collect()), listener }
        }

        async fn connect(&self) -> TcpStream {
            TcpStream::connect(self.listener.local_addr().unwrap()).await.unwrap()
        }
    }

    impl Incoming for Flaky {
        async fn accept(&self) -> io::Result<(TcpStream, Downstream)> {
            let error = self.errors.borrow_mut().pop_front();
            match error {
                Some(error) => Err(error),
                None => Incoming::accept(&self.listener).await,
            }
        }
    }

    /// Runs the loop until it has handed over `count` connections; gives them and the number of errors.
    async fn accept(incoming: &Flaky, slots: &Rc<Slots>, count: usize) -> (Vec<(TcpStream, Slot)>, usize) {
        let (accepted, errors) = (RefCell::new(Vec::new()), Cell::new(0));
        let done = tokio::sync::Notify::new();
        let handler = |stream, _, slot| {
            accepted.borrow_mut().push((stream, slot));
            if accepted.borrow().len() == count {
                done.notify_one();
            }
        };
        tokio::select! {
            () = accept_loop(incoming, slots, handler, |_| errors.set(errors.get() + 1)) => {}
            () = done.notified() => {}
        }
        (accepted.take(), errors.get())
    }

    #[tokio::test(start_paused = true)]
    async fn backs_off_when_descriptors_are_used_up() {
        let flaky = Flaky::new((0..10).map(|_| io::Error::from_raw_os_error(EMFILE))).await;
        let _client = flaky.connect().await;
        let began = Instant::now();
        let (accepted, errors) = accept(&flaky, &Slots::new(9), 1).await;
        assert!(accepted[0].0.nodelay().unwrap());
        assert_eq!(errors, 10);
        // 10 + 20 + 40 + 80 + 160 + 320 + 4 * 500
        assert_eq!(began.elapsed().as_millis() / 10, 263);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_ends_cuts_the_pause_short() {
        let flaky = Flaky::new([]).await;
        let _client = flaky.connect().await;
        let slots = Slots::new(9);
        let (held, _) = accept(&flaky, &slots, 1).await;
        flaky.errors.borrow_mut().push_back(io::Error::from_raw_os_error(EMFILE));
        let _client = flaky.connect().await;
        let began = Instant::now();
        let end = async {
            tokio::task::yield_now().await;
            drop(held);
        };
        let ((accepted, errors), ()) = tokio::join!(accept(&flaky, &slots, 1), end);
        assert_eq!((accepted.len(), errors), (1, 1));
        assert!(began.elapsed() < FIRST_PAUSE);
    }

    #[tokio::test(start_paused = true)]
    async fn goes_on_at_once_after_an_aborted_connection() {
        let flaky = Flaky::new((0..3).map(|_| io::ErrorKind::ConnectionAborted.into())).await;
        let _client = flaky.connect().await;
        let began = Instant::now();
        let (_, errors) = accept(&flaky, &Slots::new(1), 1).await;
        assert_eq!(errors, 3);
        assert_eq!(began.elapsed().as_millis(), 0);
    }

    #[tokio::test]
    async fn holds_no_more_than_the_limit() {
        let flaky = Flaky::new([]).await;
        let _clients = (flaky.connect().await, flaky.connect().await, flaky.connect().await);
        let slots = Slots::new(2);
        let (mut held, _) = accept(&flaky, &slots, 2).await;
        assert_eq!(slots.taken(), 2);
        let mut third = std::pin::pin!(accept(&flaky, &slots, 1));
        assert!(futures_util::poll!(third.as_mut()).is_pending(), "the third waits in the kernel's queue");
        held.pop();
        assert_eq!(third.await.0.len(), 1);
        drop(held);
        assert_eq!(slots.taken(), 0);
    }
}
