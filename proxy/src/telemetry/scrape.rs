//! The metrics as text: sums what the workers counted. Runs on the control thread.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::counters::{BOUNDS_NANOS, BUCKETS, ByReason, Counter, Gauge, RequestSlots, TcpSlots, Variant};
use super::events::{Detected, Events, RetryOutcome};
use super::exposition::{Exposition, Kind, Labels, Seconds};
use super::labels::{Direction, OVERFLOW, RequestLabels, TcpLabels};
use super::registry::{Active, Registry};
use super::{locked, process};
use crate::base::failure::Reason;

/// Upper bounds of the histogram as label values, in seconds.
const BOUNDS: [&str; BUCKETS] = [
    "0.0005", "0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "30",
    "60", "+Inf",
];
const _: () = assert!(BOUNDS.len() == BOUNDS_NANOS.len() + 1, "a bound and its text belong together");

/// Everything the workers count, and the facts of the process.
pub(super) fn render(registry: &Mutex<Registry>, workers: &[Arc<Events>], now: Instant) -> String {
    let mut registry = locked(registry);
    let (active_requests, active_tcp) = (registry.requests.active(now), registry.tcp.active(now));
    let folded = registry.folded;
    // A worker that meets a new label set waits for this lock: it is not held while text is made.
    drop(registry);

    let mut out = Exposition::default();
    out.family("tulle_build_info", Kind::Gauge, "The version, as a label; the value is 1.");
    out.sample(&Labels::of(&[("version", env!("CARGO_PKG_VERSION"))]), 1);
    requests(&mut out, &active_requests);
    tcp(&mut out, &active_tcp);
    connections(&mut out, workers);
    by_reason(&mut out, workers);
    plain(&mut out, workers);
    out.family(
        "tulle_series_folded_total",
        Kind::Counter,
        "Label sets counted under overflow, for there are too many.",
    );
    out.sample(&Labels::default(), folded);
    out.family("tulle_config_generation", Kind::Gauge, "Generation of the configuration a worker applies.");
    for (index, worker) in workers.iter().enumerate() {
        out.sample(&Labels::of(&[("worker", &index.to_string())]), worker.generation.value());
    }
    process::render(&mut out);
    out.finish()
}

fn requests(out: &mut Exposition, sets: &Active<RequestLabels, RequestSlots>) {
    // The order of a scrape is that of the labels, so that two scrapes can be compared.
    let mut sets: Vec<_> = sets.iter().map(|(labels, slots)| (request_labels(labels), slots)).collect();
    sets.sort_by(|(a, _), (b, _)| a.cmp(b));

    out.family("tulle_requests_total", Kind::Counter, "Requests that are over.");
    for (labels, slots) in &sets {
        let mut variants = BTreeMap::new();
        for (variant, count) in slots.iter().flat_map(|slots| slots.variants()) {
            *variants.entry(variant).or_insert(0_u64) += count;
        }
        for (variant, count) in variants {
            out.sample(&variant_labels(labels, variant), count);
        }
    }
    let help = "From the first byte of a request to the last of its reply, in seconds.";
    out.family("tulle_request_duration_seconds", Kind::Histogram, help);
    for (labels, slots) in &sets {
        let mut cumulative = 0;
        let mut sums = [0_u64; BUCKETS];
        for (sum, bucket) in slots.iter().flat_map(|slots| slots.buckets().into_iter().enumerate()) {
            if let Some(sum) = sums.get_mut(sum) {
                *sum += bucket;
            }
        }
        let buckets = BOUNDS.into_iter().zip(sums).map(|(bound, count)| {
            cumulative += count;
            (bound, cumulative)
        });
        out.histogram(labels, buckets, Seconds(sum(slots, |slots| slots.sums()[0])));
    }
    out.family("tulle_request_bytes_total", Kind::Counter, "Bytes of request bodies.");
    for (labels, slots) in &sets {
        out.sample(labels, sum(slots, |slots| slots.sums()[1]));
    }
    out.family("tulle_response_bytes_total", Kind::Counter, "Bytes of reply bodies.");
    for (labels, slots) in &sets {
        out.sample(labels, sum(slots, |slots| slots.sums()[2]));
    }
}

fn tcp(out: &mut Exposition, sets: &Active<TcpLabels, TcpSlots>) {
    let mut sets: Vec<_> = sets.iter().map(|(labels, slots)| (tcp_labels(labels), slots)).collect();
    sets.sort_by(|(a, _), (b, _)| a.cmp(b));

    out.family("tulle_tcp_connections_opened_total", Kind::Counter, "Opaque connections that were opened.");
    for (labels, slots) in &sets {
        out.sample(labels, sum(slots, |slots| slots.opened.value()));
    }
    out.family("tulle_tcp_connections_closed_total", Kind::Counter, "Opaque connections that were closed.");
    for (labels, slots) in &sets {
        for (reason, count) in summed(slots.iter().map(|slots| &slots.closed)) {
            out.sample(&labels.and(&[("reason", reason)]), count);
        }
    }
    out.family("tulle_tcp_connection_seconds_total", Kind::Counter, "How long closed opaque connections were open.");
    for (labels, slots) in &sets {
        out.sample(labels, Seconds(sum(slots, |slots| slots.nanos.value())));
    }
    out.family("tulle_tcp_sent_bytes_total", Kind::Counter, "Bytes from downstream to upstream.");
    for (labels, slots) in &sets {
        out.sample(labels, sum(slots, |slots| slots.sent.value()));
    }
    out.family("tulle_tcp_received_bytes_total", Kind::Counter, "Bytes from upstream to downstream.");
    for (labels, slots) in &sets {
        out.sample(labels, sum(slots, |slots| slots.received.value()));
    }
}

/// Counters by direction.
fn connections(out: &mut Exposition, workers: &[Arc<Events>]) {
    let mut counter = |name, help, of: fn(&Events) -> &[Counter; 2]| {
        out.family(name, Kind::Counter, help);
        for direction in Direction::ALL {
            let value = sum(workers, |worker| of(worker).get(direction as usize).map_or(0, Counter::value));
            out.sample(&Labels::of(&[("direction", direction.as_str())]), value);
        }
    };
    counter("tulle_downstream_connections_opened_total", "Connections that were accepted.", |e| &e.opened);
    counter("tulle_downstream_connections_closed_total", "Accepted connections that were closed.", |e| &e.closed);
}

/// Counters by direction and reason, of which only those that occurred are shown.
fn by_reason(out: &mut Exposition, workers: &[Arc<Events>]) {
    out.family(
        "tulle_connection_failures_total",
        Kind::Counter,
        "Connections that ended before it was known whom for.",
    );
    for direction in Direction::ALL {
        let counters = workers.iter().filter_map(|worker| worker.failures.get(direction as usize));
        for (reason, count) in summed(counters) {
            out.sample(&Labels::of(&[("direction", direction.as_str()), ("reason", reason)]), count);
        }
    }
    out.family("tulle_tls_handshakes_total", Kind::Counter, "TLS handshakes; the result is ok or the reason.");
    for direction in Direction::ALL {
        let counters = workers.iter().filter_map(|worker| worker.handshakes.get(direction as usize));
        for (reason, count) in summed(counters) {
            let result = if reason.is_empty() { "ok" } else { reason };
            out.sample(&Labels::of(&[("direction", direction.as_str()), ("result", result)]), count);
        }
    }
}

fn plain(out: &mut Exposition, workers: &[Arc<Events>]) {
    out.family("tulle_protocol_detect_total", Kind::Counter, "What connections turned out to speak.");
    for detected in Detected::ALL {
        let value = sum(workers, |worker| worker.detected.get(detected as usize).map_or(0, Counter::value));
        out.sample(&Labels::of(&[("result", detected.as_str())]), value);
    }
    out.family("tulle_retries_total", Kind::Counter, "Retries that were made.");
    for outcome in RetryOutcome::ALL {
        let value = sum(workers, |worker| worker.retries.get(outcome as usize).map_or(0, Counter::value));
        out.sample(&Labels::of(&[("outcome", outcome.as_str())]), value);
    }
    let mut counter = |name, help, of: fn(&Events) -> &Counter| {
        out.family(name, Kind::Counter, help);
        out.sample(&Labels::default(), sum(workers, |worker| of(worker).value()));
    };
    let help = "Retries that were not made because the budget was used up.";
    counter("tulle_retry_budget_exhausted_total", help, |e| &e.retry_budget_exhausted);
    let help = "Endpoints that were left alone for a while because they kept failing.";
    counter("tulle_endpoint_ejections_total", help, |e| &e.ejections);
    counter("tulle_accept_errors_total", "Connections the kernel could not hand over.", |e| &e.accept_errors);
    counter("tulle_access_log_dropped_total", "Records dropped as the log was behind.", |e| &e.access_dropped);
    let mut gauge = |name, help, of: fn(&Events) -> &Gauge| {
        out.family(name, Kind::Gauge, help);
        out.sample(&Labels::default(), sum(workers, |worker| of(worker).value()));
    };
    gauge("tulle_upstream_connections", "Open connections to endpoints.", |e| &e.upstream_connections);
    gauge("tulle_upstream_pending_requests", "Requests waiting for a connection.", |e| &e.upstream_pending);
}

/// Wraps, as the parts do: the share of one worker in a gauge may be negative.
fn sum<T>(parts: &[T], of: impl Fn(&T) -> u64) -> u64 {
    parts.iter().fold(0, |sum, part| sum.wrapping_add(of(part)))
}

/// Sums over workers by reason's name, empty for none; zeros left out.
fn summed<'c>(counters: impl Iterator<Item = &'c ByReason>) -> Vec<(&'static str, u64)> {
    let mut sums = [0_u64; Reason::COUNT + 1];
    for counter in counters {
        for (sum, value) in sums.iter_mut().zip(counter.values()) {
            *sum += value;
        }
    }
    sums.into_iter().enumerate().filter(|(_, n)| *n > 0).map(|(at, n)| (reason_name(at), n)).collect()
}

/// Name of a reason by its discriminant plus one; empty for 0.
fn reason_name(at: usize) -> &'static str {
    at.checked_sub(1).and_then(|at| Reason::ALL.get(at)).map_or("", |reason| reason.as_str())
}

/// Labels in a form that sorts.
fn request_labels(labels: &RequestLabels) -> Labels {
    Labels::of(&[
        ("direction", labels.direction.as_str()),
        ("source_workload", &labels.source.workload),
        ("source_namespace", &labels.source.namespace),
        ("source_identity", &labels.source.identity),
        ("destination_service", &labels.destination.service),
        ("destination_namespace", &labels.destination.namespace),
        ("destination_workload", &labels.destination.workload),
        ("route", &labels.route),
        ("protocol", labels.protocol.as_str()),
        ("tls", bool_name(labels.tls)),
    ])
}

fn tcp_labels(labels: &TcpLabels) -> Labels {
    Labels::of(&[
        ("direction", labels.direction.as_str()),
        ("source_workload", &labels.source.workload),
        ("source_namespace", &labels.source.namespace),
        ("source_identity", &labels.source.identity),
        ("destination_service", &labels.destination.service),
        ("destination_namespace", &labels.destination.namespace),
        ("destination_workload", &labels.destination.workload),
        ("tls", bool_name(labels.tls)),
    ])
}

fn variant_labels(labels: &Labels, variant: Variant) -> Labels {
    match variant {
        Variant::Of(status, grpc, reason) => {
            let grpc = grpc.checked_sub(1).map_or_else(String::new, |grpc| grpc.to_string());
            let reason = reason_name(reason.into());
            labels.and(&[("status", &status.to_string()), ("grpc_status", &grpc), ("reason", reason)])
        }
        Variant::Other => labels.and(&[("status", OVERFLOW), ("grpc_status", OVERFLOW), ("reason", OVERFLOW)]),
    }
}

const fn bool_name(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}
