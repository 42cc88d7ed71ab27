//! The annotations of a pod from the API server, for runtimes that do not pass them.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};

use super::protocol::PodName;

/// Longest time for the answer. The kubelet tries again.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why it is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// The file that says how to reach the API server.
    #[error("{path}: {error}")]
    Kubeconfig { path: String, error: Box<dyn std::error::Error + Send + Sync> },
    /// The API server refused, or is away.
    #[error("the API server, asked for pod {pod}: {error}")]
    Api { pod: String, error: Box<dyn std::error::Error + Send + Sync> },
    /// No answer.
    #[error("the API server, asked for pod {0}: no answer within 10 s")]
    Late(String),
    /// Another pod of the same name.
    #[error("pod {0} is another by now: the one that starts here was deleted")]
    Replaced(String),
}

/// Asks, and waits for the answer.
///
/// # Errors
/// See [`AskError`].
pub(crate) fn annotations(kubeconfig: &Path, pod: &PodName) -> Result<BTreeMap<String, String>, AskError> {
    let shown = format!("{}/{}", pod.namespace, pod.name);
    let unreadable = |error: Box<dyn std::error::Error + Send + Sync>| AskError::Kubeconfig {
        path: kubeconfig.display().to_string(),
        error,
    };
    // A second call in the same process finds it chosen.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| unreadable(Box::new(error)))?;
    let found = runtime.block_on(async {
        let file = Kubeconfig::read_from(kubeconfig).map_err(|error| unreadable(Box::new(error)))?;
        let options = KubeConfigOptions::default();
        let config =
            Config::from_custom_kubeconfig(file, &options).await.map_err(|error| unreadable(Box::new(error)))?;
        let client = Client::try_from(config).map_err(|error| unreadable(Box::new(error)))?;
        let pods: Api<Pod> = Api::namespaced(client, &pod.namespace);
        match tokio::time::timeout(PATIENCE, pods.get_metadata(&pod.name)).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => Err(AskError::Api { pod: shown.clone(), error: Box::new(error) }),
            Err(_) => Err(AskError::Late(shown.clone())),
        }
    })?;
    let annotations = found.metadata.annotations.unwrap_or_default();
    // A static pod stands at the API server with a uid of its own, and is never injected.
    let is_static = annotations.contains_key("kubernetes.io/config.mirror");
    if !is_static && pod.uid.is_some() && pod.uid != found.metadata.uid {
        return Err(AskError::Replaced(shown));
    }
    Ok(annotations)
}
