//! Log lines about refused connections: visible at the usual level, and bounded, for whoever is refused may try as often
//! as it likes. Every refusal is counted in `tulle_connection_failures_total`.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

use crate::base::failure::Reason;

/// One line about each reason in this time.
const EVERY: Duration = Duration::from_secs(30);

/// Reasons for which a connection is refused on purpose, which somebody has to know of.
const REFUSALS: [Reason; 5] =
    [Reason::AuthnFailed, Reason::DeniedByPolicy, Reason::NoConfig, Reason::UnknownDestination, Reason::Loop];

/// When each reason was logged last, and how often it was not since. One for each worker.
#[derive(Debug, Default)]
pub struct Refusals([Cell<(Option<Instant>, u64)>; REFUSALS.len()]);

impl Refusals {
    /// Whether a line is due about a connection that was refused for `reason`: how many had none since the last one.
    /// None: no line, or the reason is not one of those.
    pub fn due(&self, reason: Reason, now: Instant) -> Option<u64> {
        let at = REFUSALS.iter().position(|refusal| *refusal == reason)?;
        let cell = self.0.get(at)?;
        let (last, skipped) = cell.get();
        if last.is_some_and(|last| now.saturating_duration_since(last) < EVERY) {
            cell.set((last, skipped.saturating_add(1)));
            return None;
        }
        cell.set((Some(now), 0));
        Some(skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn mend_29_refusals_have_a_line_each_half_minute() {
        let refusals = Refusals::default();
        let now = Instant::now();
        assert_eq!(refusals.due(Reason::AuthnFailed, now), Some(0));
        for _ in 0..1_000 {
            assert_eq!(refusals.due(Reason::AuthnFailed, now), None);
        }
        assert_eq!(refusals.due(Reason::NoConfig, now), Some(0), "each reason by itself");
        assert_eq!(refusals.due(Reason::AuthnFailed, now + EVERY), Some(1_000));
        assert_eq!(refusals.due(Reason::DownstreamClosed, now), None);
    }
}
