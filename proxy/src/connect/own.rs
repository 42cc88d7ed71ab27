//! What belongs to this proxy itself: its listeners, and the addresses of its network namespace. Nothing on the path
//! connects to the former, and inbound connections are relayed to the latter only.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;

/// The listeners and addresses of this proxy; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Own {
    listeners: Arc<[SocketAddr]>,
    addresses: Arc<[IpAddr]>,
}

impl Own {
    /// A proxy that listens at `listeners`, as they are bound, in a pod that has been given `addresses`.
    pub fn new(listeners: impl IntoIterator<Item = SocketAddr>, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let canonical = |at: SocketAddr| SocketAddr::new(at.ip().to_canonical(), at.port());
        Self {
            listeners: listeners.into_iter().map(canonical).collect(),
            addresses: addresses.into_iter().map(|address| address.to_canonical()).collect(),
        }
    }

    /// Whether a connection to `to` would reach one of the listeners: its port is one of theirs, and its address is
    /// the listener's, or any address of this network namespace when the listener takes all.
    pub fn listens_at(&self, to: SocketAddr) -> bool {
        let ip = to.ip().to_canonical();
        let mut on_port = self.listeners.iter().filter(|listener| listener.port() == to.port()).peekable();
        if on_port.peek().is_none() {
            return false;
        }
        // The unspecified address stands for loopback where it is dialled.
        let reaches = |at: IpAddr| at == ip || at.is_unspecified() || (ip.is_unspecified() && at.is_loopback());
        on_port.any(|listener| reaches(listener.ip())) && self.has(to)
    }

    /// Whether the address of `to` is one of this network namespace: a loopback address, one that the pod was given,
    /// or another one of an interface. Costs three system calls for the last.
    pub fn has(&self, to: SocketAddr) -> bool {
        let ip = to.ip().to_canonical();
        ip.is_loopback() || ip.is_unspecified() || self.addresses.contains(&ip) || is_of_an_interface(to)
    }
}

/// To an address of its own the kernel connects from that very address. Nothing is sent.
fn is_of_an_interface(to: SocketAddr) -> bool {
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
    };
    let from = UdpSocket::bind(any).and_then(|socket| {
        socket.connect(to)?;
        socket.local_addr()
    });
    from.is_ok_and(|from| from.ip() == to.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_06_own_listeners_are_known_by_every_local_address() {
        let listeners = ["[::]:15001", "127.0.0.1:15000", "0.0.0.0:15020"].map(|text| text.parse().unwrap());
        let own: Vec<IpAddr> = vec!["10.1.0.5".parse().unwrap(), "fd00::5".parse().unwrap()];
        let own = Own::new(listeners, own);
        let is = |to: &str| own.listens_at(to.parse().unwrap());
        for to in [
            "10.1.0.5:15001",
            "127.0.0.9:15001",
            "[::1]:15001",
            "[fd00::5]:15001",
            "[::ffff:10.1.0.5]:15001",
            "127.0.0.1:15000",
            "[::ffff:127.0.0.1]:15000",
            "0.0.0.0:15000",
            "[::]:15000",
            "127.3.4.5:15020",
            "10.1.0.5:15020",
        ] {
            assert!(is(to), "{to}");
        }
        // A sidecar beside this one may listen at another loopback address.
        for to in ["10.1.0.6:15001", "10.1.0.5:15002", "127.0.0.2:15000", "10.1.0.5:15000", "192.0.2.1:15020"] {
            assert!(!is(to), "{to}");
        }
    }

    #[test]
    fn hostile_14_addresses_of_the_namespace() {
        let own = Own::new([], ["10.1.0.5".parse().unwrap()]);
        let has = |ip: &str| own.has(SocketAddr::new(ip.parse().unwrap(), 80));
        assert!(["10.1.0.5", "127.0.0.1", "127.9.9.9", "::1", "::ffff:10.1.0.5"].into_iter().all(has));
        assert!(!["192.0.2.1", "10.1.0.6", "2001:db8::1", "169.254.169.254"].into_iter().any(has));
    }
}
