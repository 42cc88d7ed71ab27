//! Header fields that a route may change: all but those that frame a message, name its host, or say who sent it.

/// Fields that belong to a connection or to the proxies, by name.
const RESERVED: [&str; 13] = [
    "connection",
    "content-length",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
    "x-forwarded-client-cert",
    "proxy-authenticate",
];

/// The same, by the beginning of the name.
const RESERVED_PREFIXES: [&str; 3] = ["tulle-", "l5d-", "x-envoy-"];

/// Whether a route may set, add to or remove the field called `name`, in any case. All punctuation counts as `-`, as
/// gateways to applications read it: `X_Forwarded_Client_Cert` is reserved too.
pub fn is_changeable(name: &str) -> bool {
    let begins = |prefix: &&str| name.get(..prefix.len()).is_some_and(|head| is_alike(head, prefix));
    is_name(name) && !RESERVED.iter().any(|reserved| is_alike(name, reserved)) && !RESERVED_PREFIXES.iter().any(begins)
}

fn is_alike(name: &str, reserved: &str) -> bool {
    let same = |(byte, wanted): (u8, u8)| {
        byte.eq_ignore_ascii_case(&wanted) || (wanted == b'-' && !byte.is_ascii_alphanumeric())
    };
    name.len() == reserved.len() && name.bytes().zip(reserved.bytes()).all(same)
}

/// Whether `name` is the name of a field (a token, RFC 9110 section 5.6.2).
pub fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// Whether `value` may stand in a field (RFC 9110 section 5.5): no control characters but tabs, no white space around it.
pub fn is_value(value: &str) -> bool {
    value.bytes().all(|b| b == b'\t' || (b >= b' ' && b != 0x7f)) && value.trim_matches([' ', '\t']) == value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_changed() {
        for name in ["x-user", "X-User", "cookie", "content-type", "server"] {
            assert!(is_changeable(name), "{name}");
        }
        for name in [
            "",
            "Host",
            "TE",
            "Tulle-Reason",
            "x-envoy-retry-on",
            "x y",
            ":path",
            "x-forwarded-client-cert",
            "X_Envoy_A",
        ] {
            assert!(!is_changeable(name), "{name}");
        }
        assert!(is_value("a b\tc") && is_value("") && is_value("ä"));
        assert!(!is_value("a\r\nb") && !is_value(" a") && !is_value("a\0"));
    }
}
