//! The container that writes the redirect rules.

use serde_json::{Value, json};

use super::{Plan, security, sidecar, volumes};
use crate::pod;
use crate::values::Capture;

/// The container.
pub(super) fn container(plan: &Plan<'_>) -> Value {
    let options = &plan.inject.options;
    let iptables = plan.capture() == Capture::Iptables;
    let value = |name: &str, value: &str| json!({"name": name, "value": value});
    let mut environment = vec![
        value("TULLE_MODE", if iptables { "iptables" } else { "nft" }),
        // In a pod the proxy is known by its user id alone: a mark can be set by whoever may.
        value("TULLE_PROXY_MARK", "0"),
    ];
    if plan.dns() {
        environment.push(value("TULLE_DNS_PORT", &sidecar::DNS_PORT.to_string()));
    }
    for (name, text) in [
        ("TULLE_SKIP_INBOUND_PORTS", &options.skip_inbound_ports),
        ("TULLE_SKIP_OUTBOUND_PORTS", &options.skip_outbound_ports),
        ("TULLE_SKIP_OUTBOUND_CIDRS", &options.skip_outbound_cidrs),
        ("TULLE_INCLUDE_OUTBOUND_CIDRS", &options.include_outbound_cidrs),
        ("TULLE_EXCLUDE_UIDS", &options.exclude_uids),
    ] {
        environment.extend(text.as_ref().map(|text| value(name, text)));
    }
    json!({
        "name": pod::INIT,
        "image": plan.settings.init_image,
        "imagePullPolicy": plan.settings.pull_policy,
        "env": environment,
        "resources": {
            "requests": {"cpu": "10m", "memory": "16Mi"},
            "limits": {"memory": "64Mi"},
        },
        // iptables locks by a file in /run.
        "securityContext": security::init(!iptables),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": volumes::init_mounts(),
    })
}
