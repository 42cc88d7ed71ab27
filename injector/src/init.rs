//! The init container: puts the redirect rules of this network namespace in force and verifies them, nothing else.

use std::io::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser, ValueEnum};
use ipnet::IpNet;

use crate::redirect::{self, Family, Mode, Proof, Settings, Span, Tools};

/// Leads the TCP traffic of this network namespace, and its DNS where asked, through the Tulle proxy.
///
/// Writes nftables or iptables rules, then reads them back. Needs root with the capability NET_ADMIN. Running it again
/// replaces the rules of the earlier run and nothing else.
#[derive(Parser)]
#[command(
    name = "tulle-init",
    version,
    after_help = "Lists take commas: --skip-outbound-ports 25,6000-6010 --skip-outbound-cidrs 10.1.0.0/16,fd00:1::/64\n\
                  Look before you leap: tulle-init --print"
)]
struct Args {
    /// Port of the proxy's outbound listener
    #[arg(long, env = "TULLE_OUTBOUND_PORT", default_value_t = 15001, value_parser = clap::value_parser!(u16).range(1..))]
    outbound_port: u16,
    /// Port of the proxy's inbound listener
    #[arg(long, env = "TULLE_INBOUND_PORT", default_value_t = 15006, value_parser = clap::value_parser!(u16).range(1..))]
    inbound_port: u16,
    /// Port of the proxy's DNS listener, for this namespace's DNS questions over UDP and TCP; 0 leaves them alone
    #[arg(long, env = "TULLE_DNS_PORT", default_value_t = 0)]
    dns_port: u16,
    /// User id of the proxy, whose connections are never captured
    #[arg(long, env = "TULLE_PROXY_UID", default_value_t = 1337)]
    proxy_uid: u32,
    /// Group id of the proxy, whose connections are never captured; 0 for none
    #[arg(long, env = "TULLE_PROXY_GID", default_value_t = 1337)]
    proxy_gid: u32,
    /// Socket mark of the proxy, whose connections are never captured; 0 for none
    #[arg(long, env = "TULLE_PROXY_MARK", default_value_t = 1337)]
    proxy_mark: u32,
    /// Inbound ports or ranges to leave alone; 15000, 15020 and 15053 always are
    #[arg(long, env = "TULLE_SKIP_INBOUND_PORTS", default_value = "", hide_default_value = true, value_name = "PORT[-PORT],..", value_parser = list::<Span<u16>>)]
    skip_inbound_ports: List<Span<u16>>,
    /// Outbound destination ports or ranges to leave alone
    #[arg(long, env = "TULLE_SKIP_OUTBOUND_PORTS", default_value = "", hide_default_value = true, value_name = "PORT[-PORT],..", value_parser = list::<Span<u16>>)]
    skip_outbound_ports: List<Span<u16>>,
    /// Outbound destination networks to leave alone; wins over --include-outbound-cidrs
    #[arg(long, env = "TULLE_SKIP_OUTBOUND_CIDRS", default_value = "", hide_default_value = true, value_name = "CIDR,..", value_parser = list::<Net>)]
    skip_outbound_cidrs: List<Net>,
    /// Capture only these outbound destination networks [default: all]
    #[arg(long, env = "TULLE_INCLUDE_OUTBOUND_CIDRS", default_value = "", hide_default_value = true, value_name = "CIDR,..", value_parser = list::<Net>)]
    include_outbound_cidrs: List<Net>,
    /// User ids or ranges whose outbound connections are left alone
    #[arg(long, env = "TULLE_EXCLUDE_UIDS", default_value = "", hide_default_value = true, value_name = "UID[-UID],..", value_parser = list::<Span<u32>>)]
    exclude_uids: List<Span<u32>>,
    /// How the rules are written; both do the same
    #[arg(long, env = "TULLE_MODE", value_enum, default_value_t = ModeArg::Nft)]
    mode: ModeArg,
    /// Rules for IPv6 too; auto: when this kernel has IPv6
    #[arg(long, env = "TULLE_IPV6", value_enum, default_value_t = Ipv6::Auto)]
    ipv6: Ipv6,
    #[command(flatten)]
    action: Action,
}

/// What to do other than to apply the rules; at most one.
#[derive(clap::Args)]
#[group(multiple = false)]
#[expect(clippy::struct_excessive_bools, reason = "flags, of which one is given at most")]
struct Action {
    /// Change nothing; fail if the rules in force are not those of the settings
    #[arg(long)]
    verify: bool,
    /// Change nothing, and need no privilege; fail if connections are not led to the proxy's port
    #[arg(long)]
    probe: bool,
    /// Remove the rules, of either mode
    #[arg(long)]
    remove: bool,
    /// Change nothing; print the rules that would be applied
    #[arg(long)]
    print: bool,
}

/// Values with commas between them; none in an empty text, as an unset field of a template gives.
#[derive(Clone)]
struct List<T>(Vec<T>);

fn list<T: FromStr>(text: &str) -> Result<List<T>, T::Err> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    items.map(str::parse).collect::<Result<_, _>>().map(List)
}

/// A network, or an address for the network that holds it alone.
#[derive(Clone)]
struct Net(IpNet);

impl FromStr for Net {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let net = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        net.map(Self).map_err(|_| format!("`{text}` is no network such as `10.1.0.0/16` or `fd00:1::/64`"))
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum ModeArg {
    Nft,
    Iptables,
}

#[derive(Clone, Copy, ValueEnum)]
enum Ipv6 {
    Auto,
    On,
    Off,
}

/// Applies, verifies, removes or prints the rules, as the process's arguments say.
pub fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to tell when stderr is gone.
            let _ = writeln!(std::io::stderr(), "tulle-init: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The flags, for their description.
pub fn command() -> clap::Command {
    Args::command()
}

/// What the flags `args` say, whose first is the program's name.
///
/// # Errors
/// What is wrong with them, as it is printed.
pub fn settings(args: impl IntoIterator<Item = std::ffi::OsString>) -> Result<Settings, clap::Error> {
    Args::try_parse_from(args).map(|args| args.settings())
}

fn run(args: &Args) -> anyhow::Result<()> {
    let (settings, tools) = (args.settings(), Tools::default());
    let done = if args.action.print {
        Family::BOTH
            .into_iter()
            .filter(|family| settings.ipv6 || *family == Family::V4)
            .map(|family| redirect::script(&settings, family))
            .collect()
    } else if args.action.remove {
        redirect::remove(&settings, &tools).context("cannot remove the redirect rules")?;
        "redirect rules removed\n".to_owned()
    } else if args.action.verify {
        redirect::verify(&settings, &tools).context("the redirect rules do not hold")?;
        "redirect rules are in force\n".to_owned()
    } else if args.action.probe {
        match redirect::probe(&settings, rustix::process::geteuid().as_raw())? {
            Proof::Captured(families) => format!("connections of {families} address families are led to the proxy\n"),
            Proof::NothingToSee => "by the settings no outbound connection is captured: nothing to probe\n".to_owned(),
        }
    } else {
        redirect::apply(&settings, &tools).context("cannot apply the redirect rules")?;
        let Settings { mode, outbound_port, inbound_port, dns_port, ipv6, .. } = &settings;
        let families = if *ipv6 { "IPv4 and IPv6" } else { "IPv4" };
        let dns = dns_port.map(|port| format!(", DNS to {port}")).unwrap_or_default();
        format!(
            "redirect rules in force: {mode}, {families}, outbound to {outbound_port}, inbound to {inbound_port}{dns}\n"
        )
    };
    std::io::stdout().write_all(done.as_bytes()).context("cannot write to stdout")
}

impl Args {
    fn settings(&self) -> Settings {
        Settings {
            mode: match self.mode {
                ModeArg::Nft => Mode::Nft,
                ModeArg::Iptables => Mode::Iptables,
            },
            ipv6: match self.ipv6 {
                // Absent when the kernel has no IPv6 or it was switched off at boot.
                Ipv6::Auto => Path::new("/proc/net/if_inet6").exists(),
                Ipv6::On => true,
                Ipv6::Off => false,
            },
            outbound_port: self.outbound_port,
            inbound_port: self.inbound_port,
            dns_port: (self.dns_port != 0).then_some(self.dns_port),
            proxy_uid: self.proxy_uid,
            proxy_gid: (self.proxy_gid != 0).then_some(self.proxy_gid),
            proxy_mark: (self.proxy_mark != 0).then_some(self.proxy_mark),
            skip_inbound_ports: self.skip_inbound_ports.0.clone(),
            skip_outbound_ports: self.skip_outbound_ports.0.clone(),
            skip_outbound_cidrs: self.skip_outbound_cidrs.0.iter().map(|net| net.0).collect(),
            include_outbound_cidrs: self.include_outbound_cidrs.0.iter().map(|net| net.0).collect(),
            exclude_uids: self.exclude_uids.0.clone(),
        }
    }
}
