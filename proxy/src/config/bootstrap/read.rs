//! Flags -> [`Bootstrap`]. A value that does not parse becomes a [`Problem`] and reading goes on, so that the user
//! meets all of them at once.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tulle_identity::spiffe::{SpiffeId, TrustDomain};

use crate::base::protocol::{MAX_HEAD_BYTES, MAX_HEAD_FIELDS};

use super::app;
use super::dns;
use super::flags::Flags;
use super::{
    AccessLog, Bootstrap, Capture, ControlPlane, Dns, Drain, ExplicitInbound, ExplicitOutbound, Limits, LogFormat,
    Node, Problem, Unknown,
};
use crate::base::host;

/// Most workers by default: a second core is where a sidecar's gains end; `--workers` takes more.
const DEFAULT_WORKERS: usize = 2;

/// Namespace and service account of the control plane, when its identity is not given.
const CONTROL_PLANE: (&str, &str) = ("tulle-system", "tulle-control-plane");

/// Reads everything.
///
/// # Errors
/// Every problem found.
pub(super) fn bootstrap(flags: &Flags, cpus: usize) -> Result<Bootstrap, Vec<Problem>> {
    let mut read = Reader { problems: Vec::new() };
    let trust_domain = read.trust_domain(&flags.trust_domain);
    let node = read.node(flags, trust_domain.as_ref());
    let control_plane = read.control_plane(flags, trust_domain.as_ref());
    let complete = |name: &str| full_name(name, &flags.namespace, &flags.cluster_domain);
    let built = Bootstrap {
        node,
        // Never used when it did not parse: then there is a problem, and no bootstrap.
        trust_domain: match trust_domain {
            Some(domain) => domain,
            None => return Err(read.problems),
        },
        cluster_domain: flags.cluster_domain.clone(),
        control_plane,
        workers: read.workers(flags.workers.as_deref(), cpus),
        capture: read.capture(flags),
        dns: read.dns(flags),
        explicit_inbound: read.pairs("inbound", &flags.inbound, |listen, app| {
            let example = "give LISTEN=APP, as 0.0.0.0:8080=127.0.0.1:8081";
            Ok(ExplicitInbound { listen: address(listen, example)?, app: address(app, example)? })
        }),
        explicit_outbound: read.pairs("outbound", &flags.outbound, |listen, service| {
            let example = "give LISTEN=SERVICE:PORT, as 127.0.0.1:9080=reviews:80";
            let service =
                complete(service).ok_or_else(|| (format!("`{service}` is no service with a port"), example.into()))?;
            Ok(ExplicitOutbound { listen: address(listen, example)?, service })
        }),
        outbound_http: read
            .all("outbound-http", &flags.outbound_http, |text| address(text, "give an address, as 127.0.0.1:15080")),
        pod_ips: read.all("pod-ip", &flags.pod_ips, |text| {
            text.parse::<IpAddr>()
                .map_err(|_| (format!("`{text}` is no IP address"), "give addresses, as 10.1.2.3,fd00::3".into()))
        }),
        admin: read.admin(&flags.admin),
        status: read.one("status", &flags.status, SocketAddr::from(([0, 0, 0, 0], 15020)), |text| {
            address(text, "give an address, as 0.0.0.0:15020")
        }),
        state_dir: flags.state_dir.as_ref().filter(|dir| !dir.is_empty()).map(PathBuf::from),
        unknown: read.choice(
            "unknown",
            &flags.unknown,
            &[("pass-through", Unknown::PassThrough), ("refuse", Unknown::Refuse)],
        ),
        demand_wait: read.duration("demand-wait", &flags.demand_wait),
        absent_ttl: read.duration("absent-ttl", &flags.absent_ttl),
        detect_timeout: read.duration("detect-timeout", &flags.detect_timeout),
        drain: read.drain(flags),
        access_log: read.choice(
            "access-log",
            &flags.access_log,
            &[("off", AccessLog::Off), ("text", AccessLog::Text), ("json", AccessLog::Json)],
        ),
        log_level: flags.log_level.clone(),
        log_format: read.choice(
            "log-format",
            &flags.log_format,
            &[("text", LogFormat::Text), ("json", LogFormat::Json)],
        ),
        opaque_ports: read.all("opaque-ports", &flags.opaque_ports, |text| number(text, 1..=u16::MAX)),
        prefetch: read.all("prefetch", &flags.prefetch, |text| {
            let fix = "give SERVICE:PORT, as reviews.shop:80";
            complete(text).ok_or_else(|| (format!("`{text}` is no service with a port"), fix.into()))
        }),
        limits: read.limits(flags),
        max_connection_age: flags.max_connection_age.as_ref().map(|text| read.duration("max-connection-age", text)),
        leaf_ttl: flags.leaf_ttl.as_ref().map(|text| read.duration("leaf-ttl", text)),
        app_probes: read.json("app-probes", flags.app_probes.as_deref(), app::probes).unwrap_or_default(),
        app_metrics: read.json("app-metrics", flags.app_metrics.as_deref(), app::scrape),
        wait_ready: flags.wait_ready.as_ref().map(|text| read.duration("wait-ready", text)),
        mark: flags.mark.as_ref().map(|text| read.one("mark", text, 0, |text| number(text, 1..=u32::MAX))),
    };
    if read.problems.is_empty() { Ok(built) } else { Err(read.problems) }
}

/// A reason, and how to put it right.
type Bad = (String, String);

struct Reader {
    problems: Vec<Problem>,
}

impl Reader {
    fn problem(&mut self, flag: &'static str, (reason, fix): Bad) {
        self.problems.push(Problem { flag, reason, fix });
    }

    /// The value of a text, or `fallback` and a problem.
    fn one<T>(&mut self, flag: &'static str, text: &str, fallback: T, parse: impl Fn(&str) -> Result<T, Bad>) -> T {
        match parse(text.trim()) {
            Ok(value) => value,
            Err(bad) => {
                self.problem(flag, bad);
                fallback
            }
        }
    }

    /// The values of all texts; empty texts, as an empty variable gives, count for nothing.
    fn all<T>(&mut self, flag: &'static str, texts: &[String], parse: impl Fn(&str) -> Result<T, Bad>) -> Vec<T> {
        let mut values = Vec::with_capacity(texts.len());
        for text in texts.iter().map(|text| text.trim()).filter(|text| !text.is_empty()) {
            match parse(text) {
                Ok(value) => values.push(value),
                Err(bad) => self.problem(flag, bad),
            }
        }
        values
    }

    fn pairs<T>(
        &mut self,
        flag: &'static str,
        texts: &[String],
        parse: impl Fn(&str, &str) -> Result<T, Bad>,
    ) -> Vec<T> {
        self.all(flag, texts, |text| {
            let no_pair = || (format!("`{text}` has no `=`"), "put `=` between its two parts".into());
            let (left, right) = text.split_once('=').ok_or_else(no_pair)?;
            parse(left.trim(), right.trim())
        })
    }

    fn choice<T: Copy>(&mut self, flag: &'static str, text: &str, choices: &[(&str, T)]) -> T {
        let known = choices.iter().find(|(name, _)| *name == text.trim());
        if known.is_none() {
            let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
            self.problem(flag, (format!("`{text}` is unknown"), format!("give one of: {}", names.join(", "))));
        }
        known
            .or_else(|| choices.first())
            .map(|(_, value)| *value)
            .expect("every list of choices in this file has entries")
    }

    /// The value of a JSON text; an empty one, as an unset field of a template gives, counts for none.
    fn json<T>(
        &mut self,
        flag: &'static str,
        text: Option<&str>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = text.map(str::trim).filter(|text| !text.is_empty())?;
        let fix = "it is written by the injector: annotate the pod's own probes and metrics";
        parse(text).map_err(|reason| self.problem(flag, (reason, fix.into()))).ok()
    }

    fn duration(&mut self, flag: &'static str, text: &str) -> Duration {
        self.one(flag, text, Duration::ZERO, duration)
    }

    fn trust_domain(&mut self, text: &str) -> Option<TrustDomain> {
        TrustDomain::parse(text)
            .map_err(|error| {
                self.problem("trust-domain", (error.to_string(), "give a DNS-like name, as cluster.local".into()))
            })
            .ok()
    }

    fn node(&mut self, flags: &Flags, domain: Option<&TrustDomain>) -> Node {
        let workload = flags.workload.as_deref().unwrap_or_default().trim();
        if workload.is_empty() && flags.control_plane.is_some() {
            let fix = "name the workload, as --workload=reviews or TULLE_WORKLOAD";
            self.problem("workload", ("is required with a control plane".into(), fix.into()));
        }
        if let Some(Err(error)) = domain.map(|td| SpiffeId::workload(td, &flags.namespace, &flags.service_account)) {
            let fix = "give --namespace and --service-account as Kubernetes names them";
            self.problem("service-account", (format!("makes no identity: {error}"), fix.into()));
        }
        Node {
            namespace: flags.namespace.clone(),
            workload: if workload.is_empty() { "unknown" } else { workload }.to_owned(),
            service_account: flags.service_account.clone(),
            region: flags.region.clone(),
            zone: flags.zone.clone(),
        }
    }

    fn control_plane(&mut self, flags: &Flags, domain: Option<&TrustDomain>) -> Option<ControlPlane> {
        let address = flags.control_plane.as_deref().map(str::trim).filter(|address| !address.is_empty())?;
        if split_port(address).is_none() {
            let fix = "give HOST:PORT, as tulle-control-plane.tulle-system:15012";
            self.problem("control-plane", (format!("`{address}` is no host with a port"), fix.into()));
        }
        let trust_bundle = self.file("trust-bundle", flags.trust_bundle.as_deref());
        let token = self.file("token", flags.token.as_deref());
        let server_id = match flags.control_plane_id.as_deref() {
            Some(id) => SpiffeId::parse(id),
            None => SpiffeId::workload(domain?, CONTROL_PLANE.0, CONTROL_PLANE.1),
        };
        match server_id {
            Ok(server_id) => Some(ControlPlane {
                address: address.to_owned(),
                trust_bundle: trust_bundle?,
                token: token?,
                server_id,
            }),
            Err(error) => {
                let fix = "give a SPIFFE id, as spiffe://cluster.local/ns/tulle-system/sa/tulle-control-plane";
                self.problem("control-plane-id", (error.to_string(), fix.into()));
                None
            }
        }
    }

    /// A file that must be named; whether it can be read shows at each connect, for it may appear later.
    fn file(&mut self, flag: &'static str, path: Option<&str>) -> Option<PathBuf> {
        let path = path.filter(|path| !path.is_empty()).map(PathBuf::from);
        if path.is_none() {
            self.problem(flag, ("is required with a control plane".into(), format!("give --{flag}=FILE")));
        }
        path
    }

    fn workers(&mut self, text: Option<&str>, cpus: usize) -> NonZeroUsize {
        let default = NonZeroUsize::new(cpus.min(DEFAULT_WORKERS)).unwrap_or(NonZeroUsize::MIN);
        match text.filter(|text| !text.is_empty()) {
            None => default,
            Some(text) => {
                let count = self.one("workers", text, default.get(), |text| number(text, 1..=256));
                NonZeroUsize::new(count).unwrap_or(default)
            }
        }
    }

    fn capture(&mut self, flags: &Flags) -> Option<Capture> {
        let off = &[("false", false), ("true", true), ("", false)];
        let on = self.choice("capture", flags.capture.as_deref().unwrap_or_default(), off);
        let mut listeners = |flag, texts: &[String], port: u16| {
            let given = self.all(flag, texts, |text| address(text, "give an address, as 0.0.0.0:15001"));
            let any = [IpAddr::from([0u8; 4]), IpAddr::from([0u16; 8])].map(|ip| SocketAddr::new(ip, port));
            if given.is_empty() { any.to_vec() } else { given }
        };
        let outbound = listeners("capture-outbound", &flags.capture_outbound, 15001);
        let inbound = listeners("capture-inbound", &flags.capture_inbound, 15006);
        on.then_some(Capture { outbound, inbound })
    }

    fn dns(&mut self, flags: &Flags) -> Option<Dns> {
        let off = &[("false", false), ("true", true), ("", false)];
        let on = self.choice("dns-capture", flags.dns_capture.as_deref().unwrap_or_default(), off);
        let mut listen =
            self.all("dns-address", &flags.dns_address, |text| address(text, "give an address, as 127.0.0.1:15053"));
        if listen.is_empty() {
            listen = [IpAddr::from([127, 0, 0, 1]), IpAddr::from(std::net::Ipv6Addr::LOCALHOST)]
                .map(|ip| SocketAddr::new(ip, dns::PORT))
                .to_vec();
        }
        let given = self.all("nameserver", &flags.nameserver, |text| {
            let plain = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, dns::NAMESERVER_PORT));
            plain.or_else(|_| address(text, "give addresses, as 10.96.0.10 or 127.0.0.1:5353"))
        });
        if !on {
            return None;
        }
        match dns::read(std::path::Path::new(&flags.resolv_conf), listen, given) {
            Ok(dns) => Some(dns),
            Err(reason) => {
                let fix = "give the workload's file, as /etc/resolv.conf";
                self.problem("resolv-conf", (format!("`{}` {reason}", flags.resolv_conf), fix.into()));
                None
            }
        }
    }

    fn admin(&mut self, text: &str) -> SocketAddr {
        let fallback = SocketAddr::from(([127, 0, 0, 1], 15000));
        self.one("admin", text, fallback, |text| {
            let fix = "give a loopback address, as 127.0.0.1:15000: whoever reaches it may stop the proxy";
            let address = address(text, fix)?;
            if address.ip().is_loopback() {
                Ok(address)
            } else {
                Err((format!("`{text}` is not loopback"), fix.into()))
            }
        })
    }

    fn drain(&mut self, flags: &Flags) -> Drain {
        let min = self.duration("drain-min", &flags.drain_min);
        let deadline = self.duration("drain-deadline", &flags.drain_deadline);
        if deadline < min {
            let fix = "give at least what --drain-min says";
            self.problem("drain-deadline", ("is shorter than --drain-min".into(), fix.into()));
        }
        Drain { min, deadline }
    }

    fn limits(&mut self, flags: &Flags) -> Limits {
        Limits {
            max_connections: self.one("max-connections", &flags.max_connections, 1, |t| number(t, 1..=10_000_000)),
            max_header_bytes: self
                .one("max-header-bytes", &flags.max_header_bytes, 1, |t| number(t, 1024..=MAX_HEAD_BYTES)),
            max_headers: self.one("max-headers", &flags.max_headers, 1, |t| number(t, 8..=MAX_HEAD_FIELDS)),
            header_timeout: self.duration("header-timeout", &flags.header_timeout),
            downstream_idle: self.duration("idle-timeout", &flags.idle_timeout),
            stall_timeout: self.duration("stall-timeout", &flags.stall_timeout),
            half_close_timeout: self.duration("half-close-timeout", &flags.half_close_timeout),
        }
    }
}

fn address(text: &str, fix: &str) -> Result<SocketAddr, Bad> {
    text.parse().map_err(|_| (format!("`{text}` is no address with a port"), fix.to_owned()))
}

fn number<N: FromStr + PartialOrd + fmt::Display>(text: &str, range: std::ops::RangeInclusive<N>) -> Result<N, Bad> {
    text.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| {
        (
            format!("`{text}` is no number in the range"),
            format!("give a number from {} to {}", range.start(), range.end()),
        )
    })
}

/// A number and a unit: `250ms`, `2s`, `5m`, `1h`; more than zero, at most 30 days.
fn duration(text: &str) -> Result<Duration, Bad> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (count, unit) = text.split_at(digits);
    let millis = match unit {
        "ms" => Some(1),
        "s" => Some(1000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    let total = count.parse::<u64>().ok().zip(millis).and_then(|(count, millis)| count.checked_mul(millis));
    match total {
        Some(total) if (1..=30 * 24 * 3_600_000).contains(&total) => Ok(Duration::from_millis(total)),
        Some(_) | None => Err((
            format!("`{text}` is no duration above zero"),
            "give a number and a unit, as 250ms, 2s, 5m or 1h".into(),
        )),
    }
}

/// Host and port of `host:port`, the host without brackets.
fn split_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let plain = !bare.is_empty() && (bare.len() < host.len() || !bare.contains(':'));
    let clean = bare.chars().all(|c| c.is_ascii_alphanumeric() || "-._:".contains(c));
    (plain && clean).then_some((bare, port))
}

/// The full name of a service with a port, as [`host::service`] has it.
fn full_name(text: &str, namespace: &str, domain: &str) -> Option<Arc<str>> {
    let text = text.trim();
    split_port(text)?;
    let (host, port) = host::split(text);
    let named =
        host::address(host).is_some() || (!host.contains(':') && host.split('.').all(|label| !label.is_empty()));
    named.then(|| host::service(host, port.unwrap_or_default(), namespace, domain))
}
