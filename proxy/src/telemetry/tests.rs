//! Counters of several workers, the bound, expiry, and the text against a strict reader of the format.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use super::*;
use crate::base::failure::Reason;
use crate::base::protocol::Protocol;
use counters::Outcome;
use events::{Detected, RetryOutcome};
use labels::{Destination, Direction, Party};
use registry::IDLE;

fn request_labels(workload: &str) -> RequestLabels {
    RequestLabels {
        direction: Direction::Outbound,
        source: Party {
            workload: "web".into(),
            namespace: "shop".into(),
            identity: "spiffe://td/ns/shop/sa/web".into(),
        },
        destination: Destination { service: "reviews".into(), namespace: "shop".into(), workload: workload.into() },
        route: "".into(),
        protocol: Protocol::Http,
        tls: true,
    }
}

fn tcp_labels(workload: &str) -> TcpLabels {
    let RequestLabels { direction, source, destination, tls, .. } = request_labels(workload);
    TcpLabels { direction, source, destination, tls }
}

const fn outcome(status: u16, millis: u64) -> Outcome {
    Outcome {
        status,
        grpc_status: None,
        reason: None,
        duration: Duration::from_millis(millis),
        request_bytes: 10,
        response_bytes: 100,
    }
}

/// Samples of a text by name and labels; panics where the text breaks the format.
fn parse(text: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    let mut seen = HashSet::new();
    let (mut family, mut kind) = ("", "");
    assert!(text.ends_with('\n'), "the last line ends in a line feed");
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            family = help.split(' ').next().unwrap();
            assert!(seen.insert(family), "{family} is one group");
        } else if let Some(of) = line.strip_prefix("# TYPE ") {
            let (name, of) = of.split_once(' ').unwrap();
            assert_eq!(name, family, "TYPE follows HELP");
            kind = of;
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("{name} in {family}"));
            let histogram = ["_bucket", "_sum", "_count"].contains(&suffix);
            assert!(if kind == "histogram" { histogram } else { suffix.is_empty() }, "{line}");
            let rest = &series[name.len()..];
            assert!(rest.is_empty() || (rest.starts_with('{') && rest.ends_with("\"}")), "{line}");
            let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
            assert!(samples.insert(series.to_owned(), value).is_none(), "{series} is given once");
        }
    }
    samples
}

/// Sum of the samples of `name` whose labels contain all of `labels`.
fn total(samples: &BTreeMap<String, f64>, name: &str, labels: &[&str]) -> f64 {
    let matching = samples.iter().filter(|(series, _)| series.split('{').next() == Some(name));
    matching.filter(|(series, _)| labels.iter().all(|label| series.contains(label))).map(|(_, value)| value).sum()
}

#[test]
fn two_workers_are_summed() {
    let telemetry = Telemetry::new(MAX_SERIES, None);
    let threads = [1_u64, 2].map(|n| {
        let telemetry = telemetry.clone();
        std::thread::spawn(move || {
            let worker = telemetry.worker();
            let series = worker.requests(&request_labels("v1"));
            for _ in 0..n * 1000 {
                series.record(&outcome(200, 3));
            }
            series.record(&Outcome { reason: Some(Reason::ConnectRefused), ..outcome(503, 70_000) });
            series.record(&Outcome { grpc_status: Some(77), ..outcome(200, 0) });
            let tcp = worker.tcp(&tcp_labels("v1"));
            tcp.opened();
            tcp.sent(5);
            tcp.received(7);
            tcp.closed(None, Duration::from_millis(1500));
            worker.events().upstream_connections.increment();
            worker.events().downstream_opened(Direction::Inbound);
            worker.events().tls_handshake(Direction::Inbound, None);
            worker.events().tls_handshake(Direction::Outbound, Some(Reason::IdentityMismatch));
            worker.events().connection_failed(Direction::Outbound, Reason::Loop);
            worker.events().protocol_detected(Detected::MeshTls);
            worker.events().retried(RetryOutcome::Failure);
            worker.events().generation.set(n);
        })
    });
    for thread in threads {
        thread.join().unwrap();
    }
    let samples = parse(&telemetry.render());
    let get = |name: &str, labels: &[&str]| total(&samples, name, labels);
    assert_eq!(get("tulle_requests_total", &["status=\"200\",grpc_status=\"\",reason=\"\""]), 3000.0);
    assert_eq!(get("tulle_requests_total", &["status=\"503\"", "reason=\"connect_refused\""]), 2.0);
    assert_eq!(get("tulle_requests_total", &["status=\"200\",grpc_status=\"2\""]), 2.0);
    assert_eq!(get("tulle_request_duration_seconds_bucket", &["le=\"0.0005\""]), 2.0);
    assert_eq!(get("tulle_request_duration_seconds_bucket", &["le=\"0.0025\""]), 2.0);
    assert_eq!(get("tulle_request_duration_seconds_bucket", &["le=\"0.005\""]), 3002.0);
    assert_eq!(get("tulle_request_duration_seconds_bucket", &["le=\"60\""]), 3002.0);
    assert_eq!(get("tulle_request_duration_seconds_bucket", &["le=\"+Inf\""]), 3004.0);
    assert_eq!(get("tulle_request_duration_seconds_count", &[]), 3004.0);
    assert_eq!(get("tulle_request_duration_seconds_sum", &[]), 149.0);
    assert_eq!(get("tulle_request_bytes_total", &[]), 30_040.0);
    assert_eq!(get("tulle_response_bytes_total", &[]), 300_400.0);
    assert_eq!(get("tulle_tcp_connections_opened_total", &[]), 2.0);
    assert_eq!(get("tulle_tcp_connections_closed_total", &["reason=\"\""]), 2.0);
    assert_eq!(get("tulle_tcp_connection_seconds_total", &[]), 3.0);
    assert_eq!(get("tulle_tcp_sent_bytes_total", &[]), 10.0);
    assert_eq!(get("tulle_tcp_received_bytes_total", &[]), 14.0);
    assert_eq!(get("tulle_upstream_connections", &[]), 2.0);
    assert_eq!(get("tulle_downstream_connections_opened_total", &["inbound"]), 2.0);
    assert_eq!(get("tulle_tls_handshakes_total", &["inbound", "result=\"ok\""]), 2.0);
    assert_eq!(get("tulle_tls_handshakes_total", &["outbound", "result=\"identity_mismatch\""]), 2.0);
    assert_eq!(get("tulle_connection_failures_total", &["outbound", "reason=\"loop\""]), 2.0);
    assert_eq!(get("tulle_protocol_detect_total", &["mesh_tls"]), 2.0);
    assert_eq!(get("tulle_retries_total", &["failure"]), 2.0);
    assert_eq!(get("tulle_config_generation", &[]), 3.0);
    assert!(get("process_resident_memory_bytes", &[]) > 0.0);
    assert!(get("process_start_time_seconds", &[]) > 1.0e9);
}

#[test]
fn label_values_are_escaped() {
    let telemetry = Telemetry::new(MAX_SERIES, None);
    let worker = telemetry.worker();
    worker.requests(&request_labels("a\"b\\c\nd")).record(&outcome(200, 1));
    let text = telemetry.render();
    assert!(text.contains(r#"destination_workload="a\"b\\c\nd","#), "{text}");
    parse(&text);
}

#[test]
fn the_same_labels_are_the_same_series() {
    let telemetry = Telemetry::new(MAX_SERIES, None);
    let worker = telemetry.worker();
    let first = worker.requests(&request_labels("v1"));
    assert!(Rc::ptr_eq(&first, &worker.requests(&request_labels("v1"))));
    first.record(&outcome(200, 1));
    drop(first);
    // Nobody held it any more, but what it counted goes on.
    worker.requests(&request_labels("v1")).record(&outcome(200, 1));
    assert_eq!(total(&parse(&telemetry.render()), "tulle_requests_total", &[]), 2.0);
}

#[test]
fn invented_statuses_share_one_series() {
    let telemetry = Telemetry::new(MAX_SERIES, None);
    let series = telemetry.worker().requests(&request_labels("v1"));
    for status in 100..400 {
        series.record(&outcome(status, 1));
        series.record(&outcome(100, 1));
    }
    let samples = parse(&telemetry.render());
    assert_eq!(total(&samples, "tulle_requests_total", &[]), 600.0);
    assert_eq!(total(&samples, "tulle_requests_total", &["status=\"100\""]), 301.0);
    assert_eq!(total(&samples, "tulle_requests_total", &["status=\"overflow\""]), 284.0);
}

#[test]
fn too_many_series_are_folded_and_counted() {
    let telemetry = Telemetry::new(100, None);
    let worker = telemetry.worker();
    let held: Vec<_> = (0..10).map(|n| worker.requests(&request_labels(&format!("v{n}")))).collect();
    held.iter().for_each(|series| series.record(&outcome(200, 1)));
    let tcp = worker.tcp(&tcp_labels("v1"));
    tcp.opened();
    let samples = parse(&telemetry.render());
    assert_eq!(total(&samples, "tulle_requests_total", &[]), 10.0);
    let folded = total(&samples, "tulle_requests_total", &["destination_workload=\"overflow\""]);
    assert!(folded > 0.0 && folded < 10.0, "{folded}");
    assert_eq!(total(&samples, "tulle_series_folded_total", &[]), folded + 1.0);
    assert_eq!(total(&samples, "tulle_tcp_connections_opened_total", &["source_workload=\"overflow\""]), 1.0);
}

#[test]
fn idle_series_expire() {
    let telemetry = Telemetry::new(MAX_SERIES, None);
    let worker = telemetry.worker();
    let held = worker.requests(&request_labels("held"));
    held.record(&outcome(200, 1));
    worker.requests(&request_labels("gone")).record(&outcome(200, 1));
    worker.requests(&request_labels("unused"));
    let start = Instant::now();
    let shown = |at: Duration| total(&parse(&telemetry.render_at(start + at)), "tulle_requests_total", &[]);

    assert_eq!(shown(Duration::from_secs(1)), 2.0);
    assert_eq!(shown(IDLE), 2.0);
    assert_eq!(locked(&telemetry.registry).requests.len(), 2, "what counted nothing and is not held goes first");
    held.record(&outcome(200, 1));
    assert_eq!(shown(IDLE + Duration::from_secs(2)), 2.0, "only the one that changed is shown");
    assert_eq!(shown(IDLE * 3), 0.0);
    assert_eq!(locked(&telemetry.registry).requests.len(), 1, "the one that is held is kept");
    held.record(&outcome(200, 1));
    assert_eq!(shown(IDLE * 3 + Duration::from_secs(1)), 3.0, "and comes back with what it had");
}

static_assertions::assert_not_impl_any!(WorkerTelemetry: Send, Sync);
