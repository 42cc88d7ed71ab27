//! The first bytes of an HTTP client: the preface of HTTP/2 (RFC 9113 section 3.4) or the request line of HTTP/1
//! (RFC 9112 section 3).
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::unreachable
)]

use super::Spoken;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Methods that settle the matter at once. What begins with one of them and is not HTTP after all is refused by the
/// HTTP/1 codec: to call it opaque would let a malformed request past every rule for requests.
const METHODS: [&[u8]; 9] = [b"GET", b"POST", b"PUT", b"HEAD", b"DELETE", b"OPTIONS", b"PATCH", b"CONNECT", b"TRACE"];

/// Longest method looked for; the longest registered one, `UPDATEREDIRECTREF`, has 17.
const MAX_METHOD_BYTES: usize = 32;

/// Empty lines before the request line that are ignored (RFC 9112 section 2.2), as the codec does.
const MAX_EMPTY_LINES: usize = 2;

/// As [`super::classify`], for bytes that are not TLS.
pub(super) fn classify(bytes: &[u8]) -> Option<Spoken> {
    match begins(bytes, PREFACE) {
        Begins::Yes => return Some(Spoken::Http2),
        Begins::SoFar => return None,
        Begins::No => {}
    }
    let mut line = bytes;
    for _ in 0..MAX_EMPTY_LINES {
        match begins(line, b"\r\n") {
            Begins::Yes => line = line.get(2..).unwrap_or_default(),
            Begins::SoFar => return None,
            Begins::No => break,
        }
    }
    request_line(line)
}

fn request_line(line: &[u8]) -> Option<Spoken> {
    let Some(end) = line.iter().position(|byte| !is_token(*byte)) else {
        return (line.len() > MAX_METHOD_BYTES).then_some(Spoken::Opaque);
    };
    let (method, rest) = line.split_at_checked(end)?;
    // Some servers take any white space for the one space that the grammar has.
    if METHODS.contains(&method) && rest.first().is_some_and(u8::is_ascii_whitespace) {
        return Some(Spoken::Http1);
    }
    if method.is_empty() || method.len() > MAX_METHOD_BYTES || rest.first() != Some(&b' ') {
        return Some(Spoken::Opaque);
    }
    // Another method, or another protocol: only a whole request line tells.
    let rest = rest.get(1..)?;
    let end = rest.iter().position(|byte| *byte <= b' ' || *byte == 0x7f)?;
    let (target, rest) = rest.split_at_checked(end)?;
    if target.is_empty() {
        return Some(Spoken::Opaque);
    }
    match begins(rest, b" HTTP/1.") {
        Begins::Yes => Some(Spoken::Http1),
        Begins::SoFar => None,
        Begins::No => Some(Spoken::Opaque),
    }
}

/// `tchar` of RFC 9110 section 5.6.2.
const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

enum Begins {
    Yes,
    No,
    /// The bytes end before the text does.
    SoFar,
}

fn begins(bytes: &[u8], text: &[u8]) -> Begins {
    if bytes.starts_with(text) {
        Begins::Yes
    } else if text.starts_with(bytes) {
        Begins::SoFar
    } else {
        Begins::No
    }
}
