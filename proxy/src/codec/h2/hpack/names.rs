//! The fields that both ends know from the beginning (RFC 7541 Appendix A), and what the name of a field means.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use crate::codec::fields::{self, Role};

/// Names and values, the first at index 1.
pub(super) static STATIC: [(&[u8], &[u8]); 61] = [
    (b":authority", b""),
    (b":method", b"GET"),
    (b":method", b"POST"),
    (b":path", b"/"),
    (b":path", b"/index.html"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    (b":status", b"200"),
    (b":status", b"204"),
    (b":status", b"206"),
    (b":status", b"304"),
    (b":status", b"400"),
    (b":status", b"404"),
    (b":status", b"500"),
    (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"),
    (b"accept-language", b""),
    (b"accept-ranges", b""),
    (b"accept", b""),
    (b"access-control-allow-origin", b""),
    (b"age", b""),
    (b"allow", b""),
    (b"authorization", b""),
    (b"cache-control", b""),
    (b"content-disposition", b""),
    (b"content-encoding", b""),
    (b"content-language", b""),
    (b"content-length", b""),
    (b"content-location", b""),
    (b"content-range", b""),
    (b"content-type", b""),
    (b"cookie", b""),
    (b"date", b""),
    (b"etag", b""),
    (b"expect", b""),
    (b"expires", b""),
    (b"from", b""),
    (b"host", b""),
    (b"if-match", b""),
    (b"if-modified-since", b""),
    (b"if-none-match", b""),
    (b"if-range", b""),
    (b"if-unmodified-since", b""),
    (b"last-modified", b""),
    (b"link", b""),
    (b"location", b""),
    (b"max-forwards", b""),
    (b"proxy-authenticate", b""),
    (b"proxy-authorization", b""),
    (b"range", b""),
    (b"referer", b""),
    (b"refresh", b""),
    (b"retry-after", b""),
    (b"server", b""),
    (b"set-cookie", b""),
    (b"strict-transport-security", b""),
    (b"transfer-encoding", b""),
    (b"user-agent", b""),
    (b"vary", b""),
    (b"via", b""),
    (b"www-authenticate", b""),
];

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `:method`.
    Method,
    /// `:scheme`.
    Scheme,
    /// `:path`.
    Path,
    /// `:authority`.
    Authority,
    /// `:status`.
    Status,
    /// A field.
    Field(Role),
    /// Nothing that HTTP/2 may say: no token in lower case, another pseudo-header, or a field about the connection
    /// (RFC 9113 sections 8.2.1, 8.2.2, 8.3).
    Bad,
}

/// What `name` stands for.
pub(crate) fn kind(name: &[u8]) -> Kind {
    if name.is_empty() || !name.iter().all(|byte| is_lower_token(*byte)) {
        return match name {
            b":method" => Kind::Method,
            b":scheme" => Kind::Scheme,
            b":path" => Kind::Path,
            b":authority" => Kind::Authority,
            b":status" => Kind::Status,
            _ => Kind::Bad,
        };
    }
    match fields::role(name) {
        Role::Connection | Role::KeepAlive | Role::TransferEncoding | Role::Upgrade => Kind::Bad,
        // What it asks for was never to be had here; the field is dropped.
        Role::Hop if name != b"http2-settings" => Kind::Bad,
        role @ (Role::End
        | Role::Hop
        | Role::Host
        | Role::ContentLength
        | Role::Te
        | Role::Expect
        | Role::Identity
        | Role::Ours) => Kind::Field(role),
    }
}

/// What the name of the static table's field at `index` stands for.
pub(super) fn static_kind(index: usize) -> Kind {
    match index {
        1 => Kind::Authority,
        2 | 3 => Kind::Method,
        4 | 5 => Kind::Path,
        6 | 7 => Kind::Scheme,
        8..=14 => Kind::Status,
        28 => Kind::Field(Role::ContentLength),
        35 => Kind::Field(Role::Expect),
        38 => Kind::Field(Role::Host),
        57 => Kind::Bad,
        _ => Kind::Field(Role::End),
    }
}

/// A character of a token (RFC 9110 section 5.6.2) that is not upper case.
const fn is_lower_token(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*'
        | b'+' | b'^' | b'`' | b'|' | b'~')
}

/// Whether a field may have this value: what HTTP/1 cannot say is refused here.
pub(crate) fn is_value(value: &[u8]) -> bool {
    value.iter().all(|byte| matches!(byte, b'\t' | 0x20..=0x7e | 0x80..))
}

/// The index of a field of this name in the static table.
pub(super) fn static_index(name: &[u8]) -> Option<u8> {
    Some(match name {
        b":authority" => 1,
        b":method" => 2,
        b":path" => 4,
        b":scheme" => 6,
        b":status" => 8,
        b"accept-charset" => 15,
        b"accept-encoding" => 16,
        b"accept-language" => 17,
        b"accept-ranges" => 18,
        b"accept" => 19,
        b"access-control-allow-origin" => 20,
        b"age" => 21,
        b"allow" => 22,
        b"authorization" => 23,
        b"cache-control" => 24,
        b"content-disposition" => 25,
        b"content-encoding" => 26,
        b"content-language" => 27,
        b"content-length" => 28,
        b"content-location" => 29,
        b"content-range" => 30,
        b"content-type" => 31,
        b"cookie" => 32,
        b"date" => 33,
        b"etag" => 34,
        b"expect" => 35,
        b"expires" => 36,
        b"from" => 37,
        b"host" => 38,
        b"if-match" => 39,
        b"if-modified-since" => 40,
        b"if-none-match" => 41,
        b"if-range" => 42,
        b"if-unmodified-since" => 43,
        b"last-modified" => 44,
        b"link" => 45,
        b"location" => 46,
        b"max-forwards" => 47,
        b"proxy-authenticate" => 48,
        b"proxy-authorization" => 49,
        b"range" => 50,
        b"referer" => 51,
        b"refresh" => 52,
        b"retry-after" => 53,
        b"server" => 54,
        b"set-cookie" => 55,
        b"strict-transport-security" => 56,
        b"transfer-encoding" => 57,
        b"user-agent" => 58,
        b"vary" => 59,
        b"via" => 60,
        b"www-authenticate" => 61,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_the_static_table_is_true() {
        for (at, (name, _)) in STATIC.iter().enumerate() {
            assert_eq!(static_kind(at + 1), kind(name), "{name:?}");
            let index = usize::from(static_index(name).unwrap());
            assert_eq!(STATIC[index - 1].0, *name);
        }
        assert_eq!(static_index(b"x"), None);
    }

    #[test]
    fn names() {
        for bad in
            [&b""[..], b"X", b"a b", b"a:b", b":x", b":", b"a\"b", b"x\x80", b"x\r\ny", b"keep-alive", b"upgrade"]
        {
            assert_eq!(kind(bad), Kind::Bad, "{bad:?}");
        }
        assert_eq!(kind(b"x-a_b.c"), Kind::Field(Role::End));
        assert_eq!(kind(b"te"), Kind::Field(Role::Te));
        assert_eq!(kind(b"http2-settings"), Kind::Field(Role::Hop));
        assert!(is_value(b"a\t\xff ") && !is_value(b"a\0") && !is_value(b"\n") && !is_value(b"\x7f"));
    }
}
