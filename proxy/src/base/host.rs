//! The one reader of an authority: where its host ends, which port it names, and which service is meant by it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Host and port of an authority. A dot that ends the host is left out, as it only marks the name as fully qualified, and
/// so are zeros before the port (RFC 3986 section 6.2.3). A v6 address has its colons within brackets, which stay;
/// without brackets it has no port.
pub fn split(authority: &str) -> (&str, Option<&str>) {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') && (host.ends_with(']') || !host.contains(':')) => {
            (host, Some(port))
        }
        _ => (authority, None),
    };
    let port = port.filter(|port| !port.is_empty()).map(|port| match port.trim_start_matches('0') {
        "" => "0",
        number => number,
    });
    (host.strip_suffix('.').unwrap_or(host), port)
}

/// The address that a host is, in its one canonical form; none when it is a name.
pub fn address(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

/// The full name of the service that `host`, as [`split`] gives it, means to a workload in `namespace`,
/// `name.namespace.svc.DOMAIN:port`: one label gets the namespace, two are a name and a namespace, `name.namespace.svc`
/// gets the domain; other names and addresses stay as they are.
pub fn service(host: &str, port: &str, namespace: &str, domain: &str) -> Arc<str> {
    if let Some(ip) = address(host) {
        return match port.parse() {
            Ok(port) => SocketAddr::new(ip, port).to_string().into(),
            Err(_) => format!("{host}:{port}").into(),
        };
    }
    let host = host.to_ascii_lowercase();
    match host.matches('.').count() {
        0 => format!("{host}.{namespace}.svc.{domain}:{port}"),
        1 => format!("{host}.svc.{domain}:{port}"),
        2 if host.ends_with(".svc") => format!("{host}.{domain}:{port}"),
        _ => format!("{host}:{port}"),
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mend_11_an_authority_has_one_reader() {
        for (authority, host, port) in [
            ("a", "a", None),
            ("a.", "a", None),
            ("a:80", "a", Some("80")),
            ("a.:80", "a", Some("80")),
            ("a:", "a", None),
            ("a.:", "a", None),
            ("a:0080", "a", Some("80")),
            ("a:0", "a", Some("0")),
            ("[fd00::1]", "[fd00::1]", None),
            ("[fd00::1]:80", "[fd00::1]", Some("80")),
            ("[fd00::1]:", "[fd00::1]", None),
            ("fd00::1", "fd00::1", None),
            ("", "", None),
        ] {
            assert_eq!(split(authority), (host, port), "{authority}");
        }
        for (authority, service_name) in [
            ("web", "web.shop.svc.cluster.local:80"),
            ("Web.", "web.shop.svc.cluster.local:80"),
            ("web.other:8080", "web.other.svc.cluster.local:8080"),
            ("web.other.svc.", "web.other.svc.cluster.local:80"),
            ("web.other.SVC.cluster.local.:080", "web.other.svc.cluster.local:80"),
            ("web-0.web.other.svc.cluster.local", "web-0.web.other.svc.cluster.local:80"),
            ("10.0.0.1", "10.0.0.1:80"),
            ("10.0.0.1.:8080", "10.0.0.1:8080"),
            ("[FD00:0:0::1]:8080", "[fd00::1]:8080"),
            ("[::ffff:10.0.0.1]", "10.0.0.1:80"),
        ] {
            let (host, port) = split(authority);
            assert_eq!(&*service(host, port.unwrap_or("80"), "shop", "cluster.local"), service_name, "{authority}");
        }
    }
}
