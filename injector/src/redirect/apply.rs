//! Puts rules in force, reads them back, removes them: the only privileged part, by the system's own tools.
//!
//! Needs `CAP_NET_ADMIN` in the network namespace. Repeating it changes nothing. A run replaces what an earlier run
//! left, also one in the other mode, and touches nothing that is not Tulle's.

use std::io::{ErrorKind, Write as _};
use std::process::Stdio;

use super::rules::{self, CHAINS, TABLE};
use super::settings::{Family, Mode, Settings};
use super::tools::Tools;

/// Why rules could not be put in force, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A tool of the mode is not there.
    #[error("`{program}` is not installed: add the package `{}`, or choose the other mode", package(program))]
    Missing {
        /// The tool.
        program: &'static str,
    },
    /// The process may not change the namespace's rules.
    #[error(
        "`{program}` may not change this network namespace: run as root with the capability NET_ADMIN \
         (securityContext: {{runAsUser: 0, capabilities: {{add: [NET_ADMIN, NET_RAW]}}}}). It said: {said}"
    )]
    NotPermitted {
        /// The tool.
        program: &'static str,
        /// Its message.
        said: String,
    },
    /// The kernel lacks what the rules need.
    #[error(
        "the kernel offers `{program}` no NAT: load the modules {} on the node, or choose the other mode. It said: {said}",
        modules(program)
    )]
    NoNat {
        /// The tool.
        program: &'static str,
        /// Its message.
        said: String,
    },
    /// The tool failed in another way.
    #[error("`{program}` failed: {said}")]
    Failed {
        /// The tool.
        program: &'static str,
        /// Its message.
        said: String,
    },
    #[error(
        "the rules in force differ from the settings ({family:?}, chain {chain}); something else changed them, or they \
         were never applied: run tulle-init without --verify.\n  expected:{}\n  in force:{}",
        listing(expected),
        listing(found)
    )]
    /// The rules in force are not those of the settings.
    Differs {
        /// Address family.
        family: Family,
        /// The chain that differs.
        chain: &'static str,
        /// Its rules by the settings.
        expected: Vec<String>,
        /// Its rules in force.
        found: Vec<String>,
    },
}

/// Replaces Tulle's rules by those of `settings` and reads them back.
///
/// With nftables all of it is one transaction; with iptables one for each family, IPv4 first.
///
/// # Errors
/// See [`ApplyError`]. After an error a family has its former rules or its new ones, never a part of them.
pub fn apply(settings: &Settings, tools: &Tools) -> Result<(), ApplyError> {
    match settings.mode {
        Mode::Nft => {
            let text: String = families(settings).map(|family| rules::script(settings, family)).collect();
            run(tools, "nft", &["-f", "-"], Some(&text))?;
        }
        Mode::Iptables => {
            for family in families(settings) {
                let present = list_nat(family, tools)?;
                let text = rules::iptables(settings, family, &lines(&present));
                restore(family, &text, tools)?;
            }
        }
    }
    // What may be left of a run with other settings. The other mode's tool, or IPv6 itself, may well be missing.
    let other = match settings.mode {
        Mode::Nft => Mode::Iptables,
        Mode::Iptables => Mode::Nft,
    };
    for family in Family::BOTH {
        let _ = clear(other, family, tools);
    }
    if !settings.ipv6 {
        let _ = clear(settings.mode, Family::V6, tools);
    }
    verify(settings, tools)
}

/// Reads the rules in force and compares them with `settings`; changes nothing.
///
/// # Errors
/// [`ApplyError::Differs`] for the first chain that is not as it should be, or why it cannot be read.
pub fn verify(settings: &Settings, tools: &Tools) -> Result<(), ApplyError> {
    for family in families(settings) {
        let checked = match settings.mode {
            Mode::Nft => nft_chains(settings, family, tools)?,
            Mode::Iptables => iptables_chains(settings, family, tools)?,
        };
        for Chain { chain, expected, found } in checked {
            if normal(&expected) != normal(&found) {
                return Err(ApplyError::Differs { family, chain, expected, found });
            }
        }
    }
    Ok(())
}

/// Removes Tulle's rules of both modes and families; nothing there is no error.
///
/// # Errors
/// As [`apply`], for the tools of `settings.mode`; of the other mode only what can be removed is.
pub fn remove(settings: &Settings, tools: &Tools) -> Result<(), ApplyError> {
    let mut result = Ok(());
    for mode in [Mode::Nft, Mode::Iptables] {
        for family in Family::BOTH {
            let cleared = clear(mode, family, tools);
            if mode == settings.mode && (settings.ipv6 || family == Family::V4) {
                result = result.and(cleared);
            }
        }
    }
    result
}

fn families(settings: &Settings) -> impl Iterator<Item = Family> + use<> {
    let ipv6 = settings.ipv6;
    Family::BOTH.into_iter().filter(move |family| ipv6 || *family == Family::V4)
}

fn clear(mode: Mode, family: Family, tools: &Tools) -> Result<(), ApplyError> {
    match mode {
        Mode::Nft => {
            let tables = run(tools, "nft", &["list", "tables"], None)?;
            let ours = format!("table {} {TABLE}", family.nft());
            if tables.lines().any(|line| line.trim() == ours) {
                run(tools, "nft", &["-f", "-"], Some(&rules::nft_removal(family)))?;
            }
        }
        Mode::Iptables if has_nat(family, tools)? => {
            let present = list_nat(family, tools)?;
            if let Some(text) = rules::iptables_removal(&lines(&present)) {
                restore(family, &text, tools)?;
            }
        }
        Mode::Iptables => {}
    }
    Ok(())
}

/// A chain's rules by the settings and in force.
struct Chain {
    chain: &'static str,
    expected: Vec<String>,
    found: Vec<String>,
}

fn nft_chains(settings: &Settings, family: Family, tools: &Tools) -> Result<Vec<Chain>, ApplyError> {
    let tables = run(tools, "nft", &["list", "tables"], None)?;
    let ours = format!("table {} {TABLE}", family.nft());
    let listing = if tables.lines().any(|line| line.trim() == ours) {
        run(tools, "nft", &["list", "table", family.nft(), TABLE], None)?
    } else {
        String::new()
    };
    let listed = |chain: &str| {
        let head = format!("chain {chain} {{");
        let body = listing.lines().map(str::trim).skip_while(move |line| *line != head).skip(1);
        body.take_while(|line| *line != "}").map(str::to_owned).collect::<Vec<_>>()
    };
    let chains = rules::nft_chains(settings, family).into_iter();
    Ok(chains
        .map(|(chain, hook, mut expected)| {
            // Newer tools write the priority by name: the hook alone is compared.
            let hook = format!("type nat hook {hook} ");
            let mut found = listed(chain);
            if let Some(head) = found.first_mut().filter(|head| head.starts_with(&hook)) {
                head.clone_from(&hook);
            }
            expected.insert(0, hook);
            Chain { chain, expected, found }
        })
        .collect())
}

fn iptables_chains(settings: &Settings, family: Family, tools: &Tools) -> Result<Vec<Chain>, ApplyError> {
    let present = list_nat(family, tools)?;
    let all = rules::iptables_rules(settings, family);
    let of = |lines: &[&str], chain: &str| {
        let (own, jump) = (format!("-A {chain} "), format!("-j {chain}"));
        let mut own: Vec<String> = lines.iter().filter(|l| l.starts_with(&own)).map(|l| (*l).to_owned()).collect();
        own.extend(lines.iter().filter(|l| l.ends_with(&jump)).map(|l| (*l).to_owned()));
        own
    };
    let (expected, found): (Vec<&str>, Vec<&str>) = (all.iter().map(String::as_str).collect(), lines(&present));
    Ok(CHAINS.map(|(_, chain)| Chain { chain, expected: of(&expected, chain), found: of(&found, chain) }).into())
}

/// Listings of different versions, made equal: spaces, quotes, the word `meta`, how numbers are written, and the number
/// that stands for TCP where no `/etc/protocols` names it, as in an image from scratch.
fn normal(lines: &[String]) -> Vec<Vec<String>> {
    let token = |token: &str| {
        let token = token.trim_matches('"');
        let number = token.strip_prefix("0x").and_then(|hex| u32::from_str_radix(hex, 16).ok());
        number.map_or_else(|| token.to_owned(), |number| number.to_string())
    };
    let words = |line: &String| {
        let line = line.replace("l4proto 6 ", "l4proto tcp ");
        line.split_whitespace().filter(|word| *word != "meta").map(token).collect()
    };
    lines.iter().map(words).collect()
}

fn lines(listing: &str) -> Vec<&str> {
    listing.lines().map(str::trim_end).collect()
}

/// Whether this namespace may have rules of `iptables`. The older kind, `legacy`, makes the table that it lists, and from then on
/// every connection passes through it.
fn has_nat(family: Family, tools: &Tools) -> Result<bool, ApplyError> {
    if !run(tools, save(family), &["--version"], None)?.contains("legacy") {
        return Ok(true);
    }
    let tables = match family {
        Family::V4 => "/proc/thread-self/net/ip_tables_names",
        Family::V6 => "/proc/thread-self/net/ip6_tables_names",
    };
    match std::fs::read_to_string(tables) {
        Ok(tables) => Ok(tables.lines().any(|table| table == "nat")),
        // Without the file the kernel has no such tables; of another reason the tool tells.
        Err(error) => Ok(error.kind() != ErrorKind::NotFound),
    }
}

fn list_nat(family: Family, tools: &Tools) -> Result<String, ApplyError> {
    run(tools, save(family), &["-t", "nat"], None)
}

const fn save(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables-save",
        Family::V6 => "ip6tables-save",
    }
}

fn restore(family: Family, text: &str, tools: &Tools) -> Result<(), ApplyError> {
    let program = match family {
        Family::V4 => "iptables-restore",
        Family::V6 => "ip6tables-restore",
    };
    // Waits up to 5 s for another user of the tables, such as the CNI plug-in.
    run(tools, program, &["--noflush", "-w", "5"], Some(text)).map(drop)
}

/// Runs a tool with `input` on its stdin and gives what it printed.
fn run(tools: &Tools, program: &'static str, args: &[&str], input: Option<&str>) -> Result<String, ApplyError> {
    let failed = |error: std::io::Error| {
        if error.kind() == ErrorKind::NotFound {
            ApplyError::Missing { program }
        } else {
            ApplyError::Failed { program, said: error.to_string() }
        }
    };
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    let mut command = tools.command(program);
    // Listings are compared, so no translations.
    command.args(args).env("LC_ALL", "C").stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        // A tool that gave up early says why on stderr; the broken pipe says less.
        let _ = stdin.write_all(text.as_bytes());
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(refusal(program, String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// What a tool's message means.
fn refusal(program: &'static str, said: String) -> ApplyError {
    const NOT_PERMITTED: [&str; 3] = ["Operation not permitted", "Permission denied", "you must be root"];
    const NO_NAT: [&str; 9] = [
        "Table does not exist",
        "can't initialize",
        "No chain/target/match by that name",
        "missing kernel module",
        "Couldn't load match",
        "Operation not supported",
        "Protocol not supported",
        "Could not process rule: No such file or directory",
        "Protocol not available",
    ];
    let says = |any: &[&str]| any.iter().any(|text| said.contains(text));
    if says(&NOT_PERMITTED) {
        ApplyError::NotPermitted { program, said }
    } else if says(&NO_NAT) {
        ApplyError::NoNat { program, said }
    } else {
        ApplyError::Failed { program, said }
    }
}

fn listing(rules: &[String]) -> String {
    if rules.is_empty() { " nothing".to_owned() } else { rules.iter().map(|rule| format!("\n    {rule}")).collect() }
}

fn package(program: &str) -> &'static str {
    if program == "nft" { "nftables" } else { "iptables" }
}

fn modules(program: &str) -> &'static str {
    match program {
        "nft" => "nf_tables, nft_chain_nat, nft_redir",
        _ => "iptable_nat, ip6table_nat, xt_REDIRECT, xt_owner, xt_mark",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_to_do() {
        let permission = refusal("nft", "Operation not permitted (you must be root)".to_owned());
        assert!(permission.to_string().contains("NET_ADMIN"), "{permission}");
        let nat = refusal("iptables-restore", "can't initialize iptables table `nat': Table does not exist".to_owned());
        assert!(nat.to_string().contains("xt_REDIRECT"), "{nat}");
        let missing = run(&Tools::default(), "tulle-no-such-tool", &[], None).unwrap_err();
        assert!(missing.to_string().contains("not installed"), "{missing}");
    }

    #[test]
    fn spelling_is_no_difference() {
        let lines = |line: &str| vec![line.to_owned()];
        assert_eq!(normal(&lines("meta mark 0x00000539 return")), normal(&lines("mark 1337  return")));
        assert_eq!(normal(&lines("oifname \"lo\" return")), normal(&lines("oifname lo return")));
        let named = lines("meta l4proto tcp redirect to :15001");
        assert_eq!(normal(&lines("meta l4proto 6 redirect to :15001")), normal(&named));
        assert_ne!(normal(&lines("meta skuid 1 return")), normal(&lines("meta skuid 2 return")));
    }
}
