//! Volumes of the proxy: its token, the trust bundle, its state, and emptiness in the place of the pod's own token.

use serde_json::{Value, json};

use super::array;
use crate::pod;

/// The workload token, read at each connect; the kubelet renews it.
pub(super) const TOKEN: &str = "/var/run/tulle/token/token";

/// Certificates that the control plane is known by.
pub(super) const TRUST_BUNDLE: &str = "/var/run/tulle/trust/bundle.pem";

/// Where the last good configuration is kept.
pub(super) const STATE_DIR: &str = "/var/lib/tulle";

/// Adds the volumes; a pod that has one of these names is refused.
pub(super) fn add(pod: &mut Value) {
    let volumes = array(pod, "volumes");
    for (name, mut volume) in pod::VOLUMES.into_iter().zip(sources()) {
        volume["name"] = json!(name);
        volumes.push(volume);
    }
}

fn sources() -> [Value; 4] {
    // Twelve hours; the kubelet renews a token when four fifths of its life are over.
    let token = json!({"audience": "tulle", "expirationSeconds": 43200, "path": "token"});
    [
        json!({"projected": {"sources": [{"serviceAccountToken": token}]}}),
        json!({"configMap": {"name": "tulle-trust-bundle"}}),
        json!({"emptyDir": {"sizeLimit": "64Mi"}}),
        json!({"emptyDir": {"sizeLimit": "1Mi"}}),
    ]
}

/// What the proxy mounts.
pub(super) fn proxy_mounts() -> Vec<Value> {
    vec![
        json!({"name": "tulle-token", "mountPath": "/var/run/tulle/token", "readOnly": true}),
        json!({"name": "tulle-trust", "mountPath": "/var/run/tulle/trust", "readOnly": true}),
        json!({"name": "tulle-state", "mountPath": STATE_DIR}),
        no_token(),
    ]
}

/// What the init container mounts.
pub(super) fn init_mounts() -> Vec<Value> {
    vec![no_token()]
}

/// Kubernetes mounts a token for its API into every container that has nothing at this path.
fn no_token() -> Value {
    json!({"name": "tulle-none", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true})
}
