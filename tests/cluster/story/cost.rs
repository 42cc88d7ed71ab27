//! What a sidecar costs: memory as the cluster itself accounts for it, and time.

use anyhow::{Context as _, ensure};

use super::install::items;
use crate::harness::Cluster;

/// Of a sidecar whose application is idle.
const IDLE_MEMORY: u64 = 12 << 20;

/// Time from its start until a sidecar is ready.
const START_MS: u64 = 1000;

/// Memory of the servers' sidecars, freshly started, and how long they took.
pub(crate) fn memory(cluster: &mut Cluster) -> anyhow::Result<()> {
    cluster.kubectl("-n shop rollout restart deployment/server")?;
    cluster.rolled_out("shop", "deployment/server")?;
    let largest = cluster.until("figures of every sidecar", |cluster| {
        let pods = servers(cluster).ok()?;
        let figures: Option<Vec<u64>> = pods.iter().map(|pod| sidecar_memory(cluster, pod).ok()).collect();
        figures?.into_iter().max()
    })?;
    let times: anyhow::Result<Vec<u64>> = servers(cluster)?.iter().map(|pod| ready_after(cluster, pod)).collect();
    let slowest = times?.into_iter().max().context("a sidecar")?;
    let mebibytes = largest as f64 / f64::from(1 << 20);
    crate::note(&format!("an idle sidecar has {mebibytes:.1} MiB and was ready after {slowest} ms at most"));
    ensure!(slowest <= START_MS, "a sidecar was ready after {slowest} ms, more than {START_MS}");
    ensure!(largest <= IDLE_MEMORY, "an idle sidecar has {largest} bytes, more than {IDLE_MEMORY}");
    Ok(())
}

/// The running pods of the server, without those that are being deleted: they may be gone at the next question.
fn servers(cluster: &Cluster) -> anyhow::Result<Vec<serde_json::Value>> {
    let mut pods = items(&cluster.get("-n shop pods -l app=server --field-selector=status.phase=Running")?);
    pods.retain(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    Ok(pods)
}

/// The working set of a pod's sidecar, as `kubectl top` shows it.
fn sidecar_memory(cluster: &Cluster, pod: &serde_json::Value) -> anyhow::Result<u64> {
    let node = pod["spec"]["nodeName"].as_str().context("a pod on a node")?;
    let name = pod["metadata"]["name"].as_str().context("a name")?;
    let metrics = cluster.kubectl(&format!("get --raw /api/v1/nodes/{node}/proxy/metrics/resource"))?;
    let series =
        format!("container_memory_working_set_bytes{{container=\"tulle-proxy\",namespace=\"shop\",pod=\"{name}\"}} ");
    let figure = metrics.lines().find_map(|line| line.strip_prefix(&series)).context("a figure of the sidecar")?;
    // In the exponent form of floats, with a time behind it.
    let figure: f64 = figure.split(' ').next().unwrap_or_default().parse()?;
    Ok(figure as u64)
}

/// Milliseconds until a pod's sidecar was ready, as it says itself.
fn ready_after(cluster: &Cluster, pod: &serde_json::Value) -> anyhow::Result<u64> {
    let name = pod["metadata"]["name"].as_str().context("a name")?;
    let log = cluster.kubectl(&format!("-n shop logs {name} -c tulle-proxy"))?;
    let after = log.lines().find_map(|line| line.split_once(" ready after_ms=")).context("a sidecar that is ready")?;
    Ok(after.1.trim().parse()?)
}
