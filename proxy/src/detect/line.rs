//! The first bytes of an HTTP client: the preface of HTTP/2 (RFC 9113 section 3.4) or the request line of HTTP/1
//! (RFC 9112 section 3).
//!
//! Many protocols begin with a word and a blank, so only the whole line makes HTTP. Servers read more lines as a request
//! line than the grammar has; those lines are told apart from bytes that no server takes for HTTP.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::unreachable
)]

use super::Spoken;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Longest method that is waited for; the longest registered one, `UPDATEREDIRECTREF`, has 17 bytes.
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
    // Lenient servers skip any blanks and empty lines before a request.
    let start = bytes.iter().position(|byte| !is_blank(*byte) && *byte != b'\n')?;
    let (before, line) = bytes.split_at_checked(start)?;
    let method = line.iter().take_while(|byte| is_token(**byte)).count();
    let (method, rest) = line.split_at_checked(method)?;
    if method.is_empty() {
        return Some(Spoken::Opaque);
    }
    if method.len() > MAX_METHOD_BYTES {
        return Some(Spoken::HttpLike);
    }
    if !is_blank(*rest.first()?) {
        return Some(Spoken::Opaque);
    }
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    let rest = rest.get(..end)?;
    Some(whole(before, method, rest))
}

/// As [`classify`], for a line whose end is not within the bytes that are looked at.
pub(super) fn too_long(bytes: &[u8]) -> Spoken {
    let mut words = bytes.split(|byte| *byte == b' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let method_ok = !method.is_empty() && method.iter().all(|byte| is_token(*byte));
    let is_request = method_ok && target.first() == Some(&b'/') && target.iter().all(u8::is_ascii_graphic);
    if is_request && words.next().is_none() { Spoken::Http1 } else { Spoken::HttpLike }
}

/// A line that begins with a method and a blank; `rest` is what follows the method, without the line feed.
fn whole(before: &[u8], method: &[u8], rest: &[u8]) -> Spoken {
    let words = || rest.split(|byte| is_blank(*byte)).filter(|word| !word.is_empty());
    let target = words().next().unwrap_or_default();
    let versioned =
        matches!(words().next_back(), Some([b'H', b'T', b'T', b'P', b'/', digit, ..]) if digit.is_ascii_digit());
    if !versioned || words().nth(1).is_none() {
        // HTTP/0.9 has neither version nor fields; its requests look like commands of other protocols but for the path.
        return if method == b"GET" && target.first() == Some(&b'/') { Spoken::HttpLike } else { Spoken::Opaque };
    }
    // To a forward proxy, which must see the target as it is (RFC 9112 section 3.2).
    if method == b"CONNECT" || is_absolute(target) {
        return Spoken::HttpLike;
    }
    let exact = rest
        .strip_prefix(b" ")
        .and_then(|rest| rest.strip_prefix(target))
        .and_then(|rest| rest.strip_prefix(b" HTTP/1."))
        .is_some_and(|rest| matches!(rest, [digit, b'\r'] if digit.is_ascii_digit()));
    let empty_lines = before.chunks(2).all(|line| line == b"\r\n") && before.len() / 2 <= MAX_EMPTY_LINES;
    if exact && empty_lines && target.iter().all(u8::is_ascii_graphic) { Spoken::Http1 } else { Spoken::HttpLike }
}

/// Whether a target begins with a scheme and an authority (RFC 3986 section 3.1).
fn is_absolute(target: &[u8]) -> bool {
    let Some(colon) = target.iter().position(|byte| *byte == b':') else { return false };
    let Some((scheme, rest)) = target.split_at_checked(colon) else { return false };
    scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
        && rest.starts_with(b"://")
}

/// `tchar` of RFC 9110 section 5.6.2.
const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

/// What a server may take for the space between two words (RFC 9112 section 3).
const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | 0x0b | 0x0c)
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
