//! The control plane, the real one, is killed again and again under many simulated proxies: they come back spread out,
//! learn what changed, and a pair of real sidecars among them serves all the while.

use std::time::{Duration, Instant};

use tulle_testing::fleet::{Fleet, Services};
use tulle_testing::process::Process;
use tulle_testing::upstream::{Reply, Upstream};

use super::load::Load;
use super::outage::{HTTP, Plane};
use super::{Outcome, Scale};

/// How long all may take to know what changed while the control plane was away.
const CONVERGENCE: Duration = Duration::from_secs(30);

/// Connections are counted over so long.
const SLOT: Duration = Duration::from_millis(100);

/// Most of all proxies that may come back within one [`SLOT`], once the control plane has been gone for a second.
const SHARE: f64 = 0.1;

/// One return of the control plane.
struct Return {
    /// Until all knew what changed meanwhile.
    took: Duration,
    /// Connections of the densest slot.
    densest: usize,
    /// Bytes of resident memory: at rest, and at most.
    memory: (u64, u64),
}

pub(crate) async fn run(scale: Scale) -> Outcome {
    let (proxies, kills) = scale.pick((100, 2), (1_000, 3));
    let (away, every) = scale.pick((2, 4), (4, 20));
    let (plane, app) = (Plane::new(), Upstream::http1(|_| Reply::ok("hello")).await);
    let services = Services::write(&plane.config(), 100, 10, 10).expect("manifests");
    let mut control = plane.start().await;
    let server = plane.sidecar("app").receive(8080, app.addr()).without_waiting().start().await;
    let client = plane.sidecar("web").send(HTTP).without_waiting().start().await;
    plane.tell(&[("app", server.status().ip()), ("web", client.status().ip())], 1);
    for sidecar in [&server, &client] {
        sidecar.process().ready(sidecar.status(), "/healthz/ready").await;
    }
    let fleet = Fleet::start(proxies, &services, plane.xds, &plane.state()).expect("proxies");
    all("the first configuration", || fleet.tally().totals().synced == proxies).await;
    let load = Load::default();
    let mut returns = Vec::new();
    let happen = async {
        for generation in 2..2 + kills {
            let begun = Instant::now();
            control.kill();
            fleet.tally().take_accepted();
            // Everybody dials this one.
            fleet.tally().expect(services.name(0), generation);
            services.set(0, generation).expect("a manifest");
            tokio::time::sleep(Duration::from_secs(away)).await;
            control = plane.start().await;
            let back = Instant::now();
            all("a change after a return", || fleet.tally().arrived() == proxies).await;
            let took = back.elapsed();
            let densest = densest(&fleet.tally().take_accepted(), begun);
            tokio::time::sleep(Duration::from_secs(every).saturating_sub(begun.elapsed())).await;
            returns.push(Return { took, densest, memory: memory(&control) });
        }
        load.finish();
    };
    tokio::join!(happen, load.http1(client.outbound(HTTP), "app.shop", Duration::from_millis(4)));
    let slowest = returns.iter().map(|back| back.took).max().unwrap_or_default();
    let densest = returns.iter().map(|back| back.densest).max().unwrap_or_default();
    let note = format!(
        "{proxies} proxies, killed {kills} times, all knew after {:.1} s, {densest} connections in {} ms at most",
        slowest.as_secs_f64(),
        SLOT.as_millis()
    );
    let mut outcome = load.into_outcome(note);
    outcome.check(slowest <= CONVERGENCE, || format!("a change took {slowest:?} to reach all"));
    // A hundred are too few to tell chance from a herd.
    let most = scale.pick(1.0, SHARE) * proxies as f64;
    outcome.check(densest as f64 <= most, || format!("{densest} of {proxies} proxies came within {SLOT:?}"));
    for Return { memory: (rest, peak), .. } in returns {
        outcome.check(peak <= 2 * rest, || format!("{peak} bytes of memory at most, {rest} at rest"));
    }
    outcome
}

async fn all(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + 4 * CONVERGENCE;
    while !holds() {
        assert!(Instant::now() < end, "waited for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The most connections that were accepted within one slot, later than a second after `begun`.
fn densest(accepted: &[Instant], begun: Instant) -> usize {
    let mut slots = std::collections::HashMap::<u128, usize>::new();
    let after = accepted.iter().map(|at| at.saturating_duration_since(begun)).filter(|at| *at > Duration::from_secs(1));
    for at in after {
        *slots.entry(at.as_millis() / SLOT.as_millis()).or_default() += 1;
    }
    slots.into_values().max().unwrap_or_default()
}

/// Resident memory of a process, now and at most, in bytes.
fn memory(process: &Process) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).expect("a running process");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a field of status");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    };
    (field("VmRSS:"), field("VmHWM:"))
}
