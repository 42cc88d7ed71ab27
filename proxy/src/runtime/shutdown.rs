//! When to stop, and how: a state machine over time and work in progress, and the signals that drive it.
//!
//! First SIGTERM or SIGINT: not ready any more, accepting goes on for `Plan::min`; then no new inbound connections,
//! and the process ends when nothing is under way, at `Plan::deadline` at the latest. A second one ends it at once.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::drain::{Asked, Drain, Phase};

/// What is left for connections that are cut, to say so (GOAWAY, a gRPC status) before the sockets close.
const LAST_WORDS: Duration = Duration::from_millis(250);

/// How long shutting down takes, from its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Accepting goes on for this long, as others have yet to learn that we go away.
    pub min: Duration,
    /// What is then still under way is cut. Less than `min` is taken for it.
    pub deadline: Duration,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Everything under way was finished.
    Drained,
    /// Something was cut.
    Forced,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The present phase.
    pub phase: Phase,
    /// When to ask again, at the latest; none: when something happens.
    pub wake: Option<Instant>,
    /// The process may end.
    pub ended: Option<Ended>,
}

/// Decides about phases. Time and work come in from outside.
#[derive(Debug)]
pub struct Machine {
    plan: Plan,
    signalled: bool,
    began: Option<Instant>,
    forced: Option<Instant>,
}

impl Machine {
    /// Running.
    pub const fn new(plan: Plan) -> Self {
        Self { plan, signalled: false, began: None, forced: None }
    }

    /// A signal arrived: the first one drains, the second one ends. To drain when already asked to (a preStop hook did)
    /// is no second signal.
    pub fn signal(&mut self, now: Instant) {
        if self.signalled {
            self.quit(now);
        }
        self.signalled = true;
        self.drain(now);
    }

    /// Begins to drain, unless that has begun.
    pub fn drain(&mut self, now: Instant) {
        self.began.get_or_insert(now);
    }

    /// Ends at once.
    pub fn quit(&mut self, now: Instant) {
        self.began.get_or_insert(now);
        self.forced.get_or_insert(now);
    }

    /// Where things stand at `now` with so much work `in_progress`. To be asked again whenever one of them changes.
    pub fn step(&mut self, now: Instant, in_progress: usize) -> Step {
        let Some(began) = self.began else {
            return Step { phase: Phase::Running, wake: None, ended: None };
        };
        let closing = began + self.plan.min;
        let deadline = began + self.plan.deadline.max(self.plan.min);
        if self.forced.is_none() {
            if now < closing {
                return Step { phase: Phase::Draining, wake: Some(closing), ended: None };
            }
            if in_progress == 0 {
                return Step { phase: Phase::Closing, wake: None, ended: Some(Ended::Drained) };
            }
            if now < deadline {
                return Step { phase: Phase::Closing, wake: Some(deadline), ended: None };
            }
        }
        let last = *self.forced.get_or_insert(now) + LAST_WORDS;
        let ended = (in_progress == 0 || now >= last).then_some(Ended::Forced);
        Step { phase: Phase::Forced, wake: Some(last), ended }
    }
}

/// Where signals come from; a seam for tests.
pub trait Signals {
    /// The next signal that asks to stop.
    fn next(&mut self) -> impl Future<Output = ()>;
}

/// SIGTERM and SIGINT of this process.
#[derive(Debug)]
pub struct ProcessSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl ProcessSignals {
    /// From now on the two signals are ours, and no longer end the process by themselves. Within a tokio runtime.
    ///
    /// # Errors
    /// The handler cannot be registered.
    pub fn register() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }
}

impl Signals for ProcessSignals {
    async fn next(&mut self) {
        tokio::select! {
            // Either one is as good; no order is needed, and a fixed one costs nothing.
            biased;
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Waits to be asked to stop, by a signal or by [`DrainTrigger`](crate::drain::DrainTrigger), takes `drain` through its
/// phases, and returns when the process may end.
pub async fn run(drain: &Drain, plan: Plan, signals: &mut impl Signals) -> Ended {
    let mut machine = Machine::new(plan);
    let mut asked = drain.asked();
    loop {
        let now = Instant::now();
        match *asked.borrow_and_update() {
            Asked::Nothing => {}
            Asked::Drain => machine.drain(now),
            Asked::Quit => machine.quit(now),
        }
        let step = machine.step(now, drain.in_progress());
        drain.advance(step.phase);
        match step.ended {
            Some(Ended::Drained) if !drain.end() => {}
            Some(ended) => return ended,
            None => {}
        }
        tokio::select! {
            // Signals first: a second one must count even while work ends all the time.
            biased;
            () = signals.next() => machine.signal(Instant::now()),
            // The sender is in `drain`, so this fails never.
            _ = asked.changed() => {}
            () = sleep_until(step.wake) => {}
            () = drain.worker_idle() => {}
        }
    }
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;

    const PLAN: Plan = Plan { min: Duration::from_secs(5), deadline: Duration::from_secs(30) };

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn drains_then_closes_then_ends() {
        let t = Instant::now();
        let mut machine = Machine::new(PLAN);
        assert_eq!(machine.step(t, 3), Step { phase: Phase::Running, wake: None, ended: None });
        machine.signal(t);
        let draining = Step { phase: Phase::Draining, wake: Some(t + PLAN.min), ended: None };
        assert_eq!(machine.step(t, 3), draining);
        assert_eq!(machine.step(t + seconds(4.9), 0), draining, "others may not know yet");
        let closing = Step { phase: Phase::Closing, wake: Some(t + PLAN.deadline), ended: None };
        assert_eq!(machine.step(t + seconds(5.0), 1), closing);
        assert_eq!(machine.step(t + seconds(29.9), 1), closing);
        assert_eq!(machine.step(t + seconds(29.9), 0).ended, Some(Ended::Drained));
    }

    #[test]
    fn cuts_at_the_deadline_and_leaves_time_to_say_so() {
        let t = Instant::now();
        let mut machine = Machine::new(PLAN);
        machine.signal(t);
        let cut = t + PLAN.deadline;
        let forced = Step { phase: Phase::Forced, wake: Some(cut + LAST_WORDS), ended: None };
        assert_eq!(machine.step(cut, 2), forced);
        assert_eq!(machine.step(cut + LAST_WORDS / 2, 1), forced);
        assert_eq!(machine.step(cut + LAST_WORDS / 2, 0).ended, Some(Ended::Forced));
        assert_eq!(machine.step(cut + LAST_WORDS, 1).ended, Some(Ended::Forced));
    }

    #[test]
    fn a_second_signal_ends_at_once_but_not_the_one_after_a_hook() {
        let t = Instant::now();
        let mut machine = Machine::new(PLAN);
        machine.drain(t);
        machine.drain(t + seconds(1.0));
        machine.signal(t + seconds(2.0));
        assert_eq!(machine.step(t + seconds(2.0), 1).phase, Phase::Draining);
        assert_eq!(machine.step(t + seconds(5.0), 1).phase, Phase::Closing, "counted from the hook");
        machine.signal(t + seconds(6.0));
        assert_eq!(machine.step(t + seconds(6.0), 1).phase, Phase::Forced);
        assert_eq!(machine.step(t + seconds(6.0), 0).ended, Some(Ended::Forced));
        let mut machine = Machine::new(PLAN);
        machine.quit(t);
        assert_eq!(machine.step(t, 0).ended, Some(Ended::Forced));
    }

    #[test]
    fn a_deadline_before_the_minimum_is_the_minimum() {
        let t = Instant::now();
        let mut machine = Machine::new(Plan { min: seconds(5.0), deadline: seconds(1.0) });
        machine.signal(t);
        assert_eq!(machine.step(t + seconds(4.0), 1).phase, Phase::Draining);
        assert_eq!(machine.step(t + seconds(5.0), 1).phase, Phase::Forced);
    }

    struct Sent(mpsc::UnboundedReceiver<()>);

    impl Signals for Sent {
        async fn next(&mut self) {
            if self.0.recv().await.is_none() {
                std::future::pending().await
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn ends_as_soon_as_the_last_work_is_done() {
        let drain = Drain::new(1);
        let worker = drain.signal(0);
        let (kill, received) = mpsc::unbounded_channel();
        let mut signals = Sent(received);
        let began = Instant::now();
        let work = async {
            let guard = worker.guard();
            kill.send(()).unwrap();
            worker.reached(Phase::Draining).await;
            assert_eq!(began.elapsed(), Duration::ZERO);
            worker.reached(Phase::Closing).await;
            assert_eq!(began.elapsed().as_secs(), 5);
            tokio::time::advance(seconds(7.0)).await;
            drop(guard);
            std::future::pending::<()>().await;
        };
        let ended = tokio::select! {
            ended = run(&drain, PLAN, &mut signals) => ended,
            () = work => unreachable!(),
            () = worker.follow() => unreachable!(),
        };
        assert_eq!((ended, began.elapsed().as_secs()), (Ended::Drained, 12));
    }

    #[tokio::test(start_paused = true)]
    async fn the_admin_port_may_drain_and_quit() {
        let drain = Drain::new(1);
        let worker = drain.signal(0);
        let _guard = worker.guard();
        let (_kill, received) = mpsc::unbounded_channel();
        let mut signals = Sent(received);
        let began = Instant::now();
        let ask = async {
            drain.trigger().drain();
            worker.reached(Phase::Closing).await;
            drain.trigger().quit();
            worker.reached(Phase::Forced).await;
            std::future::pending::<()>().await;
        };
        let ended = tokio::select! {
            ended = run(&drain, PLAN, &mut signals) => ended,
            () = ask => unreachable!(),
            () = worker.follow() => unreachable!(),
        };
        assert_eq!(ended, Ended::Forced);
        assert_eq!(began.elapsed().as_millis() / 10, 525);
    }

    #[tokio::test]
    async fn a_real_signal_is_received() {
        let mut signals = ProcessSignals::register().unwrap();
        let mut next = std::pin::pin!(signals.next());
        assert!(futures_util::poll!(next.as_mut()).is_pending());
        let me = std::process::id().to_string();
        let sent = tokio::process::Command::new("kill").args(["-TERM", &me]).status().await.unwrap();
        assert!(sent.success());
        next.await;
    }
}
