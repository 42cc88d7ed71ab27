//! Flags and environment become `Settings`, with every mistake reported at once.
//!
//! The only place that reads the environment. Each flag `--some-name` is also `TULLE_SOME_NAME`.

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;

use clap::{ArgAction, CommandFactory as _, Parser};

use crate::values;

/// How the webhook runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the API server connects, with TLS.
    pub webhook_address: SocketAddr,
    /// Health and metrics.
    pub admin_address: SocketAddr,
    /// Namespace of the injector's own objects.
    pub namespace: String,
    /// Secret of the serving certificate.
    pub secret: String,
    /// Name of the webhook configurations whose CA bundle is kept right.
    pub webhook_configuration: String,
    /// Service in front of the injector.
    pub service: String,
    /// What is added to pods.
    pub injection: Injection,
}

/// What is added to pods.
#[derive(Clone, Debug)]
pub struct Injection {
    /// Image of the proxy.
    pub proxy_image: String,
    /// Image of the init container.
    pub init_image: String,
    /// `Always`, `IfNotPresent` or `Never`.
    pub pull_policy: String,
    /// Where proxies find the control plane: `HOST:PORT`.
    pub control_plane: String,
    /// Trust domain of identities.
    pub trust_domain: String,
    /// Domain of service names.
    pub cluster_domain: String,
    /// Requests and limits of the proxy, where annotations say nothing.
    pub resources: Resources,
    /// Log filter of the proxy.
    pub log_level: String,
    /// Access log of the proxy.
    pub access_log: String,
    /// The nodes' CNI plugin writes the redirect rules; pods only look whether they are there.
    pub cni: bool,
    /// Limits that were below their requests and were raised, a sentence for each.
    pub raised: Vec<String>,
}

/// Requests and limits as Kubernetes writes them; `None` for none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resources {
    /// CPU requested.
    pub cpu_request: Option<String>,
    /// Most CPU.
    pub cpu_limit: Option<String>,
    /// Memory requested.
    pub memory_request: Option<String>,
    /// Most memory.
    pub memory_limit: Option<String>,
    /// Ephemeral storage requested.
    pub storage_request: Option<String>,
    /// Most ephemeral storage.
    pub storage_limit: Option<String>,
}

impl Resources {
    /// Raises limits that are below their requests, and says which: whoever changes a request alone means that.
    fn raise(&mut self) -> Vec<String> {
        let pairs = [
            ("cpu", &self.cpu_request, &mut self.cpu_limit),
            ("memory", &self.memory_request, &mut self.memory_limit),
            ("ephemeral-storage", &self.storage_request, &mut self.storage_limit),
        ];
        let mut raised = Vec::new();
        for (name, request, limit) in pairs {
            let (Some(least), Some(most)) = (request.as_ref(), limit.as_ref()) else { continue };
            if values::exceeds(least, most) {
                raised.push(format!(
                    "--proxy-{name}-limit {most} is below --proxy-{name}-request {least}: it is {least}"
                ));
                limit.clone_from(request);
            }
        }
        raised
    }
}

impl Default for Injection {
    /// The images of this version without a registry, and the defaults of the annotations.
    fn default() -> Self {
        Args::parse_from(["tulle-injector"]).injection.check(&mut Vec::new())
    }
}

/// How log lines are written.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// A filter such as `info`.
    pub level: String,
    /// One JSON object per line instead of text.
    pub json: bool,
}

impl Settings {
    /// Reads flags and environment.
    ///
    /// # Errors
    /// Every value that is wrong. `--help`, `--version` and unknown flags end the process, as clap does.
    pub fn from_args(args: impl IntoIterator<Item = OsString>) -> Result<(Self, LogSettings), Mistakes> {
        Args::parse_from(args).check()
    }

    /// The flags, for their description.
    pub fn command() -> clap::Command {
        Args::command()
    }
}

/// All mistakes of one command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes(Vec<String>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Mistakes {}

/// The injector of Tulle: a webhook that puts the proxy beside pods.
#[derive(Debug, Parser)]
#[command(name = "tulle-injector", version)]
struct Args {
    /// Where the API server connects, with TLS
    #[arg(long, env = "TULLE_WEBHOOK_ADDRESS", value_name = "IP:PORT", default_value = "[::]:15017")]
    webhook_address: String,
    /// Health and metrics
    #[arg(long, env = "TULLE_ADMIN_ADDRESS", value_name = "IP:PORT", default_value = "[::]:15014")]
    admin_address: String,
    /// Namespace of the injector
    #[arg(long, env = "TULLE_NAMESPACE", value_name = "NAME", default_value = "tulle-system")]
    namespace: String,
    /// Secret of the serving certificate, made when it is absent
    #[arg(long, env = "TULLE_SECRET", value_name = "NAME", default_value = "tulle-injector-tls")]
    secret: String,
    /// MutatingWebhookConfiguration and ValidatingWebhookConfiguration whose CA bundle is kept right
    #[arg(long, env = "TULLE_WEBHOOK_CONFIGURATION", value_name = "NAME", default_value = "tulle-injector")]
    webhook_configuration: String,
    /// Service in front of the injector; the serving certificate has its names
    #[arg(long, env = "TULLE_SERVICE", value_name = "NAME", default_value = "tulle-injector")]
    service: String,
    #[command(flatten)]
    injection: InjectionArgs,
    /// Log filter, such as info or info,tulle_injector=debug
    #[arg(long, env = "TULLE_LOG_LEVEL", value_name = "FILTER", default_value = "info")]
    log_level: String,
    /// Log format: text or json
    #[arg(long, env = "TULLE_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    log_format: String,
}

/// What is added to pods, as flags; `tulle inject` has the same.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "What is added to pods")]
pub struct InjectionArgs {
    /// Registry and path in front of the images' names tulle/proxy and tulle/init
    #[arg(long, env = "TULLE_IMAGE_REGISTRY", value_name = "HOST/PATH", default_value = "", hide_default_value = true)]
    image_registry: String,
    /// Tag of the images
    #[arg(long, env = "TULLE_IMAGE_TAG", value_name = "TAG", default_value = env!("CARGO_PKG_VERSION"))]
    image_tag: String,
    /// Whole name of the proxy's image, instead of registry and tag
    #[arg(long, env = "TULLE_PROXY_IMAGE", value_name = "IMAGE")]
    proxy_image: Option<String>,
    /// Whole name of the init container's image, instead of registry and tag
    #[arg(long, env = "TULLE_INIT_IMAGE", value_name = "IMAGE")]
    init_image: Option<String>,
    /// Always, IfNotPresent or Never
    #[arg(long, env = "TULLE_IMAGE_PULL_POLICY", value_name = "POLICY", default_value = "IfNotPresent")]
    image_pull_policy: String,
    /// Where proxies find the control plane
    #[arg(
        long,
        env = "TULLE_CONTROL_PLANE",
        value_name = "HOST:PORT",
        default_value = "tulle-control-plane.tulle-system.svc:15012"
    )]
    control_plane: String,
    /// Trust domain of identities
    #[arg(long, env = "TULLE_TRUST_DOMAIN", value_name = "NAME", default_value = "cluster.local")]
    trust_domain: String,
    /// Domain of service names
    #[arg(long, env = "TULLE_CLUSTER_DOMAIN", value_name = "NAME", default_value = "cluster.local")]
    cluster_domain: String,
    /// CPU requested for a proxy; empty for none, as with the next five. The init container has the same requests and limits
    #[arg(long, env = "TULLE_PROXY_CPU_REQUEST", value_name = "QUANTITY", default_value = "10m")]
    proxy_cpu_request: String,
    /// Most CPU of a proxy
    #[arg(long, env = "TULLE_PROXY_CPU_LIMIT", value_name = "QUANTITY", default_value = "", hide_default_value = true)]
    proxy_cpu_limit: String,
    /// Memory requested for a proxy
    #[arg(long, env = "TULLE_PROXY_MEMORY_REQUEST", value_name = "QUANTITY", default_value = "24Mi")]
    proxy_memory_request: String,
    /// Most memory of a proxy
    #[arg(long, env = "TULLE_PROXY_MEMORY_LIMIT", value_name = "QUANTITY", default_value = "256Mi")]
    proxy_memory_limit: String,
    /// Ephemeral storage requested for a proxy
    #[arg(
        long,
        env = "TULLE_PROXY_EPHEMERAL_STORAGE_REQUEST",
        value_name = "QUANTITY",
        default_value = "",
        hide_default_value = true
    )]
    proxy_ephemeral_storage_request: String,
    /// Most ephemeral storage of a proxy
    #[arg(
        long,
        env = "TULLE_PROXY_EPHEMERAL_STORAGE_LIMIT",
        value_name = "QUANTITY",
        default_value = "",
        hide_default_value = true
    )]
    proxy_ephemeral_storage_limit: String,
    /// Log filter of proxies
    #[arg(long, env = "TULLE_PROXY_LOG_LEVEL", value_name = "FILTER", default_value = "info", action = ArgAction::Set)]
    proxy_log_level: String,
    /// Access log of proxies: off, json or text
    #[arg(long, env = "TULLE_PROXY_ACCESS_LOG", value_name = "FORMAT", default_value = "off")]
    proxy_access_log: String,
    /// Redirect rules come from tulle-cni on the nodes: pods get no container with NET_ADMIN, but one that looks for the rules
    #[arg(long, env = "TULLE_CNI")]
    cni: bool,
}

impl Args {
    fn check(self) -> Result<(Settings, LogSettings), Mistakes> {
        let mut mistakes = Vec::new();
        let mut address = |flag: &str, text: &str| {
            let parsed = text.parse::<SocketAddr>();
            if parsed.is_err() {
                mistakes.push(format!("{flag} {text:?}: not an address and port such as 0.0.0.0:15017"));
            }
            parsed.ok()
        };
        let webhook_address = address("--webhook-address", &self.webhook_address);
        let admin_address = address("--admin-address", &self.admin_address);
        for (flag, name) in [
            ("--namespace", &self.namespace),
            ("--secret", &self.secret),
            ("--webhook-configuration", &self.webhook_configuration),
            ("--service", &self.service),
        ] {
            if !is_dns_name(name) {
                mistakes.push(format!("{flag} {name:?}: not a name such as tulle-injector"));
            }
        }
        if !["text", "json"].contains(&self.log_format.as_str()) {
            mistakes.push(format!("--log-format {:?}: text or json", self.log_format));
        }
        let injection = self.injection.check(&mut mistakes);
        let (Some(webhook_address), Some(admin_address), true) = (webhook_address, admin_address, mistakes.is_empty())
        else {
            return Err(Mistakes(mistakes));
        };
        let settings = Settings {
            webhook_address,
            admin_address,
            namespace: self.namespace,
            secret: self.secret,
            webhook_configuration: self.webhook_configuration,
            service: self.service,
            injection,
        };
        Ok((settings, LogSettings { level: self.log_level, json: self.log_format == "json" }))
    }
}

impl InjectionArgs {
    /// The values of these flags.
    ///
    /// # Errors
    /// Every value that is wrong.
    pub fn read(self) -> Result<Injection, Mistakes> {
        let mut mistakes = Vec::new();
        let injection = self.check(&mut mistakes);
        if mistakes.is_empty() { Ok(injection) } else { Err(Mistakes(mistakes)) }
    }

    fn check(self, mistakes: &mut Vec<String>) -> Injection {
        let registry = self.image_registry.trim_end_matches('/');
        let image = |whole: Option<String>, name: &str| match (whole, registry) {
            (Some(image), _) => image,
            (None, "") => format!("tulle/{name}:{}", self.image_tag),
            (None, registry) => format!("{registry}/tulle/{name}:{}", self.image_tag),
        };
        let (proxy_image, init_image) = (image(self.proxy_image, "proxy"), image(self.init_image, "init"));
        let mut check = |flag: &str, text: &str, result: Result<(), String>, right: &str| {
            if let Err(reason) = result {
                mistakes.push(format!("{flag} {text:?}: {reason}; a right value is {right}"));
            }
        };
        for (flag, text) in [("--proxy-image", &proxy_image), ("--init-image", &init_image)] {
            check(flag, text, values::image(text).map(drop), "tulle/proxy:0.1.0");
        }
        let policies = ["Always", "IfNotPresent", "Never"].contains(&self.image_pull_policy.as_str());
        let known = if policies { Ok(()) } else { Err("no such policy".to_owned()) };
        check("--image-pull-policy", &self.image_pull_policy, known, "IfNotPresent");
        let server = values::upstreams(&self.control_plane).map(drop);
        check("--control-plane", &self.control_plane, server, "tulle-control-plane.tulle-system.svc:15012");
        for (flag, text) in [("--trust-domain", &self.trust_domain), ("--cluster-domain", &self.cluster_domain)] {
            let named = if is_dns_name(text) { Ok(()) } else { Err("not a DNS name".to_owned()) };
            check(flag, text, named, "cluster.local");
        }
        let mut quantity = |flag: &str, text: String| {
            if text.is_empty() {
                return None;
            }
            check(flag, &text, values::quantity(&text).map(drop), "100m or 64Mi");
            Some(text)
        };
        let mut resources = Resources {
            cpu_request: quantity("--proxy-cpu-request", self.proxy_cpu_request),
            cpu_limit: quantity("--proxy-cpu-limit", self.proxy_cpu_limit),
            memory_request: quantity("--proxy-memory-request", self.proxy_memory_request),
            memory_limit: quantity("--proxy-memory-limit", self.proxy_memory_limit),
            storage_request: quantity("--proxy-ephemeral-storage-request", self.proxy_ephemeral_storage_request),
            storage_limit: quantity("--proxy-ephemeral-storage-limit", self.proxy_ephemeral_storage_limit),
        };
        let raised = resources.raise();
        check("--proxy-log-level", &self.proxy_log_level, values::text(&self.proxy_log_level).map(drop), "info");
        let log = values::access_log(&self.proxy_access_log).map(drop);
        check("--proxy-access-log", &self.proxy_access_log, log, "off");
        Injection {
            proxy_image,
            init_image,
            pull_policy: self.image_pull_policy,
            control_plane: self.control_plane,
            trust_domain: self.trust_domain,
            cluster_domain: self.cluster_domain,
            resources,
            log_level: self.proxy_log_level,
            access_log: self.proxy_access_log,
            cni: self.cni,
            raised,
        }
    }
}

fn is_dns_name(name: &str) -> bool {
    let label = |label: &str| {
        let edges = [label.chars().next(), label.chars().next_back()];
        label.len() <= 63
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            && edges.iter().all(|edge| edge.is_some_and(|c| c.is_ascii_alphanumeric()))
    };
    name.len() <= 253 && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(args: &[&str]) -> Result<(Settings, LogSettings), Mistakes> {
        Args::try_parse_from(std::iter::once(&"tulle-injector").chain(args)).unwrap().check()
    }

    #[test]
    fn the_defaults_are_those_of_the_cluster() {
        let (settings, _) = check(&[]).unwrap();
        assert_eq!(settings.webhook_address.port(), 15017);
        assert_eq!(settings.injection.proxy_image, concat!("tulle/proxy:", env!("CARGO_PKG_VERSION")));
        let (settings, _) = check(&["--image-registry=r.example:5000/m/", "--image-tag=x"]).unwrap();
        assert_eq!(settings.injection.init_image, "r.example:5000/m/tulle/init:x");
    }

    #[test]
    fn mend_24_a_limit_follows_its_request() {
        let of = |args: &[&str]| check(args).unwrap().0.injection;
        let changed = of(&["--proxy-memory-request=512Mi", "--proxy-cpu-request=1", "--proxy-cpu-limit=100m"]);
        let Resources { memory_limit, cpu_limit, .. } = &changed.resources;
        assert_eq!((memory_limit.as_deref(), cpu_limit.as_deref()), (Some("512Mi"), Some("1")));
        assert_eq!(changed.raised.len(), 2, "{:?}", changed.raised);
        assert_eq!(of(&["--proxy-memory-request=256Mi"]).raised, Vec::<String>::new());
    }

    #[test]
    fn every_mistake_is_reported() {
        let wrong = [
            "--webhook-address=here",
            "--namespace=a_b",
            "--proxy-image=a b",
            "--image-pull-policy=Sometimes",
            "--control-plane=nowhere",
            "--trust-domain=-",
            "--proxy-memory-limit=much",
            "--proxy-access-log=xml",
            "--log-format=xml",
        ];
        let text = check(&wrong).unwrap_err().to_string();
        for flag in wrong {
            let flag = flag.split_once('=').unwrap().0;
            assert!(text.contains(flag), "{flag} is missing from {text}");
        }
        assert_eq!(text.lines().count(), wrong.len(), "{text}");
    }
}
