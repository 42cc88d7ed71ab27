//! Flags and environment become `Settings`, with every mistake reported at once.
//!
//! The only place that reads the environment. Each flag `--some-name` is also `TULLE_SOME_NAME`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{CommandFactory as _, Parser};
use ipnet::IpNet;
use tulle_identity::spiffe::TrustDomain;

use crate::model::policy::Mtls;
use crate::model::ranges::WorkloadRanges;
use crate::quota::Quotas;

/// How a control plane runs. Port 0 anywhere means any free port.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where objects and keys come from.
    pub source: Source,
    /// With [`Source::File`]: directory of manifests to serve; watched for changes.
    pub config_dir: PathBuf,
    /// With [`Source::File`]: directory of the certificate authority's and the token key, and of `trust-bundle.pem`.
    /// Made with mode 0700.
    pub state_dir: PathBuf,
    /// An issuing certificate and its key, as PEM files, instead of the authority in the state directory. The
    /// certificate's file may hold its chain, the root last.
    pub ca: Option<CaFiles>,
    /// Trust domain of every identity.
    pub trust_domain: TrustDomain,
    /// Domain of service names.
    pub cluster_domain: String,
    /// Where proxies connect, with TLS.
    pub xds_address: SocketAddr,
    /// Where clients on this machine connect without TLS or a token; loopback only.
    pub xds_plaintext_address: Option<SocketAddr>,
    /// Health, metrics and, for callers on this machine, debug pages and root rotation.
    pub admin_address: SocketAddr,
    /// DNS names of the serving certificate.
    pub dns_names: Vec<String>,
    /// Lifetime of a certificate, unless a shorter one is asked for.
    pub leaf_ttl: Duration,
    /// With [`Source::Kubernetes`]: the addresses Workloads may have. Files may name any.
    pub workload_ranges: WorkloadRanges,
    /// No namespace and no Service has a weaker mTLS mode.
    pub mtls_floor: Option<Mtls>,
    /// What one identity, and one pod, may have of a replica.
    pub quotas: Quotas,
    /// Addresses that belong to the mesh; none: those in use and their neighbours.
    pub mesh_ranges: Vec<IpNet>,
}

/// Where objects and keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A directory of manifests; keys are in the state directory.
    File,
    /// The API of the cluster this process runs in, or of the one this kubeconfig file or `KUBECONFIG` names; keys are in
    /// a Secret.
    Kubernetes(Option<PathBuf>),
}

/// Files of an issuing certificate.
#[derive(Clone, Debug)]
pub struct CaFiles {
    /// Certificate, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM (PKCS#8).
    pub key: PathBuf,
}

/// How log lines are written.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// A filter such as `info` or `info,tulle_control_plane::xds=debug`.
    pub level: String,
    /// One JSON object per line instead of text.
    pub json: bool,
}

/// Shortest lifetime of a certificate: rotation needs time to happen.
const MIN_LEAF_TTL: Duration = Duration::from_secs(2);

/// Longest lifetime of a certificate: it cannot be revoked, only awaited.
const MAX_LEAF_TTL: Duration = Duration::from_secs(90 * 86_400);

impl Settings {
    /// Defaults, with the two directories given: all ports of the vocabulary, trust domain and cluster domain
    /// `cluster.local`, certificates for a day.
    pub fn new(config_dir: impl Into<PathBuf>, state_dir: impl Into<PathBuf>, trust_domain: TrustDomain) -> Self {
        let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Self {
            source: Source::File,
            config_dir: config_dir.into(),
            state_dir: state_dir.into(),
            ca: None,
            trust_domain,
            cluster_domain: "cluster.local".to_owned(),
            xds_address: SocketAddr::new(any, 15012),
            xds_plaintext_address: None,
            admin_address: SocketAddr::new(any, 15014),
            dns_names: default_dns_names(),
            leaf_ttl: Duration::from_secs(86_400),
            workload_ranges: WorkloadRanges::default(),
            mtls_floor: None,
            quotas: Quotas::default(),
            mesh_ranges: Vec::new(),
        }
    }

    /// Reads flags and environment.
    ///
    /// # Errors
    /// Every value that does not parse or contradicts another. `--help`, `--version` and unknown flags end the
    /// process, as clap does.
    pub fn from_args(args: impl IntoIterator<Item = std::ffi::OsString>) -> Result<(Self, LogSettings), Mistakes> {
        Args::parse_from(args).check()
    }

    /// The flags, for their description.
    pub fn command() -> clap::Command {
        Args::command()
    }
}

/// Names under which proxies in Kubernetes and on this machine know the control plane.
fn default_dns_names() -> Vec<String> {
    ["localhost", "tulle-control-plane.tulle-system.svc", "tulle-control-plane.tulle-system.svc.cluster.local"]
        .map(str::to_owned)
        .to_vec()
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

/// The control plane of Tulle: watches services, streams configuration to proxies, signs their certificates.
#[derive(Debug, Parser)]
#[command(name = "tulle-control-plane", version)]
struct Args {
    /// Where objects come from: file (--config-dir), or kubernetes, the API of the cluster this runs in
    #[arg(long, env = "TULLE_SOURCE", value_name = "SOURCE", default_value = "file")]
    source: String,
    /// The cluster of --source kubernetes, when this does not run in it
    #[arg(long, env = "TULLE_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Directory of manifests to serve; watched for changes
    #[arg(long, env = "TULLE_CONFIG_DIR", value_name = "DIR")]
    config_dir: Option<PathBuf>,
    /// Directory of keys and of trust-bundle.pem, which proxies need
    #[arg(long, env = "TULLE_STATE_DIR", value_name = "DIR", default_value = "/var/lib/tulle")]
    state_dir: PathBuf,
    /// Issuing certificate (PEM), instead of one made in the state directory
    #[arg(long, env = "TULLE_CA_CERT", value_name = "FILE")]
    ca_cert: Option<PathBuf>,
    /// Private key of --ca-cert (PEM)
    #[arg(long, env = "TULLE_CA_KEY", value_name = "FILE")]
    ca_key: Option<PathBuf>,
    /// Trust domain of every identity
    #[arg(long, env = "TULLE_TRUST_DOMAIN", value_name = "NAME", default_value = "cluster.local")]
    trust_domain: String,
    /// Domain of service names
    #[arg(long, env = "TULLE_CLUSTER_DOMAIN", value_name = "NAME", default_value = "cluster.local")]
    cluster_domain: String,
    /// Where proxies connect, with TLS
    #[arg(long, env = "TULLE_XDS_ADDRESS", value_name = "IP:PORT", default_value = "0.0.0.0:15012")]
    xds_address: String,
    /// Where clients on this machine connect without TLS; loopback only, off by default
    #[arg(long, env = "TULLE_XDS_PLAINTEXT_ADDRESS", value_name = "IP:PORT")]
    xds_plaintext_address: Option<String>,
    /// Health and metrics; debug pages and root rotation for callers on this machine
    #[arg(long, env = "TULLE_ADMIN_ADDRESS", value_name = "IP:PORT", default_value = "0.0.0.0:15014")]
    admin_address: String,
    /// DNS name of the serving certificate; repeat for more
    #[arg(long = "dns-name", env = "TULLE_DNS_NAME", value_name = "NAME", value_delimiter = ',')]
    dns_names: Vec<String>,
    /// Lifetime of a certificate, unless a shorter one is asked for, such as 24h or 90m
    #[arg(long, env = "TULLE_LEAF_TTL", value_name = "DURATION", default_value = "24h")]
    leaf_ttl: String,
    /// Addresses that Workloads of a namespace may have, as NAMESPACE=CIDR, * for every namespace; repeat for more.
    /// With --source kubernetes, where none is given no Workload is taken
    #[arg(long = "workload-range", env = "TULLE_WORKLOAD_RANGE", value_name = "NAMESPACE=CIDR", value_delimiter = ',')]
    workload_ranges: Vec<String>,
    /// Weakest mTLS mode that a namespace or Service may have: permissive or strict; none: whatever they say
    #[arg(long, env = "TULLE_MTLS_FLOOR", value_name = "MODE", default_value = "none")]
    mtls_floor: String,
    /// Addresses that belong to the mesh, such as 10.244.0.0/16; repeat for more; by default those in use and their
    /// neighbours
    #[arg(long = "mesh-range", env = "TULLE_MESH_RANGES", value_name = "CIDR", value_delimiter = ',')]
    mesh_ranges: Vec<String>,
    /// Log filter, such as info or info,tulle_control_plane::xds=debug
    #[arg(long, env = "TULLE_LOG_LEVEL", value_name = "FILTER", default_value = "info")]
    log_level: String,
    /// Log format: text or json
    #[arg(long, env = "TULLE_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    log_format: String,
}

impl Args {
    fn check(self) -> Result<(Settings, LogSettings), Mistakes> {
        let mut mistakes = Vec::new();
        let xds_address = address(&mut mistakes, "--xds-address", &self.xds_address);
        let admin_address = address(&mut mistakes, "--admin-address", &self.admin_address);
        let plaintext = self.xds_plaintext_address.as_deref();
        let plaintext = plaintext.and_then(|text| address(&mut mistakes, "--xds-plaintext-address", text));
        if let Some(address) = plaintext
            && !address.ip().is_loopback()
        {
            mistakes.push(not_loopback(address));
        }
        let trust_domain = TrustDomain::parse(&self.trust_domain)
            .map_err(|error| mistakes.push(format!("--trust-domain {:?}: {error}", self.trust_domain)))
            .ok();
        for (flag, name) in [("--cluster-domain", &self.cluster_domain)]
            .into_iter()
            .chain(self.dns_names.iter().map(|name| ("--dns-name", name)))
        {
            if !is_dns_name(name) {
                mistakes.push(format!("{flag} {name:?}: not a DNS name such as mesh.example.com"));
            }
        }
        let leaf_ttl = duration(&self.leaf_ttl).filter(|ttl| (MIN_LEAF_TTL..=MAX_LEAF_TTL).contains(ttl));
        if leaf_ttl.is_none() {
            mistakes.push(format!("--leaf-ttl {:?}: not a duration from 2s to 90d, such as 24h", self.leaf_ttl));
        }
        let ca = match (self.ca_cert, self.ca_key) {
            (Some(cert), Some(key)) => Some(CaFiles { cert, key }),
            (None, None) => None,
            (Some(_), None) => {
                mistakes.push("--ca-cert needs --ca-key".to_owned());
                None
            }
            (None, Some(_)) => {
                mistakes.push("--ca-key needs --ca-cert".to_owned());
                None
            }
        };
        let workload_ranges = workload_ranges(&mut mistakes, &self.workload_ranges);
        let mtls_floor = mtls_floor(&mut mistakes, &self.mtls_floor);
        let source = source(&mut mistakes, &self.source, self.config_dir.is_some(), self.kubeconfig);
        if ca.is_some() && matches!(source, Some(Source::Kubernetes(_))) {
            mistakes.push("--ca-cert is for --source file: in a cluster the Secret tulle-ca holds it".to_owned());
        }
        let mesh_ranges = ranges(&mut mistakes, &self.mesh_ranges);
        let json = match self.log_format.as_str() {
            "text" => false,
            "json" => true,
            other => {
                mistakes.push(format!("--log-format {other:?}: text or json"));
                false
            }
        };
        let (Some(source), Some(xds_address), Some(admin_address), Some(trust_domain), Some(leaf_ttl), true) =
            (source, xds_address, admin_address, trust_domain, leaf_ttl, mistakes.is_empty())
        else {
            return Err(Mistakes(mistakes));
        };
        let mut dns_names = default_dns_names();
        dns_names.extend(self.dns_names);
        let settings = Settings {
            source,
            config_dir: self.config_dir.unwrap_or_default(),
            state_dir: self.state_dir,
            ca,
            trust_domain,
            cluster_domain: self.cluster_domain,
            xds_address,
            xds_plaintext_address: plaintext,
            admin_address,
            dns_names,
            leaf_ttl,
            workload_ranges,
            mtls_floor,
            quotas: Quotas::default(),
            mesh_ranges,
        };
        Ok((settings, LogSettings { level: self.log_level, json }))
    }
}

/// Why an address cannot be the plaintext one.
pub(crate) fn not_loopback(address: SocketAddr) -> String {
    format!("--xds-plaintext-address {address}: without TLS only a loopback address such as 127.0.0.1:15010 is served")
}

fn source(mistakes: &mut Vec<String>, text: &str, config_dir: bool, kubeconfig: Option<PathBuf>) -> Option<Source> {
    match (text, config_dir) {
        ("file", true) => return Some(Source::File),
        ("kubernetes", false) => return Some(Source::Kubernetes(kubeconfig)),
        ("file", false) => mistakes.push("--config-dir is needed: the directory of manifests to serve".to_owned()),
        ("kubernetes", true) => mistakes.push("--config-dir is for --source file, not for kubernetes".to_owned()),
        (other, _) => mistakes.push(format!("--source {other:?}: file or kubernetes")),
    }
    None
}

fn workload_ranges(mistakes: &mut Vec<String>, texts: &[String]) -> WorkloadRanges {
    WorkloadRanges::parse(texts.iter().map(String::as_str)).unwrap_or_else(|error| {
        mistakes.push(format!("--workload-range {error}"));
        WorkloadRanges::default()
    })
}

fn mtls_floor(mistakes: &mut Vec<String>, text: &str) -> Option<Mtls> {
    match text {
        "none" => return None,
        "permissive" => return Some(Mtls::Permissive),
        "strict" => return Some(Mtls::Strict),
        other => mistakes.push(format!("--mtls-floor {other:?}: none, permissive or strict")),
    }
    None
}

fn ranges(mistakes: &mut Vec<String>, texts: &[String]) -> Vec<IpNet> {
    let range = |text: &String| {
        let parsed =
            text.trim().parse::<IpNet>().map(|net| net.trunc()).or_else(|_| text.trim().parse().map(IpAddr::into));
        parsed.map_err(|_| mistakes.push(format!("--mesh-range {text:?}: not a range such as 10.244.0.0/16"))).ok()
    };
    texts.iter().filter(|text| !text.trim().is_empty()).filter_map(range).collect()
}

fn address(mistakes: &mut Vec<String>, flag: &str, text: &str) -> Option<SocketAddr> {
    let parsed = text.parse();
    if parsed.is_err() {
        mistakes.push(format!("{flag} {text:?}: not an address and port such as 127.0.0.1:15012"));
    }
    parsed.ok()
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

/// `1h30m`, `90s`, `500ms`, `7d`: one or more numbers, each with its unit.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(digits);
        let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let number: u64 = number.parse().ok()?;
        let seconds = match unit {
            "ms" => {
                total = total.checked_add(Duration::from_millis(number))?;
                0
            }
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return None,
        };
        total = total.checked_add(Duration::from_secs(number.checked_mul(seconds)?))?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(args: &[&str]) -> Result<(Settings, LogSettings), Mistakes> {
        Args::try_parse_from(std::iter::once(&"tulle-control-plane").chain(args)).unwrap().check()
    }

    #[test]
    fn the_defaults_need_a_config_dir_only() {
        let (settings, log) = check(&["--config-dir", "/mesh"]).unwrap();
        assert_eq!(settings.xds_address.port(), 15012);
        assert_eq!(settings.leaf_ttl, Duration::from_secs(86_400));
        assert_eq!(settings.xds_plaintext_address, None);
        assert!(!log.json);
    }

    #[test]
    fn a_cluster_needs_no_directory() {
        assert_eq!(check(&["--source", "kubernetes"]).unwrap().0.source, Source::Kubernetes(None));
        assert!(check(&["--source", "kubernetes", "--config-dir", "/mesh"]).is_err());
        assert!(check(&["--source", "consul", "--config-dir", "/mesh"]).is_err());
    }

    #[test]
    fn every_mistake_is_reported() {
        let args = [
            "--xds-address=nowhere",
            "--xds-plaintext-address=10.0.0.1:15010",
            "--trust-domain=Not/Valid",
            "--leaf-ttl=10y",
            "--ca-cert=/a",
            "--dns-name=-bad",
            "--log-format=xml",
            "--workload-range=10.0.0.0/8",
            "--mtls-floor=disable",
            "--mesh-range=10.0.0.0/33,10.1.0.0/16,fd00::/8,10.2.3.4",
        ];
        let mistakes = check(&args).unwrap_err();
        let text = mistakes.to_string();
        let flags = [
            "--xds-address",
            "loopback",
            "--trust-domain",
            "--leaf-ttl",
            "--ca-key",
            "--dns-name",
            "xml",
            "--config-dir",
            "--workload-range",
            "--mtls-floor",
            "10.0.0.0/33",
        ];
        for flag in flags {
            assert!(text.contains(flag), "{flag} is missing from {text}");
        }
        assert_eq!(mistakes.0.len(), flags.len());
    }

    #[test]
    fn durations() {
        assert_eq!(duration("1h30m"), Some(Duration::from_secs(5_400)));
        assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
        for bad in ["", "5", "h", "5 h", "5y", "99999999999999999999s"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }
}
