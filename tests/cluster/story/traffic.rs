//! Who sees what: identities, strictness, and the ways around.

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::install::{answers_of, is_meshed, items};
use crate::harness::{Cluster, Load};

/// What the server says of a caller whose identity was verified.
const CLIENT_ID: &str = "URI=spiffe://cluster.local/ns/shop/sa/client";

/// Pods of both zones answer, and see the client's identity, which its own words cannot change.
pub(crate) fn mutual_tls(cluster: &mut Cluster) -> anyhow::Result<()> {
    let load = Load::start(cluster, "shop", 50, "http://server.shop/")?;
    answers_of(cluster, &load, 3)?;
    load.stop(cluster)?;
    let pods = items(&cluster.get("-n shop pods -l app=server")?);
    let zones: std::collections::BTreeSet<_> = pods.iter().map(|pod| pod["spec"]["nodeName"].to_string()).collect();
    ensure!(zones.len() == 2, "servers are in {zones:?}");
    let seen = seen(cluster, "shop", "client", "http://server.shop/")?;
    ensure!(certificate(&seen).contains(CLIENT_ID), "the server saw {seen}");
    let plain = self::seen(cluster, "plain", "client", "http://server.shop/")?;
    ensure!(certificate(&plain).is_empty(), "a plain caller was seen as {plain}");
    Ok(())
}

/// Strict: plain callers are refused, and the kubelet's probes still pass, also those of new pods.
pub(crate) fn strict(cluster: &mut Cluster) -> anyhow::Result<()> {
    cluster.kubectl("annotate namespace shop tulle.io/mtls=strict")?;
    let refused = |cluster: &Cluster| seen(cluster, "plain", "client", "http://server.shop/").is_err().then_some(());
    cluster.until("a plain caller to be refused", refused)?;
    cluster.kubectl("-n shop rollout restart deployment/server")?;
    cluster.rolled_out("shop", "deployment/server")?;
    seen(cluster, "shop", "client", "http://server.shop/")?;
    refused(cluster).context("a plain caller was let in after a restart")?;
    // Without a mesh nobody tries again elsewhere: kube-proxy may still lead to a server that has just ended.
    let around = cluster.until("a port outside of the mesh", |cluster| {
        seen(cluster, "plain", "client", "http://server.shop:9090/").ok()
    })?;
    ensure!(certificate(&around).is_empty(), "the port outside of the mesh saw {around}");
    let around = seen(cluster, "shop", "client", "http://server.shop:9090/").context("the same from a meshed pod")?;
    ensure!(certificate(&around).is_empty(), "the port outside of the mesh saw {around}");
    cluster.kubectl("annotate namespace shop tulle.io/mtls-")?;
    cluster.until("a plain caller to be let in again", |cluster| {
        seen(cluster, "plain", "client", "http://server.shop/").ok().map(drop)
    })
}

/// A pod that opted out has no sidecar and no identity.
pub(crate) fn opted_out(cluster: &mut Cluster) -> anyhow::Result<()> {
    cluster.apply_in("shop", include_str!("../manifests/opted-out.yaml"))?;
    cluster.rolled_out("shop", "deployment/opted-out")?;
    for pod in items(&cluster.get("-n shop pods -l app=opted-out")?) {
        ensure!(!is_meshed(&pod), "a pod that opted out has a sidecar");
    }
    let seen = seen(cluster, "shop", "opted-out", "http://server.shop/")?;
    ensure!(certificate(&seen).is_empty(), "the server saw {seen}");
    cluster.kubectl("-n shop delete deployment opted-out").map(drop)
}

/// A Job whose pod has a sidecar, and needs it, completes.
pub(crate) fn job(cluster: &mut Cluster) -> anyhow::Result<()> {
    cluster.apply_in("shop", include_str!("../manifests/job.yaml"))?;
    cluster.wait("shop", "job/migration", "condition=Complete")?;
    let pods = items(&cluster.get("-n shop pods -l job-name=migration")?);
    ensure!(pods.iter().all(is_meshed), "the Job's pod had no sidecar");
    let log = cluster.kubectl("-n shop logs job/migration -c migration")?;
    ensure!(log.contains("spiffe://cluster.local/ns/shop/sa/client"), "the server saw: {log}");
    cluster.kubectl("-n shop delete job migration").map(drop)
}

/// What the server says that it saw of a request from the deployment `from` of `namespace`.
pub(crate) fn seen(cluster: &Cluster, namespace: &str, from: &str, url: &str) -> anyhow::Result<Value> {
    let body = cluster.kubectl(&format!("-n {namespace} exec deployment/{from} -c client -- /probe get {url}"))?;
    serde_json::from_str(&body).with_context(|| format!("not an answer of the server: {body}"))
}

/// The client certificate as the server saw it; empty when there was none.
pub(crate) fn certificate(seen: &Value) -> &str {
    seen["headers"]["X-Forwarded-Client-Cert"][0].as_str().unwrap_or_default()
}
