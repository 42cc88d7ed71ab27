//! Change under load, without a failed request.

use std::time::{Duration, Instant};

use anyhow::ensure;

use super::install::{answers_of, items};
use crate::harness::{Cluster, Load};

/// Requests a second while something changes.
const RATE: u32 = 100;

/// More servers and fewer, a rolling restart, a node drained.
pub(crate) fn servers(cluster: &mut Cluster) -> anyhow::Result<()> {
    let load = Load::start(cluster, "shop", RATE, "http://server.shop/")?;
    cluster.kubectl("-n shop scale deployment/server --replicas=6")?;
    answers_of(cluster, &load, 6)?;
    cluster.kubectl("-n shop scale deployment/server --replicas=3")?;
    cluster.until("three servers", |cluster| {
        (items(&cluster.get("-n shop pods -l app=server").ok()?).len() == 3).then_some(())
    })?;
    cluster.kubectl("-n shop rollout restart deployment/server")?;
    cluster.rolled_out("shop", "deployment/server")?;
    cluster.kubectl("drain node-2 --ignore-daemonsets --delete-emptydir-data --timeout=120s")?;
    cluster.rolled_out("shop", "deployment/server")?;
    cluster.kubectl("uncordon node-2")?;
    ended("servers changed", load, cluster)
}

/// Tulle's own parts restarted, and then gone, with the API server, for a minute.
pub(crate) fn mesh(cluster: &mut Cluster) -> anyhow::Result<()> {
    let load = Load::start(cluster, "shop", RATE, "http://server.shop/")?;
    for part in ["deployment/tulle-control-plane", "deployment/tulle-injector"] {
        cluster.kubectl(&format!("-n tulle-system rollout restart {part}"))?;
        cluster.rolled_out("tulle-system", part)?;
    }
    cluster.kubectl("-n tulle-system delete pods --all --force --grace-period=0")?;
    for part in ["deployment/tulle-control-plane", "deployment/tulle-injector"] {
        cluster.rolled_out("tulle-system", part)?;
    }
    rotate_webhook_certificate(cluster)?;
    cluster.stop_api_server();
    let back = Instant::now() + Duration::from_secs(60);
    while Instant::now() < back {
        let report = load.report(cluster)?;
        ensure!(report.failed == 0, "without an API server: {}", report.failures.join("\n"));
        std::thread::park_timeout(Duration::from_secs(1));
    }
    cluster.start_api_server()?;
    // The mesh follows again, and new pods get sidecars.
    cluster.kubectl("-n shop rollout restart deployment/server")?;
    cluster.rolled_out("shop", "deployment/server")?;
    ended("the mesh changed", load, cluster)
}

/// The replicas restarted again and again at a high rate.
pub(crate) fn restarts(cluster: &mut Cluster) -> anyhow::Result<()> {
    let load = Load::start(cluster, "shop", 300, "http://server.shop/")?;
    for turn in 1..=20 {
        cluster.kubectl("-n shop rollout restart deployment/server")?;
        cluster.rolled_out("shop", "deployment/server")?;
        let report = load.report(cluster)?;
        let failures = report.failures.join("\n");
        ensure!(report.failed == 0, "restart {turn}: {} of {} failed:\n{failures}", report.failed, report.sent);
    }
    ended("20 restarts", load, cluster)
}

/// Ends a load, none of whose requests failed, and tells its figures.
fn ended(what: &str, load: Load, cluster: &Cluster) -> anyhow::Result<()> {
    let report = load.stop(cluster)?;
    crate::note(&format!("{what}: {} requests, slowest {} ms", report.sent, report.slowest_ms));
    Ok(())
}

/// Without its certificate the injector makes another, tells the API server, and goes on.
fn rotate_webhook_certificate(cluster: &mut Cluster) -> anyhow::Result<()> {
    let bundle = |cluster: &Cluster| {
        let webhook = cluster.get("mutatingwebhookconfiguration tulle-injector").ok()?;
        Some(webhook["webhooks"][0]["clientConfig"]["caBundle"].as_str()?.to_owned())
    };
    let before = bundle(cluster);
    cluster.kubectl("-n tulle-system delete secret tulle-injector-tls")?;
    cluster.until("a new webhook certificate", |cluster| (bundle(cluster)? != before.clone()?).then_some(()))?;
    cluster.kubectl("-n shop rollout restart deployment/server")?;
    cluster.rolled_out("shop", "deployment/server")
}
