//! Plan -> the text that `nft -f -`, `iptables-restore` and `ip6tables-restore` read; pure.
//!
//! Every rule is written in the form in which the tools list it, one rule for one match and no sets, so that the two
//! modes can be read side by side and a listing can be compared with what was applied.

use std::fmt::Write as _;

use ipnet::IpNet;

use super::plan::{DNS_PORT, Match, Plan, Rule, Verdict};
use super::settings::{Family, Mode, Settings, Span};

/// Our nftables table, once in each family.
pub(super) const TABLE: &str = "tulle";
/// Our chains in iptables' table `nat`, with the built-in chain that leads to each.
pub(super) const CHAINS: [(&str, &str); 2] = [("OUTPUT", "TULLE_OUTBOUND"), ("PREROUTING", "TULLE_INBOUND")];

/// The text that puts the rules of `family` in force, replacing those of an earlier run: for nftables a whole
/// transaction, for iptables the chains and, as for a namespace without rules yet, the jumps to them.
pub fn script(settings: &Settings, family: Family) -> String {
    match settings.mode {
        Mode::Nft => nft(settings, family),
        Mode::Iptables => iptables(settings, family, &[]),
    }
}

/// `add` before `delete` lets one text serve a first and a repeated run.
fn nft(settings: &Settings, family: Family) -> String {
    let name = family.nft();
    let mut text = nft_removal(family);
    let _ = writeln!(text, "table {name} {TABLE} {{");
    for (chain, hook, rules) in nft_chains(settings, family) {
        let _ = writeln!(text, "\tchain {chain} {{\n\t\ttype nat hook {hook} priority -100; policy accept;");
        for rule in rules {
            let _ = writeln!(text, "\t\t{rule}");
        }
        text.push_str("\t}\n");
    }
    text.push_str("}\n");
    text
}

/// Name, hook and rules of each chain, as `nft list` shows them.
pub(super) fn nft_chains(settings: &Settings, family: Family) -> [(&'static str, &'static str, Vec<String>); 2] {
    let plan = Plan::new(settings, family);
    let lines = |rules: &[Rule]| rules.iter().map(nft_rule).collect();
    [("outbound", "output", lines(&plan.outbound)), ("inbound", "prerouting", lines(&plan.inbound))]
}

/// The text that removes our table, whether it is there or not.
pub(super) fn nft_removal(family: Family) -> String {
    let name = family.nft();
    format!("add table {name} {TABLE}\ndelete table {name} {TABLE}\n")
}

fn nft_rule(rule: &Rule) -> String {
    let on = match rule.on {
        Match::All => String::new(),
        Match::ToLoopback => "oifname \"lo\" ".to_owned(),
        Match::Destination(net) => format!("{} daddr {} ", Family::of(&net).nft(), host_or_net(&net)),
        Match::Port(ports) => format!("tcp dport {} ", span(ports, '-')),
        Match::UdpDns => format!("udp dport {DNS_PORT} "),
        Match::TcpDns => format!("tcp dport {DNS_PORT} "),
        Match::Uid(uids) => format!("meta skuid {} ", span(uids, '-')),
        Match::Gid(gid) => format!("meta skgid {gid} "),
        Match::Mark(mark) => format!("meta mark {mark:#010x} "),
    };
    match rule.verdict {
        Verdict::Leave => format!("{on}return"),
        Verdict::Redirect(port) if names_protocol(rule.on) => format!("{on}redirect to :{port}"),
        Verdict::Redirect(port) => format!("{on}meta l4proto tcp redirect to :{port}"),
    }
}

/// `present`: what `iptables-save -t nat` lists now. Jumps of an earlier run are taken out and set anew in the same
/// transaction, so that there is one of each, whatever was there.
pub(super) fn iptables(settings: &Settings, family: Family, present: &[&str]) -> String {
    let mut text = "*nat\n".to_owned();
    for (_, chain) in CHAINS {
        let _ = writeln!(text, ":{chain} - [0:0]");
    }
    text.push_str(&without_jumps(present));
    for line in iptables_rules(settings, family) {
        let _ = writeln!(text, "{line}");
    }
    text.push_str("COMMIT\n");
    text
}

/// Every rule of ours, as `iptables-save` shows them: the jumps, then what the chains hold.
pub(super) fn iptables_rules(settings: &Settings, family: Family) -> Vec<String> {
    let plan = Plan::new(settings, family);
    let mut lines: Vec<String> = CHAINS.iter().map(|(hook, chain)| format!("-A {hook} -p tcp -j {chain}")).collect();
    if plan.outbound.iter().any(|rule| rule.on == Match::UdpDns) {
        let [(hook, chain), _] = CHAINS;
        lines.insert(1, format!("-A {hook} -p udp -m udp --dport {DNS_PORT} -j {chain}"));
    }
    for ((_, chain), rules) in CHAINS.iter().zip([&plan.outbound, &plan.inbound]) {
        lines.extend(rules.iter().map(|rule| format!("-A {chain} {}", iptables_rule(rule))));
    }
    lines
}

/// The text that removes our chains from what `iptables-save -t nat` lists; `None` when there is nothing of ours.
pub(super) fn iptables_removal(present: &[&str]) -> Option<String> {
    let ours = |chain: &str| present.iter().any(|line| line.starts_with(&format!(":{chain} ")));
    let chains: Vec<&str> = CHAINS.iter().map(|(_, chain)| *chain).filter(|chain| ours(chain)).collect();
    if chains.is_empty() {
        return None;
    }
    let mut text = format!("*nat\n{}", without_jumps(present));
    for chain in chains {
        let _ = writeln!(text, "-F {chain}\n-X {chain}");
    }
    text.push_str("COMMIT\n");
    Some(text)
}

/// A `-D` for every listed jump to our chains from a chain of someone else.
fn without_jumps(present: &[&str]) -> String {
    let is_jump = |line: &&&str| {
        CHAINS.iter().any(|(hook, chain)| {
            line.strip_prefix("-A ").is_some_and(|rule| rule.starts_with(hook))
                && line.ends_with(&format!("-j {chain}"))
        })
    };
    present.iter().filter(is_jump).map(|line| format!("{}\n", line.replacen("-A", "-D", 1))).collect()
}

fn iptables_rule(rule: &Rule) -> String {
    let on = match rule.on {
        Match::All => String::new(),
        Match::ToLoopback => "-o lo ".to_owned(),
        Match::Destination(net) => format!("-d {net} "),
        Match::Port(ports) => format!("-p tcp -m tcp --dport {} ", span(ports, ':')),
        Match::UdpDns => format!("-p udp -m udp --dport {DNS_PORT} "),
        Match::TcpDns => format!("-p tcp -m tcp --dport {DNS_PORT} "),
        Match::Uid(uids) => format!("-m owner --uid-owner {} ", span(uids, '-')),
        Match::Gid(gid) => format!("-m owner --gid-owner {gid} "),
        Match::Mark(mark) => format!("-m mark --mark {mark:#x} "),
    };
    match rule.verdict {
        Verdict::Leave => format!("{on}-j RETURN"),
        // `--to-ports` is valid only in a rule that names the protocol.
        Verdict::Redirect(to) => {
            format!("{on}{}-j REDIRECT --to-ports {to}", if names_protocol(rule.on) { "" } else { "-p tcp " })
        }
    }
}

/// Whether the text of a match says of which protocol it is.
fn names_protocol(on: Match) -> bool {
    matches!(on, Match::Port(_) | Match::UdpDns | Match::TcpDns)
}

/// A single address without its length, as `nft` lists it.
fn host_or_net(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
}

fn span<T: Copy + PartialEq + std::fmt::Display>(span: Span<T>, between: char) -> String {
    if span.first() == span.last() {
        span.first().to_string()
    } else {
        format!("{}{between}{}", span.first(), span.last())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Settings by name; each has a golden file for both modes and families.
    fn cases() -> Vec<(&'static str, Settings)> {
        let base = Settings::default;
        let nets = |list: &[&str]| list.iter().map(|net| net.parse().unwrap()).collect::<Vec<IpNet>>();
        vec![
            ("default", base()),
            ("ports", Settings { outbound_port: 4140, inbound_port: 4143, ..base() }),
            ("proxy-ids", Settings { proxy_uid: 2102, proxy_gid: Some(2103), proxy_mark: None, ..base() }),
            (
                "skip-ports",
                Settings {
                    skip_inbound_ports: vec![Span::one(22), "9000-9010".parse().unwrap(), Span::one(22)],
                    skip_outbound_ports: vec!["6000-6010".parse().unwrap(), Span::one(25)],
                    ..base()
                },
            ),
            (
                "skip-cidrs",
                Settings {
                    skip_outbound_cidrs: nets(&["10.1.0.0/16", "10.0.0.0/16", "192.0.2.7/32", "fd00:1::/64"]),
                    ..base()
                },
            ),
            (
                "include-cidrs",
                Settings {
                    include_outbound_cidrs: nets(&["10.96.0.0/12", "fd00:96::/108"]),
                    skip_outbound_cidrs: nets(&["10.96.0.1/32"]),
                    ..base()
                },
            ),
            ("include-v4-only", Settings { include_outbound_cidrs: nets(&["0.0.0.0/0"]), ..base() }),
            ("dns", Settings { dns_port: Some(15053), ..base() }),
            ("exclude-uids", Settings { exclude_uids: vec![Span::one(0), "2000-2100".parse().unwrap()], ..base() }),
        ]
    }

    /// `UPDATE_GOLDEN=1` rewrites the files; their diff is reviewed as a change of the interface.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "the switch that rewrites golden files")]
    fn texts_are_the_golden_files() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/redirect");
        let update = std::env::var_os("UPDATE_GOLDEN").is_some();
        for (name, settings) in cases() {
            for mode in [Mode::Nft, Mode::Iptables] {
                let settings = Settings { mode, ..settings.clone() };
                let text: String =
                    Family::BOTH.map(|family| format!("# {family:?}\n{}", script(&settings, family))).concat();
                let path = dir.join(format!("{name}.{mode}"));
                if update {
                    std::fs::write(&path, &text).unwrap();
                }
                assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), text, "{}", path.display());
            }
        }
    }

    #[test]
    fn a_repeated_run_takes_out_the_jumps_it_finds_and_no_others() {
        let present = [
            ":TULLE_OUTBOUND - [0:0]",
            "-A OUTPUT -p tcp -j TULLE_OUTBOUND",
            "-A OUTPUT -p tcp -j TULLE_OUTBOUND",
            "-A OUTPUT -j KUBE_SERVICES",
            "-A TULLE_OUTBOUND -o lo -j RETURN",
        ];
        let text = iptables(&Settings::default(), Family::V4, &present);
        assert_eq!(text.matches("-D OUTPUT -p tcp -j TULLE_OUTBOUND\n").count(), 2);
        assert_eq!(text.matches("-A OUTPUT -p tcp -j TULLE_OUTBOUND\n").count(), 1);
        assert!(!text.contains("KUBE_SERVICES"));

        let removal = iptables_removal(&present).unwrap();
        assert_eq!(
            removal,
            "*nat\n-D OUTPUT -p tcp -j TULLE_OUTBOUND\n-D OUTPUT -p tcp -j TULLE_OUTBOUND\n\
             -F TULLE_OUTBOUND\n-X TULLE_OUTBOUND\nCOMMIT\n"
        );
        assert_eq!(iptables_removal(&[":OUTPUT ACCEPT [0:0]"]), None);
    }
}
