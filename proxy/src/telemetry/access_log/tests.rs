//! Lines as they are written, and what happens when nobody reads them.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::UNIX_EPOCH;

use super::super::{MAX_SERIES, Telemetry};
use super::*;

const RECORD: AccessRecord<'static> = AccessRecord {
    time: UNIX_EPOCH,
    direction: Direction::Inbound,
    downstream: SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)), 4711),
    peer: Some("spiffe://td/ns/shop/sa/web"),
    method: "GET",
    authority: "reviews.shop",
    path: "/reviews/1?token=secret",
    protocol: "HTTP/1.1",
    status: Some(503),
    grpc_status: None,
    reason: Some(Reason::ConnectRefused),
    detail: "",
    duration: Duration::from_micros(12_345),
    request_bytes: 3,
    response_bytes: 4,
    upstream: Some(SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2)), 80)),
    cluster: "reviews.shop.svc.cluster.local:80",
    route: "",
    attempts: 2,
};

fn line(format: AccessFormat, with_query: bool, record: &AccessRecord<'_>) -> String {
    let mut out = Vec::new();
    format::line(format, with_query, record, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn text() {
    let expected = "1970-01-01T00:00:00.000Z inbound 10.0.0.1:4711 spiffe://td/ns/shop/sa/web \
                    \"GET reviews.shop /reviews/1 HTTP/1.1\" 503 grpc=- reason=connect_refused 12.345ms 3/4 \
                    10.0.0.2:80 reviews.shop.svc.cluster.local:80 - attempts=2\n";
    assert_eq!(line(AccessFormat::Text, false, &RECORD), expected);
}

#[test]
fn json() {
    let expected = concat!(
        r#"{"time":"1970-01-01T00:00:00.000Z","direction":"inbound","downstream":"10.0.0.1:4711","#,
        r#""peer":"spiffe://td/ns/shop/sa/web","method":"GET","authority":"reviews.shop","path":"/reviews/1","#,
        r#""protocol":"HTTP/1.1","status":503,"reason":"connect_refused","duration_ms":12.345,"request_bytes":3,"#,
        r#""response_bytes":4,"upstream":"10.0.0.2:80","cluster":"reviews.shop.svc.cluster.local:80","attempts":2}"#,
        "\n"
    );
    assert_eq!(line(AccessFormat::Json, false, &RECORD), expected);
}

#[test]
fn mend_07_a_detail_is_text_that_stays_in_its_quotes() {
    let record = AccessRecord { detail: "malformed head: field `a\" b`\n", ..RECORD };
    let text = line(AccessFormat::Text, false, &record);
    assert!(text.ends_with(" attempts=2 detail=\"malformed head: field `a\\x22 b`\\x0a\"\n"), "{text}");
    let json = line(AccessFormat::Json, false, &record);
    assert!(
        json.contains(r#""reason":"connect_refused","detail":"malformed head: field `a\" b`\n","duration_ms""#),
        "{json}"
    );
}

#[test]
fn opaque_connections_have_no_request() {
    let record = AccessRecord {
        downstream: "[::ffff:10.0.0.9]:1".parse().unwrap(),
        peer: None,
        method: "",
        authority: "",
        path: "",
        protocol: "tcp",
        status: None,
        reason: None,
        upstream: None,
        cluster: "",
        attempts: 0,
        ..RECORD
    };
    let expected = "1970-01-01T00:00:00.000Z inbound 10.0.0.9:1 - \"- - - tcp\" - grpc=- reason=- 12.345ms 3/4 - - - \
                    attempts=0\n";
    assert_eq!(line(AccessFormat::Text, false, &record), expected);
    let json: serde_json::Value = serde_json::from_str(&line(AccessFormat::Json, false, &record)).unwrap();
    let keys: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected =
        ["time", "direction", "downstream", "protocol", "duration_ms", "request_bytes", "response_bytes", "attempts"];
    expected.sort_unstable();
    let mut keys = keys;
    keys.sort_unstable();
    assert_eq!(keys, expected);
}

#[test]
fn the_query_is_written_only_when_asked_for() {
    assert!(!line(AccessFormat::Json, false, &RECORD).contains("secret"));
    assert!(line(AccessFormat::Json, true, &RECORD).contains("/reviews/1?token=secret"));
}

#[test]
fn a_peer_cannot_write_a_line_of_its_own() {
    let evil = AccessRecord { authority: "a\"\r\n2026 forged \u{1b}[31m\\", ..RECORD };
    let text = line(AccessFormat::Text, false, &evil);
    assert!(text.contains(r"a\x22\x0d\x0a2026\x20forged\x20\x1b[31m\x5c "), "{text}");
    for format in [AccessFormat::Text, AccessFormat::Json] {
        assert_eq!(line(format, false, &evil).lines().count(), 1);
    }
    let json: serde_json::Value = serde_json::from_str(&line(AccessFormat::Json, false, &evil)).unwrap();
    assert_eq!(json.get("authority").unwrap(), evil.authority);
}

/// Standard output in the hands of the test.
struct Out {
    entered: mpsc::Sender<()>,
    /// Each write waits for one of these; closed: no write waits.
    gate: mpsc::Receiver<()>,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.entered.send(());
        let _ = self.gate.recv();
        self.written.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_stuck_reader_costs_records_and_no_time() {
    let (entered, has_entered) = mpsc::channel();
    let (open, gate) = mpsc::channel();
    let written = Arc::<Mutex<Vec<u8>>>::default();
    let out = Out { entered, gate, written: written.clone() };
    let (log, writer) = AccessLog::start(AccessFormat::Text, false, out).unwrap();
    let telemetry = Telemetry::new(MAX_SERIES, Some(log));
    let worker = telemetry.worker();
    assert!(worker.access_enabled());

    worker.access(&RECORD);
    has_entered.recv().unwrap();
    // The writer is stuck from here on: the ring fills, then records are dropped.
    let size = line(AccessFormat::Text, false, &RECORD).len();
    let more = RING_WORDS * 8 / size + 100;
    (0..more).for_each(|_| worker.access(&RECORD));
    let dropped = usize::try_from(worker.events().access_dropped.value()).unwrap();
    assert!(dropped > 0 && dropped < more, "{dropped}");
    assert!(telemetry.render().contains(&format!("tulle_access_log_dropped_total {dropped}\n")));

    drop(open);
    drop(worker);
    writer.stop();
    let written = written.lock().unwrap();
    assert_eq!(written.len(), (1 + more - dropped) * size, "what was not dropped is written, whole");
}

#[test]
fn without_a_log_nothing_is_written() {
    let worker = Telemetry::new(MAX_SERIES, None).worker();
    assert!(!worker.access_enabled());
    worker.access(&RECORD);
    assert_eq!(worker.events().access_dropped.value(), 0);
}
