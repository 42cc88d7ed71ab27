//! The file by which the plugin reaches the API server: the DaemonSet's own token, for as long as that is good. Pure.

use k8s_openapi::ByteString;
use serde_json::{Value, json};

/// A kubeconfig. `host` and `port` are those of the cluster's own Service `kubernetes`, `ca` is PEM.
pub(crate) fn text(host: &str, port: &str, ca: &str, token: &str) -> String {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let config: Value = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "local", "cluster": {
            "server": format!("https://{host}:{port}"),
            "certificate-authority-data": ByteString(ca.as_bytes().to_vec()),
        }}],
        "users": [{"name": "tulle-cni", "user": {"token": token.trim()}}],
        "contexts": [{"name": "tulle-cni", "context": {"cluster": "local", "user": "tulle-cni"}}],
        "current-context": "tulle-cni",
    });
    // JSON is YAML.
    format!("{config:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_back() {
        let read = kube::config::Kubeconfig::from_yaml(&text("fd00::1", "443", "PEM", "a.b.c\n")).unwrap();
        let cluster = read.clusters[0].cluster.clone().unwrap();
        assert_eq!(cluster.server.as_deref(), Some("https://[fd00::1]:443"));
        assert_eq!(cluster.certificate_authority_data.as_deref(), Some("UEVN"));
        assert_eq!(read.current_context.as_deref(), Some("tulle-cni"));
    }
}
