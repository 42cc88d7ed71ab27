//! Redirect rules from the node: pods of a namespace of the level `restricted` have sidecars.

use anyhow::ensure;

use super::install::{CHART, SHOP, is_meshed, items};
use super::traffic::{certificate, seen};
use crate::harness::{CNI, Cluster};

/// Comes, works, is replaced, and goes: the nodes are as they were.
pub(crate) fn cni(cluster: &mut Cluster) -> anyhow::Result<()> {
    let before = cluster.networks()?;
    upgrade(cluster, true)?;
    cluster.rolled_out("tulle-cni", "daemonset/tulle-cni")?;
    in_place(cluster)?;

    cluster.kubectl("create namespace walled")?;
    cluster.kubectl("label namespace walled tulle.io/inject=enabled pod-security.kubernetes.io/enforce=restricted")?;
    cluster.apply_in("walled", SHOP)?;
    for workload in ["deployment/server", "deployment/client"] {
        cluster.rolled_out("walled", workload)?;
    }
    for pod in items(&cluster.get("-n walled pods")?) {
        ensure!(is_meshed(&pod), "{} has no sidecar", pod["metadata"]["name"]);
        ensure!(!pod.to_string().contains("NET_ADMIN"), "{} may change its network", pod["metadata"]["name"]);
    }
    let answer = seen(cluster, "walled", "client", "http://server.walled/")?;
    ensure!(certificate(&answer).contains("URI=spiffe://cluster.local/ns/walled/sa/client"), "the server saw {answer}");

    // Another pod of the DaemonSet takes the place of each: meanwhile nothing is taken out.
    cluster.kubectl("-n tulle-cni rollout restart daemonset/tulle-cni")?;
    cluster.rolled_out("tulle-cni", "daemonset/tulle-cni")?;
    in_place(cluster)?;
    cluster.kubectl("-n walled rollout restart deployment/server")?;
    cluster.rolled_out("walled", "deployment/server")?;
    let answer = seen(cluster, "walled", "client", "http://server.walled/")?;
    ensure!(certificate(&answer).contains("/sa/client"), "the server saw {answer}");

    cluster.kubectl("delete namespace walled --timeout=120s")?;
    upgrade(cluster, false)?;
    cluster.until("the nodes to be as they were", |cluster| (cluster.networks().ok()? == before).then_some(()))
}

fn upgrade(cluster: &Cluster, enabled: bool) -> anyhow::Result<()> {
    let line = format!(
        "upgrade tulle {CHART} --namespace=tulle-system --reuse-values --wait --timeout=120s --set=cni.enabled={enabled}
         --set=cni.binDir={CNI}/bin --set=cni.confDir={CNI}/conf"
    );
    let upgraded = cluster.helm(&line.split_whitespace().collect::<Vec<_>>());
    upgraded
        .map(drop)
        .map_err(|error| error.context(cluster.explain("tulle-cni")).context(cluster.explain("tulle-system")))
}

/// The plugin is in the network configuration of both nodes.
fn in_place(cluster: &Cluster) -> anyhow::Result<()> {
    let networks = cluster.networks()?;
    let with = networks
        .iter()
        .filter(|network| network.get("10-bridge.conflist").is_some_and(|text| text.contains("tulle-cni")));
    ensure!(with.count() == 2, "{networks:?}");
    Ok(())
}
