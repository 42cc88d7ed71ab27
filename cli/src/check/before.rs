//! Is the cluster fit: the API server's version and clock, the user's rights, Pod Security, other meshes, nodes.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::finding::Finding;
use crate::cluster::{self, CallError, Cluster};
use crate::install::{self, Overrides};

/// First minor version of Kubernetes 1 with what the chart needs.
const MINOR: u32 = 30;

/// Certificates are valid from a little before they were made; a clock that is further behind refuses them.
const SKEW: Duration = Duration::from_secs(60);

/// What the server says of itself.
///
/// # Errors
/// When it does not answer: nothing else can be looked at then.
pub(super) async fn server(cluster: &Cluster) -> Result<Vec<Finding>, CallError> {
    let version = cluster.get("/version").await?;
    let word = |key: &str| version[key].as_str().unwrap_or_default().to_owned();
    // Some providers write `30+`.
    let minor = word("minor").trim_end_matches(|c: char| !c.is_ascii_digit()).parse::<u32>().unwrap_or_default();
    let found = word("gitVersion");
    let version = if word("major") == "1" && minor < MINOR {
        Finding::failed("API server", format!("{found} is too old: Tulle needs v1.{MINOR}"))
    } else {
        Finding::ok("API server", found)
    };
    let date = cluster.date().await?;
    Ok(vec![version, clock(date.as_deref(), SystemTime::now())])
}

/// Certificates that are valid from now on are of no use where the clock is behind.
fn clock(date: Option<&str>, now: SystemTime) -> Finding {
    const ABOUT: &str = "clock";
    let Some(server) = date.and_then(|date| httpdate::parse_http_date(date).ok()) else {
        return Finding::ok(ABOUT, "the API server does not tell the time");
    };
    let apart = match server.duration_since(now) {
        Ok(ahead) => ahead,
        Err(behind) => behind.duration(),
    };
    if apart > SKEW {
        let seconds = apart.as_secs();
        return Finding::warning(
            ABOUT,
            format!("{seconds} s between this machine and the API server: check NTP on both"),
        );
    }
    Finding::ok(ABOUT, "this machine and the API server agree")
}

/// What an installation needs of the cluster.
pub(super) async fn cluster(cluster: &Cluster) -> Vec<Finding> {
    vec![rights(cluster).await, pod_security(cluster).await, other_meshes(cluster).await, nodes(cluster).await]
}

/// May the user make what `tulle install` prints?
async fn rights(cluster: &Cluster) -> Finding {
    const ABOUT: &str = "your rights";
    let objects = match install::objects(&Overrides::default()) {
        Ok(objects) => objects,
        Err(error) => return Finding::failed(ABOUT, error.to_string()),
    };
    let kinds: BTreeSet<_> = objects.iter().filter_map(|object| cluster::collection(object.kind())).collect();
    let mut lacking = Vec::new();
    for (group, resource) in kinds {
        let wanted = json!({"group": group, "resource": resource, "verb": "create", "namespace": ""});
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": wanted},
        });
        match cluster.create("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", &review).await {
            Ok(answer) if answer["status"]["allowed"] == true => {}
            Ok(_) => lacking.push(resource),
            Err(error) => return Finding::of_call(ABOUT, &error),
        }
    }
    if lacking.is_empty() {
        Finding::ok(ABOUT, "everything that is installed may be made")
    } else {
        Finding::failed(ABOUT, format!("you may not make {}: install as cluster-admin", lacking.join(", ")))
    }
}

/// The init container writes redirect rules: it needs a capability that the levels baseline and restricted refuse.
async fn pod_security(cluster: &Cluster) -> Finding {
    const ABOUT: &str = "Pod Security";
    let namespaces = match cluster.list("/api/v1/namespaces").await {
        Ok(namespaces) => namespaces,
        Err(error) => return Finding::of_call(ABOUT, &error),
    };
    let label =
        |namespace: &Value, key: &str| namespace["metadata"]["labels"][key].as_str().unwrap_or_default().to_owned();
    let refusing: Vec<String> = namespaces
        .iter()
        .filter(|namespace| label(namespace, "tulle.io/inject") == "enabled")
        .filter(|namespace| {
            ["baseline", "restricted"].contains(&label(namespace, "pod-security.kubernetes.io/enforce").as_str())
        })
        .filter_map(|namespace| namespace["metadata"]["name"].as_str().map(str::to_owned))
        .collect();
    if refusing.is_empty() {
        return Finding::ok(ABOUT, "no namespace to be injected refuses the init container");
    }
    let names = refusing.join(", ");
    Finding::warning(
        ABOUT,
        format!("the init container needs NET_ADMIN, which the level of these namespaces refuses: {names}"),
    )
}

/// Two meshes in one pod redirect the same traffic.
async fn other_meshes(cluster: &Cluster) -> Finding {
    const ABOUT: &str = "other meshes";
    let path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
    let webhooks = match cluster.list(path).await {
        Ok(webhooks) => webhooks,
        Err(error) => return Finding::of_call(ABOUT, &error),
    };
    let names = webhooks.iter().filter_map(|webhook| webhook["metadata"]["name"].as_str());
    let others: Vec<&str> = names
        .filter(|name| {
            ["istio-sidecar-injector", "linkerd-proxy-injector", "consul-connect", "kuma-"]
                .iter()
                .any(|o| name.contains(o))
        })
        .collect();
    if others.is_empty() {
        return Finding::ok(ABOUT, "none");
    }
    let others = others.join(", ");
    Finding::warning(ABOUT, format!("{others}: label each namespace for one mesh only"))
}

/// Images are for one architecture.
async fn nodes(cluster: &Cluster) -> Finding {
    const ABOUT: &str = "nodes";
    let nodes = match cluster.list("/api/v1/nodes").await {
        Ok(nodes) => nodes,
        Err(error) => return Finding::of_call(ABOUT, &error),
    };
    let other: Vec<&str> = nodes
        .iter()
        .filter(|node| node["status"]["nodeInfo"]["architecture"].as_str().is_some_and(|found| found != "amd64"))
        .filter_map(|node| node["metadata"]["name"].as_str())
        .collect();
    if other.is_empty() {
        return Finding::ok(ABOUT, format!("{} of amd64", nodes.len()));
    }
    Finding::warning(ABOUT, format!("Tulle's images are for amd64, these nodes are not: {}", other.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::*;

    #[test]
    fn clocks() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        assert_eq!(clock(Some("Sun, 06 Nov 1994 08:49:40 GMT"), now).state, State::Ok);
        assert_eq!(clock(Some("Sun, 06 Nov 1994 08:39:37 GMT"), now).state, State::Warning);
        assert_eq!(clock(None, now).state, State::Ok);
    }
}
