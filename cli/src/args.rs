//! The command line, and the help that teaches it. What a subcommand does is in the file of its name.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use tulle_injector::settings::InjectionArgs;

use crate::duration;
use crate::install::Overrides;

const EXAMPLES: &str = "\
Examples:
  tulle demo                          a whole mesh on this machine: watch it lose parts and no request
  tulle validate -f manifests/        check manifests before a control plane sees them
  tulle control-plane --config-dir manifests/ --state-dir state/
                                      serve them
  tulle token create --state-dir state/ -n shop -s web > web.token
                                      let the workload shop/web into the mesh
  tulle proxy --namespace shop --workload web --service-account web --control-plane localhost:15012 \\
      --trust-bundle state/trust-bundle.pem --token web.token --inbound 0.0.0.0:8080=127.0.0.1:3000
                                      run its sidecar
  tulle proxy-config endpoints        what that sidecar knows; of a pod: tulle proxy-config endpoints -n NS POD
  tulle install | kubectl apply -f -  make a Kubernetes cluster a mesh
  tulle check                         is it well
  tulle inject -f web.yaml            put the proxy beside its pods without a webhook

`tulle help COMMAND` has more about each of them.";

/// Tulle, a service mesh: mutual TLS, load balancing, retries and failover for every workload.
#[derive(Debug, Parser)]
#[command(name = "tulle", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a small shop in a mesh on this machine, break parts of it, and show that no request fails
    #[command(after_help = DEMO)]
    Demo(DemoArgs),
    /// Check a directory of manifests; problems are printed with file and line
    #[command(after_help = VALIDATE)]
    Validate(ValidateArgs),
    /// Credentials of workloads outside Kubernetes
    Token(TokenArgs),
    /// Show what a running proxy knows: its listeners, routes, clusters, endpoints, DNS names and certificate
    #[command(after_help = PROXY_CONFIG)]
    ProxyConfig(ProxyConfigArgs),
    /// Print what makes a Kubernetes cluster a mesh, for kubectl apply
    #[command(after_help = INSTALL)]
    Install(InstallArgs),
    /// Is the cluster fit for Tulle, and is the Tulle in it well
    #[command(after_help = CHECK)]
    Check(CheckArgs),
    /// Print the objects of this version for a cluster that has an older one
    #[command(after_help = UPGRADE)]
    Upgrade(InstallArgs),
    /// Take Tulle away from a cluster
    #[command(after_help = UNINSTALL)]
    Uninstall(UninstallArgs),
    /// Put the proxy beside the pods of manifests, as the webhook does in a cluster
    #[command(after_help = INJECT)]
    Inject(Box<InjectArgs>),
    /// Run a sidecar proxy; takes the flags of tulle-proxy
    #[command(disable_help_flag = true)]
    Proxy(ComponentArgs),
    /// Run a control plane; takes the flags of tulle-control-plane
    #[command(disable_help_flag = true)]
    ControlPlane(ComponentArgs),
    /// One process of the demo
    #[command(hide = true)]
    DemoPart(PartArgs),
}

const DEMO: &str = "\
Needs no root and no network. Everything lives in a temporary directory and on addresses 127.x, and is gone afterwards.
The exit code is 0 only if every claim of the summary held.

Examples:
  tulle demo                          the show, about 45 seconds
  tulle demo --keep                   leave the mesh running at the end, with things to try
  tulle demo | tee demo.log           plain lines, as everywhere but on a terminal";

/// `tulle demo`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// Leave everything running at the end, until Ctrl-C, and print what to try
    #[arg(long)]
    pub(crate) keep: bool,
    /// How long the show takes, about, from the first request on
    #[arg(long, value_name = "N", default_value_t = 36, value_parser = clap::value_parser!(u64).range(20..=3600))]
    pub(crate) seconds: u64,
}

const VALIDATE: &str = "\
Exits with 1 when there is a problem, also with what pods and their templates say about injection. Only the files are read;
no control plane is needed.

Examples:
  tulle validate -f examples/shop
  tulle validate -f manifests/ && git push";

/// `tulle validate`.
#[derive(Debug, clap::Args)]
pub(crate) struct ValidateArgs {
    /// Directory of manifests, as --config-dir of the control plane
    #[arg(short = 'f', long = "files", value_name = "DIR")]
    pub(crate) dir: PathBuf,
}

/// `tulle token`.
#[derive(Debug, clap::Args)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    pub(crate) command: TokenCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Print a new token for a workload
    #[command(after_help = TOKEN)]
    Create(TokenCreateArgs),
}

const TOKEN: &str = "\
Whoever holds the token can get certificates of the workload until it expires: keep it as a secret. It is signed with
the key in the control plane's state directory, so run this where that directory is.

Example:
  tulle token create --state-dir /var/lib/tulle -n shop -s web --ttl 24h > web.token
  tulle proxy --token web.token ...";

/// `tulle token create`.
#[derive(Debug, clap::Args)]
pub(crate) struct TokenCreateArgs {
    /// State directory of the control plane
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: PathBuf,
    /// Namespace of the workload
    #[arg(short, long, value_name = "NS")]
    pub(crate) namespace: String,
    /// Service account of the workload
    #[arg(short, long, value_name = "SA")]
    pub(crate) service_account: String,
    /// How long it is valid, such as 24h, 30d or 1h30m; at most 366d
    #[arg(long, default_value = "24h", value_parser = duration::parse)]
    pub(crate) ttl: Duration,
    /// Trust domain of the mesh
    #[arg(long, value_name = "NAME", default_value = "cluster.local")]
    pub(crate) trust_domain: String,
}

const PROXY_CONFIG: &str = "\
Reads the admin port, which answers on the proxy's own machine only: that of a pod by kubectl port-forward, which has to be
installed. POD is a pod's name, or its beginning where no other pod of the namespace begins so.

Examples:
  tulle proxy-config -n shop web            everything, of the pod whose name begins with web
  tulle proxy-config endpoints -n shop web  addresses, health, priority and identity of each endpoint
  tulle proxy-config                        of a proxy on this machine, with the usual port
  tulle proxy-config dns                    names of the mesh, and the addresses it answers
  tulle proxy-config routes -o json | jq .  for programs";

/// `tulle proxy-config`.
#[derive(Debug, clap::Args)]
pub(crate) struct ProxyConfigArgs {
    /// What to show (listeners, routes, clusters, endpoints, dns, certs, all), and of which pod; pod/NAME for a pod that is
    /// named like one of these
    #[arg(value_name = "SECTION] [POD", num_args = 0..=2)]
    pub(crate) words: Vec<String>,
    /// Namespace of the pod [default: that of the kubeconfig]
    #[arg(short, long, value_name = "NS")]
    pub(crate) namespace: Option<String>,
    /// Admin address of a proxy on this machine [default: 127.0.0.1:15000]
    #[arg(long, value_name = "IP:PORT", conflicts_with = "namespace")]
    pub(crate) admin: Option<SocketAddr>,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

/// A part of a proxy's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Section {
    /// What it accepts: its own ports, and the services it was asked for
    Listeners,
    /// HTTP routes, with time-outs and retries
    Routes,
    /// Destinations, with balancing and limits
    Clusters,
    /// Addresses of the destinations
    Endpoints,
    /// What it answers to DNS questions for names of the mesh
    Dns,
    /// Its certificate and roots
    Certs,
    /// All of it
    All,
}

/// Form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Table,
    /// For programs
    Json,
}

const INSTALL: &str = "\
The objects are those of the Helm chart deploy/helm/tulle, with the same values; its values.yaml says what each is for.

Examples:
  tulle install | kubectl apply -f -
  tulle install --set controlPlane.replicas=3 --set image.registry=registry.example.com/ | kubectl apply -f -
  tulle install --set-string image.tag=1 --set 'cni.enabled=true,cni.excludeNamespaces={monitoring,ingress}'
  tulle install -f values.yaml > tulle.yaml       for a repository that a cluster follows";

/// `tulle install`.
#[derive(Debug, clap::Args)]
pub(crate) struct InstallArgs {
    #[command(flatten)]
    pub(crate) overrides: Overrides,
}

const CHECK: &str = "\
Reads what kubectl could read, with the same configuration, and changes nothing: pods are tried by a dry run in every
namespace with the label. Exits with 1 when something FAILED.

Examples:
  tulle check                         what is installed; before that, whether the cluster is fit for it
  tulle check --before                whether the cluster is fit, also when Tulle is there already
  tulle check -o json | jq '.[] | select(.state != \"ok\")'";

/// `tulle check`.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// Only what an installation needs
    #[arg(long)]
    pub(crate) before: bool,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

const UPGRADE: &str = "\
Looks first whether the step is safe: not to an older version, not to another trust domain, not beside Helm. Give it the
values the installation was given.

Example:
  tulle upgrade -f values.yaml | kubectl apply -f -";

const UNINSTALL: &str = "\
Takes away the webhooks first, then what was installed and what the control plane and the injector have made since: the
authority's Secret, the trust bundles, the namespace tulle-system. The definitions of Tulle's kinds stay unless --definitions
is given. An authority that is gone cannot be brought back.

Examples:
  tulle uninstall                     what would be deleted
  tulle uninstall --yes               delete it";

/// `tulle uninstall`.
#[derive(Debug, clap::Args)]
pub(crate) struct UninstallArgs {
    /// Delete it
    #[arg(long)]
    pub(crate) yes: bool,
    /// Also the definitions of Tulle's kinds, and with them every object of these kinds
    #[arg(long)]
    pub(crate) definitions: bool,
}

const INJECT: &str = "\
Deployments, StatefulSets, DaemonSets, ReplicaSets, Jobs, CronJobs, Pods and Lists of them get the proxy; everything else
stays as it is. What happened to each is said on standard error. Annotations tulle.io/... of the pods are followed.

Examples:
  tulle inject -f web.yaml | kubectl apply -f -
  kubectl get deployment web -o yaml | tulle inject -f - | kubectl apply -f -";

/// `tulle inject`.
#[derive(Debug, clap::Args)]
pub(crate) struct InjectArgs {
    /// File of manifests, - for standard input; repeat for more
    #[arg(short = 'f', long = "files", value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Namespace of objects that name none
    #[arg(short, long, value_name = "NS", default_value = "default")]
    pub(crate) namespace: String,
    /// Whether the cluster has native sidecars: Kubernetes 1.29 and later
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub(crate) native: bool,
    #[command(flatten)]
    pub(crate) injection: InjectionArgs,
}

/// A component's own flags, which it reads itself.
#[derive(Debug, clap::Args)]
pub(crate) struct ComponentArgs {
    /// Its flags; --help shows them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "FLAGS")]
    pub(crate) flags: Vec<OsString>,
}

/// A process of the demo.
#[derive(Debug, clap::Args)]
pub(crate) struct PartArgs {
    /// Process id of the demo; the part ends when that does
    #[arg(long)]
    pub(crate) parent: u32,
    #[command(subcommand)]
    pub(crate) part: PartKind,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PartKind {
    /// A service of the shop
    App(AppArgs),
    /// A sidecar
    #[command(disable_help_flag = true)]
    Proxy(ComponentArgs),
    /// The control plane
    #[command(disable_help_flag = true)]
    ControlPlane(ComponentArgs),
}

/// A service of the shop.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct AppArgs {
    /// Which one
    #[arg(long, value_enum)]
    pub(crate) service: Service,
    /// Name of this replica
    #[arg(long)]
    pub(crate) replica: String,
    /// Where its sidecar connects
    #[arg(long)]
    pub(crate) listen: SocketAddr,
    /// Where it reaches the catalog
    #[arg(long)]
    pub(crate) catalog: Option<SocketAddr>,
}

/// The services of the shop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Service {
    /// HTTP; asks the catalog for each request
    Web,
    /// HTTP
    Catalog,
    /// gRPC
    Reviews,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn flags_of_components_pass_through() {
        let args = Args::try_parse_from(["tulle", "proxy", "--help", "--workers=1", "-x"]).unwrap();
        let Command::Proxy(proxy) = args.command else { panic!("not the proxy: {args:?}") };
        assert_eq!(proxy.flags, ["--help", "--workers=1", "-x"]);
    }
}
