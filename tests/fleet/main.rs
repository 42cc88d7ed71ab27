//! Two hundred simulated proxies against the real control plane as a process: what they are told, and what they are
//! not told twice. The figures of thousands come from `cargo bench -p tulle-testing --bench xds`.

use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;
use tulle_testing::fleet::{Fleet, Services};
use tulle_testing::ports;
use tulle_testing::process::Process;

const PROXIES: usize = 200;
const SERVICES: usize = 50;
const DIALLED: usize = 8;

/// Everybody's certificates, handshakes and resources on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

async fn until(what: &str, fleet: &Fleet, holds: impl Fn() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !holds() {
        let tally = fleet.tally();
        assert!(Instant::now() < end, "waited for {what}: {:?}, {} arrived", tally.totals(), tally.arrived());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn two_hundred_proxies_converge_and_after_a_restart_are_told_only_what_is_new() {
    let dir = TempDir::new().unwrap();
    let (config, state) = (dir.path().join("config"), dir.path().join("state"));
    let services = Services::write(&config, SERVICES, 4, DIALLED).unwrap();
    let (xds, admin) = (ports::free(), ports::free());
    let start = || {
        Process::start("tulle-control-plane", "tulle-control-plane", |command| {
            command.args(["--log-level", "warn"]).arg("--config-dir").arg(&config).arg("--state-dir").arg(&state);
            command.args(["--xds-address", &xds.to_string(), "--admin-address", &admin.to_string()]);
        })
    };
    let control = start().await;
    control.listening(xds).await;
    let fleet = Fleet::start(PROXIES, &services, xds, &state).unwrap();
    let tally = fleet.tally();
    until("the first configuration", &fleet, || tally.totals().synced == PROXIES).await;
    let first = tally.totals();
    // A bundle, an inbound listener, and four resources for each service: once each.
    assert_eq!(first.resources, PROXIES * (2 + 4 * DIALLED), "{first:?}");
    assert_eq!((first.unchanged, first.removed), (0, 0), "{first:?}");

    // A change reaches those who asked for the service, and nobody else.
    tally.expect(services.name(7), 2);
    services.set(7, 2).unwrap();
    let dialling = (0..PROXIES).filter(|i| services.dialled(*i).contains(&services.name(7))).count();
    assert!((1..PROXIES).contains(&dialling));
    until("a change", &fleet, || tally.arrived() == dialling).await;
    let changed = tally.totals();
    assert_eq!(changed.resources - first.resources, dialling, "{changed:?}");

    // While it is away something changes that everybody dials.
    control.kill();
    until("the end of all streams", &fleet, || tally.totals().connected == 0).await;
    tally.expect(services.name(0), 3);
    services.set(0, 3).unwrap();
    let control = start().await;
    until("the change after a restart", &fleet, || tally.arrived() == PROXIES).await;
    let after = tally.totals();
    assert_eq!((after.connected, after.synced), (PROXIES, PROXIES), "{after:?}");
    assert_eq!(after.resources - changed.resources, PROXIES, "only what is new: {after:?}");
    assert_eq!((after.unchanged, after.removed), (0, 0), "{after:?}");

    // Every response has its acknowledgement, and none was a refusal.
    let metrics = tulle_testing::client::raw::get(admin, "/metrics", "localhost").await.text();
    let nacks = metrics.lines().filter(|line| line.contains("nack") && !line.starts_with('#'));
    assert!(nacks.clone().all(|line| line.ends_with(" 0")), "{:?}", nacks.collect::<Vec<_>>());
    assert!(control.terminate().await.success());
}
