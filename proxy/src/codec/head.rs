//! Message heads of either version behind one face: what the rest of the proxy reads of a request or reply.

use std::borrow::Cow;

use super::fields::Role;
use super::h1::parse;
use super::h2::head as h2;
use crate::config::changes::{Changes, FieldChanges};

/// The head of a request.
#[derive(Debug)]
pub(crate) enum RequestHead {
    /// Received as HTTP/1.
    H1(parse::Request),
    /// Received as HTTP/2.
    H2(h2::Request),
}

impl RequestHead {
    /// Its bytes and fields.
    pub(super) const fn raw(&self) -> &parse::RawHead {
        match self {
            Self::H1(head) => &head.raw,
            Self::H2(head) => &head.raw,
        }
    }

    /// The method, as sent.
    pub(crate) fn method(&self) -> &str {
        match self {
            Self::H1(head) => head.raw.text(&head.method),
            Self::H2(head) => head.raw.text(&head.method),
        }
    }

    /// Path and query.
    pub(crate) fn path(&self) -> &str {
        match self {
            Self::H1(head) => head.raw.text(&head.path),
            Self::H2(head) => head.raw.text(&head.path),
        }
    }

    /// Host and port the request is for; empty when it names none (HTTP/1.0).
    pub(crate) fn authority(&self) -> &str {
        match self {
            Self::H1(head) => head.raw.text(&head.authority),
            Self::H2(head) => head.raw.text(&head.authority),
        }
    }

    /// The value of the first field called `name` (lower case) that is passed on.
    pub(crate) fn header(&self, name: &str) -> Option<&[u8]> {
        find(self.raw(), name)
    }

    /// The protocol version, for logs.
    pub(crate) const fn version(&self) -> &'static str {
        match self {
            Self::H1(head) if head.http10 => "HTTP/1.0",
            Self::H1(_) => "HTTP/1.1",
            Self::H2(_) => "HTTP/2",
        }
    }

    /// Whether the reply carries no body because of the method.
    pub(crate) fn is_head(&self) -> bool {
        self.method() == "HEAD"
    }

    /// Whether repeating the request has the effect of sending it once (RFC 9110 section 9.2.2).
    pub(crate) fn is_idempotent(&self) -> bool {
        matches!(self.method(), "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
    }

    /// Whether the request asks for nothing but an answer (RFC 9110 section 9.2.1).
    pub(crate) fn is_safe(&self) -> bool {
        matches!(self.method(), "GET" | "HEAD" | "OPTIONS" | "TRACE")
    }

    /// Whether its method gives content no meaning (RFC 9110 section 9.3): there is content only if some is sent.
    pub(crate) fn is_contentless(&self) -> bool {
        matches!(self.method(), "GET" | "HEAD" | "OPTIONS" | "TRACE" | "DELETE" | "CONNECT")
    }

    /// Whether it is a gRPC call.
    pub(crate) fn is_grpc(&self) -> bool {
        self.grpc().is_some()
    }

    /// The content type of a gRPC call, gRPC-Web among them.
    pub(crate) fn grpc(&self) -> Option<&str> {
        grpc(self.header("content-type")?)
    }

    /// Whether the request wants to switch to another protocol.
    pub(crate) const fn upgrade(&self) -> bool {
        match self {
            Self::H1(head) => head.upgrade,
            Self::H2(_) => false,
        }
    }
}

/// What could be read of a request whose head was refused: for the log, and for the terms of the refusal. A text that was
/// not there is empty, a long one is cut.
#[derive(Debug)]
pub(crate) struct Outline {
    /// The method.
    pub(crate) method: Box<str>,
    /// Path and query.
    pub(crate) path: Box<str>,
    /// Host and port.
    pub(crate) authority: Box<str>,
    /// The protocol version, for logs.
    pub(crate) version: &'static str,
    /// The content type of a gRPC call.
    pub(crate) grpc: Option<Box<str>>,
}

impl Outline {
    /// Bytes kept of each text: a line of the log holds them.
    const MOST: usize = 256;

    /// One of HTTP/1.1.
    pub(crate) fn new(method: &str, path: &str, authority: &str, grpc: Option<&str>) -> Self {
        let cut =
            |text: &str| -> Box<str> { text.get(..text.floor_char_boundary(Self::MOST)).unwrap_or_default().into() };
        let grpc = grpc.map(cut);
        Self { method: cut(method), path: cut(path), authority: cut(authority), version: "HTTP/1.1", grpc }
    }
}

/// The head of a reply.
#[derive(Debug)]
pub(crate) enum ResponseHead {
    /// Received as HTTP/1.
    H1(parse::Response),
    /// Received as HTTP/2.
    H2(h2::Response),
}

impl ResponseHead {
    /// Its bytes and fields.
    pub(super) const fn raw(&self) -> &parse::RawHead {
        match self {
            Self::H1(head) => &head.raw,
            Self::H2(head) => &head.raw,
        }
    }

    /// The status code.
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::H1(head) => head.status,
            Self::H2(head) => head.status,
        }
    }

    /// The value of the first field called `name` (lower case).
    pub(crate) fn header(&self, name: &str) -> Option<&[u8]> {
        find(self.raw(), name)
    }

    /// gRPC status of a reply without messages, which has it in its head.
    pub(crate) fn grpc_status(&self) -> Option<u8> {
        grpc_status(self.header("grpc-status")?)
    }
}

/// The content type of a gRPC call, if that is what `content_type` says.
pub(crate) fn grpc(content_type: &[u8]) -> Option<&str> {
    let is_grpc = content_type.starts_with(b"application/grpc");
    is_grpc.then(|| std::str::from_utf8(content_type).ok()).flatten()
}

/// The number in a `grpc-status` field.
pub(crate) fn grpc_status(value: &[u8]) -> Option<u8> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// The value of the first field called `name` (lower case). Looks at one after the other: for as many as a head has,
/// that is quicker than to hash a name that comes as text.
pub(crate) fn value<'h>(headers: &'h http::HeaderMap, name: &str) -> Option<&'h [u8]> {
    headers.iter().find(|(field, _)| field.as_str() == name).map(|(_, value)| value.as_bytes())
}

fn find<'h>(raw: &'h parse::RawHead, name: &str) -> Option<&'h [u8]> {
    raw.fields
        .iter()
        .find(|f| {
            !matches!(f.role, Role::Hop | Role::KeepAlive) && raw.slice(&f.name).eq_ignore_ascii_case(name.as_bytes())
        })
        .map(|f| raw.slice(&f.value))
}

/// Which fields a head loses on its way, and which it gains.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Edit<'e> {
    /// Value of [`fields::PEER_HEADER`] to set. What the sender claimed is dropped in any case.
    pub(crate) peer: Option<&'e str>,
    /// Keep the fields that proxies set on replies: the sender is a proxy of the mesh.
    pub(crate) keep_ours: bool,
    /// What the request's route changes; none by most.
    pub(crate) route: Option<&'e Rewritten<'e>>,
    /// The head goes back to the downstream: what the route says of replies counts.
    pub(crate) back: bool,
}

/// What a route makes of one request.
#[derive(Debug)]
pub(crate) struct Rewritten<'r> {
    /// What it changes.
    pub(crate) changes: &'r Changes,
    /// Path and query instead of the received ones.
    pub(crate) path: Option<Cow<'r, str>>,
}

impl<'e> Edit<'e> {
    /// The host that the route names instead of the received one.
    pub(crate) fn host(&self) -> Option<&'e str> {
        self.route?.changes.host.as_deref()
    }

    /// Path and query that the route names instead of the received ones.
    pub(crate) fn path(&self) -> Option<&'e str> {
        self.route?.path.as_deref()
    }

    /// What the route changes of the fields.
    pub(crate) fn fields(&self) -> Option<&'e FieldChanges> {
        self.route.map(|route| if self.back { &route.changes.reply } else { &route.changes.request })
    }

    /// Whether a field of this role is passed on unchanged. Framing and host are written by the encoders.
    pub(crate) const fn passes(&self, role: Role) -> bool {
        match role {
            Role::End | Role::Expect => true,
            Role::Ours => self.keep_ours,
            Role::Hop
            | Role::KeepAlive
            | Role::Connection
            | Role::Host
            | Role::ContentLength
            | Role::TransferEncoding
            | Role::Upgrade
            | Role::Te
            | Role::Identity => false,
        }
    }

    /// Whether a route drops the field of this name, in any case.
    pub(crate) fn drops(&self, name: &[u8]) -> bool {
        self.fields().is_some_and(|changes| changes.drops(name))
    }

    /// The fields that a route writes.
    pub(crate) fn written(&self) -> impl Iterator<Item = &'e (http::HeaderName, http::HeaderValue)> + use<'e> {
        self.fields().into_iter().flat_map(FieldChanges::written)
    }
}
