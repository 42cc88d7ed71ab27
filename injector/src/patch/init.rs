//! The container that writes the redirect rules, or, where the node has written them, looks whether they are there.

use serde_json::{Value, json};

use super::{Plan, security, sidecar, volumes};
use crate::annotations::Options;
use crate::pod;
use crate::redirect::settings::Span;
use crate::values::Capture;

/// The container: `tulle-init`, as root with two capabilities, or without any privilege where the node's plugin has been at work.
pub(super) fn container(plan: &Plan<'_>) -> Value {
    let options = &plan.inject.options;
    let variables = environment(options).into_iter().map(|(name, value)| json!({"name": name, "value": value}));
    let mut container = json!({
        "name": pod::INIT,
        "image": plan.settings.init_image,
        "imagePullPolicy": plan.settings.pull_policy,
        "env": variables.collect::<Vec<_>>(),
        // Those of the proxy cost a pod nothing: this container has ended when the proxy starts. Its quality of service and
        // quotas are then a matter of the proxy's alone.
        "resources": plan.resources,
        "securityContext": security::init(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": volumes::init_mounts(),
    });
    if plan.settings.cni {
        container["args"] = json!(["--probe"]);
        container["securityContext"] = security::unprivileged(prober(options));
    }
    container
}

/// The settings of `tulle-init` that `options` stand for, as its environment.
pub(crate) fn environment(options: &Options) -> Vec<(&'static str, String)> {
    let mode = if options.capture == Some(Capture::Iptables) { "iptables" } else { "nft" };
    let mut all = vec![
        ("TULLE_MODE", mode.to_owned()),
        // In a pod the proxy is known by its user id alone: a mark can be set by whoever may, and a group is what a pod's
        // `runAsGroup`, `fsGroup` and `supplementalGroups` give to every process.
        ("TULLE_PROXY_MARK", "0".to_owned()),
        ("TULLE_PROXY_GID", "0".to_owned()),
    ];
    if options.dns_capture == Some(true) {
        all.push(("TULLE_DNS_PORT", sidecar::DNS_PORT.to_string()));
    }
    for (name, text) in [
        ("TULLE_SKIP_INBOUND_PORTS", &options.skip_inbound_ports),
        ("TULLE_SKIP_OUTBOUND_PORTS", &options.skip_outbound_ports),
        ("TULLE_SKIP_OUTBOUND_CIDRS", &options.skip_outbound_cidrs),
        ("TULLE_INCLUDE_OUTBOUND_CIDRS", &options.include_outbound_cidrs),
        ("TULLE_EXCLUDE_UIDS", &options.exclude_uids),
    ] {
        all.extend(text.clone().map(|text| (name, text)));
    }
    all
}

/// Largest user id that Kubernetes takes.
const LARGEST_ID: u32 = 0x7fff_ffff;

/// A user id whose connections are captured, unlike the proxy's.
fn prober(options: &Options) -> u32 {
    let excluded = options.exclude_uids.as_deref().unwrap_or_default().split(',');
    let excluded: Vec<Span<u32>> = excluded.filter_map(|span| span.parse().ok()).collect();
    let captured = |id: &u32| excluded.iter().all(|span| !(span.first()..=span.last()).contains(id));
    let first = security::PROXY_ID + 1;
    // Ids beyond are ours to use all the same: the probe then sees nothing, and says so.
    (first..first + 1000)
        .chain(excluded.iter().map(|span| span.last().saturating_add(1)))
        .filter(|id| *id <= LARGEST_ID)
        .find(captured)
        .unwrap_or(first)
}
