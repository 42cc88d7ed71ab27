//! (Pod, Settings) -> the pod with its proxy, and the difference as a JSON patch (RFC 6902). Pure.
//!
//! The pod stays JSON, so fields that this version does not know survive.

/// The proxy's container.
mod sidecar;

/// The init container that writes the redirect rules, or looks whether they are there.
pub(crate) mod init;

/// Volumes.
mod volumes;

/// Probes, hooks and scrapes that the proxy answers in the application's place.
mod probes;

/// Security contexts.
mod security;

/// Requests and limits.
mod resources;

/// What other webhooks changed since.
mod again;

/// The difference of two values.
mod diff;

pub use again::again;
pub use diff::diff;

use serde_json::{Map, Value, json};

use crate::annotations::{INJECT_STATUS, WORKLOAD};
use crate::decide::Inject;
use crate::pod;
use crate::settings::Injection;
use crate::values::Capture;

/// In `tulle.io/inject-status`: who writes the redirect rules, when it is not the init container.
pub(crate) const REDIRECT: &str = "redirect";

/// The node's CNI plugin does.
pub(crate) const REDIRECT_BY_NODE: &str = "cni";

/// Everything the parts of a patch are made of.
#[derive(Clone, Copy, Debug)]
struct Plan<'a> {
    inject: &'a Inject,
    settings: &'a Injection,
    workload: &'a str,
    /// `terminationGracePeriodSeconds` of the pod.
    grace: u64,
    /// Of each container.
    resources: &'a Value,
}

impl Plan<'_> {
    fn capture(&self) -> Capture {
        self.inject.options.capture.unwrap_or(Capture::Nft)
    }

    /// Questions for DNS are led to the proxy by the same rules as everything else.
    fn dns(&self) -> bool {
        self.capture() != Capture::None && self.inject.options.dns_capture == Some(true)
    }

    fn hold(&self) -> bool {
        self.inject.options.hold_until_ready != Some(false)
    }
}

/// The pod with its proxy. `workload` is its name where the pod itself does not tell, as in a template.
pub fn inject(pod: &Value, inject: &Inject, settings: &Injection, workload: Option<&str>) -> Value {
    let mut patched = pod.clone();
    let workload = workload.map(str::to_owned).or_else(|| pod::workload(pod)).unwrap_or_default();
    // 30 is the default of Kubernetes.
    let grace = pod.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_u64).unwrap_or(30);
    let resources = resources::of(pod, &inject.options, &settings.resources);
    let plan = Plan { inject, settings, workload: &workload, grace, resources: &resources };
    let mut environment = Vec::new();
    if inject.options.rewrite_probes != Some(false)
        && let Some(variable) = probes::variable(probes::rewrite(&mut patched, inject.native))
    {
        environment.push(variable);
    }
    if inject.options.metrics_merge != Some(false)
        && let Some(scrape) = probes::merge_metrics(&mut patched)
    {
        environment.push(json!({"name": "TULLE_APP_METRICS", "value": literal(&scrape)}));
    }
    place(&mut patched, &plan, sidecar::container(&plan, environment));
    volumes::add(&mut patched);
    annotate(&mut patched, &plan);
    patched
}

/// What owners should know of the pod with its proxy.
pub(crate) fn warnings(pod: &Value, native: bool) -> Vec<String> {
    let told = |handler| {
        format!("{handler} is too large for the proxy to perform: it stays as it is, and fails under strict mTLS")
    };
    probes::too_large(pod, native).into_iter().map(told).collect()
}

/// A value that the kubelet leaves as it is: it replaces `$(NAME)` in environments, and makes one `$` of two.
fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

/// Puts the containers where they belong: what redirects before the proxy, the proxy before what needs it.
fn place(pod: &mut Value, plan: &Plan<'_>, sidecar: Value) {
    let rules = (plan.capture() != Capture::None).then(|| init::container(plan));
    if plan.inject.native {
        // Other init containers run with the proxy in place.
        array(pod, "initContainers").splice(0..0, rules.into_iter().chain([sidecar]));
    } else {
        // Last: other init containers run before the proxy, and their connections must not be led to it.
        if let Some(rules) = rules {
            array(pod, "initContainers").push(rules);
        }
        // First: the kubelet starts containers in order, and waits for the end of a postStart hook.
        array(pod, "containers").insert(0, sidecar);
    }
}

/// The other way round.
fn unescaped(literal: &str) -> String {
    literal.replace("$$", "$")
}

fn annotate(pod: &mut Value, plan: &Plan<'_>) {
    let capture = plan.capture() != Capture::None;
    let mut init = Vec::new();
    let mut containers = Vec::new();
    if capture {
        init.push(pod::INIT);
    }
    if plan.inject.native {
        init.push(pod::PROXY)
    } else {
        containers.push(pod::PROXY)
    }
    let mut status = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "mode": if plan.inject.native { "native" } else { "classic" },
        "initContainers": init,
        "containers": containers,
        "volumes": pod::VOLUMES,
    });
    if capture && plan.settings.cni {
        status[REDIRECT] = json!(REDIRECT_BY_NODE);
    }
    let main = pod::list(pod, "/spec/containers").iter().map(pod::name).find(|name| *name != pod::PROXY);
    let main = main.map(str::to_owned);
    let annotations = object(object(pod, "metadata"), "annotations");
    let Some(annotations) = annotations.as_object_mut() else { return };
    annotations.insert(INJECT_STATUS.to_owned(), Value::String(status.to_string()));
    annotations.insert(WORKLOAD.to_owned(), Value::String(plan.workload.to_owned()));
    // `kubectl logs` and `exec` mean the application, though the proxy is the first container.
    if let (Some(main), false) = (main, plan.inject.native) {
        annotations.entry("kubectl.kubernetes.io/default-container").or_insert(Value::String(main));
    }
}

/// The object in the field `name`, made when it is absent or null.
fn object<'a>(value: &'a mut Value, name: &str) -> &'a mut Value {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let field = &mut value[name];
    if !field.is_object() {
        *field = Value::Object(Map::new());
    }
    field
}

/// The list in the field `name` of the pod's spec, made when it is absent or null.
fn array<'a>(pod: &'a mut Value, name: &str) -> &'a mut Vec<Value> {
    let field = &mut object(pod, "spec")[name];
    if !field.is_array() {
        *field = Value::Array(Vec::new());
    }
    match field {
        Value::Array(items) => items,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            unreachable!("it was made an array above")
        }
    }
}

#[cfg(test)]
mod tests;
