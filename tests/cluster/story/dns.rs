//! DNS by the sidecars.

use anyhow::{Context as _, ensure};

use super::install::items;
use super::traffic::seen;
use crate::harness::Cluster;

/// While the cluster's DNS is gone a pod with `dns-capture` finds services, and is told at once that the rest cannot be.
pub(crate) fn captured(cluster: &mut Cluster) -> anyhow::Result<()> {
    cluster.apply_in("shop", include_str!("../manifests/dns.yaml"))?;
    cluster.rolled_out("shop", "deployment/dns")?;
    seen(cluster, "shop", "dns", "http://server.shop/").context("with the cluster's DNS")?;
    let deployment = cluster.get("-n kube-system deployment/coredns")?;
    let replicas = deployment["spec"]["replicas"].as_u64().unwrap_or(1);
    cluster.kubectl("-n kube-system scale deployment/coredns --replicas=0")?;
    let found = without_dns(cluster);
    cluster.kubectl(&format!("-n kube-system scale deployment/coredns --replicas={replicas}"))?;
    cluster.rolled_out("kube-system", "deployment/coredns")?;
    found?;
    cluster.kubectl("-n shop delete deployment dns").map(drop)
}

fn without_dns(cluster: &mut Cluster) -> anyhow::Result<()> {
    let pods = |cluster: &Cluster| {
        let all = cluster.get("-n kube-system pods -l app=coredns").ok()?;
        let left = items(&all).len();
        (left == 0).then_some(())
    };
    cluster.until("the cluster's DNS to be gone", pods)?;
    for host in ["server", "server.shop", "server.shop.svc", "server.shop.svc.cluster.local"] {
        seen(cluster, "shop", "dns", &format!("http://{host}/")).with_context(|| format!("{host} without DNS"))?;
    }
    let around = seen(cluster, "plain", "client", "http://server.shop/");
    ensure!(around.is_err(), "a pod without dns-capture still finds names: {around:?}");
    let unknown = seen(cluster, "shop", "dns", "http://unknown.example/");
    ensure!(unknown.is_err(), "a name that nobody knows was found: {unknown:?}");
    Ok(())
}
