//! Heads as sent: one pass over the received fields into the connection's output buffer.

use http::HeaderMap;

use crate::codec::fields::{self, Role};
use crate::codec::head::{Edit, RequestHead, ResponseHead};

use super::parse::RawHead;

/// How the body that follows is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// As the received head says; its framing fields are passed on.
    Same,
    /// Chunks, whatever the received head said.
    Chunked,
    /// This many bytes.
    Length(u64),
    /// No body, and no field that speaks of one.
    None,
    /// Until the connection ends.
    UntilClose,
}

/// What a response's head says of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Persistence {
    /// Nothing: it takes another request, as those of HTTP/1.1 do.
    Implied,
    /// That it takes another request, to a client of HTTP/1.0 that asked for it.
    KeepAlive,
    /// That nothing else will be sent on it.
    Close,
}

/// Writes a request's head.
pub(crate) fn request(head: &RequestHead, edit: Edit<'_>, framing: Framing, out: &mut Vec<u8>) {
    push(out, &[head.method().as_bytes(), b" ", edit.path().unwrap_or_else(|| head.path()).as_bytes()]);
    match edit.host().unwrap_or_else(|| head.authority()) {
        // A client of HTTP/1.0 that names no host: HTTP/1.1 has no way to say that which everybody accepts.
        "" => out.extend_from_slice(b" HTTP/1.0\r\n"),
        authority => {
            out.extend_from_slice(b" HTTP/1.1\r\n");
            field(out, name(head.raw(), Role::Host, "host"), authority.as_bytes());
        }
    }
    match head {
        RequestHead::H1(head) => {
            raw_fields(&head.raw, edit, framing == Framing::Same, out);
            if head.upgrade {
                field(out, name(&head.raw, Role::Connection, "connection"), b"upgrade");
            }
        }
        RequestHead::H2(head) => crumbled_fields(&head.raw, edit, out),
    }
    written(edit, out);
    if takes_trailers(head) {
        // It is about this connection, and every hop says it anew (RFC 9110 section 10.1.4).
        field(out, name(head.raw(), Role::Te, "te"), b"trailers");
        field(out, name(head.raw(), Role::Connection, "connection"), b"te");
    }
    if let Some(peer) = edit.peer {
        field(out, fields::PEER_HEADER.as_bytes(), peer.as_bytes());
    }
    frame(framing, out);
    out.extend_from_slice(b"\r\n");
}

/// Writes a response's head.
pub(crate) fn response(
    head: &ResponseHead,
    edit: Edit<'_>,
    framing: Framing,
    persistence: Persistence,
    out: &mut Vec<u8>,
) {
    status_line(head.status(), reason(head), out);
    // Where there can be no body, nothing speaks of one (RFC 9110 section 8.6, RFC 9112 section 6.1).
    let same = framing == Framing::Same && !matches!(head.status(), 100..=199 | 204);
    match head {
        ResponseHead::H1(head) => {
            raw_fields(&head.raw, edit, same, out);
            if head.upgrade {
                field(out, name(&head.raw, Role::Connection, "connection"), b"upgrade");
            }
        }
        ResponseHead::H2(head) => {
            crumbled_fields(&head.raw, edit, out);
            if same && let Some(length) = head.length {
                field(out, b"content-length", length.to_string().as_bytes());
            }
        }
    }
    written(edit, out);
    frame(framing, out);
    if persistence == Persistence::Implied {
        return out.extend_from_slice(b"\r\n");
    }
    end(persistence, name(head.raw(), Role::Connection, "connection"), out);
}

/// Ends a response's head.
fn end(persistence: Persistence, name: &[u8], out: &mut Vec<u8>) {
    match persistence {
        Persistence::Implied => {}
        Persistence::KeepAlive => field(out, name, b"keep-alive"),
        Persistence::Close => field(out, name, b"close"),
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes the head of a response we make ourselves, without content.
pub(crate) fn own(status: u16, extra: &[(&str, &str)], persistence: Persistence, out: &mut Vec<u8>) {
    status_line(status, canonical(status).as_bytes(), out);
    for (name, value) in extra {
        field(out, name.as_bytes(), value.as_bytes());
    }
    frame(Framing::Length(0), out);
    end(persistence, b"connection", out);
}

/// Writes the frame of one chunk around `data`.
pub(crate) fn chunk(data: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut shift = (usize::BITS - data.len().leading_zeros()).div_ceil(4).saturating_sub(1).saturating_mul(4);
    loop {
        out.extend(DIGITS.get((data.len() >> shift) & 0xf));
        if shift == 0 {
            break;
        }
        shift = shift.saturating_sub(4);
    }
    push(out, &[b"\r\n", data, b"\r\n"]);
}

/// Writes the last chunk and the trailers that may be passed on.
pub(crate) fn last_chunk(trailers: Option<&HeaderMap>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers.into_iter().flatten() {
        if fields::role(name.as_str().as_bytes()) == Role::End && fields::is_token(name) {
            field(out, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Whether the sender said that it can take trailers.
fn takes_trailers(head: &RequestHead) -> bool {
    let says = |value: &[u8]| fields::list(value).any(|coding| coding.eq_ignore_ascii_case(b"trailers"));
    let raw = head.raw();
    raw.fields.iter().any(|f| f.role == Role::Te && says(raw.slice(&f.value)))
}

/// The name of the field with this role as the head has it, for a field of ours in its place: some peers heed the case.
fn name<'h>(raw: &'h RawHead, role: Role, usual: &'static str) -> &'h [u8] {
    raw.fields.iter().find(|f| f.role == role).map_or(usual.as_bytes(), |f| raw.slice(&f.name))
}

fn reason(head: &ResponseHead) -> &[u8] {
    match head {
        ResponseHead::H1(head) => head.raw.slice(&head.reason),
        ResponseHead::H2(head) => canonical(head.status).as_bytes(),
    }
}

fn canonical(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or_default()
}

fn status_line(status: u16, reason: &[u8], out: &mut Vec<u8>) {
    let digit = |n: u16| b'0'.saturating_add(u8::try_from(n % 10).unwrap_or(0));
    let code = [digit(status / 100), digit(status / 10), digit(status)];
    push(out, &[b"HTTP/1.1 ", &code, b" ", reason, b"\r\n"]);
}

fn raw_fields(raw: &RawHead, edit: Edit<'_>, same_framing: bool, out: &mut Vec<u8>) {
    for f in raw.fields.iter() {
        let framing = same_framing && matches!(f.role, Role::ContentLength | Role::TransferEncoding);
        let name = raw.slice(&f.name);
        if (edit.passes(f.role) && !edit.drops(name)) || framing || f.role == Role::Upgrade {
            field(out, name, raw.slice(&f.value));
        }
    }
}

/// Fields of an HTTP/2 head. Cookie pairs that were split are joined again (RFC 9113 section 8.2.3).
fn crumbled_fields(raw: &RawHead, edit: Edit<'_>, out: &mut Vec<u8>) {
    let mut crumbs = false;
    for f in raw.fields.iter() {
        let name = raw.slice(&f.name);
        if !edit.passes(f.role) || edit.drops(name) {
            continue;
        }
        if name == b"cookie" {
            crumbs = true;
        } else {
            field(out, name, raw.slice(&f.value));
        }
    }
    if crumbs {
        let mut before: &[u8] = b"cookie: ";
        for f in raw.fields.iter().filter(|f| raw.slice(&f.name) == b"cookie") {
            push(out, &[before, raw.slice(&f.value)]);
            before = b"; ";
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// Fields of a route's own.
fn written(edit: Edit<'_>, out: &mut Vec<u8>) {
    for (name, value) in edit.written() {
        field(out, name.as_str().as_bytes(), value.as_bytes());
    }
}

fn frame(framing: Framing, out: &mut Vec<u8>) {
    match framing {
        Framing::Same | Framing::None | Framing::UntilClose => {}
        Framing::Chunked => field(out, b"transfer-encoding", b"chunked"),
        Framing::Length(length) => field(out, b"content-length", length.to_string().as_bytes()),
    }
}

fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    push(out, &[name, b": ", value, b"\r\n"]);
}

fn push(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailers_that_http1_cannot_say_are_left_out() {
        let mut trailers = HeaderMap::new();
        trailers.insert("a", http::HeaderValue::from_static("1"));
        trailers.insert(http::HeaderName::from_static("b\"c"), http::HeaderValue::from_static("2"));
        let mut out = Vec::new();
        last_chunk(Some(&trailers), &mut out);
        assert_eq!(out, b"0\r\na: 1\r\n\r\n");
    }

    #[test]
    fn chunk_sizes_are_plain_hex() {
        for (length, size) in [(1usize, "1"), (15, "f"), (16, "10"), (255, "ff"), (4096, "1000"), (65_537, "10001")] {
            let mut out = Vec::new();
            chunk(&vec![b'x'; length], &mut out);
            assert!(out.starts_with(format!("{size}\r\n").as_bytes()), "{length}");
            assert_eq!(out.len(), size.len() + 2 + length + 2);
        }
    }
}
