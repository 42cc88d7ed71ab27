//! The admin port of a pod's proxy, reached by `kubectl port-forward`: it knows every way to log in and every kind of API
//! server that kubectl knows. It ends when the forward is dropped.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::check::has_proxy;
use crate::cluster::{CallError, Cluster};

/// Longest time until kubectl listens.
const PATIENCE: Duration = Duration::from_secs(30);

/// Most names in an error.
const NAMES: usize = 5;

/// The admin port of a proxy.
const ADMIN: u16 = 15000;

/// A forwarded port.
#[derive(Debug)]
pub(crate) struct Forward {
    /// Where the port is reached on this machine.
    pub(crate) address: SocketAddr,
    /// `NAMESPACE/POD`.
    pub(crate) pod: String,
    _kubectl: Child,
}

/// Forwards the admin port of the pod whose name is or begins with `wanted`.
///
/// # Errors
/// When there is no such pod, it has no proxy, or kubectl cannot reach it.
pub(crate) async fn open(namespace: Option<&str>, wanted: &str) -> anyhow::Result<Forward> {
    let cluster = Cluster::connect().await?;
    let namespace = namespace.unwrap_or_else(|| cluster.namespace());
    let name = match cluster.list(&format!("/api/v1/namespaces/{namespace}/pods")).await {
        Ok(pods) => choose(&pods, namespace, wanted.strip_prefix("pod/").unwrap_or(wanted))?,
        // Who may not list pods may still forward to one that is named in full.
        Err(CallError::Forbidden(_)) => wanted.strip_prefix("pod/").unwrap_or(wanted).to_owned(),
        Err(error) => return Err(error).with_context(|| format!("listing the pods of {namespace}")),
    };
    let mut kubectl = Command::new("kubectl")
        .args(["port-forward", "--address=127.0.0.1", "-n", namespace, &format!("pod/{name}"), &format!(":{ADMIN}")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("kubectl cannot be started: `tulle proxy-config` reaches a pod by kubectl port-forward")?;
    let address = tokio::time::timeout(PATIENCE, listening(&mut kubectl))
        .await
        .with_context(|| format!("kubectl port-forward to {namespace}/{name} does not answer"))??;
    Ok(Forward { address, pod: format!("{namespace}/{name}"), _kubectl: kubectl })
}

/// The address that kubectl says it listens at.
async fn listening(kubectl: &mut Child) -> anyhow::Result<SocketAddr> {
    let out = kubectl.stdout.take().context("no output of kubectl")?;
    let mut lines = BufReader::new(out).lines();
    while let Some(line) = lines.next_line().await? {
        if let Some(address) = forwarded(&line) {
            return Ok(address);
        }
    }
    let mut said = String::new();
    if let Some(mut error) = kubectl.stderr.take() {
        error.read_to_string(&mut said).await?;
    }
    bail!("kubectl port-forward: {}", said.trim_end())
}

/// The address in `Forwarding from 127.0.0.1:40123 -> 15000`.
fn forwarded(line: &str) -> Option<SocketAddr> {
    line.strip_prefix("Forwarding from ")?.split(" -> ").next()?.parse().ok()
}

/// The one pod that is meant.
fn choose(pods: &[Value], namespace: &str, wanted: &str) -> anyhow::Result<String> {
    let name = |pod: &Value| pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let exact = pods.iter().find(|pod| name(pod) == wanted);
    let alike: Vec<&Value> = pods.iter().filter(|pod| name(pod).starts_with(wanted)).collect();
    let names = |pods: &[&Value]| {
        let shown = pods.iter().take(NAMES).map(|pod| name(pod)).collect::<Vec<_>>().join(", ");
        if pods.len() > NAMES { format!("{shown} and {} more", pods.len() - NAMES) } else { shown }
    };
    let pod = match (exact, &alike[..]) {
        (Some(pod), _) => pod,
        (None, [pod]) => *pod,
        (None, []) => {
            let meshed: Vec<&Value> = pods.iter().filter(|pod| has_proxy(pod)).collect();
            let there = if meshed.is_empty() { "none has a sidecar".to_owned() } else { names(&meshed) };
            bail!("no pod of {namespace} has a name that begins with {wanted}; with a sidecar: {there}")
        }
        (None, several) => bail!("{wanted} may be one of several pods of {namespace}: {}", names(several)),
    };
    if !has_proxy(pod) {
        bail!("pod {namespace}/{} has no sidecar: tulle check says which pods should have one", name(pod));
    }
    Ok(name(pod))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn mend_31_a_pod_is_found_by_the_beginning_of_its_name() {
        let pod = |name: &str, container: &str| json!({"metadata": {"name": name}, "spec": {"initContainers": [{"name": container}]}});
        let pods = [
            pod("web-1", "tulle-proxy"),
            pod("web-12", "tulle-proxy"),
            pod("db-0", "tulle-proxy"),
            pod("plain", "app"),
        ];
        let choose = |wanted: &str| choose(&pods, "shop", wanted).map_err(|error| error.to_string());
        assert_eq!(choose("db").as_deref(), Ok("db-0"));
        assert_eq!(choose("web-1").as_deref(), Ok("web-1"), "a whole name comes first");
        for (wanted, part) in [
            ("web", "several pods of shop: web-1, web-12"),
            ("api", "with a sidecar: web-1, web-12, db-0"),
            ("plain", "pod shop/plain has no sidecar"),
        ] {
            assert!(choose(wanted).is_err_and(|error| error.contains(part)), "{wanted}");
        }
    }

    #[test]
    fn what_kubectl_says() {
        let v4 = forwarded("Forwarding from 127.0.0.1:40123 -> 15000");
        assert_eq!(v4, Some(SocketAddr::from(([127, 0, 0, 1], 40123))));
        assert_eq!(forwarded("Handling connection for 40123"), None);
    }
}
