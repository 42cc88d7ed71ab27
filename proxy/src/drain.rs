//! Shutting down without breaking what is under way: how far it has come (`Phase`) and what is still in progress.
//!
//! One `Drain` per process; each worker has its own `DrainSignal`, which the path reads and waits on without
//! touching what threads share. `runtime::shutdown` decides when a phase begins.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::task::{Context, Poll, Waker};

use tokio::sync::{Notify, watch};

/// How far shutting down has come. Phases only move forward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not at all.
    #[default]
    Running,
    /// Not ready any more, but still accepting, as others have yet to learn of it. Replies ask for the connection to
    /// be closed (`connection: close`, GOAWAY), idle connections are closed.
    Draining,
    /// Inbound connections are not accepted any more; outbound ones are, as long as requests are under way.
    Closing,
    /// What is still under way is cut.
    Forced,
}

/// What was asked for by other means than a signal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asked {
    /// Nothing.
    #[default]
    Nothing,
    /// To drain and exit.
    Drain,
    /// To exit at once.
    Quit,
}

/// The process's side: publishes phases and sees the work in progress of all workers. A clone is the same drain.
#[derive(Clone)]
pub struct Drain(Arc<Shared>);

struct Shared {
    /// Written by the control thread, a few times in the life of a process.
    phase: watch::Sender<Phase>,
    /// Written by the admin port.
    asked: watch::Sender<Asked>,
    /// Work in progress, by worker; each written by its worker alone.
    work: Box<[Work]>,
    /// Work in progress of other threads: lifecycle hooks of the application.
    held: AtomicUsize,
    /// Told by workers that have run out of work while not running.
    idle: Notify,
    /// The process is about to end. Written by the control thread.
    ending: AtomicBool,
}

/// A counter with a cache line of its own.
#[derive(Default)]
#[repr(align(64))]
struct Work(AtomicUsize);

impl Drain {
    /// For `workers` workers.
    pub fn new(workers: usize) -> Self {
        let work = (0..workers).map(|_| Work::default()).collect();
        let (phase, asked) = (watch::Sender::default(), watch::Sender::default());
        let held = AtomicUsize::new(0);
        Self(Arc::new(Shared { phase, asked, work, held, idle: Notify::new(), ending: AtomicBool::new(false) }))
    }

    /// The signal of one worker, made on its thread. The worker must run [`DrainSignal::follow`].
    ///
    /// # Panics
    /// `worker` is not one of the workers this was made for.
    pub fn signal(&self, worker: usize) -> DrainSignal {
        assert!(worker < self.0.work.len(), "worker {worker} of {}", self.0.work.len());
        DrainSignal(Rc::new(Local {
            drain: self.clone(),
            worker,
            phase: Cell::default(),
            count: Cell::new(0),
            waiting: RefCell::default(),
        }))
    }

    /// For the admin port, and whoever else may stop the process.
    pub fn trigger(&self) -> DrainTrigger {
        DrainTrigger(self.clone())
    }

    /// The present phase, and how to wait for the next.
    pub fn phase(&self) -> watch::Receiver<Phase> {
        self.0.phase.subscribe()
    }

    /// What was asked for by [`DrainTrigger`], and how to wait for more.
    pub(crate) fn asked(&self) -> watch::Receiver<Asked> {
        self.0.asked.subscribe()
    }

    /// Begins `phase`, unless it or a later one has begun.
    pub(crate) fn advance(&self, phase: Phase) {
        self.0.phase.send_if_modified(|now| {
            let later = phase > *now;
            *now = phase.max(*now);
            later
        });
    }

    /// Guards held in all workers, and by [`Drain::hold`]. What another thread has just taken or dropped may be missing.
    pub fn in_progress(&self) -> usize {
        let work: usize = self.0.work.iter().map(|work| work.0.load(Ordering::Acquire)).sum();
        work.saturating_add(self.0.held.load(Ordering::Acquire))
    }

    /// Counts as work in progress until dropped, on whatever thread.
    pub fn hold(&self) -> Held {
        self.0.held.fetch_add(1, Ordering::AcqRel);
        Held(self.clone())
    }

    /// Whether the process may end: there is no work, and from now on [`DrainSignal::arrive`] lets none in. When there is
    /// some after all, it goes on.
    pub(crate) fn end(&self) -> bool {
        self.0.ending.store(true, Ordering::SeqCst);
        // With the fence of `arrive`: either we see its guard, or it sees that we end.
        fence(Ordering::SeqCst);
        let ended = self.in_progress() == 0;
        self.0.ending.store(ended, Ordering::SeqCst);
        ended
    }

    /// Waits until a worker runs out of work, or until one has since the last call; only told while not running.
    pub(crate) async fn worker_idle(&self) {
        self.0.idle.notified().await;
    }
}

impl fmt::Debug for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = *self.0.phase.borrow();
        f.debug_struct("Drain").field("phase", &phase).field("in_progress", &self.in_progress()).finish()
    }
}

/// Work in progress; see [`Drain::hold`].
#[derive(Debug)]
pub struct Held(Drain);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.0.held.fetch_sub(1, Ordering::AcqRel);
        self.0.0.idle.notify_one();
    }
}

/// Asks the process to shut down.
#[derive(Clone, Debug)]
pub struct DrainTrigger(Drain);

impl DrainTrigger {
    /// Asks to drain and exit. Once is enough.
    pub fn drain(&self) {
        self.ask(Asked::Drain);
    }

    /// Asks to exit at once.
    pub fn quit(&self) {
        self.ask(Asked::Quit);
    }

    fn ask(&self, asked: Asked) {
        self.0.0.asked.send_if_modified(|now| {
            let more = asked > *now;
            *now = asked.max(*now);
            more
        });
    }
}

/// One worker's side. A clone is the same signal.
#[derive(Clone)]
pub struct DrainSignal(Rc<Local>);

struct Local {
    drain: Drain,
    worker: usize,
    phase: Cell<Phase>,
    count: Cell<usize>,
    waiting: RefCell<Waiting>,
}

/// Who waits for a phase; as many places as there ever were at once.
#[derive(Default)]
struct Waiting {
    places: Vec<Option<Waker>>,
    /// Places that nobody has.
    free: Vec<usize>,
}

impl DrainSignal {
    /// The present phase.
    pub fn phase(&self) -> Phase {
        self.0.phase.get()
    }

    /// Waits until `phase` or a later one has begun.
    pub async fn reached(&self, phase: Phase) {
        let mut place = Place { local: &self.0, at: None };
        poll_fn(|cx| {
            if self.phase() >= phase {
                return Poll::Ready(());
            }
            place.wait(cx);
            Poll::Pending
        })
        .await;
    }

    /// Counts as work in progress until dropped. Take one per request or opaque connection, not per idle connection:
    /// the process exits when there is none.
    pub fn guard(&self) -> Guard {
        self.0.set_count(self.0.count.get() + 1);
        Guard(Rc::clone(&self.0))
    }

    /// A guard for a peer that is about to come in; none when the process is ending, and the peer must not be led to
    /// believe that it was heard.
    pub(crate) fn arrive(&self) -> Option<Guard> {
        let guard = self.guard();
        fence(Ordering::SeqCst);
        (!self.0.drain.0.ending.load(Ordering::SeqCst)).then_some(guard)
    }

    /// Follows the process's phase for as long as it is polled; to be run once by the worker.
    pub async fn follow(&self) {
        let mut phases = self.0.drain.phase();
        loop {
            let phase = *phases.borrow_and_update();
            self.0.begin(phase);
            if phases.changed().await.is_err() {
                return;
            }
        }
    }
}

impl fmt::Debug for DrainSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DrainSignal").field("phase", &self.phase()).field("in_progress", &self.0.count.get()).finish()
    }
}

impl Local {
    fn begin(&self, phase: Phase) {
        self.phase.set(phase);
        let waiting: Vec<Waker> = self.waiting.borrow_mut().places.iter_mut().filter_map(Option::take).collect();
        waiting.into_iter().for_each(Waker::wake);
        // Work may have run out before this worker knew that somebody waits for it.
        self.tell_if_idle();
    }

    fn set_count(&self, count: usize) {
        self.count.set(count);
        if let Some(work) = self.drain.0.work.get(self.worker) {
            work.0.store(count, Ordering::Release);
        }
    }

    fn tell_if_idle(&self) {
        if self.count.get() == 0 && self.phase.get() != Phase::Running {
            self.drain.0.idle.notify_one();
        }
    }
}

/// A place among those who wait; given back when dropped.
struct Place<'a> {
    local: &'a Local,
    at: Option<usize>,
}

impl Place<'_> {
    fn wait(&mut self, cx: &Context<'_>) {
        let mut waiting = self.local.waiting.borrow_mut();
        let waiting = &mut *waiting;
        let at = *self.at.get_or_insert_with(|| {
            waiting.free.pop().unwrap_or_else(|| {
                waiting.places.push(None);
                waiting.places.len() - 1
            })
        });
        if let Some(place) = waiting.places.get_mut(at)
            && !place.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            *place = Some(cx.waker().clone());
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Some(at) = self.at else { return };
        let mut waiting = self.local.waiting.borrow_mut();
        if let Some(place) = waiting.places.get_mut(at) {
            *place = None;
        }
        waiting.free.push(at);
    }
}

/// Work in progress; see [`DrainSignal::guard`].
pub struct Guard(Rc<Local>);

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guard")
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.set_count(self.0.count.get() - 1);
        self.0.tell_if_idle();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::poll;
    use std::pin::pin;

    #[tokio::test]
    async fn phases_reach_those_who_wait() {
        let drain = Drain::new(1);
        let signal = drain.signal(0);
        let mut follow = pin!(signal.follow());
        let (mut early, mut late) = (pin!(signal.reached(Phase::Draining)), pin!(signal.reached(Phase::Forced)));
        assert!(poll!(follow.as_mut()).is_pending());
        assert!(poll!(early.as_mut()).is_pending() && poll!(late.as_mut()).is_pending());
        drain.advance(Phase::Closing);
        assert!(poll!(follow.as_mut()).is_pending());
        assert_eq!(signal.phase(), Phase::Closing);
        assert!(poll!(early.as_mut()).is_ready() && poll!(late.as_mut()).is_pending());
        drain.advance(Phase::Draining);
        assert!(poll!(follow.as_mut()).is_pending());
        assert_eq!(signal.phase(), Phase::Closing, "phases only move forward");
        drain.advance(Phase::Forced);
        assert!(poll!(follow.as_mut()).is_pending());
        assert!(poll!(late.as_mut()).is_ready());
    }

    #[tokio::test]
    async fn nobody_comes_in_once_the_end_is_decided() {
        let drain = Drain::new(1);
        let signal = drain.signal(0);
        let arrived = signal.arrive();
        assert!(arrived.is_some() && !drain.end(), "there is work");
        assert!(signal.arrive().is_some(), "it goes on, so others may come");
        drop(arrived);
        assert!(drain.end());
        assert!(signal.arrive().is_none());
    }

    #[tokio::test]
    async fn places_are_used_again() {
        let signal = Drain::new(1).signal(0);
        for _ in 0..10 {
            let (mut one, mut two) = (pin!(signal.reached(Phase::Forced)), pin!(signal.reached(Phase::Forced)));
            assert!(poll!(one.as_mut()).is_pending() && poll!(two.as_mut()).is_pending());
            assert!(poll!(one.as_mut()).is_pending());
        }
        assert_eq!(signal.0.waiting.borrow().places.len(), 2);
    }

    #[tokio::test]
    async fn work_is_counted_over_workers_and_its_end_is_told() {
        let drain = Drain::new(2);
        let (one, two) = (drain.signal(0), drain.signal(1));
        let guards = (one.guard(), one.guard(), two.guard());
        assert_eq!(drain.in_progress(), 3);
        drop(guards.0);
        drop(guards.2);
        assert_eq!(drain.in_progress(), 1);
        assert!(poll!(pin!(drain.worker_idle())).is_pending(), "while running nobody asks");
        drain.advance(Phase::Draining);
        assert!(poll!(pin!(one.follow())).is_pending());
        assert!(poll!(pin!(drain.worker_idle())).is_pending());
        drop(guards.1);
        assert!(poll!(pin!(drain.worker_idle())).is_ready());
        assert_eq!(drain.in_progress(), 0);
        assert!(poll!(pin!(two.follow())).is_pending());
        assert!(poll!(pin!(drain.worker_idle())).is_ready(), "it ran out before it knew");
    }

    #[test]
    fn mend_23_a_hook_of_the_application_counts_as_work() {
        let drain = Drain::new(1);
        let held = drain.hold();
        assert!(!drain.end() && drain.in_progress() == 1);
        drop(held);
        assert!(drain.end());
    }

    #[test]
    fn to_quit_is_more_than_to_drain() {
        let drain = Drain::new(1);
        let trigger = drain.trigger();
        let asked = drain.asked();
        trigger.quit();
        trigger.drain();
        assert_eq!(*asked.borrow(), Asked::Quit);
    }
}
