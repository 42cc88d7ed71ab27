//! The first message of a TLS client: ClientHello (RFC 8446 section 4.1.2), over one or more records (section 5.1).
//!
//! Reads what routing and the choice between mesh TLS and the application's own need. Everything else is left to the
//! TLS stack that will accept the connection.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::unreachable
)]

use std::borrow::Cow;

use tulle_proto::names;

use super::{ClientHello, MAX_BYTES, Spoken, TLS_HANDSHAKE};

const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const HOST_NAME: u8 = 0;

/// Type and length before a handshake message's body.
const MESSAGE_HEAD_BYTES: usize = 4;

/// Longest content of a record in plain text.
const MAX_RECORD_BYTES: usize = 1 << 14;

/// As [`super::classify`], for bytes that begin with [`TLS_HANDSHAKE`].
pub(super) fn classify(bytes: &[u8]) -> Option<Spoken> {
    Some(match message(bytes) {
        Message::Whole(body) => hello(&body).map_or(Spoken::Opaque, Spoken::Tls),
        Message::Partial => return None,
        Message::Other => Spoken::Opaque,
    })
}

/// The body of a handshake message as far as it is there.
enum Message<'a> {
    Whole(Cow<'a, [u8]>),
    Partial,
    /// Not a ClientHello.
    Other,
}

/// Joins the records that carry the first message.
fn message(bytes: &[u8]) -> Message<'_> {
    let mut rest = Reader(bytes);
    let mut joined: Cow<'_, [u8]> = Cow::Borrowed(&[]);
    loop {
        let (fragment, whole) = match record(&mut rest) {
            Record::Whole(fragment) => (fragment, true),
            Record::Partial(fragment) => (fragment, false),
            Record::Other => return Message::Other,
        };
        if joined.is_empty() {
            joined = Cow::Borrowed(fragment);
        } else {
            joined.to_mut().extend_from_slice(fragment);
        }
        if joined.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Message::Other;
        }
        if let Some(body) = body_bytes(&joined) {
            if body > MAX_BYTES {
                return Message::Other;
            }
            // A record that is cut short waits for its end even when the message is there: no harm, and simple.
            let end = body.saturating_add(MESSAGE_HEAD_BYTES);
            if whole && joined.len() >= end {
                return Message::Whole(slice(joined, MESSAGE_HEAD_BYTES, end));
            }
        }
        if !whole {
            return Message::Partial;
        }
    }
}

fn slice(bytes: Cow<'_, [u8]>, start: usize, end: usize) -> Cow<'_, [u8]> {
    match bytes {
        Cow::Borrowed(bytes) => Cow::Borrowed(bytes.get(start..end).unwrap_or_default()),
        Cow::Owned(bytes) => Cow::Owned(bytes.get(start..end).unwrap_or_default().to_vec()),
    }
}

/// Length of the body of the ClientHello that begins here; none when its head is not there.
fn body_bytes(message: &[u8]) -> Option<usize> {
    match *message {
        [CLIENT_HELLO, high, middle, low, ..] => usize::try_from(u32::from_be_bytes([0, high, middle, low])).ok(),
        _ => None,
    }
}

enum Record<'a> {
    Whole(&'a [u8]),
    /// The beginning of a record, perhaps nothing of it.
    Partial(&'a [u8]),
    /// Not a handshake record.
    Other,
}

fn record<'a>(bytes: &mut Reader<'a>) -> Record<'a> {
    // Field by field, so that a first byte that cannot be TLS is seen as soon as it is there.
    let Some(kind) = bytes.u8() else { return Record::Partial(&[]) };
    if kind != TLS_HANDSHAKE {
        return Record::Other;
    }
    let Some(major) = bytes.u8() else { return Record::Partial(&[]) };
    if major != 3 {
        return Record::Other;
    }
    let Some(minor) = bytes.u8() else { return Record::Partial(&[]) };
    if minor > 4 {
        return Record::Other;
    }
    let Some(length) = bytes.u16() else { return Record::Partial(&[]) };
    let length = usize::from(length);
    if length == 0 || length > MAX_RECORD_BYTES {
        return Record::Other;
    }
    match bytes.take(length) {
        Some(fragment) => Record::Whole(fragment),
        None => Record::Partial(bytes.0),
    }
}

/// The body of a ClientHello; none when it is malformed.
fn hello(body: &[u8]) -> Option<ClientHello> {
    let mut body = Reader(body);
    let [3, _minor] = body.take(2)? else { return None };
    let _random = body.take(32)?;
    let session = body.vector8()?;
    let suites = body.vector16()?;
    let compressions = body.vector8()?;
    if session.0.len() > 32 || suites.0.is_empty() || compressions.0.is_empty() {
        return None;
    }
    let mut hello = ClientHello::default();
    if body.0.is_empty() {
        return Some(hello);
    }
    let mut extensions = body.vector16()?;
    if !body.0.is_empty() {
        return None;
    }
    // An extension that is there twice is an error (RFC 8446 section 4.2): another reader might take the other one.
    let (mut names, mut protocols) = (None, None);
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let content = extensions.vector16()?;
        let slot = match kind {
            SERVER_NAME => &mut names,
            ALPN => &mut protocols,
            _ => continue,
        };
        if slot.replace(content).is_some() {
            return None;
        }
    }
    if let Some(names) = names {
        hello.sni = server_name(names)?;
    }
    if let Some(protocols) = protocols {
        hello.mesh = offers_mesh(protocols)?;
    }
    Some(hello)
}

/// The host name of a `ServerNameList` (RFC 6066 section 3); the outer none when it is malformed.
fn server_name(mut content: Reader<'_>) -> Option<Option<Box<str>>> {
    let mut list = content.vector16()?;
    let mut host = None;
    while !list.0.is_empty() {
        let kind = list.u8()?;
        let name = list.vector16()?;
        if kind == HOST_NAME && host.replace(name.0).is_some() {
            return None;
        }
    }
    Some(host.and_then(host_name))
}

/// A host name in lower case; none when it has characters no host name has, which must not reach logs or rules.
fn host_name(name: &[u8]) -> Option<Box<str>> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let fits = !name.is_empty() && name.len() <= 255 && name.iter().all(plain);
    let name = fits.then(|| std::str::from_utf8(name).ok()).flatten()?;
    Some(name.to_ascii_lowercase().into())
}

/// Whether a `ProtocolNameList` (RFC 7301 section 3.1) has one of the mesh's tokens; none when it is malformed.
fn offers_mesh(mut content: Reader<'_>) -> Option<bool> {
    let mut list = content.vector16()?;
    let mut mesh = false;
    while !list.0.is_empty() {
        let token = list.vector8()?.0;
        mesh |= [names::ALPN_MESH_H2, names::ALPN_MESH_H1, names::ALPN_MESH].contains(&token);
    }
    Some(mesh)
}

/// Bytes that are read from the front.
#[derive(Clone, Copy)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    /// Bytes with a length of one byte before them.
    fn vector8(&mut self) -> Option<Self> {
        let length = self.u8()?;
        self.take(length.into()).map(Self)
    }

    /// Bytes with a length of two bytes before them.
    fn vector16(&mut self) -> Option<Self> {
        let length = self.u16()?;
        self.take(length.into()).map(Self)
    }
}
