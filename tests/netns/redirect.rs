//! `tulle-init` against the kernel: what is captured, what is not, for both modes and both families alike.

use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use socket2::{Domain, Socket, Type};
use tulle_testing::bin_path::binary;
use tulle_testing::netns::{self, Finished, Network, PROXY_UID, Pod, Server};

const TOOLS: [&str; 5] = ["nft", "iptables-restore", "ip6tables-restore", "iptables-save", "bash"];
const MODES: [&str; 2] = ["nft", "iptables"];
/// An application's user, neither root nor the proxy.
pub(super) const APP_UID: u32 = 1000;

/// Two pods. `sidecar` has stand-ins for its proxy (15001, 15006, 15020) and its application (8080); `plain` has no
/// rules and a server on 8080 and 9090.
struct Pair {
    sidecar: Pod,
    plain: Pod,
    _stand_ins: Vec<Server>,
    _net: Network,
}

impl Pair {
    fn new() -> anyhow::Result<Self> {
        let net = Network::new()?;
        let (sidecar, plain) = (net.pod("sidecar")?, net.pod("plain")?);
        let mut stand_ins = Vec::new();
        for port in [15001, 15006, 15020, 15000, 8080] {
            stand_ins.push(Server::stand_in(&sidecar, port)?);
        }
        for port in [8080, 9090] {
            stand_ins.push(Server::stand_in(&plain, port)?);
        }
        Ok(Self { sidecar, plain, _stand_ins: stand_ins, _net: net })
    }

    /// Runs `check` for both modes and families; the rules have the further `flags`.
    fn each(&self, flags: &[&str], check: impl Fn(bool) -> anyhow::Result<()>) -> anyhow::Result<()> {
        for mode in MODES {
            self.sidecar.redirect(&[&["--mode", mode], flags].concat())?;
            for ipv6 in [false, true] {
                check(ipv6).with_context(|| format!("{mode}, IPv6 {ipv6}, {flags:?}"))?;
            }
        }
        Ok(())
    }
}

/// What an application of `pod` reads that dials `to` as user `uid`.
pub(super) fn dial(pod: &Pod, uid: u32, to: SocketAddr) -> anyhow::Result<String> {
    let mut command = pod.command_as(uid, "bash");
    command.args(["-c", &format!("exec 3<>/dev/tcp/{}/{} && cat <&3", to.ip(), to.port())]);
    let done = Finished::of(command)?;
    ensure!(done.success, "{}", done.stderr.trim());
    Ok(done.stdout.trim().to_owned())
}

/// A service address, behind which nobody is.
fn service(ipv6: bool, port: u16) -> SocketAddr {
    let ip: IpAddr = if ipv6 { [0xfd96, 0, 0, 0, 0, 0, 0, 1].into() } else { [10, 96, 0, 1].into() };
    SocketAddr::new(ip, port)
}

#[track_caller]
fn assert_arrived(answer: &str, original: SocketAddr, port: u16) {
    assert_eq!(answer, format!("{original} via {port}"));
}

#[test]
fn outbound_is_captured_with_its_destination() -> anyhow::Result<()> {
    if !netns::available(&TOOLS)? {
        return Ok(());
    }
    let pair = Pair::new()?;
    pair.each(&[], |ipv6| {
        for to in [service(ipv6, 80), SocketAddr::new(pair.plain.ip(ipv6), 8080)] {
            assert_arrived(&dial(&pair.sidecar, APP_UID, to)?, to, 15001);
        }
        // Root is an application as well: excluded is the proxy's user, not privilege.
        assert_arrived(&dial(&pair.sidecar, 0, service(ipv6, 443))?, service(ipv6, 443), 15001);
        Ok(())
    })
}

#[test]
fn inbound_is_captured_with_its_destination_but_for_the_proxys_own_ports() -> anyhow::Result<()> {
    if !netns::available(&TOOLS)? {
        return Ok(());
    }
    let pair = Pair::new()?;
    pair.each(&["--skip-inbound-ports", "8080"], |ipv6| {
        let at = |port| SocketAddr::new(pair.sidecar.ip(ipv6), port);
        // Nothing listens on 7070, and it reaches the proxy all the same.
        assert_arrived(&dial(&pair.plain, APP_UID, at(7070))?, at(7070), 15006);
        assert_arrived(&dial(&pair.plain, APP_UID, at(8080))?, at(8080), 8080);
        assert_arrived(&dial(&pair.plain, APP_UID, at(15020))?, at(15020), 15020);
        assert_arrived(&dial(&pair.plain, APP_UID, at(15000))?, at(15000), 15000);
        Ok(())
    })?;
    pair.each(&[], |ipv6| {
        let at = SocketAddr::new(pair.sidecar.ip(ipv6), 8080);
        assert_arrived(&dial(&pair.plain, APP_UID, at)?, at, 15006);
        Ok(())
    })
}

#[test]
fn the_proxys_user_group_and_mark_are_left_alone() -> anyhow::Result<()> {
    if !netns::available(&TOOLS)? {
        return Ok(());
    }
    let pair = Pair::new()?;
    pair.each(&[], |ipv6| {
        let to = SocketAddr::new(pair.plain.ip(ipv6), 8080);
        assert_arrived(&dial(&pair.sidecar, PROXY_UID, to)?, to, 8080);

        let marked = |mark: u32| {
            pair.sidecar.enter(|| {
                let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
                socket.set_mark(mark)?;
                socket.connect_timeout(&to.into(), Duration::from_secs(5))?;
                let mut answer = String::new();
                std::net::TcpStream::from(socket).read_to_string(&mut answer)?;
                Ok(answer.trim().to_owned())
            })
        };
        assert_arrived(&marked(PROXY_UID)?, to, 8080);
        assert_arrived(&marked(7)?, to, 15001);
        Ok(())
    })?;
    pair.each(&["--proxy-uid", "2102", "--proxy-gid", "2102", "--proxy-mark", "0"], |ipv6| {
        let to = SocketAddr::new(pair.plain.ip(ipv6), 8080);
        assert_arrived(&dial(&pair.sidecar, 2102, to)?, to, 8080);
        assert_arrived(&dial(&pair.sidecar, PROXY_UID, to)?, to, 15001);
        Ok(())
    })
}

#[test]
fn exclusions_and_inclusions_hold() -> anyhow::Result<()> {
    if !netns::available(&TOOLS)? {
        return Ok(());
    }
    let pair = Pair::new()?;
    let arrives = |uid, to: SocketAddr, at| -> anyhow::Result<()> {
        assert_arrived(&dial(&pair.sidecar, uid, to)?, to, at);
        Ok(())
    };
    pair.each(&["--skip-outbound-ports", "9000-9099", "--exclude-uids", "3000-3010"], |ipv6| {
        let at = |port| SocketAddr::new(pair.plain.ip(ipv6), port);
        arrives(APP_UID, at(9090), 9090)?;
        arrives(APP_UID, at(8080), 15001)?;
        arrives(3005, at(8080), 8080)
    })?;
    pair.each(&["--skip-outbound-cidrs", "10.11.0.0/16,fd11::/64"], |ipv6| {
        arrives(APP_UID, SocketAddr::new(pair.plain.ip(ipv6), 8080), 8080)?;
        arrives(APP_UID, service(ipv6, 80), 15001)
    })?;
    pair.each(&["--include-outbound-cidrs", "10.96.0.0/12,fd96::/16"], |ipv6| {
        arrives(APP_UID, SocketAddr::new(pair.plain.ip(ipv6), 8080), 8080)?;
        arrives(APP_UID, service(ipv6, 80), 15001)
    })
}

#[test]
fn what_stays_in_the_pod_is_left_alone() -> anyhow::Result<()> {
    if !netns::available(&TOOLS)? {
        return Ok(());
    }
    let pair = Pair::new()?;
    pair.each(&[], |ipv6| {
        let loopback: IpAddr = if ipv6 { [0, 0, 0, 0, 0, 0, 0, 1].into() } else { [127, 0, 0, 1].into() };
        for ip in [loopback, pair.sidecar.ip(ipv6)] {
            // 15001 and 15006: a direct dial arrives as what it is, for the proxy to refuse, and is not led around.
            for port in [8080, 15001, 15006] {
                let to = SocketAddr::new(ip, port);
                assert_arrived(&dial(&pair.sidecar, APP_UID, to)?, to, port);
            }
        }
        // From elsewhere both of the proxy's ports lead to its inbound side, which sees what was dialled.
        for port in [15001, 15006] {
            let to = SocketAddr::new(pair.sidecar.ip(ipv6), port);
            assert_arrived(&dial(&pair.plain, APP_UID, to)?, to, 15006);
        }
        Ok(())
    })
}

#[test]
fn a_repeated_run_and_a_change_of_mode_leave_one_set_of_rules_and_remove_leaves_none() -> anyhow::Result<()> {
    if !netns::available(&TOOLS)? {
        return Ok(());
    }
    let pair = Pair::new()?;
    let pod = &pair.sidecar;
    let to = SocketAddr::new(pair.plain.v4().into(), 8080);
    let init = binary("tulle-injector", "tulle-init")?.display().to_string();
    let rules = || -> anyhow::Result<(usize, usize)> {
        let nft = pod.output("nft", &["list", "tables"])?.stdout.matches("tulle").count();
        let iptables = pod.output("iptables-save", &["-t", "nat"])?.stdout;
        let iptables6 = pod.output("ip6tables-save", &["-t", "nat"])?.stdout;
        Ok((nft, format!("{iptables}{iptables6}").matches("-j TULLE_").count()))
    };
    // Somebody else's rules, which no run may touch.
    ensure!(pod.output("iptables", &["-t", "nat", "-A", "OUTPUT", "-d", "192.0.2.1", "-j", "RETURN"])?.success);
    for (mode, expected) in [("nft", (2, 0)), ("iptables", (0, 4)), ("nft", (2, 0)), ("iptables", (0, 4))] {
        for _ in 0..2 {
            pod.redirect(&["--mode", mode])?;
            assert_eq!(rules()?, expected, "{mode}");
        }
        pod.redirect(&["--mode", mode, "--verify"])?;
        let other = pod.output(&init, &["--mode", mode, "--verify", "--exclude-uids", "5"])?;
        assert!(!other.success && other.stderr.contains("differ"), "{other:?}");
        assert_arrived(&dial(pod, APP_UID, to)?, to, 15001);
    }
    pod.redirect(&["--mode", "iptables", "--ipv6", "off"])?;
    assert_eq!(rules()?, (0, 2));
    for mode in MODES {
        pod.redirect(&["--mode", mode])?;
        // The other mode's removal finds them too.
        pod.redirect(&["--mode", "nft", "--remove"])?;
        assert_eq!(rules()?, (0, 0));
        assert_arrived(&dial(pod, APP_UID, to)?, to, 8080);
        let gone = pod.output(&init, &["--mode", mode, "--verify"])?;
        assert!(!gone.success && gone.stderr.contains("in force: nothing"), "{gone:?}");
        pod.redirect(&["--mode", mode, "--remove"])?;
    }
    assert!(pod.output("iptables-save", &["-t", "nat"])?.stdout.contains("-A OUTPUT -d 192.0.2.1/32 -j RETURN"));
    Ok(())
}

#[test]
fn a_run_without_the_capability_says_what_to_do() -> anyhow::Result<()> {
    if !netns::available(&TOOLS)? {
        return Ok(());
    }
    let net = Network::new()?;
    let pod = net.pod("weak")?;
    for mode in MODES {
        let mut init = pod.command_as(APP_UID, binary("tulle-injector", "tulle-init")?);
        init.args(["--mode", mode]);
        let done = Finished::of(init)?;
        assert!(!done.success && done.stderr.contains("capability NET_ADMIN"), "{mode}: {done:?}");
    }
    Ok(())
}

#[test]
fn mend_25_whole_ranges_leave_everything_alone() -> anyhow::Result<()> {
    if !netns::available(&TOOLS)? {
        return Ok(());
    }
    let pair = Pair::new()?;
    // Each run reads its rules back, in the form in which the tools list them.
    for flags in [["--skip-outbound-ports", "0-65535"], ["--exclude-uids", "0-4294967295"]] {
        pair.each(&flags, |ipv6| {
            let to = SocketAddr::new(pair.plain.ip(ipv6), 8080);
            let answer = dial(&pair.sidecar, APP_UID, to)?;
            ensure!(answer == format!("{to} via 8080"), "{answer}");
            Ok(())
        })?;
    }
    Ok(())
}
