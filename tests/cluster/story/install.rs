//! Tulle comes, and goes.

use anyhow::{Context as _, ensure};

use super::traffic::seen;
use crate::harness::{Cluster, Load};

/// The application, the same in every namespace.
pub(crate) const SHOP: &str = include_str!("../manifests/shop.yaml");

/// The chart, of this source.
pub(crate) const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/helm/tulle");

/// The application without a mesh: what fails from here on is the mesh's doing.
pub(crate) fn plain(cluster: &mut Cluster) -> anyhow::Result<()> {
    cluster.kubectl("create namespace plain")?;
    deploy(cluster, "plain")?;
    let load = Load::start(cluster, "plain", 50, "http://server.plain/")?;
    answers_of(cluster, &load, 1)?;
    load.stop(cluster).map(drop)
}

/// The chart, into a namespace that takes only pods of the level `restricted`.
pub(crate) fn install(cluster: &mut Cluster) -> anyhow::Result<()> {
    cluster.kubectl("create namespace tulle-system")?;
    cluster.kubectl("label namespace tulle-system pod-security.kubernetes.io/enforce=restricted")?;
    checked(cluster)?;
    cluster
        .helm(&[
            "install",
            "tulle",
            CHART,
            "--namespace=tulle-system",
            "--wait",
            "--timeout=120s",
            // Otherwise their definitions stay, by intent, for the objects users made.
            "--set=crds.keep=false",
        ])
        .map_err(|error| error.context(cluster.explain("tulle-system")))?;
    for workload in ["deployment/tulle-control-plane", "deployment/tulle-injector"] {
        cluster.rolled_out("tulle-system", workload)?;
    }
    Ok(())
}

/// The chart is clean by Helm's own judgement, and the API server finds nothing wrong with what it renders.
fn checked(cluster: &Cluster) -> anyhow::Result<()> {
    let lint = cluster.helm(&["lint", "--strict", "--namespace=tulle-system", CHART])?;
    ensure!(!lint.contains("[WARNING]"), "helm lint: {lint}");
    let rendered = cluster.helm(&["template", "tulle", CHART, "--namespace=tulle-system", "--validate"])?;
    let warnings = cluster.dry_run(&rendered)?;
    ensure!(warnings.is_empty(), "kubectl apply --dry-run=server: {warnings}");
    Ok(())
}

/// A label on a namespace, and its pods have sidecars.
pub(crate) fn label(cluster: &mut Cluster) -> anyhow::Result<()> {
    cluster.kubectl("create namespace shop")?;
    cluster.kubectl("label namespace shop tulle.io/inject=enabled")?;
    deploy(cluster, "shop")?;
    for pod in items(&cluster.get("-n shop pods")?) {
        ensure!(is_meshed(&pod), "{} has no sidecar", pod["metadata"]["name"]);
    }
    Ok(())
}

/// Nothing stays, and the application goes on without.
pub(crate) fn uninstall(cluster: &mut Cluster) -> anyhow::Result<()> {
    cluster.helm(&["uninstall", "tulle", "--namespace", "tulle-system", "--wait", "--timeout", "120s"])?;
    cluster.kubectl("delete namespace tulle-system --timeout=120s")?;
    for workload in ["deployment/server", "deployment/client"] {
        cluster.kubectl(&format!("-n shop rollout restart {workload}"))?;
        cluster.rolled_out("shop", workload)?;
    }
    let load = Load::start(cluster, "shop", 50, "http://server.shop/")?;
    answers_of(cluster, &load, 1)?;
    load.stop(cluster)?;
    // What belonged to something that is gone is collected, which takes a moment.
    let mut left = Vec::new();
    let gone = cluster.until("nothing to be left", |cluster| {
        left = leftovers(cluster).ok()?;
        left.is_empty().then_some(())
    });
    gone.with_context(|| format!("left behind: {}", left.join(", ")))
}

/// Deploys client and servers, and waits until the client's node has heard of the servers.
fn deploy(cluster: &mut Cluster, namespace: &str) -> anyhow::Result<()> {
    cluster.apply_in(namespace, SHOP)?;
    cluster.rolled_out(namespace, "deployment/server")?;
    cluster.rolled_out(namespace, "deployment/client")?;
    let url = format!("http://server.{namespace}/");
    cluster.until("an answer", |cluster| seen(cluster, namespace, "client", &url).ok().map(drop))
}

/// Waits until `count` pods have answered.
pub(crate) fn answers_of(cluster: &mut Cluster, load: &Load, count: usize) -> anyhow::Result<()> {
    let what = format!("answers of {count} pods");
    cluster.until(&what, |cluster| (load.report(cluster).ok()?.pods.len() >= count).then_some(()))
}

/// Whether a pod has a sidecar, of either kind.
pub(crate) fn is_meshed(pod: &serde_json::Value) -> bool {
    let of = |list: &str| pod["spec"][list].as_array().cloned().unwrap_or_default();
    of("containers").iter().chain(&of("initContainers")).any(|container| container["name"] == "tulle-proxy")
}

/// The objects of a list.
pub(crate) fn items(list: &serde_json::Value) -> Vec<serde_json::Value> {
    list["items"].as_array().cloned().unwrap_or_default()
}

/// Objects of any kind whose name begins with `tulle`, but for this story's own.
fn leftovers(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let kinds = cluster.kubectl("api-resources --verbs=list -o name")?;
    // Events tell of what was, and end by themselves.
    let kinds: Vec<&str> = kinds.lines().filter(|kind| !kind.starts_with("events")).collect();
    let all = cluster.kubectl(&format!("get {} -A -o name", kinds.join(","))).context("list everything")?;
    let named_tulle = |line: &&str| line.split_once('/').is_some_and(|(_, name)| name.contains("tulle"));
    Ok(all.lines().filter(named_tulle).map(str::to_owned).collect())
}
