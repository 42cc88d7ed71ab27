//! What a peer may do that costs it little: so often at once, and then so often in a second.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use std::time::Instant;

/// How much of it is left.
#[derive(Debug)]
pub(super) struct Bucket {
    left: u32,
    since: Option<Instant>,
}

/// What a [`Bucket`] holds.
const BUCKET: u32 = 1024;

impl Default for Bucket {
    fn default() -> Self {
        Self { left: BUCKET, since: None }
    }
}

impl Bucket {
    /// Counts one; `rate` come back in a second. False: that is too many.
    pub(super) fn take(&mut self, now: Instant, rate: u32) -> bool {
        let since = *self.since.get_or_insert(now);
        let back = now.saturating_duration_since(since).as_millis().saturating_mul(rate.into()) / 1000;
        if back > 0 {
            self.left = self.left.saturating_add(u32::try_from(back).unwrap_or(BUCKET)).min(BUCKET);
            self.since = Some(now);
        }
        let enough = self.left > 0;
        self.left = self.left.saturating_sub(1);
        enough
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_a_peer_may_do_comes_back_with_time() {
        let (mut bucket, mut now) = (Bucket::default(), Instant::now());
        assert_eq!((0..2000).filter(|_| bucket.take(now, 100)).count(), 1024);
        now += Duration::from_secs(1);
        assert_eq!((0..2000).filter(|_| bucket.take(now, 100)).count(), 100);
        for _ in 0..10_000 {
            now += Duration::from_millis(11);
            assert!(bucket.take(now, 100));
        }
    }
}
