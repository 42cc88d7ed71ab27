//! The DaemonSet's program on a node: the plugin is there, can reach the API server, and stays in the network's configuration
//! until Tulle's CNI is uninstalled.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::apps::v1::DaemonSet;
use kube::core::PartialObjectMeta;
use kube::{Api, Client};
use notify::{RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use super::kubeconfig;
use super::node::{Found, Node};

/// Pause between two looks when nothing happens: the token, whose file the kubelet replaces long before its end, and changes
/// that went unseen.
const LOOK: Duration = Duration::from_secs(10);

/// Most time to find out why we end; the kubelet kills after 30 s.
const FAREWELL: Duration = Duration::from_secs(20);

/// What the program is told.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) node: Node,
    /// The plugin: this program.
    pub(crate) program: PathBuf,
    /// What it runs.
    pub(crate) tools: PathBuf,
    /// Folder of the ServiceAccount's token.
    pub(crate) account: PathBuf,
    /// Host and port of the API server.
    pub(crate) api_server: (String, String),
    /// Namespace and name of the DaemonSet.
    pub(crate) daemon_set: (String, String),
}

/// Why the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Farewell {
    /// Another takes its place, or nobody knows: the node stays as it is.
    Stay,
    /// It was uninstalled.
    Leave,
}

/// Installs, watches, and at the end of `shutdown` leaves the node as it should be.
///
/// # Errors
/// When the plugin cannot be placed, or the folder not watched.
pub(crate) async fn run(settings: Settings, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    let node = &settings.node;
    node.place(&settings.program, &settings.tools).context("placing the plugin")?;
    let (told, mut events) = mpsc::channel::<()>(1);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // One is enough: a look sees everything. Reading is no event of interest, and would be ours.
        if event.is_ok_and(|event| !event.kind.is_access()) {
            let _ = told.try_send(());
        }
    })
    .context("watching files")?;
    let watched = node.conf_dir.display().to_string();
    watcher.watch(&node.conf_dir, RecursiveMode::NonRecursive).with_context(|| format!("watching {watched}"))?;
    tokio::pin!(shutdown);
    let mut said = String::new();
    let mut token = String::new();
    loop {
        let seen = match look(&settings, &mut token) {
            Ok(Found::NoNetwork) => format!("no network is configured in {watched} yet"),
            Ok(Found::Added(path)) => format!("added to {}", path.display()),
            Ok(Found::InPlace(path)) => format!("in place in {}", path.display()),
            Err(error) => format!("{error:#}"),
        };
        if seen != said {
            tracing::info!("{seen}");
            said = seen;
        }
        tokio::select! {
            () = &mut shutdown => break,
            _ = events.recv() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
    let farewell = Box::pin(farewell(&settings.daemon_set)).await;
    tracing::info!(?farewell, "told to end");
    if farewell == Farewell::Leave {
        node.remove().context("taking the plugin out")?;
    }
    Ok(())
}

/// The credentials first: what is in the configuration must work.
fn look(settings: &Settings, token: &mut String) -> anyhow::Result<Found> {
    let read = |name: &str| {
        let path = settings.account.join(name);
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    };
    let (host, port) = &settings.api_server;
    let text = kubeconfig::text(host, port, &read("ca.crt")?, &read("token")?);
    if text != *token || !settings.node.kubeconfig().exists() {
        settings.node.write_kubeconfig(&text)?;
        *token = text;
    }
    Ok(settings.node.look()?)
}

/// Whether the node is ready for pods: the plugin is in the configuration that the runtime uses.
///
/// # Errors
/// When the configuration cannot be read.
pub(crate) fn is_ready(node: &Node) -> anyhow::Result<bool> {
    Ok(node.kubeconfig().exists() && node.check()?)
}

/// Asks the API server whether the DaemonSet is still wanted. While it cannot be asked, the node stays as it is: pods that should
/// be captured must not start uncaptured because the API server was away.
async fn farewell((namespace, name): &(String, String)) -> Farewell {
    let asked = async {
        loop {
            let found = async {
                let client = Client::try_default().await?;
                Api::<DaemonSet>::namespaced(client, namespace).get_metadata(name).await
            };
            match verdict(&found.await) {
                Some(farewell) => return farewell,
                None => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        }
    };
    tokio::time::timeout(FAREWELL, Box::pin(asked)).await.unwrap_or(Farewell::Stay)
}

/// What an answer means; `None` for one that means nothing.
fn verdict(found: &kube::Result<PartialObjectMeta<DaemonSet>>) -> Option<Farewell> {
    match found {
        Ok(set) if set.metadata.deletion_timestamp.is_none() => Some(Farewell::Stay),
        Ok(_) => Some(Farewell::Leave),
        // Gone; or our rights or our account are, which go together with it and stay when it is replaced.
        Err(kube::Error::Api(status)) if [401, 403, 404].contains(&status.code) => Some(Farewell::Leave),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use kube::core::Status;

    use super::*;

    #[test]
    fn an_update_leaves_the_node_as_it_is() {
        let status = |code: u16| Err(kube::Error::Api(Status::failure("x", "y").with_code(code).boxed()));
        assert_eq!(verdict(&Ok(PartialObjectMeta::default())), Some(Farewell::Stay));
        let mut going = PartialObjectMeta::default();
        going.metadata.deletion_timestamp = Some(Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(verdict(&Ok(going)), Some(Farewell::Leave));
        for code in [401, 403, 404] {
            assert_eq!(verdict(&status(code)), Some(Farewell::Leave));
        }
        for code in [429, 500, 503] {
            assert_eq!(verdict(&status(code)), None);
        }
    }
}
