//! Whether a pod gets a proxy, and why. Pure; called by the webhook and by `tulle inject`.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use crate::annotations::{self, INJECT, INJECT_STATUS, Options};
use crate::pod;
use crate::values::{Capture, Native};

/// Namespaces whose pods never get one: the cluster must come up without Tulle, and Tulle without itself.
pub const NEVER: [&str; 3] = ["kube-system", "kube-node-lease", "tulle-system"];

/// Containers of other meshes' proxies.
const OTHER_MESHES: [(&str, &str); 6] = [
    ("istio-proxy", "Istio"),
    ("linkerd-proxy", "Linkerd"),
    ("kuma-sidecar", "Kuma"),
    ("consul-dataplane", "Consul"),
    ("osm-proxy", "Open Service Mesh"),
    ("envoy-sidecar", "Consul"),
];

/// What stands beside the pod itself.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'a> {
    /// Namespace the pod goes to.
    pub namespace: &'a str,
    /// Whether pods get a proxy unless they say otherwise.
    pub by_default: bool,
    /// Whether the API server has native sidecars.
    pub native: bool,
}

/// The verdict on a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It gets a proxy.
    Inject(Inject),
    /// It stays as it is.
    Skip(Skip),
    /// It is refused: it wants a proxy, and what it says about it is wrong.
    Deny(Deny),
}

/// How a pod gets its proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inject {
    /// What its annotations say.
    pub options: Box<Options>,
    /// As a native sidecar.
    pub native: bool,
    /// What its owner should know.
    pub warnings: Vec<String>,
}

/// Why a pod stays as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Skip {
    /// Neither the pod nor its namespace asks for a proxy.
    NotAsked,
    /// It says `disabled`.
    Disabled,
    /// Its namespace never gets proxies.
    Namespace,
    /// It has one already.
    AlreadyInjected,
    /// It shares the node's network, whose traffic is not the pod's.
    HostNetwork,
    /// It stands for a file on a node; the kubelet runs that file, not this object.
    StaticPod,
    /// Windows has no redirect rules.
    Windows,
    /// It has another mesh's proxy.
    OtherMesh {
        /// The mesh.
        mesh: &'static str,
        /// Its container.
        container: String,
    },
    /// It belongs to a Job, and without native sidecars it would never complete.
    Job,
}

/// Why a pod is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deny {
    /// Annotations or labels with wrong values, one message each.
    Values(Vec<String>),
    /// A container has the name of one of ours but was not put there by the injector.
    TakenName(String),
    /// A volume has the name of one of ours but was not put there by the injector.
    TakenVolume(String),
    /// The object is no pod that could run.
    NoContainers,
    /// `inject-native: true`, where the API server has none.
    NoNative,
}

impl Skip {
    /// One word: label of metrics and reason of Events.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotAsked => "not_asked",
            Self::Disabled => "disabled",
            Self::Namespace => "namespace",
            Self::AlreadyInjected => "already_injected",
            Self::HostNetwork => "host_network",
            Self::StaticPod => "static_pod",
            Self::Windows => "windows",
            Self::OtherMesh { .. } => "other_mesh",
            Self::Job => "job",
        }
    }

    /// Whether the owner of the pod wanted it so, or knows already.
    pub fn is_expected(&self) -> bool {
        match self {
            Self::NotAsked | Self::Disabled | Self::Namespace | Self::AlreadyInjected | Self::StaticPod => true,
            Self::HostNetwork | Self::Windows | Self::OtherMesh { .. } | Self::Job => false,
        }
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::NotAsked => "no Tulle proxy: neither the pod nor its namespace has tulle.io/inject=enabled",
            Self::Disabled => "no Tulle proxy: the pod says tulle.io/inject=disabled",
            Self::Namespace => "no Tulle proxy: pods of this namespace never get one",
            Self::AlreadyInjected => "the pod has a Tulle proxy already",
            Self::HostNetwork => {
                "no Tulle proxy: hostNetwork is true, and the traffic of the node's network is not the pod's to redirect"
            }
            Self::StaticPod => "no Tulle proxy: a static pod is defined by a file on its node",
            Self::Windows => "no Tulle proxy: the pod runs on Windows",
            Self::OtherMesh { mesh, container } => {
                return write!(f, "no Tulle proxy: the container {container} is the proxy of {mesh}");
            }
            Self::Job => {
                "no Tulle proxy: the Job would never complete, because this cluster has no native sidecars (Kubernetes \
                 1.29); label the pod tulle.io/inject=enabled to have one all the same, and end it by \
                 curl -X POST -H 'tulle-admin: 1' http://127.0.0.1:15000/quitquitquit"
            }
        };
        f.write_str(text)
    }
}

impl Deny {
    /// One word: label of metrics and reason of Events.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Values(_) => "wrong_value",
            Self::TakenName(_) | Self::TakenVolume(_) => "taken_name",
            Self::NoContainers => "no_containers",
            Self::NoNative => "no_native_sidecars",
        }
    }
}

impl fmt::Display for Deny {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Values(errors) => f.write_str(&errors.join("; ")),
            Self::TakenName(name) => {
                write!(f, "a container is named {name}, but tulle.io/inject-status is missing: rename the container")
            }
            Self::TakenVolume(name) => {
                write!(f, "a volume is named {name}, which the proxy would mount as its own: rename the volume")
            }
            Self::NoContainers => f.write_str("the pod has no spec.containers"),
            Self::NoNative => f.write_str(
                "tulle.io/inject-native: \"true\" needs Kubernetes 1.29; a right value for this cluster is \"auto\"",
            ),
        }
    }
}

/// Decides on a pod.
pub fn decide(pod: &Value, around: Circumstances<'_>) -> Verdict {
    let annotations = pod::strings(pod, "/metadata/annotations");
    if NEVER.contains(&around.namespace) {
        return Verdict::Skip(Skip::Namespace);
    }
    if annotations.contains_key("kubernetes.io/config.mirror") {
        return Verdict::Skip(Skip::StaticPod);
    }
    let read = annotations::read(&annotations);
    let labels: BTreeMap<_, _> =
        pod::strings(pod, "/metadata/labels").into_iter().filter(|(key, _)| key == INJECT).collect();
    let label = annotations::read(&labels);
    let errors: Vec<_> = label.errors.iter().chain(&read.errors).cloned().collect();
    // One that says no is believed, whatever the other says.
    let says = [label.options.inject, read.options.inject];
    if says.contains(&Some(false)) {
        return Verdict::Skip(Skip::Disabled);
    }
    let asked = says.contains(&Some(true));
    if !asked && !around.by_default && label.errors.is_empty() {
        return Verdict::Skip(Skip::NotAsked);
    }
    if let Some(skip) = cannot(pod, &annotations) {
        return Verdict::Skip(skip);
    }
    if !errors.is_empty() {
        return Verdict::Deny(Deny::Values(errors));
    }
    let ours = pod::containers(pod).map(pod::name).find(|name| [pod::PROXY, pod::INIT].contains(name));
    if let Some(name) = ours {
        return Verdict::Deny(Deny::TakenName(name.to_owned()));
    }
    let volume = pod::list(pod, "/spec/volumes").iter().map(pod::name).find(|name| pod::VOLUMES.contains(name));
    if let Some(name) = volume {
        return Verdict::Deny(Deny::TakenVolume(name.to_owned()));
    }
    if pod::list(pod, "/spec/containers").is_empty() {
        return Verdict::Deny(Deny::NoContainers);
    }
    let is_job = pod::controller(pod).is_some_and(|owner| pod::text(owner, "/kind") == Some("Job"));
    // A Job takes no part in the choice: only a native sidecar lets it complete.
    let native = match read.options.native.unwrap_or(Native::Auto) {
        Native::Always if !around.native => return Verdict::Deny(Deny::NoNative),
        Native::Always | Native::Auto => around.native,
        Native::Never => around.native && is_job,
    };
    if is_job && !native && !asked {
        return Verdict::Skip(Skip::Job);
    }
    let warnings = read.warnings.iter().cloned().chain(warnings(pod, &read.options)).collect();
    Verdict::Inject(Inject { options: Box::new(read.options), native, warnings })
}

/// Why a pod that should get a proxy cannot.
fn cannot(pod: &Value, annotations: &BTreeMap<String, String>) -> Option<Skip> {
    let has_ours = pod::containers(pod).any(|container| pod::name(container) == pod::PROXY);
    if has_ours && annotations.contains_key(INJECT_STATUS) {
        return Some(Skip::AlreadyInjected);
    }
    if pod::is_true(pod, "/spec/hostNetwork") {
        return Some(Skip::HostNetwork);
    }
    if is_for_windows(pod) {
        return Some(Skip::Windows);
    }
    OTHER_MESHES.iter().find_map(|(container, mesh)| {
        let found = pod::containers(pod).any(|present| pod::name(present) == *container);
        found.then(|| Skip::OtherMesh { mesh, container: (*container).to_owned() })
    })
}

/// Labels of nodes with their operating system.
const OS_LABELS: [&str; 2] = ["kubernetes.io/os", "beta.kubernetes.io/os"];

/// Whether the pod can run on Windows nodes alone: by its own word, its node selector, or every term of its affinity.
fn is_for_windows(pod: &Value) -> bool {
    if let Some(os) = pod::text(pod, "/spec/os/name") {
        return os == "windows";
    }
    let selector = pod::strings(pod, "/spec/nodeSelector");
    if let Some(os) = OS_LABELS.iter().find_map(|label| selector.get(*label)) {
        return os == "windows";
    }
    let required = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
    let terms = pod::list(pod, required);
    !terms.is_empty() && terms.iter().all(|term| pod::list(term, "/matchExpressions").iter().any(asks_for_windows))
}

fn asks_for_windows(expression: &Value) -> bool {
    let is_os = pod::text(expression, "/key").is_some_and(|key| OS_LABELS.contains(&key));
    let values: Vec<_> = pod::list(expression, "/values").iter().filter_map(Value::as_str).collect();
    is_os
        && match pod::text(expression, "/operator") {
            Some("In") => !values.is_empty() && values.iter().all(|value| *value == "windows"),
            // The two systems that Kubernetes has.
            Some("NotIn") => values.contains(&"linux"),
            _ => false,
        }
}

/// Ports that the proxy listens on in the pod.
const PROXY_PORTS: [u64; 4] = [15000, 15001, 15006, 15020];

/// User id of the proxy.
const PROXY_UID: u64 = 1337;

/// What owners should know of a pod that has its proxy: containers of other webhooks may have been added since.
pub(crate) fn warnings_again(pod: &Value) -> Vec<String> {
    let annotations = pod::strings(pod, "/metadata/annotations");
    let mut others = pod.clone();
    for list in ["/spec/initContainers", "/spec/containers"] {
        if let Some(containers) = others.pointer_mut(list).and_then(Value::as_array_mut) {
            containers.retain(|container| ![pod::PROXY, pod::INIT].contains(&pod::name(container)));
        }
    }
    let mesh =
        OTHER_MESHES.iter().find(|(name, _)| pod::containers(&others).any(|present| pod::name(present) == *name));
    let mesh =
        mesh.map(|(name, mesh)| format!("container {name} is the proxy of {mesh}: two meshes lead the same traffic"));
    mesh.into_iter().chain(warnings(&others, &annotations::read(&annotations).options)).collect()
}

/// What works, but not as its owner may think.
fn warnings(pod: &Value, options: &Options) -> Vec<String> {
    let mut warnings = coupled(pod, options);
    let uid = |value: &Value| value.pointer("/securityContext/runAsUser").and_then(Value::as_u64);
    let spec = pod.pointer("/spec").unwrap_or(&Value::Null);
    for container in pod::containers(pod) {
        let name = pod::name(container);
        if uid(container).or_else(|| uid(spec)) == Some(PROXY_UID) {
            warnings.push(format!(
                "container {name} has the proxy's user id {PROXY_UID}: its connections go past the proxy; give it another runAsUser"
            ));
        }
        if pod::is_true(container, "/securityContext/privileged") {
            warnings.push(format!("container {name} is privileged: it can change the redirect rules of its pod"));
        }
        for port in pod::list(container, "/ports") {
            let port = port.pointer("/containerPort").and_then(Value::as_u64);
            if let Some(port) = port.filter(|port| PROXY_PORTS.contains(port)) {
                warnings.push(format!("container {name} declares port {port}, which the proxy listens on"));
            }
        }
    }
    warnings
}

/// Annotations that are right by themselves, and have no effect beside the rest of the pod.
fn coupled(pod: &Value, options: &Options) -> Vec<String> {
    let mut warnings = Vec::new();
    let grace = pod.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_u64).unwrap_or(30);
    if let Some(drain) = options.drain_seconds.filter(|drain| *drain > grace) {
        warnings.push(format!(
            "tulle.io/drain-seconds: {drain} is above terminationGracePeriodSeconds: {grace}, when the kubelet ends the proxy"
        ));
    }
    if options.capture == Some(Capture::None) {
        let without = [
            ("dns-capture", options.dns_capture == Some(true)),
            ("skip-inbound-ports", options.skip_inbound_ports.is_some()),
            ("skip-outbound-ports", options.skip_outbound_ports.is_some()),
            ("skip-outbound-cidrs", options.skip_outbound_cidrs.is_some()),
            ("include-outbound-cidrs", options.include_outbound_cidrs.is_some()),
            ("exclude-uids", options.exclude_uids.is_some()),
        ];
        let without = without.iter().filter(|(_, is_set)| *is_set);
        warnings
            .extend(without.map(|(key, _)| format!("tulle.io/{key} has no effect with tulle.io/capture: \"none\"")));
    }
    warnings
}

#[cfg(test)]
mod tests;
