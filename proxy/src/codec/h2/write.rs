//! Heads as sent: one pass over the received fields into a block.

use smallvec::SmallVec;

use super::hpack::OVERHEAD;
use super::hpack::encode::Encoder;
use crate::codec::fields::{self, Role};
use crate::codec::h1::parse::RawHead;
use crate::codec::head::{Edit, RequestHead, ResponseHead};

/// Writes a request's head.
pub(super) fn request(head: &RequestHead, edit: Edit<'_>, encoder: &mut Encoder, out: &mut Vec<u8>) {
    let path = edit.path().unwrap_or_else(|| head.path()).as_bytes();
    let authority = edit.host().unwrap_or_else(|| head.authority()).as_bytes();
    encoder.method(head.method().as_bytes(), out);
    if matches!(head, RequestHead::H2(head) if head.secret) {
        Encoder::secret(b":path", path, out);
        Encoder::secret(b":authority", authority, out);
    } else {
        encoder.path(path, out);
        encoder.field(b":authority", authority, out);
    }
    // About this connection, and every hop says it anew. Clients of gRPC over HTTP/1 cannot say it.
    let trailers = match head {
        RequestHead::H2(head) => head.raw.fields.iter().any(|field| field.role == Role::Te),
        RequestHead::H1(_) => head.is_grpc(),
    };
    raw(head.raw(), edit, true, encoder, out);
    if trailers {
        encoder.field(b"te", b"trailers", out);
    }
    written(edit, encoder, out);
    if let Some(peer) = edit.peer {
        encoder.field(fields::PEER_HEADER.as_bytes(), peer.as_bytes(), out);
    }
}

/// Whether a request's head is within `most`, as its receiver counts (RFC 9113 section 6.5.2). What a route changes of
/// it is not counted.
pub(super) fn fits(head: &RequestHead, most: usize) -> bool {
    const NAMES: usize = ":method:scheme:path:authorityhttp".len();
    let raw = head.raw();
    // All bytes of the head are at least those of its fields, and mostly that is enough to know.
    if raw.bytes.len() + NAMES + (raw.fields.len() + 4) * OVERHEAD <= most {
        return true;
    }
    let line = head.method().len() + head.path().len() + head.authority().len() + NAMES + 4 * OVERHEAD;
    let passed = raw.fields.iter().filter(|field| Edit::default().passes(field.role));
    line + passed.map(|field| field.name.len() + field.value.len() + OVERHEAD).sum::<usize>() <= most
}

/// Writes a reply's head.
pub(super) fn response(head: &ResponseHead, edit: Edit<'_>, encoder: &mut Encoder, out: &mut Vec<u8>) {
    Encoder::status(head.status(), out);
    // RFC 9110 section 8.6: not of a reply that has no content.
    let length = head.status() >= 200 && head.status() != 204;
    raw(head.raw(), edit, length, encoder, out);
    written(edit, encoder, out);
}

/// The fields that are passed on. `content-length` is, once and where it may be: it is no framing in HTTP/2.
fn raw(raw: &RawHead, edit: Edit<'_>, mut length: bool, encoder: &mut Encoder, out: &mut Vec<u8>) {
    for field in raw.fields.iter() {
        let name = raw.slice(&field.name);
        let counts = field.role == Role::ContentLength;
        let passes = if counts { std::mem::take(&mut length) } else { edit.passes(field.role) };
        if passes && !edit.drops(name) {
            let value = raw.slice(&field.value);
            if field.secret {
                Encoder::secret(name, value, out);
            } else if name.iter().any(u8::is_ascii_uppercase) {
                let lower: SmallVec<[u8; 64]> = name.iter().map(u8::to_ascii_lowercase).collect();
                encoder.field(&lower, value, out);
            } else {
                encoder.field(name, value, out);
            }
        }
    }
}

/// Fields of a route's own.
fn written(edit: Edit<'_>, encoder: &mut Encoder, out: &mut Vec<u8>) {
    for (name, value) in edit.written() {
        encoder.field(name.as_str().as_bytes(), value.as_bytes(), out);
    }
}
