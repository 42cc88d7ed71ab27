//! What to redirect, as plain values with Tulle's defaults. Called by `tulle-init` and whoever renders rules.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use ipnet::IpNet;

/// Which of the kernel's interfaces the rules are written for. Both make the same decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// nftables, by `nft`: two tables of our own (`ip tulle`, `ip6 tulle`), replaced in one transaction.
    Nft,
    /// iptables, by `iptables-restore` and `ip6tables-restore`: two chains of our own in the table `nat`.
    Iptables,
}

impl Display for Mode {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nft => "nft",
            Self::Iptables => "iptables",
        })
    }
}

/// An address family; each has its own rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both families, in the order in which they are applied.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub(super) fn of(net: &IpNet) -> Self {
        match net {
            IpNet::V4(_) => Self::V4,
            IpNet::V6(_) => Self::V6,
        }
    }

    /// The family's name in nftables.
    pub(super) fn nft(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }
}

/// The settings of one network namespace's rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How the rules are written.
    pub mode: Mode,
    /// Write rules for IPv6 as well. Off: IPv6 rules of an earlier run are removed.
    pub ipv6: bool,
    /// Port of the proxy's outbound listener.
    pub outbound_port: u16,
    /// Port of the proxy's inbound listener.
    pub inbound_port: u16,
    /// Port of the proxy's DNS listener, for the namespace's DNS questions; `None` leaves them alone.
    pub dns_port: Option<u16>,
    /// User id the proxy runs with: its connections are never captured.
    pub proxy_uid: u32,
    /// Group id the proxy runs with: its connections are never captured; `None` matches no group.
    pub proxy_gid: Option<u32>,
    /// Socket mark (`SO_MARK`) whose connections are never captured; `None` matches no mark.
    pub proxy_mark: Option<u32>,
    /// Inbound ports left alone, besides those of [`Settings::ALWAYS_SKIPPED_INBOUND`].
    pub skip_inbound_ports: Vec<Span<u16>>,
    /// Outbound destination ports left alone.
    pub skip_outbound_ports: Vec<Span<u16>>,
    /// Outbound destinations left alone. Wins over `include_outbound_cidrs`.
    pub skip_outbound_cidrs: Vec<IpNet>,
    /// Capture only these destinations; empty means all of them, for both families.
    pub include_outbound_cidrs: Vec<IpNet>,
    /// User ids whose outbound connections are left alone.
    pub exclude_uids: Vec<Span<u32>>,
}

impl Settings {
    /// Inbound ports that are never captured. 15020 answers for the proxy itself (health, metrics). 15000 (admin) and
    /// 15053 (DNS) listen on loopback only: captured, they would reach the proxy, which forwards to loopback, and a
    /// stranger could administer it.
    pub const ALWAYS_SKIPPED_INBOUND: [u16; 3] = [15000, 15020, 15053];
}

impl Default for Settings {
    /// Captures everything, with the ports and ids of the sidecar as it is injected.
    fn default() -> Self {
        Self {
            mode: Mode::Nft,
            ipv6: true,
            outbound_port: 15001,
            inbound_port: 15006,
            dns_port: None,
            proxy_uid: 1337,
            proxy_gid: Some(1337),
            proxy_mark: Some(1337),
            skip_inbound_ports: Vec::new(),
            skip_outbound_ports: Vec::new(),
            skip_outbound_cidrs: Vec::new(),
            include_outbound_cidrs: Vec::new(),
            exclude_uids: Vec::new(),
        }
    }
}

/// A closed range of ports or user ids, `first <= last`; written `8080` or `8000-8100`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span<T> {
    first: T,
    last: T,
}

impl<T: Copy> Span<T> {
    /// The range that holds one value.
    pub fn one(value: T) -> Self {
        Self { first: value, last: value }
    }

    /// Smallest value of the range.
    pub fn first(&self) -> T {
        self.first
    }

    /// Largest value of the range.
    pub fn last(&self) -> T {
        self.last
    }
}

impl<T: Copy + Ord> Span<T> {
    /// The part from `least` to `most`; `None` when there is none.
    pub(super) fn within(self, least: T, most: T) -> Option<Self> {
        let span = Self { first: self.first.max(least), last: self.last.min(most) };
        (span.first <= span.last).then_some(span)
    }
}

/// A range that is not written `N` or `FIRST-LAST`, or whose ends are out of bounds or swapped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither a number in bounds nor a range such as `8000-8100`")]
pub struct ParseSpanError(String);

impl<T: FromStr + Copy + Ord> FromStr for Span<T> {
    type Err = ParseSpanError;

    fn from_str(text: &str) -> Result<Self, ParseSpanError> {
        let wrong = || ParseSpanError(text.to_owned());
        let number = |part: &str| part.trim().parse::<T>().map_err(|_| wrong());
        let span = match text.split_once('-') {
            Some((first, last)) => Self { first: number(first)?, last: number(last)? },
            None => Self::one(number(text)?),
        };
        if span.first <= span.last { Ok(span) } else { Err(wrong()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_a_number_or_a_range() {
        assert_eq!("8080".parse(), Ok(Span::one(8080_u16)));
        assert_eq!("8000-8100".parse(), Ok(Span { first: 8000_u16, last: 8100 }));
        for wrong in ["", "-", "a", "70000", "9-8", "1-2-3", "-5"] {
            assert!(wrong.parse::<Span<u16>>().is_err(), "{wrong}");
        }
    }
}
