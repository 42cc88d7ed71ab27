//! Workloads whose pods are refused: no pod says so, only Events of whoever should make them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::finding::Finding;
use super::trust::enabled;
use crate::cluster::{self, CallError, Cluster};

const ABOUT: &str = "pods made";

/// Events that controllers write for a pod they could not make.
const EVENTS: &str = "/api/v1/events?fieldSelector=reason%3DFailedCreate";

/// Most workloads that are looked at, and most that are shown.
const LOOKED_AT: usize = 100;
const SHOWN: usize = 5;

pub(super) async fn look(cluster: &Cluster) -> Finding {
    let events = match cluster.list(EVENTS).await {
        Ok(events) => events,
        Err(error) => return Finding::of_call(ABOUT, &error),
    };
    let labelled = match cluster.list("/api/v1/namespaces").await {
        Ok(namespaces) => enabled(&namespaces),
        Err(error) => return Finding::of_call(ABOUT, &error),
    };
    let mut failing = Vec::new();
    for (object, message) in latest(&events, &labelled).into_values().take(LOOKED_AT) {
        let Some(path) = cluster::object(&object) else { continue };
        match cluster.get(&path).await {
            // An Event stays for an hour, also when all is well again.
            Ok(now) if !lacks_pods(&now) => {}
            Ok(_) => {
                let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let metadata = &object["metadata"];
                let (namespace, name) = (word(&metadata["namespace"]), word(&metadata["name"]));
                failing.push(format!("{} {namespace}/{name}: {message}", word(&object["kind"])));
            }
            Err(CallError::NotFound | CallError::Forbidden(_)) => {}
            Err(error) => return Finding::of_call(ABOUT, &error),
        }
    }
    if failing.is_empty() {
        return Finding::ok(ABOUT, "no injected workload lacks pods that were refused");
    }
    let more = failing.len().saturating_sub(SHOWN);
    failing.truncate(SHOWN);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    Finding::failed(ABOUT, format!("{}{more}", failing.join("; ")))
}

/// The last message about each object of a namespace that gets sidecars, or about Tulle.
fn latest(events: &[Value], labelled: &[String]) -> BTreeMap<String, (Value, String)> {
    let time = |event: &Value| {
        let times = ["lastTimestamp", "eventTime", "firstTimestamp"].iter();
        times.filter_map(|key| event[*key].as_str()).next().unwrap_or_default().to_owned()
    };
    let mut sorted: Vec<&Value> = events.iter().collect();
    sorted.sort_by_key(|event| time(event));
    let mut found = BTreeMap::new();
    for event in sorted {
        let about = &event["involvedObject"];
        let message = event["message"].as_str().unwrap_or_default();
        let namespace = about["namespace"].as_str().unwrap_or_default();
        if labelled.iter().any(|name| name == namespace) || message.contains("tulle") {
            let object = serde_json::json!({
                "kind": about["kind"],
                "metadata": {"namespace": about["namespace"], "name": about["name"]},
            });
            found.insert(object.to_string(), (object, message.to_owned()));
        }
    }
    found
}

/// Whether a controller has fewer pods than it wants.
fn lacks_pods(object: &Value) -> bool {
    let count = |path: &str| object.pointer(path).and_then(Value::as_u64);
    let has = count("/status/replicas").or_else(|| count("/status/currentNumberScheduled")).unwrap_or_default();
    match object["kind"].as_str() {
        Some("DaemonSet") => count("/status/desiredNumberScheduled").unwrap_or_default() > has,
        Some("Job") => {
            let over = object["status"]["conditions"].as_array().is_some_and(|conditions| {
                conditions.iter().any(|c| c["status"] == "True" && (c["type"] == "Complete" || c["type"] == "Failed"))
            });
            let begun =
                ["active", "succeeded", "failed"].iter().filter_map(|key| object["status"][*key].as_u64()).sum::<u64>();
            !over && begun == 0
        }
        _ => count("/spec/replicas").unwrap_or(1) > has,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn mend_30_only_what_still_lacks_pods_fails() {
        let set = |wanted: u64, has: u64| json!({"kind": "ReplicaSet", "spec": {"replicas": wanted}, "status": {"replicas": has}});
        assert!(lacks_pods(&set(2, 1)) && !lacks_pods(&set(2, 2)) && !lacks_pods(&set(0, 0)));
        let daemons = |wanted: u64, has: u64| json!({"kind": "DaemonSet", "status": {"desiredNumberScheduled": wanted, "currentNumberScheduled": has}});
        assert!(lacks_pods(&daemons(3, 0)) && !lacks_pods(&daemons(3, 3)));
        let job = |status: Value| json!({"kind": "Job", "status": status});
        assert!(lacks_pods(&job(json!({}))) && !lacks_pods(&job(json!({"active": 1}))));
        assert!(!lacks_pods(&job(json!({"conditions": [{"type": "Failed", "status": "True"}]}))));
    }

    #[test]
    fn mend_30_the_last_message_of_each_object_counts() {
        let event = |namespace: &str, time: &str, message: &str| {
            json!({"lastTimestamp": time, "message": message,
                "involvedObject": {"kind": "ReplicaSet", "namespace": namespace, "name": "web-1"}})
        };
        let events = [
            event("shop", "2026-01-02T00:00:00Z", "newer"),
            event("shop", "2026-01-01T00:00:00Z", "older"),
            event("other", "2026-01-01T00:00:00Z", "exceeded quota"),
            event("asks", "2026-01-01T00:00:00Z", "admission webhook \"pod.inject.tulle.io\" denied the request"),
        ];
        let found = latest(&events, &["shop".to_owned()]);
        let messages: Vec<_> = found.values().map(|(_, message)| message.as_str()).collect();
        assert_eq!(messages.len(), 2, "{messages:?}");
        assert!(messages.contains(&"newer"), "{messages:?}");
    }
}
