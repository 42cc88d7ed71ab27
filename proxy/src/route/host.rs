//! Host to virtual host: exact beats the longest wildcard beats any, ASCII case-insensitive (RFC 9110 section 4.2.3).

use std::net::IpAddr;

use crate::base::host;
use crate::config::route::{RouteTable, VirtualHost};

/// The virtual host for an authority: with its port first, then without.
pub(super) fn find<'t>(table: &'t RouteTable, authority: &str) -> Option<&'t VirtualHost> {
    let (host, port) = host::split(authority);
    // One address has many spellings; a table has the canonical one.
    if host.starts_with('[')
        && let Some(ip) = host::address(host)
    {
        let canonical = match ip {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        return of(table, &canonical, port);
    }
    of(table, host, port)
}

fn of<'t>(table: &'t RouteTable, host: &str, port: Option<&str>) -> Option<&'t VirtualHost> {
    let with_port = || {
        let port = port?;
        table.exact(lower(host).chain(lower(":")).chain(lower(port)))
    };
    with_port().or_else(|| table.exact(lower(host))).or_else(|| table.suffix(host)).or_else(|| table.any())
}

fn lower(text: &str) -> impl Iterator<Item = u8> + Clone {
    text.bytes().map(|byte| byte.to_ascii_lowercase())
}
