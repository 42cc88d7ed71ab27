//! Waiting for a state, never for a time: a condition is polled until it holds or a generous deadline ends the test.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

/// How long anything may take before a test fails. Generous, because test machines are slow and shared; a test that
/// passes never waits for it.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Pause between two looks at a condition: short beside a test, long beside a scheduler's time slice.
const PAUSE: Duration = Duration::from_millis(5);

/// Polls `condition` until it is true.
///
/// # Panics
/// After [`DEADLINE`], naming `what`.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    until_some(what, || condition().then_some(())).await;
}

/// Polls `probe` until it gives a value, and returns that.
///
/// # Panics
/// After [`DEADLINE`], naming `what`.
pub async fn until_some<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    until_ready(what, || std::future::ready(probe())).await
}

/// Polls an asynchronous `probe` until it gives a value: a connection that opens, a page that answers.
///
/// # Panics
/// After [`DEADLINE`], naming `what`.
pub async fn until_ready<T, F: Future<Output = Option<T>>>(what: &str, mut probe: impl FnMut() -> F) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Ok(Some(value)) = tokio::time::timeout_at(end, probe()).await {
            return value;
        }
        assert!(Instant::now() < end, "waited {DEADLINE:?} for {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Awaits `future`.
///
/// # Panics
/// When it takes longer than [`DEADLINE`], naming `what`.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {DEADLINE:?} for {what}"),
    }
}

/// A gate that a test opens: peers hold an answer behind it until the test has seen what it wants to see.
#[derive(Debug, Clone)]
pub struct Gate(tokio::sync::watch::Sender<bool>);

impl Gate {
    /// A closed gate; clones are the same gate.
    pub fn closed() -> Self {
        Self(tokio::sync::watch::Sender::new(false))
    }

    /// Lets everybody through, now and later.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// Waits until the gate is open. Has no deadline: the side that waits for the answer has one.
    pub async fn passed(&self) {
        let mut state = self.0.subscribe();
        // An error means every sender is gone, and `self` is one.
        let _ = state.wait_for(|open| *open).await;
    }
}
