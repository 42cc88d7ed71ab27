//! THE list of pod annotations and labels: key, kind of value, default, meaning, and how each is read.
//!
//! Pure; a wrong value is refused with a right one.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use tulle_control_plane::model::annotations::nearest;

use crate::values::{self, Capture, Native};

/// Prefix of all annotations and labels of Tulle.
pub const PREFIX: &str = "tulle.io/";

/// Label of namespaces, label or annotation of pods: whether pods get a proxy. The pod's own wins.
pub const INJECT: &str = "tulle.io/inject";

/// Set by the injector: what it added, as JSON.
pub const INJECT_STATUS: &str = "tulle.io/inject-status";

/// Set by the injector: the workload that the pod belongs to.
pub const WORKLOAD: &str = "tulle.io/workload";

/// An annotation that people write on pods.
#[derive(Clone, Copy, Debug)]
pub struct Annotation {
    /// The key, without the prefix.
    pub key: &'static str,
    /// What a value looks like.
    pub value: &'static str,
    /// What holds without it.
    pub default: &'static str,
    /// A right value.
    pub example: &'static str,
    /// What it does.
    pub doc: &'static str,
    set: fn(&mut Options, &str) -> Result<(), String>,
}

/// A key that the injector itself writes.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    /// The key, without the prefix.
    pub key: &'static str,
    /// What it says.
    pub doc: &'static str,
}

/// What the injector writes on a pod.
pub const STATUS: [Written; 2] = [
    Written {
        key: "inject-status",
        doc: "JSON: version, mode, and the containers, init containers and volumes that were added",
    },
    Written { key: "workload", doc: "name of the workload, found from the pod's controller" },
];

/// Entry whose value lands in the option of the same name.
macro_rules! annotation {
    ($key:literal, $value:literal, $default:literal, $example:literal, $field:ident = $parse:expr, $doc:literal) => {
        Annotation {
            key: $key,
            value: $value,
            default: $default,
            example: $example,
            doc: $doc,
            set: |options, text| {
                options.$field = Some(($parse)(text)?);
                Ok(())
            },
        }
    };
}

/// Every annotation this version acts on, in the order of the documentation. `inject` may be a label, and stands on
/// namespaces as a label too.
#[rustfmt::skip]
pub const POD: [Annotation; 27] = [
    annotation!("inject", "enabled, disabled", "that of the namespace's label", "enabled", inject = values::enabled,
        "whether the pod gets a proxy"),
    annotation!("inject-native", "auto, true, false", "auto", "true", native = values::native,
        "native sidecar (init container that stays): auto uses it where the API server has it"),
    annotation!("proxy-image", "image", "the injector's", "registry.example.com/tulle/proxy:0.1.0", proxy_image = values::image,
        "image of the proxy"),
    annotation!("proxy-cpu-request", "quantity", "10m", "100m", cpu_request = values::quantity, "CPU requested for the proxy"),
    annotation!("proxy-cpu-limit", "quantity", "none", "2", cpu_limit = values::quantity, "most CPU of the proxy"),
    annotation!("proxy-memory-request", "quantity", "24Mi", "64Mi", memory_request = values::quantity, "memory requested for the proxy"),
    annotation!("proxy-memory-limit", "quantity", "256Mi", "512Mi", memory_limit = values::quantity, "most memory of the proxy"),
    annotation!("proxy-ephemeral-storage-request", "quantity", "none", "64Mi", storage_request = values::quantity,
        "ephemeral storage requested for the proxy"),
    annotation!("proxy-ephemeral-storage-limit", "quantity", "none", "128Mi", storage_limit = values::quantity,
        "most ephemeral storage of the proxy"),
    annotation!("proxy-workers", "1-64", "CPU limit rounded up, at most 2", "4", workers = values::workers, "threads that carry traffic"),
    annotation!("proxy-log-level", "level or filter", "info", "debug", log_level = values::text, "log of the proxy"),
    annotation!("skip-inbound-ports", "ports", "none", "9090,8000-8010", skip_inbound_ports = values::ports,
        "ports of the pod that are reached without the proxy"),
    annotation!("skip-outbound-ports", "ports", "none", "25,6000-6010", skip_outbound_ports = values::ports,
        "destination ports that are reached without the proxy"),
    annotation!("skip-outbound-cidrs", "networks", "none", "10.1.0.0/16,fd00:1::/64", skip_outbound_cidrs = values::networks,
        "destinations that are reached without the proxy"),
    annotation!("include-outbound-cidrs", "networks", "all", "10.96.0.0/12", include_outbound_cidrs = values::networks,
        "the only destinations that are reached through the proxy"),
    annotation!("exclude-uids", "user ids", "none", "1000,2000-2010", exclude_uids = values::uids,
        "users of the pod whose connections go without the proxy"),
    annotation!("opaque-ports", "ports", "25,587,3306,4444,5432,6379,9300,11211", "3306,5432", opaque_ports = values::single_ports,
        "ports on which the server speaks first: never looked into; replaces the default"),
    annotation!("capture", "nft, iptables, none", "nft", "iptables", capture = values::capture,
        "how traffic is led through the proxy; iptables: by the older interface of the kernel; none: the application is told its addresses"),
    annotation!("dns-capture", "true, false", "false", "true", dns_capture = values::boolean,
        "the proxy answers the pod's DNS questions: services at once, all else by the pod's nameservers, with a cache"),
    annotation!("hold-until-ready", "true, false", "true", "false", hold_until_ready = values::boolean,
        "start the application only when the proxy is ready"),
    annotation!("drain-seconds", "1-3600", "grace period of the pod, less 2", "60", drain_seconds = values::drain_seconds,
        "longest time the proxy finishes requests after it was told to end"),
    annotation!("max-connection-seconds", "10-604800", "none", "86400", max_connection_seconds = values::max_connection_seconds,
        "age, give or take a tenth, at which connections to the pod end: HTTP between two requests, opaque bytes at once"),
    annotation!("upstreams", "services with ports", "none", "reviews.shop:9080,ratings.shop:80", upstreams = values::upstreams,
        "services to know at start, so that their first connection does not wait"),
    annotation!("metrics-merge", "true, false", "true", "false", metrics_merge = values::boolean,
        "the proxy's metrics port also gives the application's metrics (prometheus.io annotations)"),
    annotation!("rewrite-probes", "true, false", "true", "false", rewrite_probes = values::boolean,
        "probes of the kubelet go through the proxy's status port, so that they pass under strict mTLS"),
    annotation!("access-log", "off, json, text", "off", "json", access_log = values::access_log, "a line for each request"),
    annotation!("unknown-destinations", "pass-through, refuse", "pass-through", "refuse", unknown = values::unknown,
        "what becomes of connections to destinations that the mesh does not know"),
];

/// Keys that ask for what the proxy does not do, and what to do instead. A pod with one is refused: its author would
/// otherwise wait for an effect.
pub const REFUSED: [(&str, &str); 1] = [(
    "trace-sampling",
    "the proxy makes no spans of its own, so there is nothing to sample; traceparent, tracestate and every other trace \
     header of the application pass through it as they are: remove the annotation",
)];

/// What the annotations of a pod say; `None` where they say nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `inject`, of the annotation.
    pub inject: Option<bool>,
    /// `inject-native`.
    pub native: Option<Native>,
    /// `proxy-image`.
    pub proxy_image: Option<String>,
    /// `proxy-cpu-request`.
    pub cpu_request: Option<String>,
    /// `proxy-cpu-limit`.
    pub cpu_limit: Option<String>,
    /// `proxy-memory-request`.
    pub memory_request: Option<String>,
    /// `proxy-memory-limit`.
    pub memory_limit: Option<String>,
    /// `proxy-ephemeral-storage-request`.
    pub storage_request: Option<String>,
    /// `proxy-ephemeral-storage-limit`.
    pub storage_limit: Option<String>,
    /// `proxy-workers`.
    pub workers: Option<String>,
    /// `proxy-log-level`.
    pub log_level: Option<String>,
    /// `skip-inbound-ports`, with commas.
    pub skip_inbound_ports: Option<String>,
    /// `skip-outbound-ports`, with commas.
    pub skip_outbound_ports: Option<String>,
    /// `skip-outbound-cidrs`, with commas.
    pub skip_outbound_cidrs: Option<String>,
    /// `include-outbound-cidrs`, with commas.
    pub include_outbound_cidrs: Option<String>,
    /// `exclude-uids`, with commas.
    pub exclude_uids: Option<String>,
    /// `opaque-ports`, with commas.
    pub opaque_ports: Option<String>,
    /// `capture`.
    pub capture: Option<Capture>,
    /// `dns-capture`.
    pub dns_capture: Option<bool>,
    /// `hold-until-ready`.
    pub hold_until_ready: Option<bool>,
    /// `drain-seconds`.
    pub drain_seconds: Option<u64>,
    /// `max-connection-seconds`.
    pub max_connection_seconds: Option<u64>,
    /// `upstreams`, with commas.
    pub upstreams: Option<String>,
    /// `metrics-merge`.
    pub metrics_merge: Option<bool>,
    /// `rewrite-probes`.
    pub rewrite_probes: Option<bool>,
    /// `access-log`.
    pub access_log: Option<String>,
    /// `unknown-destinations`.
    pub unknown: Option<String>,
}

/// The annotations of a pod, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// What they say.
    pub options: Options,
    /// Each wrong value, with a right one. A pod that has any is refused.
    pub errors: Vec<String>,
    /// Keys that nothing acts on.
    pub warnings: Vec<String>,
}

/// Reads the annotations of a pod; keys that are not Tulle's are ignored.
pub fn read(annotations: &BTreeMap<String, String>) -> Read {
    let mut read = Read::default();
    for (full, value) in annotations {
        let Some(key) = full.strip_prefix(PREFIX) else { continue };
        if let Some(known) = POD.iter().find(|known| known.key == key) {
            if let Err(reason) = (known.set)(&mut read.options, value.trim()) {
                read.errors.push(format!("{full}: \"{value}\" {reason}; a right value is \"{}\"", known.example));
            }
        } else if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| *refused == key) {
            read.errors.push(format!("{full}: {why}"));
        } else if STATUS.iter().all(|written| written.key != key) {
            let mut warning = format!("{full} is not an annotation of pods and has no effect");
            if let Some(near) = nearest(key, POD.iter().map(|known| known.key)) {
                let _ = write!(warning, "; did you mean {PREFIX}{near}?");
            }
            read.warnings.push(warning);
        }
    }
    read.errors.extend(contradictions(&read.options));
    read
}

/// Values that are right, but not together.
fn contradictions(options: &Options) -> Vec<String> {
    let pairs = [
        ("cpu", &options.cpu_request, &options.cpu_limit),
        ("memory", &options.memory_request, &options.memory_limit),
        ("ephemeral-storage", &options.storage_request, &options.storage_limit),
    ];
    let contradiction = |(name, request, limit): (&str, &Option<String>, &Option<String>)| {
        let (request, limit) = (request.as_ref()?, limit.as_ref()?);
        values::exceeds(request, limit).then(|| {
            format!(
                "{PREFIX}proxy-{name}-request: \"{request}\" is above {PREFIX}proxy-{name}-limit: \"{limit}\"; \
                 raise the limit, or leave it out"
            )
        })
    };
    pairs.into_iter().filter_map(contradiction).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_one(key: &str, value: &str) -> Read {
        read(&BTreeMap::from([(format!("{PREFIX}{key}"), value.to_owned())]))
    }

    #[test]
    fn every_example_is_right() {
        for annotation in POD {
            let read = read_one(annotation.key, annotation.example);
            assert_eq!((read.errors, read.warnings), (vec![], vec![]), "{}", annotation.key);
            assert_ne!(read.options, Options::default(), "{}", annotation.key);
        }
    }

    #[test]
    fn a_wrong_value_is_refused_with_a_right_one() {
        for (key, value) in [
            ("inject", "yes"),
            ("proxy-cpu-limit", "two"),
            ("skip-inbound-ports", "80,99999"),
            ("skip-outbound-cidrs", "10.0.0.0/33"),
            ("capture", "tproxy"),
            ("capture", "ebpf"),
            ("drain-seconds", "0"),
            ("proxy-workers", "0"),
            ("upstreams", "reviews"),
            ("proxy-image", "has space"),
            ("access-log", "xml"),
        ] {
            let read = read_one(key, value);
            let [error] = &read.errors[..] else { panic!("{key}={value}: {read:?}") };
            assert!(error.contains(value) && error.contains("a right value is"), "{error}");
        }
    }

    #[test]
    fn mend_24_a_request_above_its_limit_is_refused() {
        let said = [("proxy-memory-request", "512Mi"), ("proxy-memory-limit", "256Mi"), ("proxy-cpu-request", "1")];
        let read = read(&said.map(|(key, value)| (format!("{PREFIX}{key}"), value.to_owned())).into());
        let [error] = &read.errors[..] else { panic!("{read:?}") };
        assert!(error.contains("512Mi") && error.contains("proxy-memory-limit: \"256Mi\""), "{error}");
    }

    #[test]
    fn what_is_not_offered_is_refused_with_what_to_do() {
        let tproxy = read_one("capture", "tproxy").errors.concat();
        assert!(tproxy.contains("NET_ADMIN") && tproxy.contains("nft"), "{tproxy}");
        for (key, _) in REFUSED {
            let read = read_one(key, "0.1");
            assert_eq!((read.errors.len(), read.warnings.len()), (1, 0), "{key}: {read:?}");
        }
        assert!(read_one("trace-sampling", "0.1").errors.concat().contains("traceparent"));
    }

    #[test]
    fn an_unknown_key_is_a_warning() {
        let read = read_one("skip-inbound-port", "80");
        assert_eq!(read.errors, Vec::<String>::new());
        assert!(read.warnings[0].contains("did you mean tulle.io/skip-inbound-ports?"), "{read:?}");
        assert_eq!(read_one("inject-status", "{}").warnings, Vec::<String>::new());
    }
}
