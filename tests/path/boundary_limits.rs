//! Sizes and times: what is too large or too slow is refused, what is merely large streams through bounded memory.

use std::time::{Duration, Instant};

use tulle_testing::client::raw;
use tulle_testing::upstream::Reply;
use tulle_testing::upstream::http1::Recorded;

use crate::boundary_lanes::Lane;

/// The largest head that is accepted.
const MAX_HEAD: usize = 65_535;

/// A request whose head has `line` bytes of padding in its target and `field` in a field.
fn padded(line: usize, field: usize) -> Vec<u8> {
    let padding = |n: usize| "a".repeat(n);
    format!("GET /{} HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", padding(line), padding(field)).into_bytes()
}

#[tokio::test]
async fn heads_have_a_largest_size() {
    for lane in Lane::both(|_| Reply::ok("x")).await {
        let rest = padded(0, 0).len();
        let many = |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(count - 1));
        // The second proxy of a pair is told more by the first, and by it the application.
        let spare = if lane.name == "plain" { 0 } else { 1024 };
        for good in [padded(0, MAX_HEAD - rest - spare), padded(MAX_HEAD - rest - spare, 0), many(100).into_bytes()] {
            let mut raw = lane.connect().await;
            raw.send(&good).await;
            assert_eq!(raw.response().await.status, 200, "{}: {} bytes", lane.name, good.len());
        }
        let good = lane.app.requests().len();
        for (bad, status) in [
            (padded(0, MAX_HEAD - rest + 1), 431),
            (padded(0, 65_536), 431),
            (padded(0, 300_000), 431),
            (padded(100_000, 0), 414),
            (padded(500_000, 0), 414),
            (many(101).into_bytes(), 431),
            (many(5_000).into_bytes(), 431),
        ] {
            lane.refused(&bad, &[status]).await;
        }
        assert_eq!(lane.app.requests().len(), good, "{}", lane.name);
    }
}

#[tokio::test]
async fn heads_of_replies_have_one_too() {
    let answer = |request: &Recorded| match request.path() {
        "/large" => Reply::status(200, &[("x", &"a".repeat(70_000))], "x"),
        "/many" => Reply::status(200, &[("x", "y"); 1_000], "x"),
        _ => Reply::status(200, &[("x", &"a".repeat(60_000))], "x"),
    };
    for lane in Lane::both(answer).await {
        for (path, status) in [("/large", 502), ("/many", 502), ("/fits", 200)] {
            assert_eq!(lane.connect().await.exchange("GET", path, "a").await.status, status, "{}: {path}", lane.name);
        }
    }
}

#[tokio::test]
async fn a_head_that_takes_too_long_is_answered_408() {
    let fast = |builder: tulle_testing::sidecar::Builder| builder.arg("--header-timeout", "300ms");
    for lane in Lane::both_with(|_| Reply::ok("x"), fast).await {
        for start in ["GET / HTTP/1.1\r\nHost: a\r\nX: ", "G", "GET / HTTP/1.1\r\nHost: a\r\n"] {
            let mut raw = lane.connect().await;
            // A request before it does not prolong the time.
            assert_eq!(raw.exchange("GET", "/", "a").await.status, 200);
            let begun = Instant::now();
            raw.send(start).await;
            let reply = raw.response().await;
            assert_eq!((reply.status, reply.header("connection")), (408, Some("close")), "{}", lane.name);
            assert!(begun.elapsed() >= Duration::from_millis(290), "{}: {:?}", lane.name, begun.elapsed());
            raw.expect_close().await;
        }
    }
}

/// Bytes that repeat only after a prime number of them, so that a lost or doubled piece shows.
fn bytes(count: usize) -> Vec<u8> {
    let pattern: Vec<u8> = (0..65_521u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    pattern.iter().copied().cycle().take(count).collect()
}

/// Peak resident memory of a process, in KiB.
fn peak_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the status of a running process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[tokio::test]
async fn large_bodies_stream_through_bounded_memory() {
    const SIZE: usize = 64 * 1024 * 1024;
    let answer = |request: &Recorded| match request.path() {
        "/chunks" => Reply::chunked(&[&bytes(SIZE / 2), &bytes(SIZE / 2)], &[]),
        "/down" => Reply::ok(bytes(SIZE)),
        _ => Reply::ok("got it"),
    };
    let expected = bytes(SIZE);
    for lane in Lane::both(answer).await {
        let mut raw = lane.connect().await;
        raw.exchange("GET", "/warm", "a").await;
        let before: Vec<u64> = lane.proxies.iter().map(|proxy| peak_kib(proxy.process().pid())).collect();
        raw.send(raw::request("POST", "/up", "a", &[], &expected)).await;
        assert_eq!(raw.response().await.text(), "got it", "{}", lane.name);
        assert!(lane.app.request(1).await.body == expected, "{}: the upload arrived changed", lane.name);
        assert!(raw.exchange("GET", "/down", "a").await.body == expected, "{}: the download changed", lane.name);
        let chunks = raw.exchange("GET", "/chunks", "a").await;
        assert!(chunks.body[..SIZE / 2] == expected[..SIZE / 2] && chunks.body.len() == SIZE, "{}", lane.name);
        for (proxy, before) in lane.proxies.iter().zip(before) {
            let grown = peak_kib(proxy.process().pid()).saturating_sub(before);
            assert!(grown <= 8 * 1024, "{}: {grown} KiB more at the peak", lane.name);
        }
    }
}
