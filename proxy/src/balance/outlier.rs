//! Endpoints that fail one request after the other are left alone for a while, by each worker for itself (Envoy,
//! "Outlier detection": consecutive 5xx and gateway failures). Pure: time comes in from outside.

use std::time::Instant;

use crate::config::cluster::Outlier;

/// What a request said of its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was served.
    Served,
    /// The endpoint answered that it failed: a status from 500 on.
    ServerError,
    /// The endpoint, or what is behind it, could not be reached, did not answer or broke off: 502, 503, 504 as well.
    GatewayError,
}

/// What is held against an endpoint.
#[derive(Clone, Copy, Debug, Default)]
pub struct Standing {
    server_errors: u32,
    gateway_errors: u32,
    /// Ejections that were not made good by a request served since.
    ejections: u32,
    /// It is ejected until then. Afterwards it is on probation until a request tells.
    until: Option<Instant>,
}

impl Standing {
    /// Takes in one request. True: it should be ejected now.
    pub fn judge(&mut self, settings: &Outlier, verdict: Verdict, now: Instant) -> bool {
        // Requests that were under way when it was ejected, and those made because there is nobody else.
        if self.is_ejected(now) {
            return false;
        }
        let probation = self.until.is_some();
        match verdict {
            Verdict::Served => {
                let ejections = self.ejections.saturating_sub(u32::from(probation));
                *self = Self { ejections, ..Self::default() };
                return false;
            }
            Verdict::ServerError => {
                self.server_errors = self.server_errors.saturating_add(1);
                self.gateway_errors = 0;
            }
            Verdict::GatewayError => {
                self.server_errors = self.server_errors.saturating_add(1);
                self.gateway_errors = self.gateway_errors.saturating_add(1);
            }
        }
        let reached = |count: u32, limit: u32| limit > 0 && (probation || count >= limit);
        reached(self.server_errors, settings.server_errors)
            || reached(self.gateway_errors, settings.gateway_errors) && verdict == Verdict::GatewayError
    }

    /// Ejects it: longer each time, up to the longest.
    pub fn eject(&mut self, settings: &Outlier, now: Instant) {
        let ejections = self.ejections.saturating_add(1);
        let time = settings.base.saturating_mul(ejections).min(settings.longest);
        *self = Self { ejections, until: now.checked_add(time), ..Self::default() };
    }

    /// Whether it is ejected at `now`.
    pub fn is_ejected(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// Whether it may be picked at `now`, with `active` requests under way: not while it is ejected, and on probation
    /// one request at a time.
    pub fn allows(&self, active: u32, now: impl FnOnce() -> Instant) -> bool {
        self.until.is_none_or(|until| active == 0 && now() >= until)
    }
}

/// Whether one more of `total` endpoints may be ejected when `ejected` are.
pub fn may_eject(settings: &Outlier, ejected: usize, total: usize) -> bool {
    (ejected.saturating_add(1)).saturating_mul(100) <= total.saturating_mul(settings.max_percent as usize)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SETTINGS: Outlier = Outlier {
        server_errors: 3,
        gateway_errors: 2,
        base: Duration::from_secs(30),
        longest: Duration::from_secs(70),
        max_percent: 50,
    };

    #[test]
    fn consecutive_failures_eject_and_a_served_request_forgives() {
        let now = Instant::now();
        let mut standing = Standing::default();
        let mut judge = |verdict| standing.judge(&SETTINGS, verdict, now);
        assert!(!judge(Verdict::ServerError) && !judge(Verdict::ServerError));
        assert!(!judge(Verdict::Served));
        assert!(!judge(Verdict::ServerError) && !judge(Verdict::ServerError) && judge(Verdict::ServerError));
        assert!(!judge(Verdict::Served));
        assert!(!judge(Verdict::GatewayError) && judge(Verdict::GatewayError));
        let off = Outlier { gateway_errors: 0, ..SETTINGS };
        let mut standing = Standing::default();
        assert!(!standing.judge(&off, Verdict::GatewayError, now) && !standing.judge(&off, Verdict::GatewayError, now));
        assert!(standing.judge(&off, Verdict::GatewayError, now), "a gateway error is a server error too");
    }

    #[test]
    fn time_away_grows_and_one_request_at_a_time_ends_it() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut standing = Standing::default();
        standing.eject(&SETTINGS, at(0));
        assert!(!standing.allows(0, || at(29)) && standing.allows(0, || at(30)));
        assert!(!standing.allows(1, || at(30)), "a probe is under way");
        assert!(!standing.judge(&SETTINGS, Verdict::GatewayError, at(10)), "it is ejected already");
        // One failure on probation is enough.
        assert!(standing.judge(&SETTINGS, Verdict::ServerError, at(30)));
        standing.eject(&SETTINGS, at(30));
        assert!(standing.is_ejected(at(89)) && !standing.is_ejected(at(90)));
        standing.eject(&SETTINGS, at(90));
        assert!(!standing.is_ejected(at(160)), "70 s is the longest");
        assert!(!standing.judge(&SETTINGS, Verdict::Served, at(160)));
        assert!(standing.allows(7, || at(160)));
        standing.eject(&SETTINGS, at(200));
        assert!(!standing.is_ejected(at(270)), "what was made good counts less");
    }

    #[test]
    fn some_always_stay() {
        for (total, most) in [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (10, 5)] {
            let ejected = (0..=total).take_while(|ejected| may_eject(&SETTINGS, *ejected, total)).count();
            assert_eq!(ejected, most, "of {total}");
        }
    }
}
