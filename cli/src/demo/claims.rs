//! What the demo claims, whether it held, and the numbers that say so.

use super::board::millis;
use super::tally::Counts;

/// Claims made so far.
#[derive(Debug, Default)]
pub(super) struct Claims {
    list: Vec<Claim>,
}

#[derive(Debug)]
struct Claim {
    text: &'static str,
    held: bool,
    numbers: String,
}

impl Claims {
    /// Notes a claim.
    pub(super) fn add(&mut self, text: &'static str, held: bool, numbers: String) {
        self.list.push(Claim { text, held, numbers });
    }

    /// Notes a claim that, whatever else it says, no request of `step` failed and some were made.
    pub(super) fn add_lossless(&mut self, text: &'static str, step: &Counts, held: bool, numbers: &str) {
        let whole = step.failed == 0 && step.succeeded > 0;
        let lost = format!("{} requests, {} failed; {numbers}", step.requests(), step.failed);
        self.add(text, held && whole, lost);
    }

    /// Whether there are claims and all of them held.
    pub(super) fn all_held(&self) -> bool {
        !self.list.is_empty() && self.list.iter().all(|claim| claim.held)
    }

    /// One line each, and one about everything.
    pub(super) fn lines(&self, total: &Counts) -> Vec<String> {
        let width = self.list.iter().map(|claim| claim.text.chars().count()).max().unwrap_or(0);
        let line = |claim: &Claim| {
            let verdict = if claim.held { "PASS" } else { "FAIL" };
            format!("  {verdict}  {:width$}  {}", claim.text, claim.numbers)
        };
        let end = format!(
            "  {} requests, {} failed; p50 {}, p99 {}",
            total.requests(),
            total.failed,
            millis(total.percentile(50)),
            millis(total.percentile(99))
        );
        self.list.iter().map(line).chain([String::new(), end]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_fails_the_demo() {
        let mut claims = Claims::default();
        assert!(!claims.all_held(), "nothing was shown yet");
        let good = Counts { succeeded: 10, ..Counts::default() };
        claims.add_lossless("stop", &good, true, "drained in 1.0 s");
        assert!(claims.all_held());
        claims.add_lossless("break", &Counts { failed: 1, ..good.clone() }, true, "");
        assert!(!claims.all_held());
        let lines = claims.lines(&good);
        assert!(lines[0].starts_with("  PASS  stop   10 requests, 0 failed; drained"), "{lines:?}");
        assert!(lines[1].starts_with("  FAIL  break  11 requests, 1 failed"), "{lines:?}");
    }
}
