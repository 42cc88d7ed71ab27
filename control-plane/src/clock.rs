//! The wall clock, and deadlines by it. The clock may be set, and a machine may sleep, while the runtime's timers count on:
//! so nothing sleeps until a deadline, but looks again and again.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Longest time between two looks at a deadline.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// A clock whose time differs from what was expected by more than this was set.
pub(crate) const SET_BY: Duration = Duration::from_secs(60);

/// Where the time comes from.
#[derive(Clone)]
pub(crate) struct Clock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl Clock {
    /// The system's.
    pub(crate) fn system() -> Self {
        Self(Arc::new(SystemTime::now))
    }

    /// What `now` says.
    #[cfg(test)]
    pub(crate) fn of(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The time.
    pub(crate) fn now(&self) -> SystemTime {
        (self.0)()
    }

    /// Returns when `time` has passed, at most [`LOOK_AGAIN`] after it came by a jump.
    pub(crate) async fn passed(&self, time: SystemTime) {
        loop {
            let remaining = time.duration_since(self.now()).unwrap_or_default();
            if remaining.is_zero() {
                return;
            }
            tokio::time::sleep(remaining.min(LOOK_AGAIN)).await;
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// A clock for tests, which moves with the runtime's timers and can be set.
#[cfg(test)]
pub(crate) mod settable {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::{Arc, Clock, Duration, SystemTime};

    /// The clock, and the seconds it was set by.
    pub(crate) fn clock() -> (Clock, Arc<AtomicI64>) {
        // Ahead of the system's, so that what was made before exists after a step back.
        let (start, base) = (tokio::time::Instant::now(), SystemTime::now() + Duration::from_secs(48 * 3_600));
        let set_by = Arc::new(AtomicI64::new(0));
        let offset = Arc::clone(&set_by);
        let now = move || {
            let seconds = offset.load(Ordering::Relaxed);
            let jump = Duration::from_secs(seconds.unsigned_abs());
            let now = base + start.elapsed();
            if seconds < 0 { now - jump } else { now + jump }
        };
        (Clock::of(now), set_by)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    const HOUR: i64 = 3_600;

    #[tokio::test(start_paused = true)]
    async fn hostile_05_a_deadline_is_noticed_soon_after_the_clock_was_set() {
        let (clock, set_by) = settable::clock();
        let start = tokio::time::Instant::now();
        let deadline = clock.now() + Duration::from_secs(12 * 3_600);
        let jump = async {
            tokio::time::sleep(Duration::from_secs(100)).await;
            set_by.store(26 * HOUR, Ordering::Relaxed);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = clock.passed(deadline) => {}
            () = jump => {}
        }
        assert!(start.elapsed() <= Duration::from_secs(100) + LOOK_AGAIN, "{:?}", start.elapsed());
        // A step back postpones, and no more than by the step.
        set_by.store(0, Ordering::Relaxed);
        clock.passed(deadline).await;
        assert!(start.elapsed() >= Duration::from_secs(12 * 3_600));
    }
}
