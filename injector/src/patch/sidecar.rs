//! The container of the proxy: environment, probes, resources, mounts.

use serde_json::{Value, json};

use super::{Plan, security, volumes};
use crate::pod;
use crate::values::Capture;

/// Port of the status listener.
pub(super) const STATUS_PORT: u16 = 15020;

/// Port of the DNS listener.
pub(super) const DNS_PORT: u16 = 15053;

/// Seconds for the proxy to become ready before the kubelet starts it anew.
const START_SECONDS: u32 = 120;

/// The container, with `more` environment.
pub(super) fn container(plan: &Plan<'_>, more: Vec<Value>) -> Value {
    let options = &plan.inject.options;
    let mut container = json!({
        "name": pod::PROXY,
        "image": options.proxy_image.as_ref().unwrap_or(&plan.settings.proxy_image),
        "imagePullPolicy": plan.settings.pull_policy,
        "env": environment(plan, more),
        "ports": [{"name": "tulle-status", "containerPort": STATUS_PORT, "protocol": "TCP"}],
        "readinessProbe": {
            "httpGet": {"path": "/healthz/ready", "port": STATUS_PORT},
            "periodSeconds": 2,
            "timeoutSeconds": 3,
            "failureThreshold": 3,
        },
        "resources": plan.resources,
        "securityContext": security::proxy(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": volumes::proxy_mounts(),
    });
    if plan.inject.native {
        container["restartPolicy"] = json!("Always");
    }
    if plan.hold() {
        if plan.inject.native {
            container["startupProbe"] = json!({
                "httpGet": {"path": "/healthz/ready", "port": STATUS_PORT},
                "periodSeconds": 1,
                "timeoutSeconds": 3,
                "failureThreshold": START_SECONDS,
            });
        } else {
            let wait = ["/tulle-proxy", "--wait-ready", &format!("{START_SECONDS}s")].map(str::to_owned);
            container["lifecycle"] = json!({"postStart": {"exec": {"command": wait}}});
        }
    }
    container
}

fn environment(plan: &Plan<'_>, more: Vec<Value>) -> Vec<Value> {
    let options = &plan.inject.options;
    let settings = plan.settings;
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let value = |name: &str, value: &str| json!({"name": name, "value": value});
    let mut all = vec![
        field("TULLE_NAMESPACE", "metadata.namespace"),
        value("TULLE_WORKLOAD", plan.workload),
        field("TULLE_SERVICE_ACCOUNT", "spec.serviceAccountName"),
        field("TULLE_POD_IPS", "status.podIPs"),
        value("TULLE_CONTROL_PLANE", &settings.control_plane),
        value("TULLE_TRUST_BUNDLE", volumes::TRUST_BUNDLE),
        value("TULLE_TOKEN", volumes::TOKEN),
        value("TULLE_STATE_DIR", volumes::STATE_DIR),
        value("TULLE_TRUST_DOMAIN", &settings.trust_domain),
        value("TULLE_CLUSTER_DOMAIN", &settings.cluster_domain),
        value("TULLE_CAPTURE", if plan.capture() == Capture::None { "false" } else { "true" }),
        value("TULLE_LOG_LEVEL", options.log_level.as_ref().unwrap_or(&settings.log_level)),
        value("TULLE_ACCESS_LOG", options.access_log.as_ref().unwrap_or(&settings.access_log)),
    ];
    if plan.dns() {
        all.push(value("TULLE_DNS_CAPTURE", "true"));
    }
    for (name, text) in [
        ("TULLE_WORKERS", &options.workers),
        ("TULLE_OPAQUE_PORTS", &options.opaque_ports),
        ("TULLE_UPSTREAMS", &options.upstreams),
        ("TULLE_UNKNOWN", &options.unknown),
    ] {
        all.extend(text.as_ref().map(|text| value(name, text)));
    }
    let age = options.max_connection_seconds;
    all.extend(age.map(|seconds| value("TULLE_MAX_CONNECTION_AGE", &format!("{seconds}s"))));
    // Two seconds before the kubelet kills it.
    let deadline = options.drain_seconds.unwrap_or_else(|| plan.grace.saturating_sub(2)).clamp(1, 3600);
    all.push(value("TULLE_DRAIN_DEADLINE", &format!("{deadline}s")));
    // A native sidecar is told to end when the application has. Until word of that is everywhere, it tells those who come all
    // the same that nobody is there, and they try elsewhere.
    let least = if plan.inject.native { 2 } else { 5 };
    all.push(value("TULLE_DRAIN_MIN", &format!("{}s", deadline.min(least))));
    all.extend(more);
    all
}
