//! Heads of HTTP/2 messages, decoded straight into what the rest of the proxy reads: one buffer, ranges and roles, as
//! HTTP/1's; held to the rules of RFC 9113 section 8 on the way (security.md DG-01 to DG-04).
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use std::ops::Range;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::hpack::decode::{Decoded, Sink};
use super::hpack::names::Kind;
use crate::codec::buffer;
use crate::codec::fields::{self, Role};
use crate::codec::h1::field_list::FieldList;
use crate::codec::h1::parse::{Field, Limits, RawHead};
use crate::codec::head::{self, Outline};

/// The head of a request.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) raw: RawHead,
    pub(crate) method: Range<u16>,
    /// Origin form or `*`.
    pub(crate) path: Range<u16>,
    /// Host and port, from `:authority` or else from `host`.
    pub(crate) authority: Range<u16>,
    /// Nobody on the way may remember one of these.
    pub(crate) secret: bool,
    /// What `content-length` says.
    pub(crate) length: Option<u64>,
}

/// The head of a reply.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) raw: RawHead,
    pub(crate) status: u16,
    /// What `content-length` says.
    pub(crate) length: Option<u64>,
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is malformed: the stream is reset with PROTOCOL_ERROR.
    Malformed,
    /// CONNECT, which this proxy does not serve.
    Connect,
    /// More fields than allowed.
    TooLarge,
}

/// A request that was refused.
#[derive(Debug)]
pub(crate) struct Refused {
    /// Why.
    pub(crate) cause: Refusal,
    /// What could be read of it.
    pub(crate) outline: Box<Outline>,
    /// Which field is wrong, if it is one.
    pub(crate) fault: Option<Box<str>>,
}

impl Request {
    /// Refuses a request whose head is good by itself.
    pub(crate) fn refused(&self, cause: Refusal) -> Refused {
        let (method, path) = (self.raw.text(&self.method), self.raw.text(&self.path));
        let grpc = self.raw.fields.iter().find_map(|f| grpc(self.raw.slice(&f.name), self.raw.slice(&f.value)));
        let outline = Outline::new(method, path, self.raw.text(&self.authority), grpc);
        Refused { cause, outline: Box::new(Outline { version: "HTTP/2", ..outline }), fault: None }
    }
}

/// The fields of one block, as they come out of it.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent observations of one head")]
pub(crate) struct Collector {
    limits: Limits,
    bytes: Vec<u8>,
    fields: FieldList,
    method: Option<Range<u16>>,
    scheme: Option<Range<u16>>,
    path: Option<Range<u16>>,
    authority: Option<Range<u16>>,
    status: Option<Range<u16>>,
    host: Option<Range<u16>>,
    length: Option<u64>,
    /// What the head takes as HTTP/1 writes it: one measure for both versions.
    size: usize,
    /// Pieces of a cookie beyond the first: all of them are one field (RFC 9113 section 8.2.3).
    crumbs: usize,
    /// A field that is no pseudo-header was seen.
    ordinary: bool,
    /// A cookie was.
    cookie: bool,
    pseudo: bool,
    /// A pseudo-header is not to be remembered by anybody.
    secret: bool,
    bad: bool,
    large: bool,
    /// The content type of a gRPC call, from a field beyond the limits.
    grpc: Option<Box<str>>,
    /// The first field that is wrong, or beyond the limits.
    fault: Option<Box<str>>,
}

/// Bytes of a name that are shown.
const SHOWN: usize = 64;

/// Least size that a piece of a cookie counts with, so that empty ones cost their sender more than they cost here.
const LEAST_CRUMB: usize = 16;

impl Collector {
    /// Collects what is within the limits, and beyond them only whether it is good.
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            bytes: buffer::take(),
            fields: FieldList::take(),
            method: None,
            scheme: None,
            path: None,
            authority: None,
            status: None,
            host: None,
            length: None,
            size: 0,
            crumbs: 0,
            ordinary: false,
            cookie: false,
            pseudo: false,
            secret: false,
            bad: false,
            large: false,
            grpc: None,
            fault: None,
        }
    }

    fn push(&mut self, part: &[u8]) -> Option<Range<u16>> {
        let start = u16::try_from(self.bytes.len()).ok()?;
        self.bytes.extend_from_slice(part);
        Some(start..u16::try_from(self.bytes.len()).ok()?)
    }

    fn slice(&self, range: Option<&Range<u16>>) -> &[u8] {
        range.and_then(|r| self.bytes.get(usize::from(r.start)..usize::from(r.end))).unwrap_or_default()
    }

    /// What is wrong with a field beside others of its head.
    fn fault(&mut self, value: &[u8], role: Role) -> bool {
        match role {
            // RFC 9113 section 8.2.2.
            Role::Te => !value.eq_ignore_ascii_case(b"trailers"),
            Role::ContentLength => {
                let text = std::str::from_utf8(value).unwrap_or_default();
                let number = text.parse::<u64>().ok().filter(|_| value.iter().all(u8::is_ascii_digit));
                number.is_none() || self.length.replace(number.unwrap_or_default()).is_some_and(|n| Some(n) != number)
            }
            Role::End
            | Role::Hop
            | Role::KeepAlive
            | Role::Connection
            | Role::Host
            | Role::TransferEncoding
            | Role::Upgrade
            | Role::Expect
            | Role::Identity
            | Role::Ours => false,
        }
    }

    /// The place of a pseudo-header.
    const fn place(&mut self, kind: Kind) -> Option<&mut Option<Range<u16>>> {
        Some(match kind {
            Kind::Method => &mut self.method,
            Kind::Scheme => &mut self.scheme,
            Kind::Path => &mut self.path,
            Kind::Authority => &mut self.authority,
            Kind::Status => &mut self.status,
            Kind::Field(_) | Kind::Bad => return None,
        })
    }

    /// The bytes, in memory of their size: a head may live as long as its stream.
    fn raw(&mut self) -> RawHead {
        RawHead { bytes: self.bytes.as_slice().into(), fields: std::mem::take(&mut self.fields) }
    }

    /// The head of a request, if that is what the block holds.
    pub(crate) fn request(mut self) -> Result<Request, Refused> {
        self.accept().map_err(|cause| {
            let text = |range: Option<&Range<u16>>| String::from_utf8_lossy(self.slice(range)).into_owned();
            let (method, path) = (text(self.method.as_ref()), text(self.path.as_ref()));
            let authority = text(self.authority.as_ref().or(self.host.as_ref()));
            let mut kept = self.fields.iter();
            let found = kept.find_map(|f| grpc(self.slice(Some(&f.name)), self.slice(Some(&f.value))));
            let grpc = found.or(self.grpc.as_deref());
            let outline = Outline { version: "HTTP/2", ..Outline::new(&method, &path, &authority, grpc) };
            Refused { cause, outline: Box::new(outline), fault: self.fault.take() }
        })
    }

    /// Which field is wrong, or beyond the limits.
    pub(crate) fn take_fault(&mut self) -> Option<Box<str>> {
        self.fault.take()
    }

    /// Fields, as HTTP/1 counts them.
    fn count(&self) -> usize {
        self.fields.len().saturating_sub(self.crumbs)
    }

    fn accept(&mut self) -> Result<Request, Refusal> {
        if self.bad || self.status.is_some() {
            return Err(Refusal::Malformed);
        }
        let count = self.count().saturating_add(usize::from(self.authority.is_some()));
        if self.large || count > self.limits.fields {
            return Err(Refusal::TooLarge);
        }
        let method = self.slice(self.method.as_ref());
        if method == b"CONNECT" {
            return Err(Refusal::Connect);
        }
        let (path, scheme) = (self.slice(self.path.as_ref()), self.slice(self.scheme.as_ref()));
        let path_ok = path.first() == Some(&b'/') || (path == b"*" && method == b"OPTIONS");
        let text = path.iter().all(|byte| (0x21..=0x7e).contains(byte) && *byte != b'#');
        let known = scheme.eq_ignore_ascii_case(b"http") || scheme.eq_ignore_ascii_case(b"https");
        let named = !method.is_empty() && method.iter().all(|byte| is_token(*byte));
        let (authority, host) = (self.slice(self.authority.as_ref()), self.slice(self.host.as_ref()));
        let asked = match (&self.authority, &self.host) {
            (Some(_), None) => fields::is_authority(authority),
            (None, Some(_)) => fields::is_authority(host),
            (Some(_), Some(_)) => fields::is_authority(authority) && authority.eq_ignore_ascii_case(host),
            (None, None) => false,
        };
        if !(path_ok && text && known && named && asked) {
            return Err(Refusal::Malformed);
        }
        let authority = self.authority.take().or_else(|| self.host.take()).unwrap_or_default();
        let (method, path) = (self.method.take().unwrap_or_default(), self.path.take().unwrap_or_default());
        Ok(Request { raw: self.raw(), method, path, authority, secret: self.secret, length: self.length })
    }

    /// The head of a reply, if that is what the block holds.
    pub(crate) fn response(&mut self) -> Option<Response> {
        let request = [&self.method, &self.scheme, &self.path, &self.authority].iter().any(|part| part.is_some());
        if self.bad || self.large || request || self.count() > self.limits.fields {
            return None;
        }
        let [a, b, c] = *self.slice(self.status.as_ref()) else { return None };
        let digits = [a, b, c];
        let status = std::str::from_utf8(&digits).ok()?.parse().ok().filter(|status| (100..=999).contains(status))?;
        // RFC 9113 section 8.6: there is no switch of protocols.
        (digits.iter().all(u8::is_ascii_digit) && status != 101).then_some(())?;
        Some(Response { raw: self.raw(), status, length: self.length })
    }

    /// The trailers, if that is what the block holds.
    pub(crate) fn trailers(&self) -> Option<HeaderMap> {
        if self.bad || self.large || self.pseudo || self.count() > self.limits.fields {
            return None;
        }
        let mut map = HeaderMap::with_capacity(self.fields.len());
        for field in self.fields.iter() {
            let name = HeaderName::from_lowercase(self.slice(Some(&field.name))).ok()?;
            let mut value = HeaderValue::from_bytes(self.slice(Some(&field.value))).ok()?;
            value.set_sensitive(field.secret);
            map.append(name, value);
        }
        Some(map)
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        buffer::give(std::mem::take(&mut self.bytes));
    }
}

impl Sink for Collector {
    fn field(&mut self, Decoded { name, value, kind, good, secret }: Decoded<'_>) {
        self.bad |= !good;
        let crumb = name == b"cookie" && std::mem::replace(&mut self.cookie, true);
        self.crumbs = self.crumbs.saturating_add(usize::from(crumb));
        let cost = if crumb {
            value.len().saturating_add("; ".len()).max(LEAST_CRUMB)
        } else {
            name.len().saturating_add(value.len()).saturating_add(": \r\n".len())
        };
        self.size = self.size.saturating_add(cost);
        if self.size > self.limits.bytes || self.count() > self.limits.fields {
            self.large = true;
            self.grpc = self.grpc.take().or_else(|| grpc(name, value).map(Into::into));
            self.blame(name);
            return;
        }
        self.keep(kind, name, value, secret);
        if self.bad {
            self.blame(name);
        }
    }
}

impl Collector {
    /// Notes the name of the first field that is wrong.
    fn blame(&mut self, name: &[u8]) {
        if self.fault.is_none() {
            let shown = name.get(..name.len().min(SHOWN)).unwrap_or_default();
            self.fault = Some(String::from_utf8_lossy(shown).into());
        }
    }

    /// Keeps a field that is within the limits.
    fn keep(&mut self, kind: Kind, name: &[u8], value: &[u8], secret: bool) {
        match kind {
            Kind::Bad => self.bad = true,
            Kind::Field(role) => {
                // As HTTP/1 reads it: there is one view of a value, not two.
                let value = fields::trim(value);
                self.ordinary = true;
                self.bad |= self.fault(value, role);
                let (Some(name), Some(value)) = (self.push(name), self.push(value)) else {
                    self.large = true;
                    return;
                };
                if role == Role::Host {
                    self.bad |= self.host.replace(value.clone()).is_some();
                }
                self.fields.push(Field { name, value, role, secret });
            }
            Kind::Method | Kind::Scheme | Kind::Path | Kind::Authority | Kind::Status => {
                // First, and once (RFC 9113 section 8.3).
                self.bad |= self.ordinary;
                self.pseudo = true;
                self.secret |= secret;
                let range = self.push(value);
                self.large |= range.is_none();
                if let Some(place) = self.place(kind) {
                    let before = place.is_some();
                    *place = range;
                    self.bad |= before;
                }
            }
        }
    }
}

/// The content type of a gRPC call, if this field says so.
fn grpc<'v>(name: &[u8], value: &'v [u8]) -> Option<&'v str> {
    head::grpc(value).filter(|_| name == b"content-type")
}

/// A character of a token (RFC 9110 section 5.6.2).
const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'_' | b'.' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'^' | b'`' | b'|' | b'~'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { bytes: 65_535, fields: 100 };

    fn collect(limits: Limits, fields: &[(&[u8], &[u8])]) -> Collector {
        let mut collector = Collector::new(limits);
        for (name, value) in fields {
            collector.field(Decoded::of(name, value));
        }
        collector
    }

    const GOOD: [(&[u8], &[u8]); 4] =
        [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/f"), (b":authority", b"a.test")];

    fn check(method: &[u8], path: &[u8], authority: &[u8], more: &[(&[u8], &[u8])]) -> Result<(), Refusal> {
        let mut all = vec![(&b":method"[..], method), (b":scheme", b"http"), (b":path", path)];
        if !authority.is_empty() {
            all.push((b":authority", authority));
        }
        all.extend_from_slice(more);
        collect(LIMITS, &all).accept().map(|_| ())
    }

    #[test]
    fn a_request() {
        let head = collect(LIMITS, &[&GOOD[..], &[(b"x-a", b"1"), (b"te", b"trailers")]].concat()).accept().unwrap();
        assert_eq!(head.raw.text(&head.method), "GET");
        assert_eq!(head.raw.text(&head.path), "/f");
        assert_eq!(head.raw.text(&head.authority), "a.test");
        assert_eq!(head.raw.fields.len(), 2);
    }

    #[test]
    fn values_are_read_as_in_http1() {
        let more: [(&[u8], &[u8]); 2] = [(b"x-user", b" \tadmin\t "), (b"content-length", b" 5 ")];
        let head = collect(LIMITS, &[&GOOD[..], &more].concat()).accept().unwrap();
        assert_eq!(head.raw.text(&head.raw.fields[0].value), "admin");
        assert_eq!(head.length, Some(5));
    }

    #[test]
    fn as_many_fields_as_in_http1() {
        let with = |count| collect(LIMITS, &[&GOOD[..], &vec![(&b"x"[..], &b"y"[..]); count]].concat()).accept();
        assert!(with(99).is_ok(), "the authority counts as well");
        assert_eq!(with(100).unwrap_err(), Refusal::TooLarge, "one name many times is many fields");
    }

    #[test]
    fn mend_08_the_pieces_of_a_cookie_are_one_field() {
        let pieces = |count| vec![(&b"cookie"[..], &b"a=1"[..]); count];
        let with = |count: usize, others: usize| {
            let others = vec![(&b"x"[..], &b"y"[..]); others];
            collect(LIMITS, &[&GOOD[..], &pieces(count), &others].concat()).accept().map(|head| head.raw.fields.len())
        };
        assert_eq!(with(120, 0), Ok(120));
        assert_eq!(with(1_000, 98), Ok(1_098), "the authority is a field too");
        assert_eq!(with(1_000, 99), Err(Refusal::TooLarge));
        assert_eq!(with(5_000, 0), Err(Refusal::TooLarge), "they are bounded all the same");
        let mut response = collect(LIMITS, &[&[(&b":status"[..], &b"200"[..])], &pieces(200)[..]].concat());
        assert!(response.response().is_some());
        assert!(collect(LIMITS, &pieces(200)).trailers().is_some());
    }

    #[test]
    fn mend_08_a_head_has_the_size_it_has_in_http1() {
        let many: Vec<(&[u8], &[u8])> = vec![(b"x-field", &[b'v'; 630]); 99];
        assert!(collect(LIMITS, &[&GOOD[..], &many].concat()).accept().is_ok(), "63,459 bytes in HTTP/1");
        let many: Vec<(&[u8], &[u8])> = vec![(b"x-field", &[b'v'; 651]); 99];
        assert_eq!(collect(LIMITS, &[&GOOD[..], &many].concat()).accept().unwrap_err(), Refusal::TooLarge);
    }

    #[test]
    fn mend_09_what_is_refused_is_known_as_far_as_it_was_read() {
        let large = vec![b'v'; 70_000];
        let fields: [(&[u8], &[u8]); 2] = [(b"x-large", &large), (b"content-type", b"application/grpc+proto")];
        let refused = collect(LIMITS, &[&GOOD[..], &fields].concat()).request().unwrap_err();
        assert_eq!((refused.cause, refused.fault.as_deref()), (Refusal::TooLarge, Some("x-large")));
        let outline = refused.outline;
        assert_eq!((&*outline.method, &*outline.path, &*outline.authority), ("GET", "/f", "a.test"));
        assert_eq!(outline.grpc.as_deref(), Some("application/grpc+proto"));
    }

    #[test]
    fn the_decoded_size_is_bounded() {
        let limits = Limits { bytes: 300, fields: 100 };
        assert!(collect(limits, &GOOD).accept().is_ok());
        let mut collector = collect(limits, &GOOD);
        for _ in 0..100_000 {
            collector.field(Decoded::of(b"x", &[b'a'; 50]));
        }
        assert!(collector.bytes.len() < 400);
        assert_eq!(collector.accept().unwrap_err(), Refusal::TooLarge);
    }

    #[test]
    fn authority_and_host_must_agree() {
        let with = |authority: &[u8], host: &[u8]| check(b"GET", b"/f", authority, &[(b"host", host)]);
        assert_eq!(with(b"a.test", b"a.test"), Ok(()));
        assert_eq!(with(b"a.test", b"A.TEST"), Ok(()));
        assert_eq!(with(b"a.test", b"b.test"), Err(Refusal::Malformed));
        assert_eq!(with(b"", b"a/x"), Err(Refusal::Malformed));
        assert_eq!(with(b"", b"a"), Ok(()));
        assert_eq!(check(b"GET", b"/f", b"", &[]), Err(Refusal::Malformed));
        assert_eq!(check(b"GET", b"/f", b"a", &[(b"host", b"a"), (b"host", b"a")]), Err(Refusal::Malformed));
        assert_eq!(check(b"GET", b"/f", b"u@a", &[]), Err(Refusal::Malformed));
    }

    #[test]
    fn targets_and_methods() {
        assert_eq!(check(b"GET", b"*", b"a", &[]), Err(Refusal::Malformed));
        assert_eq!(check(b"OPTIONS", b"*", b"a", &[]), Ok(()));
        assert_eq!(check(b"CONNECT", b"", b"a:80", &[]), Err(Refusal::Connect));
        for bad in [&b""[..], b"f", b"/a b", b"/a#b", b"http://a/"] {
            assert_eq!(check(b"GET", bad, b"a", &[]), Err(Refusal::Malformed));
        }
        for bad in [&b""[..], b"G T", b"GET?"] {
            assert_eq!(check(bad, b"/", b"a", &[]), Err(Refusal::Malformed));
        }
    }

    #[test]
    fn fields_that_are_refused() {
        let bad: [(&[u8], &[u8]); 10] = [
            (b"connection", b"close"),
            (b"te", b"gzip"),
            (b"X", b"1"),
            (b"x", b"a\r\nb"),
            (b":path", b"/"),
            (b":status", b"200"),
            (b":other", b"1"),
            (b"content-length", b"+1"),
            (b"content-length", b"1, 1"),
            (b"transfer-encoding", b"chunked"),
        ];
        for field in bad {
            assert_eq!(check(b"GET", b"/", b"a", &[field]), Err(Refusal::Malformed), "{field:?}");
        }
        let lengths: [(&[u8], &[u8]); 2] = [(b"content-length", b"1"), (b"content-length", b"2")];
        assert_eq!(check(b"GET", b"/", b"a", &lengths), Err(Refusal::Malformed));
        let late = [&[(&b"x"[..], &b"1"[..])], &GOOD[..]].concat();
        assert_eq!(collect(LIMITS, &late).accept().unwrap_err(), Refusal::Malformed);
    }

    #[test]
    fn replies_and_trailers() {
        let reply = |status: &[u8]| collect(LIMITS, &[(b":status", status), (b"x", b"1")]).response();
        assert_eq!(reply(b"200").unwrap().status, 200);
        for bad in [&b""[..], b"20", b"+20", b"099", b"101", b"2000"] {
            assert!(reply(bad).is_none(), "{bad:?}");
        }
        assert!(collect(LIMITS, &GOOD).response().is_none());
        assert_eq!(collect(LIMITS, &[(b"grpc-status", b"0")]).trailers().unwrap()["grpc-status"], "0");
        assert!(collect(LIMITS, &[(b":status", b"200")]).trailers().is_none());
    }
}
