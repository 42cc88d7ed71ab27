//! What can be read of a head that was refused: for the log, and for the words of the refusal. It decides nothing.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use crate::base::protocol::MAX_HEAD_FIELDS;
use crate::codec::fields;
use crate::codec::head::{self, Outline};

/// Bytes of a field's name that are shown.
const SHOWN: usize = 64;

/// Reads what there is of a request's head, which may be incomplete or malformed.
pub(crate) fn request(received: &[u8]) -> Outline {
    let mut lines = lines(received).skip_while(|line| line.is_empty());
    let mut words = lines.next().unwrap_or_default().split(|b| *b == b' ');
    let text = |part: Option<&[u8]>| String::from_utf8_lossy(part.unwrap_or_default()).into_owned();
    let (method, path, version) = (text(words.next()), text(words.next()), words.next());
    let (mut authority, mut grpc) = (String::new(), None);
    for (name, value) in lines.take(MAX_HEAD_FIELDS).filter_map(split) {
        if name.eq_ignore_ascii_case(b"host") {
            authority = text(Some(value));
        }
        if name.eq_ignore_ascii_case(b"content-type") {
            grpc = head::grpc(value);
        }
    }
    let outline = Outline::new(&method, &path, &authority, grpc);
    if version == Some(b"HTTP/1.0") { Outline { version: "HTTP/1.0", ..outline } } else { outline }
}

/// The name of the field that breaks the rules of its line; none where the fault is not in one field.
pub(crate) fn broken_field(head: &[u8]) -> Option<String> {
    let mut previous: &[u8] = b"";
    for line in lines(head).skip(1).take_while(|line| !line.is_empty()) {
        // A folded line is part of the field before it.
        if matches!(line, [b' ' | b'\t', ..]) {
            return Some(shown(previous));
        }
        let (name, value) = split(line).unwrap_or((line, b""));
        let token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
        let text = |b: &u8| *b >= 0x20 && *b != 0x7f || *b == b'\t';
        if name.is_empty() || !fields::trim(name).iter().all(token) || !line.contains(&b':') || !value.iter().all(text)
        {
            return Some(shown(name));
        }
        previous = name;
    }
    None
}

/// The name of the largest field.
pub(crate) fn largest_field(head: &[u8]) -> Option<String> {
    let fields = lines(head).skip(1).take_while(|line| !line.is_empty()).filter_map(split);
    fields.max_by_key(|(name, value)| name.len().saturating_add(value.len())).map(|(name, _)| shown(name))
}

/// The lines, without their ends.
fn lines(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    head.split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

/// Name and value of a field.
fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let (name, value) = line.split_at_checked(line.iter().position(|b| *b == b':')?)?;
    Some((name, fields::trim(value.get(1..)?)))
}

fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name.get(..name.len().min(SHOWN)).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mend_09_a_refused_request_is_known_as_far_as_it_was_read() {
        let outline = request(b"\r\nPOST /a.B/C HTTP/1.1\r\nHost: x.test\r\nContent-Type: application/grpc\r\nX: ");
        assert_eq!((&*outline.method, &*outline.path, &*outline.authority), ("POST", "/a.B/C", "x.test"));
        assert_eq!(outline.grpc.as_deref(), Some("application/grpc"));
        assert_eq!(request(b"GET / HTTP/1.0\r\n").version, "HTTP/1.0");
        let long = request(format!("GET /{} HTTP/1.1\r\n", "a".repeat(100_000)).as_bytes());
        assert_eq!(long.path.len(), 256);
        assert_eq!(&*request(b"\xff\xfe").method, "\u{fffd}\u{fffd}");
        assert_eq!(&*request(b"").path, "");
    }

    #[test]
    fn mend_07_the_field_that_is_wrong_is_named() {
        let of = |fields: &str| broken_field(format!("HTTP/1.1 200 OK\r\n{fields}\r\n").as_bytes());
        assert_eq!(of("A: b\r\nX Y: z\r\n").as_deref(), Some("X Y"));
        assert_eq!(of("A: b\r\nX-Bell: \u{7}\r\n").as_deref(), Some("X-Bell"));
        assert_eq!(of("A: b\r\n folded\r\n").as_deref(), Some("A"));
        assert_eq!(of("A: b\r\nnothing\r\n").as_deref(), Some("nothing"));
        assert_eq!(of("A: b\r\nName : value\r\n"), None, "the blank is removed");
        assert_eq!(
            largest_field(b"HTTP/1.1 200 OK\r\nA: b\r\nBig: ccccc\r\n\r\nbody: xxxxxxxxx").as_deref(),
            Some("Big")
        );
    }
}
