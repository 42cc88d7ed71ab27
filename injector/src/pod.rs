//! Reading a pod that is kept as JSON, so that fields this version does not know survive.
//!
//! Every access is total: what is missing or of another type reads as absent.

use std::collections::BTreeMap;

use serde_json::Value;

/// Name of the proxy's container.
pub const PROXY: &str = "tulle-proxy";

/// Name of the init container that writes the redirect rules.
pub const INIT: &str = "tulle-init";

/// Volumes of the proxy.
pub(crate) const VOLUMES: [&str; 4] = ["tulle-token", "tulle-trust", "tulle-state", "tulle-none"];

/// Where the pod of a kind is; `None` for kinds that make none.
pub(crate) fn template(kind: &str) -> Option<&'static str> {
    match kind {
        "Pod" => Some(""),
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "ReplicationController" | "Job" => {
            Some("/spec/template")
        }
        "CronJob" => Some("/spec/jobTemplate/spec/template"),
        _ => None,
    }
}

/// The string at `pointer`.
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer).and_then(Value::as_str)
}

/// Whether `pointer` holds `true`.
pub(crate) fn is_true(value: &Value, pointer: &str) -> bool {
    value.pointer(pointer).and_then(Value::as_bool) == Some(true)
}

/// The list at `pointer`; empty when there is none.
pub(crate) fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// `metadata.annotations` or `metadata.labels`.
pub(crate) fn strings(pod: &Value, pointer: &str) -> BTreeMap<String, String> {
    let entries = pod.pointer(pointer).and_then(Value::as_object).into_iter().flatten();
    entries.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// A container's name.
pub(crate) fn name(container: &Value) -> &str {
    text(container, "/name").unwrap_or_default()
}

/// The pod's containers and init containers.
pub(crate) fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    list(pod, "/spec/initContainers").iter().chain(list(pod, "/spec/containers"))
}

/// The reference of the controller that made the pod.
pub(crate) fn controller(pod: &Value) -> Option<&Value> {
    list(pod, "/metadata/ownerReferences").iter().find(|owner| is_true(owner, "/controller"))
}

/// Labels with the hash that a controller of ReplicaSets adds to its own name: Deployments, and Rollouts of Argo.
const HASHES: [&str; 2] = ["pod-template-hash", "rollouts-pod-template-hash"];

/// Name of the DeploymentConfig of OpenShift, on the pods of its ReplicationControllers.
const DEPLOYMENT_CONFIG: &str = "openshift.io/deployment-config.name";

/// Name of the workload the pod belongs to: that of its Deployment, not of its ReplicaSet; of its CronJob, not of the
/// Job. `None` for a pod without a controller or a name.
pub(crate) fn workload(pod: &Value) -> Option<String> {
    if let Some(controller) = controller(pod) {
        let name = text(controller, "/name")?;
        let metadata = |map: &str, key: &str| pod.pointer(map)?.get(key)?.as_str();
        let shorter = match text(controller, "/kind") {
            Some("ReplicaSet") => HASHES.iter().find_map(|label| {
                let hash = metadata("/metadata/labels", label)?;
                name.strip_suffix(hash)?.strip_suffix('-').filter(|rest| !rest.is_empty())
            }),
            Some("ReplicationController") => metadata("/metadata/annotations", DEPLOYMENT_CONFIG),
            Some("Job") => cron_job(name),
            _ => None,
        };
        return Some(shorter.unwrap_or(name).to_owned());
    }
    let generated = || text(pod, "/metadata/generateName").map(|name| name.trim_end_matches('-'));
    text(pod, "/metadata/name").or_else(generated).filter(|name| !name.is_empty()).map(str::to_owned)
}

/// The CronJob of a Job that is named by its time in minutes since the epoch, which has eight digits or more: a Job
/// named `import-2` by hand keeps its name.
fn cron_job(job: &str) -> Option<&str> {
    let (name, time) = job.rsplit_once('-')?;
    (time.len() >= 8 && time.bytes().all(|byte| byte.is_ascii_digit()) && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn mend_25_workloads_of_other_controllers() {
        let owned = |kind: &str, name: &str, labels: Value, annotations: Value| {
            let owners = json!([{"kind": kind, "name": name, "controller": true}]);
            json!({"metadata": {"name": "x", "labels": labels, "annotations": annotations, "ownerReferences": owners}})
        };
        let none = || json!({});
        let rollout = json!({"rollouts-pod-template-hash": "6d5f"});
        let config = json!({"openshift.io/deployment-config.name": "web", "openshift.io/deployment.name": "web-3"});
        for (pod, name) in [
            (owned("ReplicaSet", "web-6d5f", rollout.clone(), none()), "web"),
            (owned("ReplicaSet", "other", rollout, none()), "other"),
            (owned("ReplicaSet", "-6d5f", json!({"pod-template-hash": "6d5f"}), none()), "-6d5f"),
            (owned("ReplicaSet", "web-6d5f", json!({"pod-template-hash": ""}), none()), "web-6d5f"),
            (owned("ReplicationController", "web-3", none(), config.clone()), "web"),
            (owned("ReplicationController", "web-3", none(), none()), "web-3"),
            (owned("StatefulSet", "db", none(), config), "db"),
            (owned("CloneSet", "web", none(), none()), "web"),
        ] {
            assert_eq!(workload(&pod).as_deref(), Some(name), "{pod}");
        }
    }

    #[test]
    fn workloads_are_named_after_what_people_wrote() {
        let owned = |kind: &str, name: &str| {
            json!({"metadata": {
                "name": "x", "labels": {"pod-template-hash": "7d9f"},
                "ownerReferences": [{"kind": "Other", "name": "o"}, {"kind": kind, "name": name, "controller": true}],
            }})
        };
        let of = |pod: &Value| workload(pod).unwrap();
        assert_eq!(of(&owned("ReplicaSet", "web-7d9f")), "web");
        assert_eq!(of(&owned("ReplicaSet", "bare")), "bare");
        assert_eq!(of(&owned("Job", "backup-29123456")), "backup");
        assert_eq!(of(&owned("Job", "import-2")), "import-2");
        assert_eq!(of(&owned("StatefulSet", "db")), "db");
        assert_eq!(of(&json!({"metadata": {"name": "solo"}})), "solo");
        assert_eq!(of(&json!({"metadata": {"generateName": "run-"}})), "run");
        assert_eq!(workload(&json!({"metadata": null})), None);
    }
}
