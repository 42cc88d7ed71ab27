//! Pods: who has a sidecar, whose is old or not ready, and who should have one.

use serde_json::Value;
use tulle_injector::decide::{self, Circumstances, Verdict};

use super::finding::Finding;
use super::trust::{enabled, has_proxy};
use crate::cluster::Cluster;
use crate::install;

/// Most names in one line.
const NAMES: usize = 5;

pub(super) async fn look(cluster: &Cluster) -> Vec<Finding> {
    let namespaces = match cluster.list("/api/v1/namespaces").await {
        Ok(namespaces) => enabled(&namespaces),
        Err(error) => return vec![Finding::of_call("pods", &error)],
    };
    match cluster.list("/api/v1/pods").await {
        Ok(pods) => judge(&pods, &namespaces, &install::version().unwrap_or_default()),
        Err(error) => vec![Finding::of_call("pods", &error)],
    }
}

/// Judges all pods of a cluster. `namespaces` are those whose pods get sidecars; `version` is the newest sidecar's.
fn judge(pods: &[Value], namespaces: &[String], version: &str) -> Vec<Finding> {
    let running = || {
        pods.iter().filter(|pod| {
            let phase = pod["status"]["phase"].as_str().unwrap_or_default();
            phase != "Succeeded" && phase != "Failed" && pod["metadata"]["deletionTimestamp"].is_null()
        })
    };
    let names = |chosen: Vec<&Value>| {
        let shown = chosen.iter().take(NAMES).map(|pod| {
            let word = |key: &str| pod["metadata"][key].as_str().unwrap_or_default();
            format!("{}/{}", word("namespace"), word("name"))
        });
        let shown = shown.collect::<Vec<_>>().join(", ");
        if chosen.len() > NAMES { format!("{shown} and {} more", chosen.len() - NAMES) } else { shown }
    };
    let meshed: Vec<&Value> = running().filter(|pod| has_proxy(pod)).collect();
    let old: Vec<&Value> = meshed.iter().copied().filter(|pod| version_of(pod) != version).collect();
    let unready: Vec<&Value> = meshed.iter().copied().filter(|pod| !is_ready(pod)).collect();
    let plain: Vec<&Value> = running().filter(|pod| !has_proxy(pod) && wants_proxy(pod, namespaces)).collect();

    let mut findings = Vec::new();
    let total = meshed.len();
    findings.push(if unready.is_empty() {
        Finding::ok("sidecars ready", format!("{total} of {total}"))
    } else {
        Finding::warning("sidecars ready", format!("{} of {total}; not: {}", total - unready.len(), names(unready)))
    });
    findings.push(if old.is_empty() {
        Finding::ok("sidecars current", format!("{total} of {total} are {version}"))
    } else {
        let list = names(old);
        Finding::warning("sidecars current", format!("not {version}, restart their workloads: {list}"))
    });
    findings.push(if plain.is_empty() {
        Finding::ok("pods without sidecar", "none that should have one")
    } else {
        let list = names(plain);
        Finding::warning(
            "pods without sidecar",
            format!("older than their label or annotation, restart their workloads: {list}"),
        )
    });
    findings
}

/// The version the injector wrote.
fn version_of(pod: &Value) -> String {
    let status = pod["metadata"]["annotations"]["tulle.io/inject-status"].as_str().unwrap_or_default();
    let status: Value = serde_json::from_str(status).unwrap_or_default();
    status["version"].as_str().unwrap_or("unknown").to_owned()
}

fn is_ready(pod: &Value) -> bool {
    ["containerStatuses", "initContainerStatuses"].iter().any(|key| {
        let statuses = pod["status"][key].as_array();
        statuses.is_some_and(|list| list.iter().any(|s| s["name"] == "tulle-proxy" && s["ready"] == true))
    })
}

/// Whether the injector would put a proxy beside the pod if it were made now.
fn wants_proxy(pod: &Value, namespaces: &[String]) -> bool {
    let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
    let by_default = namespaces.iter().any(|enabled| enabled == namespace);
    matches!(decide::decide(pod, Circumstances { namespace, by_default, native: true }), Verdict::Inject(_))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::finding::State;
    use super::*;

    fn pod(name: &str, proxy: Option<&str>, ready: bool) -> Value {
        let mut pod = json!({
            "metadata": {"namespace": "shop", "name": name, "annotations": {}},
            "spec": {"containers": [{"name": "app"}]},
            "status": {"phase": "Running", "initContainerStatuses": [{"name": "tulle-proxy", "ready": ready}]},
        });
        if let Some(version) = proxy {
            pod["spec"]["initContainers"] = json!([{"name": "tulle-proxy"}]);
            pod["metadata"]["annotations"]["tulle.io/inject-status"] = json!({"version": version}).to_string().into();
        }
        pod
    }

    fn states(pods: &[Value]) -> Vec<State> {
        judge(pods, &["shop".to_owned()], "2").iter().map(|finding| finding.state).collect()
    }

    #[test]
    fn every_kind_of_pod() {
        let (ok, warning) = (State::Ok, State::Warning);
        assert_eq!(states(&[pod("a", Some("2"), true)]), [ok, ok, ok]);
        assert_eq!(states(&[pod("a", Some("1"), true)]), [ok, warning, ok]);
        assert_eq!(states(&[pod("a", Some("2"), false)]), [warning, ok, ok]);
        assert_eq!(states(&[pod("a", None, false)]), [ok, ok, warning]);
        let mut out = pod("a", None, false);
        out["metadata"]["annotations"]["tulle.io/inject"] = "disabled".into();
        let mut over = pod("b", None, false);
        over["status"]["phase"] = "Succeeded".into();
        let mut host = pod("c", None, false);
        host["spec"]["hostNetwork"] = true.into();
        assert_eq!(states(&[out, over, host]), [ok, ok, ok]);
        let mut windows = pod("d", None, false);
        windows["spec"]["nodeSelector"] = json!({"kubernetes.io/os": "windows"});
        let mut elsewhere = pod("e", None, false);
        elsewhere["metadata"]["namespace"] = "other".into();
        assert_eq!(states(&[windows, elsewhere.clone()]), [ok, ok, ok]);
        elsewhere["metadata"]["annotations"]["tulle.io/inject"] = "enabled".into();
        assert_eq!(states(&[elsewhere]), [ok, ok, warning], "an annotation asks as a label does");
    }

    #[test]
    fn long_lists_are_cut() {
        let pods: Vec<Value> = (0..7).map(|n| pod(&format!("p{n}"), None, false)).collect();
        let findings = judge(&pods, &["shop".to_owned()], "2");
        assert!(findings[2].detail.ends_with("shop/p4 and 2 more"), "{}", findings[2].detail);
    }
}
