//! Host name -> addresses, by DNS and the hosts file, for the control plane's own address. The path resolves nothing.

use std::io;
use std::net::{IpAddr, SocketAddr};

use hickory_resolver::TokioResolver;

/// A resolver that reads the system's configuration at each lookup, so that a changed resolv.conf is taken up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resolver;

impl Resolver {
    /// A resolver.
    pub(super) const fn new() -> Self {
        Self
    }

    /// The addresses of `host`, in random order so that proxies spread over replicas. An IP address is its own.
    ///
    /// # Errors
    /// When the name does not resolve.
    pub(super) async fn lookup(self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        let failed = |error| io::Error::new(io::ErrorKind::NotFound, format!("cannot resolve {host}: {error}"));
        let resolver = TokioResolver::builder_tokio().and_then(|builder| builder.build()).map_err(failed)?;
        let found = resolver.lookup_ip(host).await.map_err(failed)?;
        let mut addresses: Vec<SocketAddr> = found.iter().map(|ip| SocketAddr::new(ip, port)).collect();
        shuffle(&mut addresses);
        Ok(addresses)
    }
}

fn shuffle(addresses: &mut [SocketAddr]) {
    for end in (1..addresses.len()).rev() {
        let other = rand::random_range(0..=end);
        addresses.swap(end, other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn literals_and_the_hosts_file_need_no_server() {
        let found = Resolver::new().lookup("fd00::1", 15012).await.unwrap();
        assert_eq!(found, ["[fd00::1]:15012".parse().unwrap()]);
        let found = Resolver::new().lookup("localhost", 15012).await.unwrap();
        assert!(found.iter().all(|address| address.ip().is_loopback() && address.port() == 15012), "{found:?}");
    }

    #[test]
    fn shuffling_loses_nothing() {
        let all: Vec<SocketAddr> = (1..100).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect();
        let mut shuffled = all.clone();
        shuffle(&mut shuffled);
        assert_ne!(shuffled, all);
        shuffled.sort();
        assert_eq!(shuffled, all);
    }
}
