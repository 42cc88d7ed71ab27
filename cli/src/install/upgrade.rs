//! `tulle upgrade`: the objects of this version, for a cluster that has another one, once it is sure that the step is safe.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::{Overrides, objects, print, version};
use crate::cluster::{CallError, Cluster};
use crate::render;

const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/tulle-system/deployments/tulle-control-plane";

/// Runs the subcommand: prints the objects, and on standard error what to do with them.
///
/// # Errors
/// When a value is wrong, Tulle is not installed, or the step would not be safe.
pub(crate) fn run(overrides: &Overrides) -> anyhow::Result<ExitCode> {
    let wanted = objects(overrides)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    let deployment = runtime.block_on(async {
        match Cluster::connect().await?.get(DEPLOYMENT).await {
            Ok(deployment) => Ok(deployment),
            Err(CallError::NotFound) => bail!("Tulle is not installed: tulle install | kubectl apply -f -"),
            Err(error) => Err(error).context("asking for the control plane"),
        }
    })?;
    let new = wanted
        .iter()
        .map(|object| &object.value)
        .find(|object| object["kind"] == "Deployment" && object["metadata"]["name"] == "tulle-control-plane");
    let new = new.context("the chart has no control plane")?;
    let (from, to) = (installed(&deployment), version()?);
    judge(&deployment, new, &to)?;
    print(&wanted)?;
    render::complain(&format!(
        "from {from} to {to}. Pipe this to kubectl apply -f -, wait for the rollout, then restart the workloads that \
         `tulle check` names: their sidecars work on, and are {from} until then."
    ));
    Ok(ExitCode::SUCCESS)
}

fn installed(deployment: &Value) -> &str {
    deployment["metadata"]["labels"]["app.kubernetes.io/version"].as_str().unwrap_or("an unknown version")
}

/// Whether the Deployment in the cluster may become the new one.
fn judge(old: &Value, new: &Value, to: &str) -> anyhow::Result<()> {
    if old["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm" {
        bail!("Helm installed this: helm upgrade tulle deploy/helm/tulle --namespace tulle-system");
    }
    if let (Some(from), Some(wanted)) = (numbers(installed(old)), numbers(to))
        && from > wanted
    {
        bail!("{} is installed, which is newer than this command ({to})", installed(old));
    }
    let (before, after) = (variable(old, "TULLE_TRUST_DOMAIN"), variable(new, "TULLE_TRUST_DOMAIN"));
    if let (Some(before), Some(after)) = (before, after)
        && before != after
    {
        bail!(
            "the trust domain is {before} and would become {after}: every identity would change; pass --set trustDomain={before}"
        );
    }
    Ok(())
}

/// The value of an environment variable of the first container.
fn variable<'a>(deployment: &'a Value, name: &str) -> Option<&'a str> {
    let variables = deployment.pointer("/spec/template/spec/containers/0/env")?.as_array()?;
    variables.iter().find(|variable| variable["name"] == name)?["value"].as_str()
}

/// `1.2.3` as numbers that can be compared; what follows a dash is left aside.
fn numbers(version: &str) -> Option<Vec<u64>> {
    version.split('-').next()?.split('.').map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(version: &str, managed_by: &str, trust_domain: &str) -> Value {
        let env = json!([{"name": "A", "value": "b"}, {"name": "TULLE_TRUST_DOMAIN", "value": trust_domain}]);
        json!({
            "metadata": {"labels": {"app.kubernetes.io/version": version, "app.kubernetes.io/managed-by": managed_by}},
            "spec": {"template": {"spec": {"containers": [{"env": env}]}}},
        })
    }

    #[test]
    fn safe_and_unsafe_steps() {
        let new = deployment("0.10.0", "", "a");
        let judge = |old: Value| judge(&old, &new, "0.10.0").map_err(|error| error.to_string());
        assert_eq!(judge(deployment("0.9.1", "", "a")), Ok(()));
        assert_eq!(judge(deployment("0.10.0", "", "a")), Ok(()));
        assert!(judge(deployment("0.11.0", "", "a")).is_err_and(|error| error.contains("newer")));
        assert!(judge(deployment("0.9.1", "Helm", "a")).is_err_and(|error| error.contains("helm upgrade")));
        assert!(judge(deployment("0.9.1", "", "b")).is_err_and(|error| error.contains("--set trustDomain=b")));
    }
}
