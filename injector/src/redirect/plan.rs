//! Settings -> the ordered rules of one address family: the one place where capture is decided.
//!
//! Rules see TCP, and of UDP the questions for DNS where those are captured; and only the first packet of a connection. Packets that a process sends to an address of its
//! own namespace leave over `lo`: they are never captured, in either direction (the kernel settles their translation
//! on the way out), so a workload that dials its own pod address, or a proxy port directly, reaches that socket
//! unaltered, and nothing can go round in circles.

use std::net::IpAddr;

use ipnet::IpNet;

use super::settings::{Family, Settings, Span};

/// Where nameservers listen.
pub(super) const DNS_PORT: u16 = 53;

/// The rules of one family, first match wins; a connection that matches none is left alone.
pub(super) struct Plan {
    /// Connections made by processes of the namespace.
    pub(super) outbound: Vec<Rule>,
    /// Connections that arrive from elsewhere.
    pub(super) inbound: Vec<Rule>,
}

/// One rule: what it matches and what happens then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) on: Match,
    pub(super) verdict: Verdict,
}

/// What a rule looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    /// Every TCP connection.
    All,
    /// A DNS question over UDP.
    UdpDns,
    /// The same over TCP.
    TcpDns,
    /// Sent over the loopback interface: to any address of this namespace.
    ToLoopback,
    /// Destination address.
    Destination(IpNet),
    /// Destination port, of TCP.
    Port(Span<u16>),
    /// User id that owns the socket.
    Uid(Span<u32>),
    /// Group id that owns the socket.
    Gid(u32),
    /// Mark on the socket.
    Mark(u32),
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Not captured.
    Leave,
    /// Led to this local port.
    Redirect(u16),
}

impl Plan {
    pub(super) fn new(settings: &Settings, family: Family) -> Self {
        Self { outbound: outbound(settings, family), inbound: inbound(settings) }
    }
}

/// One connection, as the rules see it.
pub(super) struct Packet {
    pub(super) to: IpAddr,
    pub(super) port: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mark: u32,
    pub(super) over_loopback: bool,
    pub(super) udp: bool,
}

impl Packet {
    fn matches(&self, on: Match) -> bool {
        match on {
            Match::All => !self.udp,
            Match::UdpDns => self.udp && self.port == DNS_PORT,
            Match::TcpDns => !self.udp && self.port == DNS_PORT,
            Match::ToLoopback => self.over_loopback,
            Match::Destination(net) => net.contains(&self.to),
            Match::Port(ports) => !self.udp && (ports.first()..=ports.last()).contains(&self.port),
            Match::Uid(uids) => (uids.first()..=uids.last()).contains(&self.uid),
            Match::Gid(gid) => gid == self.gid,
            Match::Mark(mark) => mark == self.mark,
        }
    }

    /// What `rules` do with it.
    pub(super) fn verdict(&self, rules: &[Rule]) -> Verdict {
        rules.iter().find(|rule| self.matches(rule.on)).map_or(Verdict::Leave, |rule| rule.verdict)
    }
}

fn outbound(settings: &Settings, family: Family) -> Vec<Rule> {
    // Link-local IPv6 needs the interface to be dialled, which the original destination no longer tells.
    let never = match family {
        Family::V4 => vec!["127.0.0.0/8"],
        Family::V6 => vec!["::1/128", "fe80::/10"],
    };
    let never = never.into_iter().filter_map(|net| net.parse().ok()).map(Match::Destination);
    let mut left = vec![Match::ToLoopback];
    left.extend(never);
    left.extend(settings.proxy_mark.map(Match::Mark));
    left.push(Match::Uid(Span::one(settings.proxy_uid)));
    left.extend(settings.proxy_gid.map(Match::Gid));
    left.extend(uids(&settings.exclude_uids).into_iter().map(Match::Uid));
    left.extend(ports(&settings.skip_outbound_ports).into_iter().map(Match::Port));
    left.extend(nets(&settings.skip_outbound_cidrs, family));

    let mut rules: Vec<Rule> = left.into_iter().map(|on| Rule { on, verdict: Verdict::Leave }).collect();
    // Whoever skips the port of DNS means all of DNS, not half of it.
    let skipped = settings.skip_outbound_ports.iter().any(|ports| (ports.first()..=ports.last()).contains(&DNS_PORT));
    if let (Some(port), false) = (settings.dns_port, skipped) {
        let verdict = Verdict::Redirect(port);
        rules.extend([Match::UdpDns, Match::TcpDns].map(|on| Rule { on, verdict }));
    }
    let verdict = Verdict::Redirect(settings.outbound_port);
    if settings.include_outbound_cidrs.is_empty() {
        rules.push(Rule { on: Match::All, verdict });
    } else {
        rules.extend(nets(&settings.include_outbound_cidrs, family).map(|on| Rule { on, verdict }));
    }
    rules
}

fn inbound(settings: &Settings) -> Vec<Rule> {
    let mut skipped: Vec<Span<u16>> = Settings::ALWAYS_SKIPPED_INBOUND.into_iter().map(Span::one).collect();
    skipped.extend(&settings.skip_inbound_ports);
    let mut rules: Vec<Rule> =
        ports(&skipped).into_iter().map(|ports| Rule { on: Match::Port(ports), verdict: Verdict::Leave }).collect();
    rules.push(Rule { on: Match::All, verdict: Verdict::Redirect(settings.inbound_port) });
    rules
}

/// No connection has port 0; iptables lists a range of all 65,536 ports as no range.
fn ports(spans: &[Span<u16>]) -> Vec<Span<u16>> {
    sorted(&spans.iter().filter_map(|span| span.within(1, u16::MAX)).collect::<Vec<_>>())
}

/// No process has the largest id, which the kernel uses for "none" and iptables refuses.
fn uids(spans: &[Span<u32>]) -> Vec<Span<u32>> {
    sorted(&spans.iter().filter_map(|span| span.within(0, u32::MAX - 1)).collect::<Vec<_>>())
}

/// In order and without repeats, so that equal settings give equal text.
fn sorted<T: Copy + Ord>(values: &[T]) -> Vec<T> {
    let mut values = values.to_vec();
    values.sort_unstable();
    values.dedup();
    values
}

/// The networks of `family`, adjacent and overlapping ones joined. A network of length 0 matches all.
fn nets(of: &[IpNet], family: Family) -> impl Iterator<Item = Match> {
    IpNet::aggregate(&of.iter().map(IpNet::trunc).collect())
        .into_iter()
        .filter(move |net| family == Family::of(net))
        .map(|net| if net.prefix_len() == 0 { Match::All } else { Match::Destination(net) })
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Packet {
        fn to(to: &str, port: u16) -> Self {
            Self { to: to.parse().unwrap(), port, uid: 1000, gid: 1000, mark: 0, over_loopback: false, udp: false }
        }

        fn outbound(&self, settings: &Settings) -> Verdict {
            let family = if self.to.is_ipv4() { Family::V4 } else { Family::V6 };
            self.verdict(&Plan::new(settings, family).outbound)
        }
    }

    const OUT: Verdict = Verdict::Redirect(15001);
    const IN: Verdict = Verdict::Redirect(15006);

    #[test]
    fn everything_an_application_dials_is_captured_by_default() {
        let settings = Settings::default();
        for (to, port) in [("10.96.0.1", 80), ("8.8.8.8", 53), ("169.254.169.254", 80), ("fd00::1", 443)] {
            assert_eq!(Packet::to(to, port).outbound(&settings), OUT, "{to}");
        }
        // Another pod's proxy port is a destination like any other: that pod's inbound side refuses it.
        assert_eq!(Packet::to("10.1.0.9", 15001).outbound(&settings), OUT);
    }

    #[test]
    fn the_proxy_and_loopback_are_left_alone() {
        let settings = Settings::default();
        let dial = || Packet::to("10.96.0.1", 80);
        for packet in [
            Packet { uid: 1337, ..dial() },
            Packet { gid: 1337, ..dial() },
            Packet { mark: 1337, ..dial() },
            Packet { over_loopback: true, ..dial() },
            Packet::to("127.0.0.1", 80),
            Packet::to("::1", 80),
            Packet::to("fe80::1", 80),
        ] {
            assert_eq!(packet.outbound(&settings), Verdict::Leave);
        }
        let unmarked = Settings { proxy_mark: None, ..settings };
        assert_eq!(Packet { mark: 1337, ..dial() }.outbound(&unmarked), OUT);
    }

    #[test]
    fn skips_win_over_includes_and_an_include_of_one_family_closes_the_other() {
        let settings = Settings {
            skip_outbound_ports: vec![Span::one(22)],
            skip_outbound_cidrs: vec!["10.0.1.0/24".parse().unwrap()],
            include_outbound_cidrs: vec!["10.0.0.0/8".parse().unwrap()],
            exclude_uids: vec!["2000-2100".parse().unwrap()],
            ..Settings::default()
        };
        assert_eq!(Packet::to("10.0.2.1", 80).outbound(&settings), OUT);
        for packet in [
            Packet::to("10.0.2.1", 22),
            Packet::to("10.0.1.1", 80),
            Packet::to("11.0.0.1", 80),
            Packet::to("fd00::1", 80),
            Packet { uid: 2050, ..Packet::to("10.0.2.1", 80) },
        ] {
            assert_eq!(packet.outbound(&settings), Verdict::Leave);
        }
        let all = Settings { include_outbound_cidrs: vec!["0.0.0.0/0".parse().unwrap()], ..Settings::default() };
        assert_eq!(Packet::to("11.0.0.1", 80).outbound(&all), OUT);
        assert_eq!(Packet::to("fd00::1", 80).outbound(&all), Verdict::Leave);
    }

    #[test]
    fn questions_for_dns_are_captured_where_that_is_wanted_and_no_other_datagrams() {
        let settings = Settings { dns_port: Some(15053), ..Settings::default() };
        let ask = |to: &str, udp| Packet { udp, ..Packet::to(to, 53) };
        for packet in [ask("10.96.0.10", true), ask("10.96.0.10", false), ask("fd00::10", true), ask("fd00::10", false)]
        {
            assert_eq!(packet.outbound(&settings), Verdict::Redirect(15053));
        }
        for packet in [
            Packet { uid: 1337, ..ask("10.96.0.10", true) },
            Packet { over_loopback: true, ..ask("10.96.0.10", true) },
            ask("127.0.0.53", true),
            Packet { udp: true, ..Packet::to("10.96.0.10", 443) },
        ] {
            assert_eq!(packet.outbound(&settings), Verdict::Leave);
        }
        assert_eq!(Packet::to("10.96.0.10", 80).outbound(&settings), OUT);
        let only = Settings { include_outbound_cidrs: vec!["10.1.0.0/16".parse().unwrap()], ..settings.clone() };
        assert_eq!(ask("10.96.0.10", true).outbound(&only), Verdict::Redirect(15053), "whatever else is included");
        let skipped = Settings { skip_outbound_ports: vec!["50-60".parse().unwrap()], ..settings };
        assert_eq!(ask("10.96.0.10", true).outbound(&skipped), Verdict::Leave);
        assert_eq!(ask("10.96.0.10", true).outbound(&Settings::default()), Verdict::Leave);
    }

    #[test]
    fn mend_25_ranges_of_all_ports_and_users() {
        let settings = Settings {
            skip_outbound_ports: vec!["0-65535".parse().unwrap(), Span::one(0)],
            skip_inbound_ports: vec!["0-80".parse().unwrap(), Span::one(0)],
            exclude_uids: vec!["0-4294967295".parse().unwrap(), Span::one(u32::MAX)],
            ..Settings::default()
        };
        let plan = Plan::new(&settings, Family::V4);
        let on = |on: Match| Rule { on, verdict: Verdict::Leave };
        assert!(plan.outbound.contains(&on(Match::Port("1-65535".parse().unwrap()))));
        assert!(plan.outbound.contains(&on(Match::Uid("0-4294967294".parse().unwrap()))));
        assert!(plan.inbound.contains(&on(Match::Port("1-80".parse().unwrap()))));
        let nothing = |rule: &&Rule| {
            matches!(rule.on, Match::Port(span) if span.first() == 0)
                || matches!(rule.on, Match::Uid(span) if span.last() == u32::MAX)
        };
        assert_eq!(plan.outbound.iter().chain(&plan.inbound).filter(nothing).count(), 0);
    }

    #[test]
    fn mend_25_without_a_group_the_proxy_is_known_by_its_user_alone() {
        let settings = Settings { proxy_gid: None, ..Settings::default() };
        let dial = || Packet::to("10.96.0.1", 80);
        assert_eq!(Packet { gid: 1337, ..dial() }.outbound(&settings), OUT);
        assert_eq!(Packet { uid: 1337, ..dial() }.outbound(&settings), Verdict::Leave);
    }

    #[test]
    fn inbound_leaves_only_skipped_ports() {
        let settings = Settings { skip_inbound_ports: vec!["9000-9001".parse().unwrap()], ..Settings::default() };
        let rules = Plan::new(&settings, Family::V4).inbound;
        for port in [15000, 15020, 15053, 9000, 9001] {
            assert_eq!(Packet::to("10.1.0.1", port).verdict(&rules), Verdict::Leave, "{port}");
        }
        // A stranger who dials the proxy's ports meets the inbound side, which sees them as original destination.
        for port in [80, 8999, 9002, 15001, 15006] {
            assert_eq!(Packet::to("10.1.0.1", port).verdict(&rules), IN, "{port}");
        }
    }
}
