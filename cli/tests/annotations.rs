//! Every annotation of pods has the effect it promises: what the injector writes is read by the proxy's and tulle-init's own
//! parsers, and is compared with a pod that says nothing.
#![expect(clippy::panic, reason = "helpers of tests")]

use std::ffi::OsString;
use std::time::Duration;

use serde_json::{Value, json};
use tulle_injector::annotations::{POD, PREFIX};
use tulle_injector::decide::{self, Circumstances, Verdict};
use tulle_injector::redirect::{self, Mode};
use tulle_injector::settings::Injection;
use tulle_injector::{init, patch};
use tulle_proxy::config::bootstrap::{AccessLog, Bootstrap, Unknown};

/// A pod after injection.
struct Injected {
    pod: Value,
}

impl Injected {
    /// The pod with one annotation; `None` when it stays without a proxy.
    fn with(key: &str, value: &str) -> Option<Self> {
        let mut pod = json!({
            "metadata": {"name": "web-1", "annotations": {
                "prometheus.io/scrape": "true", "prometheus.io/port": "9090", "prometheus.io/path": "/m",
            }},
            "spec": {"terminationGracePeriodSeconds": 120, "containers": [
                {"name": "web", "ports": [{"containerPort": 8080}], "livenessProbe": {"httpGet": {"port": 8080, "path": "/live"}}},
            ]},
        });
        pod["metadata"]["annotations"][format!("{PREFIX}{key}")] = value.into();
        let around = Circumstances { namespace: "shop", by_default: true, native: true };
        match decide::decide(&pod, around) {
            Verdict::Inject(inject) => {
                assert!(inject.warnings.is_empty(), "{key}: {:?}", inject.warnings);
                Some(Self { pod: patch::inject(&pod, &inject, &Injection::default(), Some("web")) })
            }
            Verdict::Skip(_) => None,
            Verdict::Deny(deny) => panic!("{key}={value}: {deny}"),
        }
    }

    fn container(&self, name: &str) -> Option<&Value> {
        let lists = ["initContainers", "containers"].map(|list| self.pod["spec"][list].as_array());
        lists.into_iter().flatten().flatten().find(|container| container["name"] == name)
    }

    fn proxy(&self) -> &Value {
        self.container("tulle-proxy").expect("a proxy")
    }

    /// The environment of a container as flags of the program in it.
    fn flags(&self, container: &str, command: &clap::Command) -> Vec<OsString> {
        let container = self.container(container).expect("the container");
        let mut flags = vec![OsString::from(command.get_name())];
        for variable in container["env"].as_array().expect("an environment") {
            let name = variable["name"].as_str().expect("a name");
            let arg = command.get_arguments().find(|arg| arg.get_env().is_some_and(|env| env == name));
            let long = arg.and_then(clap::Arg::get_long).unwrap_or_else(|| panic!("nothing reads {name}"));
            // What the kubelet fills in.
            let value = match (variable["value"].as_str(), name) {
                (Some(value), _) => value.replace("$$", "$"),
                (None, "TULLE_POD_IPS") => "10.1.2.3,fd00::3".to_owned(),
                (None, _) => "shop".to_owned(),
            };
            flags.push(format!("--{long}={value}").into());
        }
        flags
    }

    fn bootstrap(&self) -> Bootstrap {
        let flags = self.flags("tulle-proxy", &Bootstrap::command());
        Bootstrap::parse(flags).unwrap_or_else(|error| panic!("the proxy refuses its environment: {error}"))
    }

    fn rules(&self) -> redirect::Settings {
        let flags = self.flags("tulle-init", &init::command());
        init::settings(flags).unwrap_or_else(|error| panic!("tulle-init refuses its environment: {error}"))
    }

    fn scripts(&self) -> String {
        redirect::Family::BOTH.into_iter().map(|family| redirect::script(&self.rules(), family)).collect()
    }
}

/// Whether a pod has the effect of an annotation's example.
fn effect(key: &str, is: &Injected) -> bool {
    let resource = |path: &str, quantity: &str| is.proxy().pointer(path) == Some(&json!(quantity));
    let rule = |text: &str| is.scripts().contains(text);
    match key {
        "inject" => true,
        "inject-native" => is.proxy()["restartPolicy"] == "Always",
        "proxy-image" => is.proxy()["image"] == "registry.example.com/tulle/proxy:0.1.0",
        "proxy-cpu-request" => resource("/resources/requests/cpu", "100m"),
        "proxy-cpu-limit" => resource("/resources/limits/cpu", "2"),
        "proxy-memory-request" => resource("/resources/requests/memory", "64Mi"),
        "proxy-memory-limit" => resource("/resources/limits/memory", "512Mi"),
        "proxy-ephemeral-storage-request" => resource("/resources/requests/ephemeral-storage", "64Mi"),
        "proxy-ephemeral-storage-limit" => resource("/resources/limits/ephemeral-storage", "128Mi"),
        "proxy-workers" => is.bootstrap().workers.get() == 4,
        "proxy-log-level" => is.bootstrap().log_level == "debug",
        "skip-inbound-ports" => rule("9090") && rule("8000-8010"),
        "skip-outbound-ports" => rule("6000-6010"),
        "skip-outbound-cidrs" => rule("10.1.0.0/16") && rule("fd00:1::/64"),
        "include-outbound-cidrs" => rule("10.96.0.0/12"),
        "exclude-uids" => rule("1000") && rule("2000-2010"),
        "opaque-ports" => is.bootstrap().opaque_ports == [3306, 5432],
        "capture" => is.rules().mode == Mode::Iptables,
        "dns-capture" => is.bootstrap().dns.is_some() && rule("udp dport 53 redirect to :15053"),
        "hold-until-ready" => is.proxy()["startupProbe"].is_null(),
        "drain-seconds" => is.bootstrap().drain.deadline == Duration::from_secs(60),
        "max-connection-seconds" => is.bootstrap().max_connection_age == Some(Duration::from_secs(86_400)),
        "upstreams" => {
            let names: Vec<_> = is.bootstrap().permanent_names().map(ToString::to_string).collect();
            names == ["reviews.shop.svc.cluster.local:9080", "ratings.shop.svc.cluster.local:80"]
        }
        "metrics-merge" => is.bootstrap().app_metrics.is_none(),
        "rewrite-probes" => is.bootstrap().app_probes.is_empty(),
        "access-log" => is.bootstrap().access_log == AccessLog::Json,
        "unknown-destinations" => is.bootstrap().unknown == Unknown::Refuse,
        key => panic!("tulle.io/{key}: say here what it does"),
    }
}

#[test]
fn every_annotation_has_its_effect() {
    let silent = Injected::with("inject", "enabled").expect("a proxy");
    assert!(silent.bootstrap().app_metrics.is_some() && !silent.bootstrap().app_probes.is_empty());
    for annotation in POD {
        let says = Injected::with(annotation.key, annotation.example).expect("a proxy");
        assert!(effect(annotation.key, &says), "{}: {}", annotation.key, says.pod);
        // What a pod gets anyway needs another value to be seen.
        if !["inject", "inject-native"].contains(&annotation.key) {
            assert!(!effect(annotation.key, &silent), "{} is the case without it", annotation.key);
        }
    }
}

#[test]
fn values_other_than_the_examples() {
    assert!(Injected::with("inject", "disabled").is_none());
    let classic = Injected::with("inject-native", "false").expect("a proxy");
    assert!(classic.proxy()["restartPolicy"].is_null());
    assert_eq!(classic.pod["spec"]["containers"][0]["name"], "tulle-proxy");
    let uncaptured = Injected::with("capture", "none").expect("a proxy");
    assert!(uncaptured.container("tulle-init").is_none());
    assert!(uncaptured.bootstrap().capture.is_none());
    let captured = Injected::with("capture", "nft").expect("a proxy");
    assert_eq!(captured.rules().mode, Mode::Nft);
    assert!(captured.bootstrap().capture.is_some());
}

/// Whatever the injector takes, the programs that it hands it to take too: they are started with it, and stop at a mistake.
#[test]
fn mend_23_odd_values_stop_neither_proxy_nor_init() {
    for (key, value) in [
        ("skip-outbound-ports", "0-65535"),
        ("skip-inbound-ports", "0-1,1-65535"),
        ("exclude-uids", "0-4294967295"),
        ("skip-outbound-cidrs", "0.0.0.0/0,::/0,10.0.0.1"),
        ("include-outbound-cidrs", "fe80::1"),
        ("opaque-ports", "1,1,65535"),
        ("opaque-ports", ""),
        ("proxy-log-level", "foo=bar=baz"),
        ("proxy-log-level", "info,,"),
        ("upstreams", "a:1,A-b.C:65535"),
        ("upstreams", ""),
        ("proxy-workers", "64"),
        ("drain-seconds", "1"),
    ] {
        let says = Injected::with(key, value).expect("a proxy");
        says.bootstrap();
        says.rules();
    }
}
