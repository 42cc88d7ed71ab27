//! A real Kubernetes of two nodes in two zones, made of processes in namespaces of their own: etcd, the control plane,
//! containerd, kubelets, CoreDNS. It needs root and no machine beside this one, and leaves nothing behind.

/// The cluster.
mod cluster;
/// The namespaces everything lives and dies in.
pub(crate) mod enclosure;
/// What is asked of it.
mod kubectl;
/// Requests at an even rate, counted.
mod load;
/// A node: network, containerd, kubelet, kube-proxy.
mod node;
/// Certificates and kubeconfigs.
mod pki;
/// Programs the cluster is made of, built once and kept.
pub(crate) mod programs;
/// A process of the cluster with its log.
mod service;

pub(crate) use cluster::Cluster;
pub(crate) use load::Load;
pub(crate) use node::CNI;

use std::process::Command;

use anyhow::ensure;
use tulle_testing::netns::Finished;

/// Runs `command` to its end and gives what it printed.
///
/// # Errors
/// When it fails, with what it said.
pub(crate) fn run(command: Command) -> anyhow::Result<String> {
    let shown = format!("{command:?}").replace('"', "");
    let done = Finished::of(command)?;
    ensure!(done.success, "{shown}\n{}{}", done.stdout, done.stderr);
    Ok(done.stdout)
}

/// A command line whose words hold no spaces.
pub(crate) fn words(line: &str) -> Command {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words);
    command
}
