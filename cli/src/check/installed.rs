//! The control plane and the injector: are they there, ready, and of this version; are the kinds defined.

use serde_json::Value;

use super::finding::Finding;
use crate::cluster::{CallError, Cluster};
use crate::install;

pub(super) async fn look(cluster: &Cluster) -> Vec<Finding> {
    vec![
        deployment(cluster, "control plane", "tulle-control-plane").await,
        deployment(cluster, "injector", "tulle-injector").await,
        definitions(cluster).await,
    ]
}

async fn deployment(cluster: &Cluster, about: &'static str, name: &str) -> Finding {
    match cluster.get(&format!("/apis/apps/v1/namespaces/tulle-system/deployments/{name}")).await {
        Ok(deployment) => ready(about, name, &deployment),
        Err(CallError::NotFound) => Finding::failed(about, format!("there is no Deployment {name} in tulle-system")),
        Err(error) => Finding::of_call(about, &error),
    }
}

/// Judges a Deployment.
fn ready(about: &'static str, name: &str, deployment: &Value) -> Finding {
    let count = |path: &str| deployment.pointer(path).and_then(Value::as_u64).unwrap_or_default();
    let (wanted, ready) = (count("/spec/replicas"), count("/status/readyReplicas"));
    let updated = count("/status/updatedReplicas");
    let version = deployment["metadata"]["labels"]["app.kubernetes.io/version"].as_str().unwrap_or_default();
    if ready == 0 {
        let ask = format!("kubectl -n tulle-system describe deployment,pods -l app.kubernetes.io/name={name}");
        return Finding::failed(about, format!("none of {wanted} replicas is ready: {ask}"));
    }
    if ready < wanted || updated < wanted {
        return Finding::warning(about, format!("{ready} of {wanted} replicas ready, {updated} of the newest version"));
    }
    let ours = install::version().unwrap_or_default();
    if version != ours {
        return Finding::warning(about, format!("version {version}, this command is {ours}: tulle upgrade"));
    }
    Finding::ok(about, format!("{ready} of {wanted} replicas ready, version {version}"))
}

async fn definitions(cluster: &Cluster) -> Finding {
    const ABOUT: &str = "definitions";
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/workloads.tulle.io";
    match cluster.get(path).await {
        Ok(definition) => {
            let conditions = definition["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let established = conditions.iter().any(|c| c["type"] == "Established" && c["status"] == "True");
            let versions = definition["spec"]["versions"].as_array().cloned().unwrap_or_default();
            let served = versions.iter().any(|version| version["name"] == "v1alpha1" && version["served"] == true);
            if established && served {
                Finding::ok(ABOUT, "Workload v1alpha1")
            } else {
                Finding::failed(ABOUT, "Workload v1alpha1 is not served: kubectl describe crd workloads.tulle.io")
            }
        }
        Err(CallError::NotFound) => Finding::failed(ABOUT, "Workload is not defined: install with crds.install=true"),
        Err(error) => Finding::of_call(ABOUT, &error),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::finding::State;
    use super::*;

    #[test]
    fn replicas() {
        let judge = |ready: u64, updated: u64, version: &str| {
            let deployment = json!({
                "metadata": {"labels": {"app.kubernetes.io/version": version}},
                "spec": {"replicas": 2},
                "status": {"readyReplicas": ready, "updatedReplicas": updated},
            });
            super::ready("x", "x", &deployment).state
        };
        let version = install::version().unwrap();
        assert_eq!(judge(2, 2, &version), State::Ok);
        assert_eq!(judge(1, 2, &version), State::Warning);
        assert_eq!(judge(2, 1, &version), State::Warning);
        assert_eq!(judge(2, 2, "0.0.1"), State::Warning);
        assert_eq!(judge(0, 2, &version), State::Failed);
    }
}
