//! Facts the kernel knows about this process, under the names of Prometheus' client libraries.
//!
//! Read from `/proc/self` (proc(5)) at each scrape, on the control thread; what cannot be read is left out.

use std::fs;

use super::exposition::{Exposition, Kind, Labels};

/// Appends the process metrics.
pub(super) fn render(out: &mut Exposition) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks = rustix::param::clock_ticks_per_second();
    if let Some(stat) = Stat::parse(&stat) {
        out.family("process_cpu_seconds_total", Kind::Counter, "User and system CPU time, in seconds.");
        out.sample(&Labels::default(), seconds(stat.cpu_ticks, ticks));
        out.family("process_threads", Kind::Gauge, "Threads.");
        out.sample(&Labels::default(), stat.threads);
        out.family("process_virtual_memory_bytes", Kind::Gauge, "Virtual memory.");
        out.sample(&Labels::default(), stat.virtual_bytes);
        out.family("process_resident_memory_bytes", Kind::Gauge, "Resident memory.");
        out.sample(&Labels::default(), stat.resident_pages.saturating_mul(rustix::param::page_size() as u64));
        let boot = fs::read_to_string("/proc/stat").unwrap_or_default();
        if let Some(boot) = boot.lines().find_map(|l| l.strip_prefix("btime ")).and_then(|n| n.parse::<u64>().ok()) {
            out.family("process_start_time_seconds", Kind::Gauge, "Start of the process since the epoch, in seconds.");
            out.sample(&Labels::default(), seconds(boot.saturating_mul(ticks).saturating_add(stat.start_ticks), ticks));
        }
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        out.family("process_open_fds", Kind::Gauge, "Open file descriptors.");
        out.sample(&Labels::default(), open.count());
    }
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    if let Some(max) = max_open_files(&limits) {
        out.family("process_max_fds", Kind::Gauge, "File descriptors that may be open.");
        out.sample(&Labels::default(), max);
    }
}

/// Hundredths are what the kernel counts in.
fn seconds(ticks: u64, per_second: u64) -> String {
    let per_second = per_second.max(1);
    format!("{}.{:02}", ticks / per_second, ticks % per_second * 100 / per_second)
}

/// What is used of `/proc/self/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    start_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    /// Fields are counted as in proc(5), from 1; the second is the name in brackets, which may hold anything.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number.checked_sub(3)?)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: field(14)?.saturating_add(field(15)?),
            threads: field(20)?,
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

/// The soft limit; none when it is not a number.
fn max_open_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_past_an_odd_name() {
        let text = "7 (a ) b) S 1 7 7 0 -1 4194560 90 0 0 0 12 30 0 0 20 0 5 0 8800 1024 77 18446744073709551615";
        let expected = Stat { cpu_ticks: 42, threads: 5, start_ticks: 8800, virtual_bytes: 1024, resident_pages: 77 };
        assert_eq!(Stat::parse(text), Some(expected));
        assert_eq!(Stat::parse("7 (x"), None);
        assert_eq!(Stat::parse(""), None);
    }

    #[test]
    fn unlimited_files_have_no_number() {
        assert_eq!(
            max_open_files("Max open files            1024                 4096                 files\n"),
            Some(1024)
        );
        assert_eq!(max_open_files("Max open files            unlimited            unlimited            files\n"), None);
    }
}
