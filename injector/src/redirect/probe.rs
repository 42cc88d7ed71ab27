//! Whether connections of this network namespace are led to the proxy's port, found out without any privilege: in the place of
//! the proxy, which has not started yet, it listens there, and dials an address at which nobody is.
//!
//! What it sees are the outbound rules. The inbound ones came with them, in the same transaction.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::plan::{Packet, Plan, Verdict};
use super::settings::{Family, Settings};

/// Within the namespace a handshake takes no time; outside nobody answers.
const PATIENCE: Duration = Duration::from_secs(5);

/// Ports that are tried, until one is not left alone by the settings.
const PORTS: [u16; 4] = [80, 443, 9, 7];

/// What was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Connections of this many address families are led to the proxy.
    Captured(usize),
    /// By the settings no outbound connection is captured: nothing can be seen.
    NothingToSee,
}

/// Why connections are not known to be led to the proxy.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// A connection went elsewhere.
    #[error(
        "a connection to {to} was not led to the proxy ({why}): no redirect rules are in force here. The node's tulle-cni writes \
         them before a pod starts, and was not in place then; delete the pod, so that a new one is made"
    )]
    NotCaptured {
        /// What was dialled.
        to: SocketAddr,
        /// What happened to it.
        why: String,
    },
    /// Nothing can be dialled.
    #[error("the pod has no route of any address family")]
    NoRoute,
    /// The proxy's port is not free.
    #[error("cannot listen on port {port} in the proxy's place: {error}")]
    Port {
        /// The port.
        port: u16,
        /// Why.
        error: io::Error,
    },
}

/// Dials as the user and group `id`, with which this process runs and which the settings do not exclude.
///
/// # Errors
/// See [`ProbeError`]; nothing was changed.
pub fn probe(settings: &Settings, id: u32) -> Result<Proof, ProbeError> {
    let targets: Vec<SocketAddr> = Family::BOTH
        .into_iter()
        .filter(|family| settings.ipv6 || *family == Family::V4)
        .filter_map(|family| target(settings, family, id))
        .collect();
    let mut captured = 0;
    for to in &targets {
        captured += usize::from(is_captured(settings.outbound_port, *to)?);
    }
    match (targets.is_empty(), captured) {
        (true, _) => Ok(Proof::NothingToSee),
        (false, 0) => Err(ProbeError::NoRoute),
        (false, families) => Ok(Proof::Captured(families)),
    }
}

/// A destination that the rules capture: one for documentation (RFC 5737, RFC 3849), or of a network to which capture is
/// confined.
fn target(settings: &Settings, family: Family, id: u32) -> Option<SocketAddr> {
    let rules = Plan::new(settings, family).outbound;
    let nowhere: [IpAddr; 2] = match family {
        Family::V4 => [Ipv4Addr::new(192, 0, 2, 1).into(), Ipv4Addr::new(198, 51, 100, 1).into()],
        Family::V6 => [
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
            Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1).into(),
        ],
    };
    let included = settings.include_outbound_cidrs.iter().filter(|net| Family::of(net) == family);
    let addresses = nowhere.into_iter().chain(included.flat_map(some_of));
    let dials = addresses.flat_map(|to| PORTS.map(|port| SocketAddr::new(to, port)));
    let captured = |dial: &SocketAddr| {
        let (to, port) = (dial.ip(), dial.port());
        let packet = Packet { to, port, uid: id, gid: id, mark: 0, over_loopback: false, udp: false };
        packet.verdict(&rules) == Verdict::Redirect(settings.outbound_port)
    };
    dials.into_iter().find(captured)
}

/// The first and the last few addresses of a network.
fn some_of(net: &IpNet) -> Vec<IpAddr> {
    let mut some: Vec<IpAddr> = net.hosts().take(4).collect();
    some.push(net.broadcast());
    some
}

/// False when there is no route to `to`.
fn is_captured(port: u16, to: SocketAddr) -> Result<bool, ProbeError> {
    let cannot = |error| ProbeError::Port { port, error };
    // REDIRECT leads to the loopback address of the family.
    let here: IpAddr = if to.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
    let listener = TcpListener::bind((here, port)).map_err(cannot)?;
    listener.set_nonblocking(true).map_err(cannot)?;
    let lost = |why: String| ProbeError::NotCaptured { to, why };
    let dialled = match TcpStream::connect_timeout(&to, PATIENCE) {
        Ok(dialled) => dialled,
        Err(error) if error.kind() == ErrorKind::NetworkUnreachable => return Ok(false),
        Err(error) => return Err(lost(error.to_string())),
    };
    let from = dialled.local_addr().map_err(|error| lost(error.to_string()))?;
    let end = Instant::now() + PATIENCE;
    // The handshake is over, so the connection is in the queue, if it is ours.
    loop {
        match listener.accept() {
            Ok((_, peer)) if peer.port() == from.port() => return Ok(true),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < end => {
                std::thread::yield_now();
            }
            Err(_) => return Err(lost("somebody else answered".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::Span;
    use super::*;

    fn to(settings: &Settings, family: Family) -> Option<String> {
        target(settings, family, 1338).map(|to| to.to_string())
    }

    #[test]
    fn what_is_dialled_is_captured_by_the_settings() {
        let base = Settings::default;
        let nets = |list: &[&str]| list.iter().map(|net| net.parse().unwrap()).collect::<Vec<IpNet>>();
        assert_eq!(to(&base(), Family::V4).as_deref(), Some("192.0.2.1:80"));
        assert_eq!(to(&base(), Family::V6).as_deref(), Some("[2001:db8::1]:80"));
        let skips = Settings {
            skip_outbound_ports: vec![Span::one(80)],
            skip_outbound_cidrs: nets(&["192.0.2.0/24", "2001:db8::/64"]),
            ..base()
        };
        assert_eq!(to(&skips, Family::V4).as_deref(), Some("198.51.100.1:443"));
        assert_eq!(to(&skips, Family::V6).as_deref(), Some("[2001:db8:ffff::1]:443"));
        let confined = Settings {
            include_outbound_cidrs: nets(&["10.96.0.0/12"]),
            skip_outbound_cidrs: nets(&["10.96.0.0/24"]),
            ..base()
        };
        assert_eq!(to(&confined, Family::V4).as_deref(), Some("10.111.255.255:80"));
        assert_eq!(to(&confined, Family::V6), None);
        let nothing = Settings { skip_outbound_cidrs: nets(&["0.0.0.0/0"]), ..base() };
        assert_eq!(to(&nothing, Family::V4), None);
        let user = Settings { exclude_uids: vec![Span::one(1338)], ..base() };
        assert_eq!(to(&user, Family::V4), None);
    }
}
