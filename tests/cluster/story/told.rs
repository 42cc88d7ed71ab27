//! What a user is told: by commands they would type, in words that say what to do.

use anyhow::ensure;

use crate::harness::Cluster;

/// A pod that shares its node's network, in a namespace whose pods get sidecars.
const HOST_NETWORK: &str = include_str!("../manifests/host-network.yaml");

/// Why there is a sidecar, why there is none, and what is wrong with an annotation.
pub(crate) fn told(cluster: &mut Cluster) -> anyhow::Result<()> {
    says(cluster, "-n shop get events", &["TulleInjected", "the Tulle proxy as a native sidecar"])?;
    says(cluster, "-n shop describe pods -l app=server", &["tulle-proxy:", "tulle-init:", "tulle.io/inject-status"])?;
    let warned = cluster.apply_in("shop", HOST_NETWORK)?;
    ensure!(warned.contains("hostNetwork is true"), "kubectl apply said: {warned}");
    says(cluster, "-n shop get events", &["TulleNotInjected", "pod/host-network", "hostNetwork is true"])?;
    cluster.kubectl("-n shop delete pod host-network --now")?;

    refused(cluster, "-n shop annotate service server tulle.io/timeout=soon", "tulle.io/timeout")?;
    refused(cluster, "annotate namespace shop tulle.io/mtls=always", "strict")?;
    refused(
        cluster,
        "-n shop run odd --image=tulle-test/probe:1 --annotations=tulle.io/capture=maybe",
        "tulle.io/capture",
    )
}

/// Waits until what a command prints has all of `parts`: Events are written a moment after what they speak of.
fn says(cluster: &mut Cluster, command: &str, parts: &[&str]) -> anyhow::Result<()> {
    cluster.until(&format!("`kubectl {command}` to say {parts:?}"), |cluster| {
        let said = cluster.kubectl(command).ok()?;
        parts.iter().all(|part| said.contains(part)).then_some(())
    })
}

/// The command fails, and its message has `part`.
fn refused(cluster: &Cluster, command: &str, part: &str) -> anyhow::Result<()> {
    match cluster.kubectl(command) {
        Ok(_) => anyhow::bail!("`kubectl {command}` was taken"),
        Err(error) => {
            let said = format!("{error:#}");
            ensure!(said.contains("denied the request") && said.contains(part), "`kubectl {command}` said: {said}");
            Ok(())
        }
    }
}
