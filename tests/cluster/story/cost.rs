//! What a sidecar costs, as the cluster itself accounts for it.

use anyhow::{Context as _, ensure};

use super::install::items;
use crate::harness::Cluster;

/// Of a sidecar whose application is idle.
const IDLE_MEMORY: u64 = 12 << 20;

/// Memory of the servers' sidecars, freshly started.
pub(crate) fn memory(cluster: &mut Cluster) -> anyhow::Result<()> {
    cluster.kubectl("-n shop rollout restart deployment/server")?;
    cluster.rolled_out("shop", "deployment/server")?;
    let largest = cluster.until("figures of every sidecar", |cluster| {
        // Those that end have no figures.
        let pods = items(&cluster.get("-n shop pods -l app=server --field-selector=status.phase=Running").ok()?);
        let figures: Option<Vec<u64>> = pods.iter().map(|pod| sidecar_memory(cluster, pod).ok()).collect();
        figures?.into_iter().max()
    })?;
    crate::note(&format!("an idle sidecar has {:.1} MiB", largest as f64 / f64::from(1 << 20)));
    ensure!(largest <= IDLE_MEMORY, "an idle sidecar has {largest} bytes, more than {IDLE_MEMORY}");
    Ok(())
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
