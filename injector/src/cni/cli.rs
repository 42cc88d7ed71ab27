//! From arguments to exit code: the plugin when a runtime calls it, else the DaemonSet's program.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser, Subcommand};

use super::install::{self, Settings};
use super::node::{Node, TOOLS};
use super::plugin;
use super::settings::environment;
use crate::redirect::Tools;
use crate::signals::asked_to_end;

/// The CNI plugin of Tulle: redirect rules for pods, written from the node.
///
/// A container runtime runs it without arguments, by the rules of CNI. The DaemonSet of the chart runs `tulle-cni install`.
#[derive(Debug, Parser)]
#[command(name = "tulle-cni", version)]
struct Args {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    place: Place,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Action {
    /// Put the plugin on this node and keep it there, until told to end
    Install,
    /// Exit code 0 if the plugin is in the network configuration that the runtime uses
    Ready,
    /// Take the plugin out of this node's network configuration
    Remove,
}

#[derive(Debug, clap::Args)]
struct Place {
    /// The runtime's folder of plugins
    #[arg(long, global = true, env = "TULLE_BIN_DIR", value_name = "DIR", default_value = "/opt/cni/bin")]
    bin_dir: PathBuf,
    /// The runtime's folder of network configurations
    #[arg(long, global = true, env = "TULLE_CONF_DIR", value_name = "DIR", default_value = "/etc/cni/net.d")]
    conf_dir: PathBuf,
    /// Namespaces whose pods are never captured; kube-system, kube-node-lease and tulle-system never are
    #[arg(
        long,
        global = true,
        env = "TULLE_EXCLUDE_NAMESPACES",
        value_name = "NAME,..",
        value_delimiter = ',',
        default_value = "",
        hide_default_value = true
    )]
    exclude_namespaces: Vec<String>,
    /// Programs that the plugin runs, copied to the node with it
    #[arg(long, global = true, env = "TULLE_TOOLS", value_name = "DIR", default_value = "/tools")]
    tools: PathBuf,
    /// Folder of the ServiceAccount's token and the cluster's CA
    #[arg(
        long,
        global = true,
        env = "TULLE_ACCOUNT",
        value_name = "DIR",
        default_value = "/var/run/secrets/kubernetes.io/serviceaccount"
    )]
    account: PathBuf,
    /// Host of the API server
    #[arg(
        long,
        global = true,
        env = "KUBERNETES_SERVICE_HOST",
        value_name = "HOST",
        default_value = "kubernetes.default.svc"
    )]
    api_host: String,
    /// Port of the API server
    #[arg(long, global = true, env = "KUBERNETES_SERVICE_PORT", value_name = "PORT", default_value = "443")]
    api_port: String,
    /// The DaemonSet that this runs for
    #[arg(
        long,
        global = true,
        env = "TULLE_DAEMON_SET",
        value_name = "NAMESPACE/NAME",
        default_value = "tulle-cni/tulle-cni"
    )]
    daemon_set: String,
}

/// Runs what the environment or the arguments say.
pub fn main() -> ExitCode {
    let env = environment();
    if env.contains_key("CNI_COMMAND") {
        return call(&env);
    }
    match run(Args::parse()) {
        Ok(code) => code,
        Err(error) => {
            // Without standard error there is nobody to tell.
            let _ = writeln!(std::io::stderr(), "tulle-cni: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The flags, for their description.
pub fn command() -> clap::Command {
    Args::command()
}

/// A runtime's call.
fn call(env: &BTreeMap<String, String>) -> ExitCode {
    let mut input = String::new();
    // What is missing is not JSON, which is what the answer then says.
    let _ = std::io::stdin().take(1 << 20).read_to_string(&mut input);
    let own = std::env::current_exe().ok();
    let tools = own.and_then(|own| Some(own.parent()?.join(TOOLS)));
    let answer = plugin::answer(env, &input, &tools.map_or_else(Tools::default, |folder| Tools::of(&folder)));
    let told = std::io::stdout().write_all(answer.text.as_bytes());
    if answer.success && told.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(Args { action, place }: Args) -> anyhow::Result<ExitCode> {
    let node = Node {
        bin_dir: place.bin_dir,
        conf_dir: place.conf_dir,
        exclude_namespaces: place.exclude_namespaces.into_iter().filter(|name| !name.is_empty()).collect(),
    };
    match action {
        Action::Ready => Ok(if install::is_ready(&node)? { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
        Action::Remove => node.remove().map(|()| ExitCode::SUCCESS).context("taking the plugin out"),
        Action::Install => {
            let (namespace, name) = place.daemon_set.split_once('/').context("--daemon-set: NAMESPACE/NAME")?;
            let settings = Settings {
                node,
                program: std::env::current_exe().context("finding this program")?,
                tools: place.tools,
                account: place.account,
                api_server: (place.api_host, place.api_port),
                daemon_set: (namespace.to_owned(), name.to_owned()),
            };
            install(settings).map(|()| ExitCode::SUCCESS)
        }
    }
}

fn install(settings: Settings) -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_ansi(false).with_writer(std::io::stderr).init();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(async { Box::pin(install::run(settings, asked_to_end()?)).await })
}
