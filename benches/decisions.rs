//! Cost of the decisions a request needs, in nanoseconds each: which route, which endpoint, what is spoken.
//!
//! `cargo bench --bench decisions`. See `benches/README.md` for what the numbers mean.

use std::hint::black_box;
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use tulle_proxy::balance::{Cursor, Loads, Table};
use tulle_proxy::config::ClusterId;
use tulle_proxy::config::cluster::Policy;
use tulle_proxy::config::endpoint::{Endpoint, Endpoints, Health};
use tulle_proxy::config::route::{Action, Domain, Matcher, PathMatch, RetryPolicy, Route, RouteTable, VirtualHost};
use tulle_proxy::detect;
use tulle_proxy::route::{self, RequestView};

fn main() {
    for hosts in [1, 100, 10_000] {
        let table = routes(hosts);
        let name = format!("host-{}.shop", hosts / 2);
        report(&format!("route, {hosts} hosts"), || route::decide(&table, &Get(&name)).is_some());
    }
    for count in [3, 1_000] {
        for policy in [Policy::LeastRequest, Policy::RoundRobin, Policy::Random] {
            let table = Table::new(policy, &endpoints(count), 70);
            let (mut rng, mut cursor) = (SmallRng::seed_from_u64(1), Cursor::new(0));
            report(&format!("balance, {policy:?}, {count} endpoints"), || {
                table.pick(&Idle, &mut cursor, &mut rng, &[]).is_ok()
            });
        }
    }
    report("detect, request line", || detect::classify(black_box(b"GET /index.html HTTP/1.1\r\n")).is_some());
}

/// Runs `work` often enough for a steady figure, three times, and prints the best.
fn report(name: &str, mut work: impl FnMut() -> bool) {
    const TIMES: u32 = 1_000_000;
    let best = (0..3).map(|_| {
        let start = Instant::now();
        for _ in 0..TIMES {
            assert!(black_box(work()), "{name} decided nothing");
        }
        start.elapsed()
    });
    let best = best.min().unwrap_or_default() / TIMES;
    writeln!(std::io::stdout(), "{name:<40} {:>6} ns", best.as_nanos()).expect("standard output takes a line");
}

struct Get<'h>(&'h str);

impl RequestView for Get<'_> {
    fn method(&self) -> &str {
        "GET"
    }

    fn authority(&self) -> &str {
        self.0
    }

    fn path(&self) -> &str {
        "/api/v1/items?page=2"
    }

    fn header(&self, _name: &str) -> Option<&[u8]> {
        None
    }
}

struct Idle;

impl Loads for Idle {
    fn active(&self, _index: usize) -> u32 {
        0
    }

    fn available(&self, _index: usize) -> bool {
        true
    }
}

fn routes(hosts: usize) -> RouteTable {
    let host = |at: usize| VirtualHost {
        name: format!("host-{at}").into(),
        domains: vec![Domain::Exact(format!("host-{at}.shop").into())],
        routes: vec![Route {
            name: "".into(),
            matcher: Matcher { path: PathMatch::Prefix("/api".into()), ..Matcher::default() },
            action: Action::Cluster(ClusterId(0)),
            changes: None,
            timeout: None,
            retry: RetryPolicy::default(),
        }],
    };
    RouteTable::new("bench".into(), (0..hosts).map(host).collect())
}

fn endpoints(count: u16) -> Endpoints {
    let endpoint = |at: u16| {
        Arc::new(Endpoint {
            address: ([10, 0, (at >> 8) as u8, (at & 0xff) as u8], 80).into(),
            health: Health::Healthy,
            weight: 1,
            priority: 0,
            identity: None,
            workload: "".into(),
            namespace: "".into(),
            zone: "".into(),
        })
    };
    Endpoints { list: (0..count).map(endpoint).collect() }
}
