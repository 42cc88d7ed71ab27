//! Addresses that no endpoint may have: the side that accepts them from users and the side that dials them agree.

use std::net::IpAddr;

/// Why a proxy must not connect to `address` on behalf of a service, if it must not. Loopback addresses are for mesh
/// proxies and applications that share one machine; in a cluster they are the caller's own pod.
pub fn unfit(address: IpAddr, loopback_allowed: bool) -> Option<&'static str> {
    let canonical = address.to_canonical();
    let (this_network, link_local, broadcast) = match canonical {
        IpAddr::V4(v4) => (v4.octets()[0] == 0, v4.is_link_local(), v4.is_broadcast()),
        IpAddr::V6(v6) => (v6.is_unspecified(), v6.is_unicast_link_local(), false),
    };
    match () {
        () if this_network => Some("is the unspecified address, which leads to the proxy's own host"),
        () if canonical.is_multicast() || broadcast => Some("is a multicast or broadcast address"),
        () if link_local => Some("is a link-local address, such as that of a cloud's metadata service"),
        () if canonical.is_loopback() && !loopback_allowed => {
            Some("is a loopback address, which leads to the caller's own pod")
        }
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_06_addresses_that_no_endpoint_may_have() {
        let unfit = |text: &str, laptop| unfit(text.parse().unwrap(), laptop).is_some();
        for text in [
            "0.0.0.0",
            "0.0.0.1",
            "::",
            "::ffff:0.0.0.0",
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "fe80::1",
            "febf::1",
            "224.0.0.1",
            "239.1.2.3",
            "ff02::1",
            "255.255.255.255",
            "::ffff:255.255.255.255",
        ] {
            assert!(unfit(text, false) && unfit(text, true), "{text}");
        }
        for text in ["127.0.0.1", "127.9.8.7", "::1", "::ffff:127.0.0.1"] {
            assert!(unfit(text, false) && !unfit(text, true), "{text}");
        }
        for text in ["10.1.2.3", "192.168.0.1", "100.64.0.1", "8.8.8.8", "fd00::1", "2001:db8::1", "::ffff:10.1.2.3"] {
            assert!(!unfit(text, false) && !unfit(text, true), "{text}");
        }
    }
}
