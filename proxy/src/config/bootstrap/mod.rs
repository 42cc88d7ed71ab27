//! Flags and `TULLE_*` environment -> `Bootstrap`, once, at start. The only reader of the environment. Every bad
//! value is reported together, each with how to put it right.

/// The command line, as texts.
mod flags;

/// Texts -> values, with all problems.
mod read;

/// How many CPUs this process may use.
mod cpus;

/// What the injector hands over about the application.
mod app;

/// Paths of probes and redirects.
mod reference;

/// Nameservers and search path of the workload.
mod dns;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{CommandFactory as _, Parser};
use tulle_identity::spiffe::{SpiffeId, TrustDomain};

pub use app::{Check, Probe, Probes, Scrape};
pub use reference::Reference;

/// Settings of this process.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    /// Which workload this is the proxy of.
    pub node: Node,
    /// Trust domain of the mesh.
    pub trust_domain: TrustDomain,
    /// DNS domain of services, `cluster.local`.
    pub cluster_domain: String,
    /// Where configuration and certificates come from; none: everything is passed through.
    pub control_plane: Option<ControlPlane>,
    /// Worker threads.
    pub workers: NonZeroUsize,
    /// Listeners for redirected connections; none when nothing is redirected.
    pub capture: Option<Capture>,
    /// DNS for the workload; none when its questions go their own way.
    pub dns: Option<Dns>,
    /// Ports of the workload that are received on without capture.
    pub explicit_inbound: Vec<ExplicitInbound>,
    /// Services that are sent to without capture.
    pub explicit_outbound: Vec<ExplicitOutbound>,
    /// HTTP listeners whose requests name the service in their host.
    pub outbound_http: Vec<SocketAddr>,
    /// The workload's own addresses.
    pub pod_ips: Vec<IpAddr>,
    /// Admin listener; loopback.
    pub admin: SocketAddr,
    /// Readiness and metrics listener.
    pub status: SocketAddr,
    /// Directory of the last-good file.
    pub state_dir: Option<PathBuf>,
    /// What happens to destinations the mesh does not know.
    pub unknown: Unknown,
    /// Longest wait of a connection for configuration that was asked for on its account, when none can be expected.
    pub demand_wait: Duration,
    /// How long the answer `no such service` holds.
    pub absent_ttl: Duration,
    /// How long to wait for a client's first bytes.
    pub detect_timeout: Duration,
    /// Times of a shutdown.
    pub drain: Drain,
    /// Format of the access log.
    pub access_log: AccessLog,
    /// Log filter.
    pub log_level: String,
    /// Format of the log.
    pub log_format: LogFormat,
    /// Ports that are never sniffed.
    pub opaque_ports: Vec<u16>,
    /// Full names, with port, to ask for at start.
    pub prefetch: Vec<Arc<str>>,
    /// Limits per worker.
    pub limits: Limits,
    /// Age at which a connection to the workload ends; none: it has no end of its own.
    pub max_connection_age: Option<Duration>,
    /// Lifetime to ask for in certificates; none: the control plane's default.
    pub leaf_ttl: Option<Duration>,
    /// SO_MARK of the proxy's own connections.
    pub mark: Option<u32>,
    /// Probes and lifecycle hooks of the application.
    pub app_probes: Probes,
    /// The application's own metrics.
    pub app_metrics: Option<Scrape>,
    /// Only wait, for so long at most, until the proxy of this pod is ready.
    pub wait_ready: Option<Duration>,
}

/// The workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Namespace.
    pub namespace: String,
    /// Owner name; `unknown` without a control plane when none was given.
    pub workload: String,
    /// Service account.
    pub service_account: String,
    /// Region; may be empty.
    pub region: String,
    /// Zone; may be empty.
    pub zone: String,
}

impl Node {
    /// The node id on the discovery stream.
    pub fn id(&self) -> String {
        format!("{}.{}", self.workload, self.namespace)
    }
}

/// How to reach and recognise the control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlPlane {
    /// `host:port`.
    pub address: String,
    /// PEM file its certificate must chain to.
    pub trust_bundle: PathBuf,
    /// File with the workload token.
    pub token: PathBuf,
    /// Who it must prove to be.
    pub server_id: SpiffeId,
}

/// Listeners for redirected connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    /// Where the application's connections arrive.
    pub outbound: Vec<SocketAddr>,
    /// Where connections to the application arrive.
    pub inbound: Vec<SocketAddr>,
}

/// DNS for the workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// Where questions arrive, over UDP and TCP.
    pub listen: Vec<SocketAddr>,
    /// Whom to ask what the mesh does not know, in order.
    pub nameservers: Vec<SocketAddr>,
    /// Domains that complete a short name, in order.
    pub search: Vec<String>,
    /// A name of so many dots is whole.
    pub ndots: usize,
}

/// One port that is received on without capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExplicitInbound {
    /// Where peers connect; its port names the rules.
    pub listen: SocketAddr,
    /// Where the application listens.
    pub app: SocketAddr,
}

/// One service that is sent to without capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplicitOutbound {
    /// Where the application connects.
    pub listen: SocketAddr,
    /// Full name and port of the service.
    pub service: Arc<str>,
}

/// What happens to destinations the mesh does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// They are connected to as they are.
    PassThrough,
    /// They are refused.
    Refuse,
}

/// Format of the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// None.
    Off,
    /// One line of text per request.
    Text,
    /// One JSON object per request.
    Json,
}

/// Format of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines of text.
    Text,
    /// JSON objects.
    Json,
}

/// Times of a shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// How long connections are still accepted.
    pub min: Duration,
    /// When work in progress is cut off, from the start of the shutdown; at least `min`.
    pub deadline: Duration,
}

/// Limits per worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections served at a time.
    pub max_connections: usize,
    /// Bytes of a head.
    pub max_header_bytes: usize,
    /// Fields of a head.
    pub max_headers: usize,
    /// Longest time for a client to send a head.
    pub header_timeout: Duration,
    /// Longest time a client's connection may carry nothing.
    pub downstream_idle: Duration,
    /// Longest time a client may take nothing of a reply that is there for it.
    pub stall_timeout: Duration,
    /// Longest time without a byte of a response whose client has ended its own direction.
    pub half_close_timeout: Duration,
}

/// One bad setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The flag, without dashes; its variable is `TULLE_` and the flag in capitals unless the help says otherwise.
    pub flag: &'static str,
    /// What is wrong.
    pub reason: String,
    /// How to put it right.
    pub fix: String,
}

/// Why there are no settings.
#[derive(Debug)]
pub enum BootstrapError {
    /// The command line does not parse, or asks for help or the version: print it and exit with its code.
    Usage(Box<clap::Error>),
    /// Bad values, all of them.
    Problems(Vec<Problem>),
}

impl fmt::Display for BootstrapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(error) => error.fmt(f),
            Self::Problems(problems) => {
                write!(f, "{} bad setting(s):", problems.len())?;
                for Problem { flag, reason, fix } in problems {
                    write!(f, "\n  --{flag}: {reason}\n      {fix}")?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for BootstrapError {}

impl Bootstrap {
    /// Reads the command line `args`, whose first is the program's name, and the environment.
    ///
    /// # Errors
    /// See [`BootstrapError`]; all bad values are in one error.
    pub fn parse<I, T>(args: I) -> Result<Self, BootstrapError>
    where
        I: IntoIterator<Item = T>,
        T: Into<OsString> + Clone,
    {
        let flags = flags::Flags::try_parse_from(args).map_err(|error| BootstrapError::Usage(Box::new(error)))?;
        read::bootstrap(&flags, cpus::available()).map_err(BootstrapError::Problems)
    }

    /// The flags, for their description.
    pub fn command() -> clap::Command {
        flags::Flags::command()
    }

    /// This workload's identity, as the control plane will certify it.
    pub fn identity(&self) -> Option<SpiffeId> {
        SpiffeId::workload(&self.trust_domain, &self.node.namespace, &self.node.service_account).ok()
    }

    /// Whether endpoints may have loopback addresses: on a machine that mesh and applications share, but not in a pod,
    /// where such an address leads to the pod itself.
    pub fn allows_loopback_endpoints(&self) -> bool {
        self.pod_ips.iter().all(IpAddr::is_loopback)
    }

    /// Names that are asked for at start and kept: the services of explicit listeners and those to prefetch.
    pub fn permanent_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.explicit_outbound.iter().map(|outbound| &outbound.service).chain(&self.prefetch)
    }
}
