//! `tulle uninstall`: takes away what was installed, and what the control plane and the injector have made since.

use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{Overrides, objects};
use crate::args::UninstallArgs;
use crate::cluster::{self, CallError, Cluster};
use crate::render;

/// Runs the subcommand: prints what it takes away, or would.
///
/// # Errors
/// When the API server refuses, at the first refusal; what is left can be taken away by running it again.
pub(crate) fn run(args: &UninstallArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(async {
        let cluster = Cluster::connect().await?;
        for object in everything(&cluster).await? {
            let Some(path) = cluster::object(&object) else { continue };
            let shown = shown(&object);
            if !args.definitions && object["kind"] == "CustomResourceDefinition" {
                if exists(&cluster, &path).await.with_context(|| format!("looking for {shown}"))? {
                    render::lines([format!(
                        "{shown}: kept; --definitions takes it away, and every object of its kind"
                    )])?;
                }
                continue;
            }
            let there = if args.yes {
                cluster.delete(&path).await.with_context(|| format!("deleting {shown}"))?
            } else {
                exists(&cluster, &path).await.with_context(|| format!("looking for {shown}"))?
            };
            if there {
                render::lines([format!("{shown}{}", if args.yes { ": deleted" } else { "" })])?;
            }
        }
        if !args.yes {
            render::complain("nothing was deleted; --yes deletes what is listed");
        }
        render::complain("pods with a sidecar keep it, and its last configuration, until they are restarted");
        Ok(ExitCode::SUCCESS)
    })
}

/// All objects in the order they go: webhooks first, so that nothing waits for an injector that is gone; what replicas
/// would make again after their rights are gone; namespaces last.
async fn everything(cluster: &Cluster) -> anyhow::Result<Vec<Value>> {
    // With everything that may be installed.
    let all = Overrides { single: vec!["cni.enabled=true".to_owned()], ..Overrides::default() };
    let installed = objects(&all)?;
    let (namespace, installed): (Vec<_>, Vec<_>) =
        installed.into_iter().rev().map(|object| object.value).partition(|object| object["kind"] == "Namespace");
    let namespaces = cluster.list("/api/v1/namespaces").await.context("listing namespaces")?;
    let bundles = namespaces.iter().map(|namespace| {
        let name = namespace["metadata"]["name"].as_str().unwrap_or_default();
        json!({"kind": "ConfigMap", "metadata": {"name": "tulle-trust-bundle", "namespace": name}})
    });
    let own = |kind: &str, name: &str| json!({"kind": kind, "metadata": {"name": name, "namespace": "tulle-system"}});
    let made = [own("Secret", "tulle-injector-tls"), own("Secret", "tulle-ca"), own("Lease", "tulle-control-plane")];
    Ok(installed.into_iter().chain(bundles).chain(made).chain(namespace).collect())
}

async fn exists(cluster: &Cluster, path: &str) -> Result<bool, CallError> {
    match cluster.get(path).await {
        Ok(_) => Ok(true),
        Err(CallError::NotFound) => Ok(false),
        Err(error) => Err(error),
    }
}

fn shown(object: &Value) -> String {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (kind, name) = (word(&object["kind"]), word(&object["metadata"]["name"]));
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mend_31_every_object_of_the_chart_can_be_taken_away() {
        let all = Overrides { single: vec!["cni.enabled=true".to_owned()], ..Overrides::default() };
        for object in objects(&all).unwrap() {
            assert!(cluster::object(&object.value).is_some(), "{}", shown(&object.value));
        }
    }
}
