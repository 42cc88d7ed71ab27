//! HTTP/2 clients that mean harm (security.md 1.8): each attack is stopped or costs little, the proxy's memory stays
//! bounded, other connections are served meanwhile, and what was closed is counted by reason. Each runs on both ways in.

use std::time::Duration;

use tulle_testing::client::Frames;
use tulle_testing::client::frames::{END_HEADERS, END_STREAM, Frame, block, frame, kind, literal, request};
use tulle_testing::wait;

use crate::target::{App, Target, Way};

/// `ENHANCE_YOUR_CALM`.
const CALM: u32 = 11;
/// `PROTOCOL_ERROR`, `FLOW_CONTROL_ERROR`, `COMPRESSION_ERROR`: the peer broke a rule.
const RULES: [u32; 3] = [1, 3, 9];
/// How long a peer that takes nothing more is written to.
const PATIENCE: Duration = Duration::from_millis(500);

/// What a proxy must say when it closes a connection.
enum End {
    /// GOAWAY with this code, at the latest for this stream.
    Calm(u32),
    /// GOAWAY with a code of [`RULES`].
    Rules,
    /// Nothing: the connection may go on, or the peer is no longer read from.
    Bounded,
}

struct Attack {
    name: &'static str,
    bytes: fn() -> Vec<u8>,
    /// The client reads what the proxy says while it sends.
    reads: bool,
    end: End,
    /// Most requests the application may see of it.
    requests: usize,
    /// Most memory that it may cost, in KiB.
    memory: u64,
}

fn headers(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    frame(kind::HEADERS, flags, stream, block)
}

fn many(count: u32, one: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    (0..count).flat_map(one).collect()
}

/// The number of the client's stream `at`.
const fn stream(at: u32) -> u32 {
    2 * at + 1
}

fn rapid_reset() -> Vec<u8> {
    let head = request("GET", "/");
    many(5_000, |at| {
        let reset = frame(kind::RST_STREAM, 0, stream(at), &8u32.to_be_bytes());
        [headers(stream(at), END_STREAM | END_HEADERS, &head), reset].concat()
    })
}

/// Requests that make the proxy reset them: it may not be made to work for nothing either (CVE-2025-8671).
fn made_to_reset() -> Vec<u8> {
    let head = request("POST", "/");
    many(5_000, |at| {
        let spoil = frame(kind::WINDOW_UPDATE, 0, stream(at), &0x7fff_ffff_u32.to_be_bytes());
        [headers(stream(at), END_HEADERS, &head), spoil].concat()
    })
}

fn malformed() -> Vec<u8> {
    let fields: [(&[u8], &[u8]); 3] = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/")];
    let head = block(&fields);
    many(5_000, |at| headers(stream(at), END_STREAM | END_HEADERS, &head))
}

fn continuations(size: usize) -> Vec<u8> {
    // A good field in each piece that has room for one.
    let mut piece = Vec::new();
    if size > 0 {
        piece.push(0);
        literal(b"x", &mut piece);
        literal(&vec![b'a'; size - 4], &mut piece);
    }
    let rest = many(20_000, |_| frame(kind::CONTINUATION, 0, 1, &piece));
    [headers(1, END_STREAM, &request("GET", "/")), rest].concat()
}

fn empty_data() -> Vec<u8> {
    [headers(1, END_HEADERS, &request("POST", "/")), many(2_000, |_| frame(kind::DATA, 0, 1, b""))].concat()
}

fn window_updates() -> Vec<u8> {
    let one = 1u32.to_be_bytes();
    let on = |at| frame(kind::WINDOW_UPDATE, 0, at, &one);
    [headers(1, END_HEADERS, &request("POST", "/")), many(20_000, |_| [on(0), on(1)].concat())].concat()
}

/// One entry of the dynamic table, named thousands of times in one head: 62 MB for 20 kB.
fn hpack_bomb() -> Vec<u8> {
    let mut fields = request("GET", "/");
    // A literal with incremental indexing: from now on index 62.
    fields.push(0x40);
    literal(b"x", &mut fields);
    literal(&[b'a'; 3_900], &mut fields);
    fields.extend([0x80 | 62; 16_000]);
    let mut pieces = fields.chunks(16_000).peekable();
    let first = pieces.next().expect("a piece");
    let mut bytes = headers(1, END_STREAM, first);
    while let Some(piece) = pieces.next() {
        let flags = if pieces.peek().is_none() { END_HEADERS } else { 0 };
        bytes.extend(frame(kind::CONTINUATION, flags, 1, piece));
    }
    bytes
}

const ATTACKS: &[Attack] = &[
    Attack {
        name: "FL-01 rapid reset",
        bytes: rapid_reset,
        reads: true,
        end: End::Calm(4_000),
        requests: 200,
        memory: 8192,
    },
    Attack {
        name: "FL-02 made to reset",
        bytes: made_to_reset,
        reads: true,
        end: End::Calm(4_000),
        requests: 1_100,
        memory: 16_384,
    },
    Attack {
        name: "FL-02 malformed heads",
        bytes: malformed,
        reads: true,
        end: End::Bounded,
        requests: 0,
        memory: 8192,
    },
    Attack {
        name: "FL-03 CONTINUATION of 70 bytes",
        bytes: || continuations(70),
        reads: true,
        end: End::Calm(1),
        requests: 0,
        memory: 8192,
    },
    Attack {
        name: "FL-03 CONTINUATION of nothing",
        bytes: || continuations(0),
        reads: true,
        end: End::Calm(1),
        requests: 0,
        memory: 8192,
    },
    Attack {
        name: "FL-04 PING, unread",
        bytes: || many(20_000, |_| frame(kind::PING, 0, 0, &[7; 8])),
        reads: false,
        end: End::Bounded,
        requests: 0,
        memory: 8192,
    },
    Attack {
        name: "FL-04 SETTINGS, unread",
        bytes: || many(20_000, |_| frame(kind::SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0])),
        reads: false,
        end: End::Bounded,
        requests: 0,
        memory: 8192,
    },
    Attack { name: "FL-05 empty DATA", bytes: empty_data, reads: true, end: End::Calm(1), requests: 1, memory: 8192 },
    Attack {
        name: "FL-06 WINDOW_UPDATE",
        bytes: window_updates,
        reads: true,
        end: End::Bounded,
        requests: 1,
        memory: 8192,
    },
    Attack {
        name: "FL-07 PRIORITY of idle streams",
        bytes: || many(20_000, |at| frame(kind::PRIORITY, 0, stream(at) + 2, &[0, 0, 0, 1, 9])),
        reads: true,
        end: End::Bounded,
        requests: 0,
        memory: 8192,
    },
    Attack {
        name: "FL-07 unknown frames",
        bytes: || many(20_000, |_| frame(0xfa, 0, 0, b"?")),
        reads: true,
        end: End::Bounded,
        requests: 0,
        memory: 8192,
    },
    Attack { name: "FL-10 HPACK bomb", bytes: hpack_bomb, reads: true, end: End::Bounded, requests: 0, memory: 8192 },
    Attack {
        name: "FL-11 table size updates",
        bytes: || [headers(1, END_STREAM | END_HEADERS, &[0x3f, 0xe1, 0xff, 0xff, 0x7f])].concat(),
        reads: true,
        end: End::Rules,
        requests: 0,
        memory: 8192,
    },
];

#[tokio::test]
async fn floods_are_stopped_or_cost_little() {
    let target = Target::start(|builder| builder).await;
    for way in Way::ALL {
        target.ask(Way::Plain).await;
        target.ask(Way::Mtls).await;
        for attack in ATTACKS {
            let what = format!("{} ({})", attack.name, way.name());
            let (before, seen, counted) = (target.memory(), target.seen(), target.failures("flood").await);
            let frames = target.frames(way, App::Http2).await;
            let last = run(&target, attack, frames, &what).await;
            let grown = target.memory().saturating_sub(before);
            let requests = target.seen() - seen;
            println!("{what}: {last:?}, {requests} requests, {grown} KiB");
            assert!(requests <= attack.requests, "{what}: {requests} requests reached the application");
            assert!(grown <= attack.memory, "{what}: {grown} KiB more");
            match attack.end {
                End::Calm(stream) => {
                    let last = last.unwrap_or_else(|| panic!("{what}: no GOAWAY"));
                    assert_eq!(last.number(4), CALM, "{what}");
                    assert!(last.number(0) <= stream, "{what}: only at stream {}", last.number(0));
                    wait::until_ready("the flood to be counted", || async {
                        (target.failures("flood").await == counted + 1.0).then_some(())
                    })
                    .await;
                }
                End::Rules => {
                    let code = last.unwrap_or_else(|| panic!("{what}: no GOAWAY")).number(4);
                    assert!(RULES.contains(&code), "{what}: {code}");
                }
                End::Bounded => {}
            }
        }
    }
}

/// Sends the attack while other connections are served, and gives the GOAWAY that ended it.
async fn run(target: &Target, attack: &Attack, mut frames: Frames, what: &str) -> Option<Frame> {
    let bytes = (attack.bytes)();
    let flood = async {
        if !attack.reads {
            frames.push(&bytes, PATIENCE).await;
            return None;
        }
        let mut last = None;
        for piece in bytes.chunks(64 * 1024) {
            if !frames.push(piece, PATIENCE).await {
                break;
            }
            while let Some(frame) = frames.waiting().await {
                last = (frame.kind == kind::GOAWAY).then_some(frame).or(last);
            }
        }
        match attack.end {
            End::Bounded => last,
            End::Calm(_) | End::Rules => frames.farewell().await.or(last),
        }
    };
    let (last, ()) = tokio::join!(flood, async {
        for _ in 0..5 {
            target.ask(Way::Plain).await;
            target.ask(Way::Mtls).await;
        }
    });
    drop(frames);
    target.ask(Way::Plain).await;
    assert!(target.proxy.admin_page("/ready").await.len() < 1_000, "{what}: admin answers");
    last
}

/// Requests that hold a window at zero; within what a connection may have.
const HOSTAGES: u32 = 100;

/// Clients that ask for much and let nothing of it through: what is read ahead is bounded, and they are given up.
#[tokio::test]
async fn hostages_are_let_go() {
    let stall = |builder: tulle_testing::sidecar::Builder| builder.arg("--stall-timeout", "3s");
    let target = Target::start(stall).await;
    for way in Way::ALL {
        target.ask(way).await;
        let before = target.memory();
        let mut frames = target.frames(way, App::Http2).await;
        // INITIAL_WINDOW_SIZE 0.
        frames.send(frame(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).await;
        let head = request("GET", "/large");
        frames.send(many(HOSTAGES, |at| headers(stream(at), END_STREAM | END_HEADERS, &head))).await;
        let mut resets = 0;
        while resets < HOSTAGES as usize {
            let frame = frames.next().await.expect("the connection goes on");
            resets += usize::from(frame.kind == kind::RST_STREAM);
            if resets % 20 == 0 {
                target.ask(way).await;
            }
        }
        let grown = target.memory().saturating_sub(before);
        assert!(grown <= 40 * 1024, "{}: {grown} KiB more", way.name());
        let labels = ["reason=\"idle_timeout\""];
        assert!(
            target.metric("tulle_requests_total", &labels).await >= f64::from(HOSTAGES),
            "{}: not counted",
            way.name()
        );
    }
}

/// Small frames to an application that does not read: bounded, whether the client means harm or not.
#[tokio::test]
async fn small_frames_to_a_slow_reader_are_bounded() {
    let target = Target::start(|builder| builder).await;
    for way in Way::ALL {
        target.ask(way).await;
        let before = target.memory();
        let mut frames = target.frames(way, App::Deaf).await;
        frames.send(headers(1, END_HEADERS, &request("POST", "/slow"))).await;
        frames.push(&many(20_000, |_| frame(kind::DATA, 0, 1, b"x")), PATIENCE).await;
        target.ask(way).await;
        let grown = target.memory().saturating_sub(before);
        println!("{}: {grown} KiB", way.name());
        assert!(grown <= 32 * 1024, "{}: {grown} KiB more", way.name());
    }
}
