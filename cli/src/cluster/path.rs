//! Paths of the kinds that Tulle makes, installs or reads.

use serde_json::Value;

/// Kind, path of its group, and the plural of its resource.
const KINDS: [(&str, &str, &str); 21] = [
    ("Namespace", "/api/v1", "namespaces"),
    ("CustomResourceDefinition", "/apis/apiextensions.k8s.io/v1", "customresourcedefinitions"),
    ("ServiceAccount", "/api/v1", "serviceaccounts"),
    ("ClusterRole", "/apis/rbac.authorization.k8s.io/v1", "clusterroles"),
    ("ClusterRoleBinding", "/apis/rbac.authorization.k8s.io/v1", "clusterrolebindings"),
    ("Role", "/apis/rbac.authorization.k8s.io/v1", "roles"),
    ("RoleBinding", "/apis/rbac.authorization.k8s.io/v1", "rolebindings"),
    ("Service", "/api/v1", "services"),
    ("ConfigMap", "/api/v1", "configmaps"),
    ("Secret", "/api/v1", "secrets"),
    ("Lease", "/apis/coordination.k8s.io/v1", "leases"),
    ("Pod", "/api/v1", "pods"),
    ("ReplicationController", "/api/v1", "replicationcontrollers"),
    ("Deployment", "/apis/apps/v1", "deployments"),
    ("DaemonSet", "/apis/apps/v1", "daemonsets"),
    ("ReplicaSet", "/apis/apps/v1", "replicasets"),
    ("StatefulSet", "/apis/apps/v1", "statefulsets"),
    ("Job", "/apis/batch/v1", "jobs"),
    ("PodDisruptionBudget", "/apis/policy/v1", "poddisruptionbudgets"),
    ("ValidatingWebhookConfiguration", "/apis/admissionregistration.k8s.io/v1", "validatingwebhookconfigurations"),
    ("MutatingWebhookConfiguration", "/apis/admissionregistration.k8s.io/v1", "mutatingwebhookconfigurations"),
];

/// Group and resource of a kind, as rights name them.
pub(crate) fn collection(kind: &str) -> Option<(&'static str, &'static str)> {
    let (_, path, plural) = KINDS.iter().find(|(known, _, _)| *known == kind)?;
    let group = path.strip_prefix("/apis/").and_then(|path| path.split('/').next()).unwrap_or_default();
    Some((group, plural))
}

/// The path of an object, from its kind, namespace and name; `None` for a kind that Tulle has nothing to do with.
pub(crate) fn object(object: &Value) -> Option<String> {
    let (_, path, plural) = KINDS.iter().find(|(kind, _, _)| object["kind"] == **kind)?;
    let name = object["metadata"]["name"].as_str()?;
    Some(match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{path}/namespaces/{namespace}/{plural}/{name}"),
        None => format!("{path}/{plural}/{name}"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths() {
        let role = json!({"kind": "Role", "metadata": {"name": "a", "namespace": "n"}});
        assert_eq!(object(&role).as_deref(), Some("/apis/rbac.authorization.k8s.io/v1/namespaces/n/roles/a"));
        let namespace = json!({"kind": "Namespace", "metadata": {"name": "n"}});
        assert_eq!(object(&namespace).as_deref(), Some("/api/v1/namespaces/n"));
        assert_eq!(object(&json!({"kind": "Widget", "metadata": {"name": "a"}})), None);
        assert_eq!(collection("Lease"), Some(("coordination.k8s.io", "leases")));
        assert_eq!(collection("Secret"), Some(("", "secrets")));
    }
}
