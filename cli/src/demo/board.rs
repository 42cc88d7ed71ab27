//! What the demo shows: a live table on a terminal, lines elsewhere. It reads the tally; the script and the watch write
//! the rest here.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal as _, Write as _, stdout};
use std::time::{Duration, Instant};

use super::shop::PODS;
use super::tally::{Counts, Tally};
use crate::render::Table;

/// Between two states of the live table.
const FRAME: Duration = Duration::from_millis(250);

/// Frames between two lines where there is no terminal.
const FRAMES_PER_LINE: u32 = 12;

/// Width of a full bar.
const BAR: f64 = 20.0;

/// A certificate as a sidecar's admin port shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Certificate {
    pub(super) serial: String,
    pub(super) roots: u64,
    pub(super) bundle: String,
}

/// What is shown beside the tally.
#[derive(Debug)]
pub(super) struct Board {
    inner: RefCell<Inner>,
}

#[derive(Debug)]
struct Inner {
    started: Instant,
    live: bool,
    /// Lines of the live table on the screen.
    drawn: usize,
    step: String,
    states: BTreeMap<&'static str, &'static str>,
    retries: BTreeMap<&'static str, u64>,
    /// Requests between sidecars, by whether they went through mutual TLS.
    tls: BTreeMap<&'static str, (u64, u64)>,
    certificates: BTreeMap<&'static str, Certificate>,
    serials: BTreeMap<&'static str, BTreeSet<String>>,
}

impl Board {
    /// An empty board.
    pub(super) fn new(now: Instant) -> Self {
        let inner = Inner {
            started: now,
            live: stdout().is_terminal(),
            drawn: 0,
            step: String::new(),
            states: PODS.iter().map(|pod| (pod.name, "ready")).collect(),
            retries: BTreeMap::new(),
            tls: BTreeMap::new(),
            certificates: BTreeMap::new(),
            serials: BTreeMap::new(),
        };
        Self { inner: RefCell::new(inner) }
    }

    /// Says what happens now; the line stays.
    ///
    /// # Errors
    /// When standard output is closed.
    pub(super) fn say(&self, text: &str) -> std::io::Result<()> {
        let mut inner = self.inner.borrow_mut();
        let at = inner.started.elapsed().as_secs_f64();
        inner.print(&[format!("{at:5.1} s  {text}")], &[])
    }

    /// Prints lines that stay, and takes the live table away.
    ///
    /// # Errors
    /// When standard output is closed.
    pub(super) fn print(&self, lines: &[String]) -> std::io::Result<()> {
        self.inner.borrow_mut().print(lines, &[])
    }

    /// Names the step under way.
    pub(super) fn step(&self, name: &str) {
        name.clone_into(&mut self.inner.borrow_mut().step);
    }

    /// Notes what became of a replica.
    pub(super) fn state(&self, pod: &'static str, state: &'static str) {
        self.inner.borrow_mut().states.insert(pod, state);
    }

    /// Notes what a sidecar counts: retries, and requests with and without mutual TLS. Counters of a sidecar that was
    /// started again begin again; no sidecar that makes requests is.
    pub(super) fn counted(&self, pod: &'static str, retries: u64, tls: (u64, u64)) {
        let mut inner = self.inner.borrow_mut();
        inner.retries.insert(pod, retries);
        inner.tls.insert(pod, tls);
    }

    /// Notes the certificate a sidecar uses.
    pub(super) fn certificate(&self, pod: &'static str, certificate: Certificate) {
        let mut inner = self.inner.borrow_mut();
        inner.serials.entry(pod).or_default().insert(certificate.serial.clone());
        inner.certificates.insert(pod, certificate);
    }

    /// The certificates in use, by pod.
    pub(super) fn certificates(&self) -> BTreeMap<&'static str, Certificate> {
        self.inner.borrow().certificates.clone()
    }

    /// How many certificates followed the first one of each sidecar; the fewest, and all of them.
    pub(super) fn renewals(&self) -> (usize, usize) {
        self.inner.borrow().renewals()
    }

    /// Retries of all sidecars.
    pub(super) fn retries(&self) -> u64 {
        self.inner.borrow().retries.values().sum()
    }

    /// Requests between sidecars: through mutual TLS, and without.
    pub(super) fn tls(&self) -> (u64, u64) {
        let inner = self.inner.borrow();
        inner.tls.values().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    /// Keeps the board up to date for as long as it is polled.
    ///
    /// # Errors
    /// When standard output is closed.
    pub(super) async fn refresh(&self, tally: &Tally) -> std::io::Result<()> {
        let mut ticks = tokio::time::interval(FRAME);
        for frame in 1_u32.. {
            ticks.tick().await;
            let (recent, span) = tally.recent(Instant::now());
            let total = tally.total();
            let mut inner = self.inner.borrow_mut();
            if inner.live {
                let table = inner.table(&recent, span, &total);
                inner.print(&[], &table)?;
            } else if frame % FRAMES_PER_LINE == 0 {
                let line = inner.line(&recent, span, &total);
                inner.print(&[line], &[])?;
            }
        }
        Ok(())
    }
}

impl Inner {
    /// Lines that stay, then the live table; the one drawn before is replaced.
    fn print(&mut self, lines: &[String], table: &[String]) -> std::io::Result<()> {
        let mut out = stdout().lock();
        if self.drawn > 0 {
            // Up to where the table began, and clear from there.
            write!(out, "\x1b[{}F\x1b[J", self.drawn)?;
        }
        for line in lines {
            writeln!(out, "{line}")?;
        }
        for line in table {
            // Cut at the edge of the terminal: a line that wraps would be two when it is taken away.
            writeln!(out, "\x1b[?7l{line}\x1b[?7h")?;
        }
        self.drawn = table.len();
        out.flush()
    }

    fn table(&self, recent: &Counts, span: Duration, total: &Counts) -> Vec<String> {
        let mut replicas = Table::new(&["replica", "zone", "state", "share of its service", "", "caller, verified"]);
        for pod in PODS.iter().filter(|pod| pod.service.is_some()) {
            let share = recent.share(pod.name);
            let bar = "█".repeat((share / 100.0 * BAR).round() as usize);
            let caller = recent.last_callers.get(pod.name).cloned().unwrap_or_default();
            let state = self.states.get(pod.name).copied().unwrap_or_default();
            let words = [pod.name, pod.zone, state].map(str::to_owned);
            replicas.row(words.into_iter().chain([format!("{bar:20}"), format!("{share:3.0} %"), caller]));
        }
        let mut lines = vec![
            String::new(),
            format!("  Tulle demo, {}", self.step),
            format!("  {}", self.numbers(recent, span, total)),
        ];
        lines.push(format!("  {}", self.rotation()));
        lines.push(String::new());
        lines.extend(replicas.lines().into_iter().map(|line| format!("  {line}")));
        lines
    }

    fn renewals(&self) -> (usize, usize) {
        let each = || self.serials.values().map(|serials| serials.len().saturating_sub(1));
        (each().min().unwrap_or(0), each().sum())
    }

    fn rotation(&self) -> String {
        let roots: BTreeSet<_> = self.certificates.values().map(|certificate| certificate.roots.to_string()).collect();
        let roots = roots.into_iter().collect::<Vec<_>>().join(" or ");
        format!(
            "certificates renewed {} times by {} sidecars, roots trusted: {roots}",
            self.renewals().1,
            self.certificates.len()
        )
    }

    fn line(&self, recent: &Counts, span: Duration, total: &Counts) -> String {
        let shares = PODS.iter().filter(|pod| pod.workload == "catalog");
        let shares: Vec<_> = shares.map(|pod| format!("{} {:.0} %", pod.name, recent.share(pod.name))).collect();
        format!("         {} | {}", self.numbers(recent, span, total), shares.join(", "))
    }

    fn numbers(&self, recent: &Counts, span: Duration, total: &Counts) -> String {
        let rate = recent.requests() as f64 / span.as_secs_f64().max(0.001);
        let retries: u64 = self.retries.values().sum();
        format!(
            "{rate:.0} requests/s | success {} | p50 {} | p99 {} | {} requests, {} failed, {retries} retries",
            percent(total.succeeded, total.requests()),
            millis(recent.percentile(50)),
            millis(recent.percentile(99)),
            total.requests(),
            total.failed,
        )
    }
}

/// `1.3 ms`.
pub(super) fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}

/// `99.98 %`, rounded down: one failure in a million is not 100 %.
fn percent(part: u64, whole: u64) -> String {
    let hundredths = (part * 10_000).checked_div(whole).unwrap_or(10_000);
    format!("{}.{:02} %", hundredths / 100, hundredths % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn success_is_never_rounded_up() {
        assert_eq!(percent(0, 0), "100.00 %");
        assert_eq!(percent(999_999, 1_000_000), "99.99 %");
        assert_eq!(percent(5, 5), "100.00 %");
    }
}
