//! resolv.conf -> nameservers, search path and `ndots`. Read once: in a pod the file never changes.

use std::net::SocketAddr;
use std::path::Path;

use hickory_resolver::config::{ResolverConfig, ResolverOpts};
use hickory_resolver::system_conf::parse_resolv_conf;

use super::Dns;

/// Port of the DNS listeners.
pub(super) const PORT: u16 = 15053;

/// Port of nameservers.
pub(super) const NAMESERVER_PORT: u16 = 53;

/// Largest file that is read.
const MAX_BYTES: u64 = 64 << 10;

/// The settings of DNS at `listen`: the file's, with the nameservers `given` instead of its own where there are any.
/// A file that is not there or names no nameserver leaves the rest to those.
///
/// # Errors
/// What is wrong with the file, as the rest of a sentence that starts with its name.
pub(super) fn read(path: &Path, listen: Vec<SocketAddr>, given: Vec<SocketAddr>) -> Result<Dns, String> {
    let mut text = Vec::new();
    match std::fs::File::open(path) {
        Ok(file) => {
            let limited = &mut std::io::Read::take(file, MAX_BYTES);
            std::io::Read::read_to_end(limited, &mut text).map_err(|error| format!("cannot be read: {error}"))?;
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(format!("cannot be read: {error}")),
    }
    // The parser wants a nameserver: where the file has none, one that is not used.
    let named = String::from_utf8_lossy(&text).lines().any(|line| line.trim_start().starts_with("nameserver"));
    if !named {
        text.extend_from_slice(b"\nnameserver 127.0.0.1\n");
    }
    let (config, options): (ResolverConfig, ResolverOpts) =
        parse_resolv_conf(&text).map_err(|error| format!("does not parse: {error}"))?;
    let own = config.name_servers().iter().map(|server| SocketAddr::new(server.ip, NAMESERVER_PORT));
    let nameservers = if given.is_empty() && named { own.collect() } else { given };
    // Whatever leads back here would go in circles.
    let nameservers = nameservers.into_iter().filter(|address| !listen.contains(address)).collect();
    let search = config.search().iter().map(|name| name.to_ascii().trim_end_matches('.').to_owned()).collect();
    Ok(Dns { listen, nameservers, search, ndots: options.ndots })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, given: &[&str]) -> Dns {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        std::fs::write(&path, text).unwrap();
        let given = given.iter().map(|address| address.parse().unwrap()).collect();
        read(&path, vec!["127.0.0.1:53".parse().unwrap()], given).unwrap()
    }

    fn nameservers(dns: &Dns) -> String {
        dns.nameservers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_pods_file() {
        let dns = of(
            "search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\n\
             nameserver fd00::10\noptions ndots:5\n",
            &[],
        );
        assert_eq!(nameservers(&dns), "10.96.0.10:53 [fd00::10]:53");
        assert_eq!(
            (dns.search.join(" ").as_str(), dns.ndots),
            ("shop.svc.cluster.local svc.cluster.local cluster.local", 5)
        );
    }

    #[test]
    fn given_ones_win_and_own_ones_are_left_out() {
        assert_eq!(nameservers(&of("nameserver 10.96.0.10\n", &["127.0.0.9:5353"])), "127.0.0.9:5353");
        assert_eq!(nameservers(&of("nameserver 127.0.0.1\n", &[])), "");
        let none = of("search shop.svc.cluster.local\n", &[]);
        assert_eq!((nameservers(&none).as_str(), none.search.len(), none.ndots), ("", 1, 1));
    }

    #[test]
    fn no_file_is_no_nameserver() {
        let dns = read(Path::new("/nonexistent/resolv.conf"), Vec::new(), Vec::new()).unwrap();
        assert_eq!((nameservers(&dns).as_str(), dns.search.len()), ("", 0));
    }
}
