//! Clients that are slow on purpose (security.md 1.9): each is let go in time and counted, and costs little until then.

use std::time::Duration;

use tulle_testing::client::Raw;
use tulle_testing::client::frames::PREFACE;
use tulle_testing::sidecar::Builder;
use tulle_testing::wait;

use crate::target::{App, Target, Way};

/// Connections of each kind at once.
const CROWD: usize = 100;

fn impatient(builder: Builder) -> Builder {
    builder.arg("--header-timeout", "2s").arg("--idle-timeout", "4s").arg("--stall-timeout", "3s")
}

/// What a slow client says before it falls silent, where, and as what its end is counted; none: as nothing special.
const SLOW: &[(&str, Way, &[u8], Option<&str>)] = &[
    ("half a method", Way::Plain, b"GE", Some("header_timeout")),
    ("a request without its end", Way::Plain, b"GET / HTTP/1.1\r\nHost: a.test\r\nX: ", Some("header_timeout")),
    ("half a preface", Way::Plain, b"PRI * HTTP/2.0\r\n", None),
    ("a preface alone", Way::Plain, PREFACE, None),
    ("half a ClientHello", Way::Plain, &[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3], None),
    (
        "half a ClientHello, where mutual TLS is due",
        Way::Mtls,
        &[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3],
        Some("header_timeout"),
    ),
    ("nothing", Way::Plain, b"", None),
    ("nothing, where mutual TLS is due", Way::Mtls, b"", None),
];

#[tokio::test]
async fn slow_clients_are_let_go() {
    let target = Target::start(impatient).await;
    target.ask(Way::Plain).await;
    target.ask(Way::Mtls).await;
    for (name, way, bytes, reason) in SLOW {
        let (before, counted) = (target.memory(), target.failures(reason.unwrap_or_default()).await);
        let mut crowd = Vec::new();
        for _ in 0..CROWD {
            let mut raw = Raw::connect(target.address(*way)).await;
            raw.send(bytes).await;
            crowd.push(raw);
        }
        target.ask(Way::Plain).await;
        target.ask(Way::Mtls).await;
        let grown = target.memory().saturating_sub(before);
        for mut raw in crowd {
            raw.read_to_close().await;
        }
        println!("{name}: {grown} KiB for {CROWD}");
        assert!(grown <= 64 * CROWD as u64, "{name}: {grown} KiB");
        if let Some(reason) = reason {
            wait::until_ready("their end to be counted", || async {
                (target.failures(reason).await >= counted + CROWD as f64).then_some(())
            })
            .await;
        }
    }
    assert_eq!(target.seen(), 0, "somebody was taken at half a word");
}

#[tokio::test]
async fn idle_connections_are_closed_also_in_http_2() {
    let target = Target::start(impatient).await;
    for way in Way::ALL {
        let mut frames = target.frames(way, App::Http2).await;
        let last = frames.farewell().await.expect("a GOAWAY");
        assert_eq!(last.number(4), 0, "{}: it says that nothing is wrong", way.name());
    }
    let mut raw = Raw::connect(target.at(Way::Plain, App::Http1)).await;
    raw.exchange("GET", "/other", "a.test").await;
    raw.expect_close().await;
}

#[tokio::test]
async fn readers_that_read_nothing_hold_little_and_are_let_go() {
    let target = Target::start(impatient).await;
    target.ask(Way::Plain).await;
    let before = target.memory();
    let mut crowd = Vec::new();
    for _ in 0..10 {
        let mut raw = Raw::connect(target.at(Way::Plain, App::Http1)).await;
        raw.send("GET /large HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
        raw.read_until("\r\n\r\n").await;
        crowd.push(raw);
    }
    target.ask(Way::Plain).await;
    let grown = target.memory().saturating_sub(before);
    assert!(grown <= 64 * crowd.len() as u64 + 1024, "{grown} KiB");
    let labels = ["reason=\"idle_timeout\""];
    wait::until_ready("all of them to be given up", || async {
        (target.metric("tulle_requests_total", &labels).await == crowd.len() as f64).then_some(())
    })
    .await;
    // One that reads slowly, yet reads, is served to the end.
    let mut raw = Raw::connect(target.at(Way::Plain, App::Http1)).await;
    raw.send("GET /large HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    raw.read_until("\r\n\r\n").await;
    for _ in 0..8 {
        raw.read_exact(4 << 20).await;
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
}
