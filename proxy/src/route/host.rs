//! Host to virtual host: exact beats the longest wildcard beats any, ASCII case-insensitive (RFC 9110 section 4.2.3).

use crate::config::route::{RouteTable, VirtualHost};

/// The virtual host for an authority: with its port first, then without. A dot that ends the host is ignored, as it
/// only marks the name as fully qualified.
pub(super) fn find<'t>(table: &'t RouteTable, authority: &str) -> Option<&'t VirtualHost> {
    let (host, port) = split(authority);
    let host = host.strip_suffix('.').unwrap_or(host);
    let with_port = || {
        let port = port?;
        table.exact(lower(host).chain(lower(":")).chain(lower(port)))
    };
    with_port().or_else(|| table.exact(lower(host))).or_else(|| table.suffix(host)).or_else(|| table.any())
}

fn lower(text: &str) -> impl Iterator<Item = u8> + Clone {
    text.bytes().map(|byte| byte.to_ascii_lowercase())
}

/// Splits off the port. A v6 address has its colons within brackets; without brackets it has no port.
fn split(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') && (host.ends_with(']') || !host.contains(':')) => {
            (host, Some(port))
        }
        _ => (authority, None),
    }
}
