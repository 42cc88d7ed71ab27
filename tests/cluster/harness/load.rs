//! Requests from the client pod, at an even rate, while the test does something to the mesh.

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::cluster::Cluster;

/// What became of the requests, as the client counted.
#[derive(Debug, Deserialize)]
pub(crate) struct Report {
    pub(crate) sent: u64,
    pub(crate) failed: u64,
    pub(crate) failures: Vec<String>,
    /// Answers by pod.
    pub(crate) pods: std::collections::BTreeMap<String, u64>,
    pub(crate) slowest_ms: u64,
}

/// A stream of requests under way. It is reached by the pod's address and not through the API server, which may be down.
#[derive(Debug)]
pub(crate) struct Load {
    control: String,
}

impl Load {
    /// Starts `rate` requests a second for `url`, from the pod of the deployment `client` in `namespace`.
    ///
    /// # Errors
    /// When the client cannot be reached.
    pub(crate) fn start(cluster: &Cluster, namespace: &str, rate: u32, url: &str) -> anyhow::Result<Self> {
        let pods = cluster.get(&format!("-n {namespace} pods -l app=client"))?;
        // One that ends is still listed.
        let stays = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null();
        let pod = pods["items"].as_array().into_iter().flatten().find(stays).context("a client")?;
        let address = pod["status"]["podIP"].as_str().context("a client with an address")?;
        let control = format!("http://{address}:9091");
        cluster.request(&format!("{control}/start?rate={rate}&url={url}"))?;
        Ok(Self { control })
    }

    /// What became of the requests so far.
    ///
    /// # Errors
    /// When the client cannot be reached.
    pub(crate) fn report(&self, cluster: &Cluster) -> anyhow::Result<Report> {
        Ok(serde_json::from_str(&cluster.request(&format!("{}/report", self.control))?)?)
    }

    /// Ends the requests and waits for those under way.
    ///
    /// # Errors
    /// When one failed, or there were none.
    pub(crate) fn stop(self, cluster: &Cluster) -> anyhow::Result<Report> {
        let report: Report = serde_json::from_str(&cluster.request(&format!("{}/stop", self.control))?)?;
        ensure!(report.sent > 0, "the client made no request");
        ensure!(
            report.failed == 0,
            "{} of {} requests failed, the first:\n{}",
            report.failed,
            report.sent,
            report.failures.join("\n")
        );
        Ok(report)
    }
}
