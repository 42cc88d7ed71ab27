//! What each header field means to a proxy: the one list of hop-by-hop, framing and identity fields.

/// The role of a field, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Passed on as it is.
    End,
    /// For this connection only (RFC 9110 section 7.6.1): never passed on.
    Hop,
    /// `connection`.
    Connection,
    /// `keep-alive`: for this connection only, but an application says there how long it keeps an idle one.
    KeepAlive,
    /// `host`.
    Host,
    /// `content-length`.
    ContentLength,
    /// `transfer-encoding`.
    TransferEncoding,
    /// `upgrade`.
    Upgrade,
    /// `te`.
    Te,
    /// `expect`.
    Expect,
    /// Says who the peer is, or steers a proxy: trusted from nobody, set only by us (security rule SP-01).
    Identity,
    /// `tulle-reason`, `tulle-proxy`: set by proxies only.
    Ours,
}

/// The name under which the application learns who its mesh peer is, as other meshes call it.
pub(crate) const PEER_HEADER: &str = "x-forwarded-client-cert";
/// Why a proxy answered instead of the application.
pub(crate) const REASON_HEADER: &str = "tulle-reason";
/// Which proxy answered: `outbound` or `inbound`.
pub(crate) const PROXY_HEADER: &str = "tulle-proxy";

/// The role of the field called `name`, in any case.
///
/// Gateways to applications (CGI, WSGI, PHP, Rack) merge fields whose names differ only in punctuation, so that
/// `X_Forwarded_Client_Cert` reads as `x-forwarded-client-cert`. A control field in such a spelling is none of HTTP's own
/// fields, and nobody but an attacker sends it: its role is [`Role::Identity`], and it is dropped.
pub(crate) fn role(name: &[u8]) -> Role {
    let Some(first) = name.first().map(u8::to_ascii_lowercase) else { return Role::End };
    let is = |text: &str| name.len() == text.len() && alike(name, text);
    let begins = |text: &str| name.get(..text.len()).is_some_and(|head| alike(head, text));
    let role = match first {
        b'c' if is("connection") => Role::Connection,
        b'c' if is("content-length") => Role::ContentLength,
        b'e' if is("expect") => Role::Expect,
        b'h' if is("host") => Role::Host,
        b'h' if is("http2-settings") => Role::Hop,
        b'k' if is("keep-alive") => Role::KeepAlive,
        b'l' if begins("l5d-") => Role::Identity,
        b'p' if is("proxy-connection") => Role::Hop,
        b't' if is("te") => Role::Te,
        b't' if is("transfer-encoding") => Role::TransferEncoding,
        b't' if is(REASON_HEADER) || is(PROXY_HEADER) => Role::Ours,
        b't' if begins("tulle-") => Role::Identity,
        b'u' if is("upgrade") => Role::Upgrade,
        b'x' if is(PEER_HEADER) || begins("x-envoy-") => Role::Identity,
        _ => return Role::End,
    };
    let exact = name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-');
    if exact { role } else { Role::Identity }
}

/// Whether two names of one length are the same to a reader that ignores case and takes all punctuation for `-`.
fn alike(name: &[u8], text: &str) -> bool {
    let same = |(byte, wanted): (&u8, &u8)| {
        byte.eq_ignore_ascii_case(wanted) || (*wanted == b'-' && !byte.is_ascii_alphanumeric())
    };
    name.iter().zip(text.as_bytes()).all(same)
}

/// The comma-separated elements of a list value, without surrounding white space and empty ones (RFC 9110 5.6.1).
pub(crate) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(trim).filter(|element| !element.is_empty())
}

/// A value without optional white space at its ends.
pub(crate) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Whether a name that the crate `http` takes for one is a token (RFC 9110 section 5.6.2): the crate forgives the quotation
/// mark, and no reader of HTTP/1 does.
pub(crate) fn is_token(name: &http::HeaderName) -> bool {
    !name.as_str().as_bytes().contains(&b'"')
}

/// Whether `authority` is a host with an optional port (RFC 9112 section 3.2), without user information.
pub(crate) fn is_authority(authority: &[u8]) -> bool {
    let (host, port) = match authority {
        [b'[', rest @ ..] => {
            let Some(end) = rest.iter().position(|b| *b == b']') else { return false };
            let (address, after) = rest.split_at(end);
            let text = std::str::from_utf8(address).unwrap_or_default();
            if text.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            (authority, after.get(1..).unwrap_or_default())
        }
        _ => authority.split_at(authority.iter().position(|b| *b == b':').unwrap_or(authority.len())),
    };
    let host_ok = host.first() == Some(&b'[')
        || (!host.is_empty() && host.iter().all(|b| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=".contains(b)));
    let port_ok = match port {
        [] => true,
        [b':', digits @ ..] => {
            digits.len() <= 5
                && digits.iter().all(u8::is_ascii_digit)
                && (digits.is_empty() || std::str::from_utf8(digits).ok().and_then(|d| d.parse::<u16>().ok()).is_some())
        }
        _ => false,
    };
    host_ok && port_ok
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_ignore_case() {
        assert_eq!(role(b"Transfer-ENCODING"), Role::TransferEncoding);
        assert_eq!(role(b"X-Envoy-Retry-On"), Role::Identity);
        assert_eq!(role(b"L5D-Client-Id"), Role::Identity);
        assert_eq!(role(b"Tulle-Reason"), Role::Ours);
        assert_eq!(role(b"Keep-Alive"), Role::KeepAlive);
        assert_eq!(role(b"x-forwarded-for"), Role::End);
        assert_eq!(role(b""), Role::End);
    }

    #[test]
    fn hostile_09_punctuation_does_not_hide_a_role() {
        for name in [
            "X_Forwarded_Client_Cert",
            "x-forwarded_client-cert",
            "x.forwarded.client.cert",
            "x~forwarded!client^cert",
            "X_Envoy_Internal",
            "x_envoy-internal",
            "L5D_client_id",
            "tulle_reason",
            "Tulle_Proxy",
            "tulle_anything",
            "transfer_encoding",
            "Content_Length",
            "keep_alive",
            "Proxy_Connection",
            "http2_settings",
        ] {
            assert_eq!(role(name.as_bytes()), Role::Identity, "{name}");
            assert!(!tulle_proto::fields::is_changeable(name), "{name}");
        }
        for name in
            ["x_user", "x-forwarded-client-certs", "xx-forwarded-client-cert", "x_env", "l5d", "te_", "content_type"]
        {
            assert_eq!(role(name.as_bytes()), Role::End, "{name}");
            assert!(tulle_proto::fields::is_changeable(name), "{name}");
        }
    }

    #[test]
    fn names_that_http_takes_are_tokens_but_for_one_character() {
        for byte in 0..=255_u8 {
            let Ok(name) = http::HeaderName::from_lowercase(&[b'a', byte]) else { continue };
            let tchar = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            assert_eq!(is_token(&name), tchar, "{name}");
        }
    }

    #[test]
    fn routes_may_change_what_is_the_applications_alone() {
        let names = [
            "connection",
            "Content-Length",
            "host",
            "keep-alive",
            "te",
            "upgrade",
            "transfer-encoding",
            "expect",
            "tulle-x",
            "http2-settings",
            "proxy-connection",
            "x-envoy-x",
            "l5d-x",
            PEER_HEADER,
            REASON_HEADER,
            "cookie",
            "x-user",
        ];
        for name in names {
            assert_eq!(tulle_proto::fields::is_changeable(name), role(name.as_bytes()) == Role::End, "{name}");
        }
    }

    #[test]
    fn authorities() {
        for good in ["a", "a.test:80", "[::1]", "[fd00::1]:8080", "a_b", "10.0.0.1:1", "a:"] {
            assert!(is_authority(good.as_bytes()), "{good}");
        }
        for bad in ["", "u@a", "a/admin", "a b", "a:80x", "a\0.b", "a,b", "[::1", "[zz]", "a:99999", ":80", "[::1]x"] {
            assert!(!is_authority(bad.as_bytes()), "{bad}");
        }
    }
}
