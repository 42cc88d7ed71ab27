//! Message heads as received: lexed by `httparse`, then held to the rules it does not know.
//!
//! Anything ambiguous is refused: both framings at once, repeated or malformed lengths, transfer codings other than
//! one `chunked`, bare line feeds, folded lines, white space where none belongs (RFC 9112 sections 2.2, 3, 5, 6.3).
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use std::ops::Range;

use smallvec::SmallVec;

use super::field_list::FieldList;
use super::target;
use crate::base::protocol::MAX_HEAD_FIELDS;
use crate::codec::fields::{self, Role};

/// Limits on a head. Exceeding one is answered with 431 (414 for the target).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes of the whole head; at most [`MAX_HEAD_BYTES`](crate::base::protocol::MAX_HEAD_BYTES).
    pub(crate) bytes: usize,
    /// Fields; at most [`MAX_HEAD_FIELDS`].
    pub(crate) fields: usize,
}

/// Why a head was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadError {
    /// Larger than the limits.
    #[error("head larger than the limit")]
    TooLarge,
    /// The request target is larger than the limits.
    #[error("request target larger than the limit")]
    TargetTooLong,
    /// Not HTTP/1.
    #[error("malformed head: {0}")]
    Lexical(&'static str),
    /// Well formed but its framing is ambiguous.
    #[error("ambiguous framing: {0}")]
    Framing(&'static str),
    /// The target or host is not acceptable.
    #[error("bad target or host: {0}")]
    Target(&'static str),
    /// CONNECT, which this proxy does not serve.
    #[error("CONNECT is not supported")]
    Connect,
}

/// How the body that follows is delimited (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// No body.
    None,
    /// This many bytes.
    Length(u64),
    /// Chunks, then trailers.
    Chunked,
    /// Until the connection ends (replies only).
    UntilClose,
}

/// One field of a head, as ranges of its bytes.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    pub(crate) name: Range<u16>,
    pub(crate) value: Range<u16>,
    pub(crate) role: Role,
    /// Nobody on its way may remember it (RFC 7541 section 6.2.3). HTTP/1 has no way to say so.
    pub(crate) secret: bool,
}

/// The first line and fields of a message, with its bytes; independent of the connection's buffer.
#[derive(Debug)]
pub(crate) struct RawHead {
    pub(crate) bytes: Vec<u8>,
    pub(crate) fields: FieldList,
}

/// A request's head.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) raw: RawHead,
    pub(crate) method: Range<u16>,
    /// Origin form or `*`.
    pub(crate) path: Range<u16>,
    /// Host and port, from an absolute target or else from `Host`; empty for HTTP/1.0 without one.
    pub(crate) authority: Range<u16>,
    pub(crate) framing: Framing,
    pub(crate) http10: bool,
    /// The sender allows another request on the connection.
    pub(crate) keep_alive: bool,
    /// A switch to another protocol is asked for (h2c is not counted: it is dropped). The request may have content, which
    /// ends before the other protocol begins (RFC 9110 section 7.8).
    pub(crate) upgrade: bool,
}

/// A reply's head.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) raw: RawHead,
    pub(crate) status: u16,
    pub(crate) reason: Range<u16>,
    pub(crate) framing: Framing,
    pub(crate) keep_alive: bool,
    /// Seconds for which the sender keeps the connection when it is idle, if it says so (`Keep-Alive: timeout=5`).
    pub(crate) idle_secs: Option<u32>,
    /// `Upgrade` is passed on: the protocols are switched (101), or the client is told to ask for that (426).
    pub(crate) upgrade: bool,
}

impl Response {
    /// Whether the sender switches to another protocol.
    pub(crate) const fn switches(&self) -> bool {
        self.upgrade && self.status == 101
    }
}

impl RawHead {
    /// The bytes of a range.
    pub(crate) fn slice(&self, range: &Range<u16>) -> &[u8] {
        self.bytes.get(usize::from(range.start)..usize::from(range.end)).unwrap_or_default()
    }

    /// The text of a range that was checked to be ASCII.
    pub(crate) fn text(&self, range: &Range<u16>) -> &str {
        std::str::from_utf8(self.slice(range)).unwrap_or_default()
    }
}

impl Drop for RawHead {
    fn drop(&mut self) {
        crate::codec::buffer::give(std::mem::take(&mut self.bytes));
    }
}

/// Parses the head of a request at the start of `input`, after at most two empty lines.
/// `Ok(None)`: more bytes are needed. Returns the head and the number of bytes it took.
pub(crate) fn request(input: &[u8], limits: Limits) -> Result<Option<(Request, usize)>, HeadError> {
    let skipped = leading_empty_lines(input);
    let input = input.get(skipped..).unwrap_or_default();
    let mut slots = [const { std::mem::MaybeUninit::uninit() }; MAX_HEAD_FIELDS];
    let mut lexed = httparse::Request::new(&mut []);
    let length = match lexed.parse_with_uninit_headers(input, &mut slots) {
        Ok(httparse::Status::Complete(length)) if length <= limits.bytes => length,
        Ok(httparse::Status::Partial) if input.len() < limits.bytes => return early(input).map(|()| None),
        Ok(_) => return Err(too_large(input, limits)),
        Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooLarge),
        Err(error) => return Err(lexical(error)),
    };
    let head = input.get(..length).unwrap_or_default();
    let (Some(method), Some(path), Some(version)) = (lexed.method, lexed.path, lexed.version) else {
        return Err(HeadError::Lexical("request line"));
    };
    if lexed.headers.len() > limits.fields {
        return Err(HeadError::TooLarge);
    }
    let http10 = version == 0;
    let at = Position(head);
    target::check_line(head, method, path, http10)?;
    let mut fields = FieldList::take();
    collect(at, lexed.headers, true, &mut fields)?;
    let facts = Facts::of(head, &mut fields)?;
    let method = at.range(method.as_bytes())?;
    let (path, authority) = target::resolve(at, at.slice(&method), path, http10, &facts)?;
    let (mut bytes, mut path) = (keep(head), path);
    let given = at.slice(&path);
    if given.first().is_none_or(|first| *first == b'?') {
        // An absolute target without a path (RFC 9112 sections 3.2.1 and 3.2.4): the head gains the byte it lacks.
        let start = u16::try_from(bytes.len()).map_err(|_| HeadError::TargetTooLong)?;
        let whole = given.is_empty() && at.slice(&method) == b"OPTIONS";
        bytes.push(if whole { b'*' } else { b'/' });
        bytes.extend_from_slice(given);
        path = start..u16::try_from(bytes.len()).map_err(|_| HeadError::TargetTooLong)?;
    }
    let framing = facts.request_framing(http10)?;
    let keep_alive = if http10 { facts.keep_alive_token && !facts.close } else { !facts.close };
    let upgrade = facts.upgrade_token && facts.upgrade && !http10;
    facts.strip_upgrade(&mut fields, upgrade);
    let raw = RawHead { bytes, fields };
    let request = Request { raw, method, path, authority, framing, http10, keep_alive, upgrade };
    Ok(Some((request, skipped.saturating_add(length))))
}

/// Parses the head of a reply to a request with method HEAD (`to_head`) or another one.
pub(crate) fn response(input: &[u8], to_head: bool, limits: Limits) -> Result<Option<(Response, usize)>, HeadError> {
    let mut slots = [const { std::mem::MaybeUninit::uninit() }; MAX_HEAD_FIELDS];
    let mut lexed = httparse::Response::new(&mut []);
    let length = match response_rules().parse_response_with_uninit_headers(&mut lexed, input, &mut slots) {
        Ok(httparse::Status::Complete(length)) if length <= limits.bytes => length,
        Ok(httparse::Status::Partial) if input.len() < limits.bytes => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooLarge),
        Err(error) => return Err(lexical(error)),
    };
    let head = input.get(..length).unwrap_or_default();
    let (Some(status), Some(version)) = (lexed.code, lexed.version) else {
        return Err(HeadError::Lexical("status line"));
    };
    if lexed.headers.len() > limits.fields {
        return Err(HeadError::TooLarge);
    }
    if !(100..=999).contains(&status) {
        return Err(HeadError::Lexical("status code"));
    }
    let at = Position(head);
    let reason = at.range(lexed.reason.unwrap_or_default().as_bytes()).unwrap_or(0..0);
    let mut fields = FieldList::take();
    collect(at, lexed.headers, false, &mut fields)?;
    let facts = Facts::of(head, &mut fields)?;
    let bodiless = to_head || matches!(status, 100..=199 | 204 | 304);
    let http10 = version == 0;
    let framing = facts.response_framing(bodiless, http10)?;
    let keep_alive =
        (if http10 { facts.keep_alive_token && !facts.close } else { !facts.close }) && framing != Framing::UntilClose;
    let upgrade = matches!(status, 101 | 426) && facts.upgrade;
    facts.strip_upgrade(&mut fields, upgrade);
    let raw = RawHead { bytes: keep(head), fields };
    Ok(Some((Response { raw, status, reason, framing, keep_alive, idle_secs: facts.idle_secs, upgrade }, length)))
}

/// A proxy removes white space between a field's name and the colon from a response (RFC 9112 section 5.1).
fn response_rules() -> httparse::ParserConfig {
    let mut rules = httparse::ParserConfig::default();
    rules.allow_spaces_after_header_name_in_responses(true);
    rules
}

/// Up to two empty lines before a request line are forgiven (RFC 9112 section 2.2).
fn leading_empty_lines(input: &[u8]) -> usize {
    match input {
        [b'\r', b'\n', b'\r', b'\n', ..] => 4,
        [b'\r', b'\n', ..] => 2,
        _ => 0,
    }
}

/// Refuses an incomplete head that can no longer become a good one, so that its sender need not be waited for.
fn early(input: &[u8]) -> Result<(), HeadError> {
    let mut previous = 0;
    for byte in input {
        if *byte == b'\n' && previous != b'\r' {
            return Err(HeadError::Lexical("line feed without carriage return"));
        }
        previous = *byte;
    }
    Ok(())
}

fn too_large(input: &[u8], limits: Limits) -> HeadError {
    let line_ends = input.iter().take(limits.bytes).any(|b| *b == b'\n');
    if line_ends { HeadError::TooLarge } else { HeadError::TargetTooLong }
}

fn lexical(error: httparse::Error) -> HeadError {
    HeadError::Lexical(match error {
        httparse::Error::HeaderName => "field name",
        httparse::Error::HeaderValue => "field value",
        httparse::Error::NewLine => "line end",
        httparse::Error::Status => "status code",
        httparse::Error::Token => "method or target",
        httparse::Error::Version => "version",
        httparse::Error::TooManyHeaders => "too many fields",
    })
}

/// The head's own copy of its bytes.
fn keep(head: &[u8]) -> Vec<u8> {
    let mut bytes = if head.len() <= crate::codec::buffer::SIZE { crate::codec::buffer::take() } else { Vec::new() };
    bytes.extend_from_slice(head);
    bytes
}

/// Offsets of slices within the head they were cut from.
#[derive(Clone, Copy)]
pub(super) struct Position<'h>(&'h [u8]);

impl<'h> Position<'h> {
    /// The bytes of a range of the head.
    pub(super) fn slice(self, range: &Range<u16>) -> &'h [u8] {
        self.0.get(usize::from(range.start)..usize::from(range.end)).unwrap_or_default()
    }

    /// The range of `part`, which is a slice of the head.
    pub(super) fn range(self, part: &[u8]) -> Result<Range<u16>, HeadError> {
        let start = (part.as_ptr() as usize).wrapping_sub(self.0.as_ptr() as usize);
        let end = start.wrapping_add(part.len());
        if part.is_empty() || end > self.0.len() {
            return if part.is_empty() { Ok(0..0) } else { Err(HeadError::Lexical("range")) };
        }
        match (u16::try_from(start), u16::try_from(end)) {
            (Ok(start), Ok(end)) => Ok(start..end),
            _ => Err(HeadError::TooLarge),
        }
    }
}

/// Turns lexed fields into ranges; for requests every line must end in CRLF right after its value, which refuses
/// folded lines and bare line feeds.
fn collect(
    at: Position<'_>,
    lexed: &[httparse::Header<'_>],
    strict_lines: bool,
    fields: &mut Vec<Field>,
) -> Result<(), HeadError> {
    for field in lexed {
        let name = at.range(field.name.as_bytes())?;
        let value = at.range(fields::trim(field.value))?;
        if strict_lines {
            let after = usize::from(if field.value.is_empty() { name.end } else { at.range(field.value)?.end });
            let rest = at.0.get(after..).unwrap_or_default();
            let rest = if field.value.is_empty() { rest.strip_prefix(b":").unwrap_or(rest) } else { rest };
            if !skip_blanks(rest).starts_with(b"\r\n") {
                return Err(HeadError::Lexical("line end"));
            }
        }
        if field.value.contains(&b'\n') || field.value.contains(&b'\r') {
            return Err(HeadError::Lexical("folded line"));
        }
        fields.push(Field { role: fields::role(field.name.as_bytes()), name, value, secret: false });
    }
    if strict_lines && !at.0.ends_with(b"\r\n\r\n") {
        return Err(HeadError::Lexical("line end"));
    }
    Ok(())
}

fn skip_blanks(mut rest: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', tail @ ..] = rest {
        rest = tail;
    }
    rest
}

/// What the fields of one head say together.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent observations, each said by its own field")]
pub(super) struct Facts {
    pub(super) hosts: u32,
    pub(super) host: Range<u16>,
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive_token: bool,
    upgrade_token: bool,
    upgrade: bool,
    h2c: bool,
    idle_secs: Option<u32>,
}

impl Facts {
    /// Reads the fields, and marks those that `Connection` nominates as hop-by-hop.
    fn of(head: &[u8], fields: &mut [Field]) -> Result<Self, HeadError> {
        let mut facts = Self::default();
        let mut nominated: SmallVec<[&[u8]; 4]> = SmallVec::new();
        for field in fields.iter() {
            let value = head.get(usize::from(field.value.start)..usize::from(field.value.end)).unwrap_or_default();
            match field.role {
                Role::Connection => facts.connection(value, &mut nominated)?,
                Role::Host => {
                    facts.hosts = facts.hosts.saturating_add(1);
                    facts.host = field.value.clone();
                }
                Role::ContentLength => facts.content_length(value)?,
                Role::TransferEncoding => {
                    if facts.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                        return Err(HeadError::Framing("transfer-encoding other than one chunked"));
                    }
                    facts.chunked = true;
                }
                Role::Upgrade => {
                    facts.upgrade |= fields::list(value).next().is_some();
                    facts.h2c |= fields::list(value).any(|p| p.eq_ignore_ascii_case(b"h2c"));
                }
                Role::KeepAlive => facts.idle_secs = facts.idle_secs.or_else(|| idle_timeout(value)),
                Role::End | Role::Expect | Role::Hop | Role::Te | Role::Identity | Role::Ours => {}
            }
        }
        facts.upgrade &= !facts.h2c;
        for name in nominated {
            for field in fields.iter_mut() {
                let own = head.get(usize::from(field.name.start)..usize::from(field.name.end)).unwrap_or_default();
                if own.eq_ignore_ascii_case(name) {
                    field.role = Role::Hop;
                }
            }
        }
        Ok(facts)
    }

    fn connection<'v>(&mut self, value: &'v [u8], nominated: &mut SmallVec<[&'v [u8]; 4]>) -> Result<(), HeadError> {
        for token in fields::list(value) {
            if token.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if token.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive_token = true;
            } else if token.eq_ignore_ascii_case(b"upgrade") {
                self.upgrade_token = true;
            } else if matches!(fields::role(token), Role::Host | Role::ContentLength | Role::TransferEncoding) {
                return Err(HeadError::Framing("connection nominates a framing field"));
            } else if fields::role(token) != Role::Te {
                // More names than a head can have fields: each is compared with every field.
                if nominated.len() >= MAX_HEAD_FIELDS {
                    return Err(HeadError::TooLarge);
                }
                nominated.push(token);
            }
        }
        Ok(())
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), HeadError> {
        const BAD: HeadError = HeadError::Framing("content-length");
        if self.length.is_some() || value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
            return Err(BAD);
        }
        let text = std::str::from_utf8(value).map_err(|_| BAD)?;
        self.length = Some(text.parse().map_err(|_| BAD)?);
        Ok(())
    }

    fn request_framing(&self, http10: bool) -> Result<Framing, HeadError> {
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(HeadError::Framing("both transfer-encoding and content-length")),
            (true, None) if http10 => Err(HeadError::Framing("transfer-encoding in HTTP/1.0")),
            (true, None) => Ok(Framing::Chunked),
            (false, Some(0) | None) => Ok(Framing::None),
            (false, Some(length)) => Ok(Framing::Length(length)),
        }
    }

    fn response_framing(&self, bodiless: bool, http10: bool) -> Result<Framing, HeadError> {
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(HeadError::Framing("both transfer-encoding and content-length")),
            (true, None) if http10 => Err(HeadError::Framing("transfer-encoding in HTTP/1.0")),
            _ if bodiless => Ok(Framing::None),
            (true, None) => Ok(Framing::Chunked),
            (false, Some(length)) => Ok(Framing::Length(length)),
            (false, None) => Ok(Framing::UntilClose),
        }
    }

    /// An `Upgrade` that is not honoured is hop-by-hop like any other.
    fn strip_upgrade(&self, fields: &mut [Field], honoured: bool) {
        if !(self.upgrade && honoured) {
            for field in fields.iter_mut().filter(|f| f.role == Role::Upgrade) {
                field.role = Role::Hop;
            }
        }
    }
}

/// The seconds of `timeout=N` in a `Keep-Alive` field.
fn idle_timeout(value: &[u8]) -> Option<u32> {
    fields::list(value).find_map(|parameter| {
        let (name, seconds) = parameter.split_at(parameter.iter().position(|b| *b == b'=')?);
        let seconds = std::str::from_utf8(fields::trim(seconds.get(1..)?)).ok()?;
        let named = fields::trim(name).eq_ignore_ascii_case(b"timeout");
        named.then(|| seconds.parse().ok()).flatten()
    })
}
