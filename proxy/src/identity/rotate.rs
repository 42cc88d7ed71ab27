//! When to ask for the next certificate. Pure: time and chance are handed in.

use std::time::{Duration, SystemTime};

/// A certificate is renewed when between these shares of the time it had left on arrival are over: early enough for many
/// attempts, and spread so that proxies that started together do not renew together.
const EARLIEST: f64 = 0.5;
const LATEST: f64 = 0.7;

/// Shortest time between a certificate and the next request, whatever lifetime the authority chose.
const SHORTEST: Duration = Duration::from_secs(1);

/// First wait after a failure, and the longest one while the certificate still has time.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// Longest wait without a valid certificate, when each second counts (RB-09: back within 2 s of the authority) ...
const URGENT_RETRY: Duration = Duration::from_secs(2);
/// ... and after this many attempts, when something must be wrong for good.
const URGENT_ATTEMPTS: u32 = 60;
const PATIENT_RETRY: Duration = Duration::from_secs(10);

/// Where the rotation stands.
#[derive(Debug)]
pub(super) struct Rotation {
    /// End of the certificate in use; none when there is none, or it is over.
    expires: Option<SystemTime>,
    /// When to ask next, and when that was decided.
    due: SystemTime,
    decided: SystemTime,
    failures: u32,
}

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Ask for a certificate.
    Renew,
    /// The certificate is over: stop using it. Said once.
    Expire,
    /// Nothing, for this long.
    Wait(Duration),
}

impl Rotation {
    /// No certificate yet; the first one is due at once.
    pub(super) const fn new(now: SystemTime) -> Self {
        Self { expires: None, due: now, decided: now, failures: 0 }
    }

    /// What to do at `now`.
    pub(super) fn step(&mut self, now: SystemTime) -> Step {
        if self.expires.is_some_and(|end| end <= now) {
            self.expires = None;
            return Step::Expire;
        }
        if now < self.decided {
            // The clock was set back: what was to be waited for is waited for from now on, and not for the step, too.
            self.due = add(now, until(self.due, self.decided));
            self.decided = now;
        }
        let wait = until(self.due, now);
        if wait.is_zero() {
            return Step::Renew;
        }
        Step::Wait(self.expires.map_or(wait, |end| wait.min(until(end, now))))
    }

    /// A certificate that is valid until `expires` arrived. `jitter` is within 0..1.
    pub(super) fn issued(&mut self, expires: SystemTime, now: SystemTime, jitter: f64) {
        let share = (LATEST - EARLIEST).mul_add(jitter.clamp(0.0, 1.0), EARLIEST);
        // Counted from now, not from its not_before, which is dated back for skewed clocks.
        self.due = add(now, until(expires, now).mul_f64(share).max(SHORTEST));
        self.decided = now;
        self.expires = Some(expires);
        self.failures = 0;
    }

    /// An attempt failed. The wait grows with each failure; with full jitter, `jitter` within 0..1.
    pub(super) fn failed(&mut self, now: SystemTime, jitter: f64) {
        let longest = match self.expires {
            Some(end) => (until(end, now) / 10).clamp(FIRST_RETRY, LONGEST_RETRY),
            None if self.failures < URGENT_ATTEMPTS => URGENT_RETRY,
            None => PATIENT_RETRY,
        };
        let bound = FIRST_RETRY.saturating_mul(1u32.checked_shl(self.failures).unwrap_or(u32::MAX)).min(longest);
        self.failures = self.failures.saturating_add(1);
        // Not nearer than a tenth of the bound: zero would ask again at once.
        self.due = add(now, bound.mul_f64(jitter.clamp(0.1, 1.0)));
        self.decided = now;
    }
}

fn until(then: SystemTime, now: SystemTime) -> Duration {
    then.duration_since(now).unwrap_or_default()
}

fn add(now: SystemTime, wait: Duration) -> SystemTime {
    now.checked_add(wait).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: f64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000) + Duration::from_secs_f64(seconds)
    }

    #[test]
    fn renews_between_half_and_seven_tenths_of_the_time_left() {
        for (jitter, due) in [(0.0, 50.0), (0.5, 60.0), (1.0, 70.0)] {
            let mut rotation = Rotation::new(at(0.0));
            assert_eq!(rotation.step(at(0.0)), Step::Renew);
            rotation.issued(at(100.0), at(0.0), jitter);
            let Step::Wait(wait) = rotation.step(at(0.0)) else { panic!("renews at once") };
            assert!((wait.as_secs_f64() - due).abs() < 1e-6, "{wait:?} for {jitter}");
            assert_eq!(rotation.step(at(due + 0.001)), Step::Renew);
        }
    }

    #[test]
    fn hostile_05_the_clock_moves_both_ways() {
        const HOUR: f64 = 3_600.0;
        let mut rotation = Rotation::new(at(0.0));
        rotation.issued(at(24.0 * HOUR), at(0.0), 0.5);
        // A resumed machine: what it has is over, and another is asked for at once.
        assert_eq!(rotation.step(at(26.0 * HOUR)), Step::Expire);
        assert_eq!(rotation.step(at(26.0 * HOUR)), Step::Renew);
        rotation.failed(at(26.0 * HOUR), 1.0);
        // Set back: the attempt is due after its pause, not after 26 hours.
        let Step::Wait(wait) = rotation.step(at(0.0)) else { panic!("a pause") };
        assert!(wait <= FIRST_RETRY, "{wait:?}");
        assert_eq!(rotation.step(at(0.5)), Step::Renew);
        rotation.issued(at(50.0 * HOUR), at(26.0 * HOUR), 0.5);
        let Step::Wait(wait) = rotation.step(at(0.0)) else { panic!("a pause") };
        assert!(wait <= Duration::from_secs(24 * 3_600), "{wait:?}");
    }

    #[test]
    fn an_authority_that_issues_nothing_but_the_past_is_not_asked_in_a_loop() {
        let mut rotation = Rotation::new(at(0.0));
        rotation.issued(at(0.0) - 5 * SECOND, at(0.0), 0.0);
        assert_eq!(rotation.step(at(0.0)), Step::Expire);
        assert_eq!(rotation.step(at(0.0)), Step::Wait(SECOND));
    }

    #[test]
    fn failures_wait_longer_and_longer_within_the_time_left() {
        let mut rotation = Rotation::new(at(0.0));
        rotation.issued(at(86_400.0), at(0.0), 0.0);
        let mut waits = Vec::new();
        for _ in 0..9 {
            rotation.failed(at(43_200.0), 1.0);
            let Step::Wait(wait) = rotation.step(at(43_200.0)) else { panic!("no wait") };
            waits.push(wait.as_secs_f64());
        }
        assert_eq!(waits, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]);
    }

    /// RB-09: certificates of ten seconds, the authority away for four: it is asked about every half second.
    #[test]
    fn short_certificates_survive_an_absent_authority() {
        let mut rotation = Rotation::new(at(0.0));
        rotation.issued(at(10.0), at(0.0), 1.0);
        let (mut now, mut attempts) = (7.0, 0);
        while now < 9.5 {
            match rotation.step(at(now)) {
                Step::Renew => {
                    attempts += 1;
                    rotation.failed(at(now), 1.0);
                }
                Step::Wait(wait) => now += wait.as_secs_f64(),
                Step::Expire => panic!("expired at {now}"),
            }
        }
        assert!(attempts >= 4, "{attempts}");
    }

    #[test]
    fn past_its_end_it_expires_once_and_is_asked_for_urgently() {
        let mut rotation = Rotation::new(at(0.0));
        rotation.issued(at(10.0), at(0.0), 0.0);
        for _ in 0..20 {
            rotation.failed(at(9.9), 1.0);
        }
        assert_eq!(rotation.step(at(10.0)), Step::Expire);
        rotation.failed(at(10.0), 1.0);
        assert_eq!(rotation.step(at(10.0)), Step::Wait(URGENT_RETRY));
        for _ in 0..100 {
            rotation.failed(at(10.0), 1.0);
        }
        assert_eq!(rotation.step(at(10.0)), Step::Wait(PATIENT_RETRY));
    }
}
