//! Security contexts: as little as each container needs.

use serde_json::{Value, json};

/// User and group id of the proxy, by which the redirect rules know it.
pub(super) const PROXY_ID: u32 = 1337;

/// Within the Pod Security level `restricted`.
pub(super) fn proxy() -> Value {
    unprivileged(PROXY_ID)
}

/// Within the Pod Security level `restricted`, with `id` for user and group.
pub(super) fn unprivileged(id: u32) -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]},
        "privileged": false,
        "readOnlyRootFilesystem": true,
        "runAsGroup": id,
        "runAsNonRoot": true,
        "runAsUser": id,
        "seccompProfile": {"type": "RuntimeDefault"},
    })
}

/// Root with the two capabilities that redirect rules take; it ends before the application starts.
pub(super) fn init() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "capabilities": {"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]},
        "privileged": false,
        "readOnlyRootFilesystem": true,
        "runAsGroup": 0,
        "runAsNonRoot": false,
        "runAsUser": 0,
        "seccompProfile": {"type": "RuntimeDefault"},
    })
}
