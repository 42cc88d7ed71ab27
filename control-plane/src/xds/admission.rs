//! How many clients may receive their first configuration at once.
//!
//! After a restart every proxy comes back within seconds. Serving a few at a time bounds the memory that encoding and
//! sending take; the others wait for their turn with an open stream, which is cheaper than a refusal and a retry.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A client keeps its turn no longer than this, however slowly it receives.
pub(crate) const TURN: Duration = Duration::from_secs(2);

/// A client that got no turn for this long is sent away to try again, perhaps at another replica.
const PATIENCE: Duration = Duration::from_secs(30);

/// Turns for initial synchronisations.
#[derive(Clone, Debug)]
pub(crate) struct Admission(Arc<Semaphore>);

/// A turn; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    _permit: OwnedSemaphorePermit,
}

impl Admission {
    /// Lets `at_once` clients synchronise at the same time.
    pub(crate) fn new(at_once: usize) -> Self {
        Self(Arc::new(Semaphore::new(at_once)))
    }

    /// Waits for a turn; `None` after 30 s. Cancel safe: a dropped wait takes no turn.
    pub(crate) async fn turn(&self) -> Option<Turn> {
        let permit = tokio::time::timeout(PATIENCE, self.0.clone().acquire_owned()).await.ok()?.ok()?;
        Some(Turn { _permit: permit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn turns_are_bounded_and_come_back() {
        let admission = Admission::new(1);
        let first = admission.turn().await.unwrap();
        assert!(tokio::time::timeout(Duration::ZERO, admission.turn()).await.is_err(), "there is but one");
        drop(first);
        assert!(admission.turn().await.is_some());
    }
}
