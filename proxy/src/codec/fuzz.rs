//! What the fuzz targets run of the codec: bytes in, a panic when a rule of message boundaries does not hold.
//!
//! Whatever a parser accepts is passed on, and must be read by the next proxy as it was read here.
#![expect(clippy::missing_panics_doc, reason = "a panic is how a target reports")]

use super::h1::decode::{DecodeError, Decoder, Step};
use super::h1::parse::{self, Framing, Limits, RawHead, Request};
use super::h1::write;
use super::h2::head::{Collector, Request as Http2};
use super::h2::hpack::decode::{Decoded, Sink};
use super::head::{Edit, RequestHead, ResponseHead};

const LIMITS: Limits = Limits { bytes: 65_535, fields: 100 };
/// Those of whoever reads what is passed on: room for the fields that are added.
const NEXT: Limits = Limits { bytes: 65_535, fields: crate::base::protocol::MAX_HEAD_FIELDS };
const EDIT: Edit<'_> = Edit { peer: Some("URI=spiffe://td/ns/a/sa/b"), keep_ours: false, back: false, route: None };

/// The head of a request: the beginning of one is not a whole one, and what is written reads as what was read.
pub fn request_head(bytes: &[u8]) {
    let Ok(Some((request, length))) = parse::request(bytes, LIMITS) else { return };
    let head = bytes.get(..length).unwrap_or_default();
    // Every end would make long heads slow; the ends of lines and the last bytes are where it may go wrong.
    let ends = (0..length).filter(|end| length.saturating_sub(*end) < 8 || head.get(*end) == Some(&b'\n'));
    for end in ends {
        let part = parse::request(head.get(..end).unwrap_or_default(), LIMITS);
        assert!(!matches!(part, Ok(Some(_))), "a whole head at {end} of {length} bytes");
    }
    let shape = shape(&request);
    let again = written(&RequestHead::H1(request), write::Framing::Same);
    assert_eq!(shape, again, "what was read, and what the next proxy reads");
}

/// The head of a reply, to HEAD and to anything else.
pub fn response_head(bytes: &[u8]) {
    for to_head in [false, true] {
        let Ok(Some((response, length))) = parse::response(bytes, to_head, LIMITS) else { continue };
        assert!(length <= bytes.len(), "no more than was there");
        let (status, framing, fields) = (response.status, response.framing, ends(&response.raw));
        let mut out = Vec::new();
        write::response(
            &ResponseHead::H1(response),
            Edit::default(),
            write::Framing::Same,
            write::Persistence::Implied,
            &mut out,
        );
        match parse::response(&out, to_head, NEXT) {
            Ok(Some((again, length))) => {
                assert_eq!(length, out.len(), "nothing is left behind the head");
                assert_eq!((again.status, again.framing), (status, framing));
                assert_eq!(ends(&again.raw), fields, "fields");
            }
            other => unread(&other, &out),
        }
    }
}

/// A chunked body: the same payload, end and verdict in whatever pieces it comes, and so when written again. The
/// first byte says how large the pieces are.
pub fn chunked_body(bytes: &[u8]) {
    let Some((piece, body)) = bytes.split_first() else { return };
    let whole = decode(body, body.len().max(1));
    assert_eq!(decode(body, usize::from(*piece).max(1)), whole, "in pieces, and at once");
    let Ok(Some(Body { payload, .. })) = whole else { return };
    let mut out = Vec::new();
    if !payload.is_empty() {
        write::chunk(&payload, &mut out);
    }
    write::last_chunk(None, &mut out);
    assert_eq!(decode(&out, 7), Ok(Some(Body { payload, left: 0 })), "what is written");
}

/// A request of HTTP/2, as text: method, target, then `name: value` by line. What passes the check is read by
/// an HTTP/1 upstream as the same request, however its body is framed.
pub fn http2_head(bytes: &[u8]) {
    let Some(request) = http2_request(bytes) else { return };
    let head = RequestHead::H2(request);
    let line = (head.method().to_owned(), head.path().to_owned(), head.authority().to_owned());
    let framings = [
        (write::Framing::None, Framing::None),
        (write::Framing::Length(3), Framing::Length(3)),
        (write::Framing::Chunked, Framing::Chunked),
    ];
    for (sent, framing) in framings {
        let again = written(&head, sent);
        assert_eq!((&again.line, again.framing, again.upgrade), (&line, framing, false), "the request upstream");
    }
}

fn http2_request(bytes: &[u8]) -> Option<Http2> {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let mut fields = Collector::new(LIMITS);
    let mut field = |name: &[u8], value: &[u8]| fields.field(Decoded::of(name, value));
    field(b":method", lines.next()?);
    field(b":scheme", b"http");
    // Origin form, or absolute: with an authority.
    let target = lines.next()?;
    match target.strip_prefix(b"http://") {
        None => field(b":path", target),
        Some(rest) => {
            let (authority, path) = rest.split_at(rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len()));
            field(b":authority", authority);
            field(b":path", if path.is_empty() { b"/" } else { path });
        }
    }
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = line.split_at_checked(colon)?;
        field(name, value.strip_prefix(b": ").or_else(|| value.strip_prefix(b":"))?);
    }
    fields.request().ok()
}

/// What a request is, apart from the fields that end at a proxy.
#[derive(Debug, PartialEq, Eq)]
struct Shape {
    /// Method, path, authority.
    line: (String, String, String),
    framing: Framing,
    upgrade: bool,
}

fn shape(request: &Request) -> Shape {
    let text = |range| request.raw.text(range).to_owned();
    let line = (text(&request.method), text(&request.path), text(&request.authority));
    Shape { line, framing: request.framing, upgrade: request.upgrade }
}

/// What the next proxy reads when `head` is passed on.
fn written(head: &RequestHead, framing: write::Framing) -> Shape {
    let mut out = Vec::new();
    write::request(head, EDIT, framing, &mut out);
    match parse::request(&out, NEXT) {
        Ok(Some((again, length))) => {
            assert_eq!(length, out.len(), "nothing is left behind the head");
            shape(&again)
        }
        // What was at the limits is over them with what is added here.
        Err(parse::HeadError::TooLarge | parse::HeadError::TargetTooLong) => match head {
            RequestHead::H1(request) => shape(request),
            RequestHead::H2(_) => unread(&"too large", &out),
        },
        other => unread(&other, &out),
    }
}

#[expect(clippy::panic, reason = "that is how a target reports")]
fn unread(read: &dyn std::fmt::Debug, out: &[u8]) -> ! {
    panic!("{read:?} came out of {:?}", String::from_utf8_lossy(out))
}

/// Names and values that are passed on.
fn ends(raw: &RawHead) -> Vec<(Vec<u8>, Vec<u8>)> {
    let passed = raw.fields.iter().filter(|field| EDIT.passes(field.role));
    passed.map(|field| (raw.slice(&field.name).to_vec(), raw.slice(&field.value).to_vec())).collect()
}

/// A body that came to its end.
#[derive(Debug, PartialEq, Eq)]
struct Body {
    payload: Vec<u8>,
    /// Bytes behind it.
    left: usize,
}

/// Decodes `input`, `piece` bytes at a time; none when it does not end.
fn decode(input: &[u8], piece: usize) -> Result<Option<Body>, DecodeError> {
    let mut decoder = Decoder::new(Framing::Chunked);
    let (mut held, mut payload, mut rest) = (Vec::new(), Vec::new(), input);
    loop {
        match decoder.step(&held)? {
            Step::Data { skip, data } => {
                held.drain(..skip);
                payload.extend(held.drain(..data));
            }
            Step::More { skip } => {
                held.drain(..skip);
                if rest.is_empty() {
                    return Ok(None);
                }
                let (next, later) = rest.split_at(piece.min(rest.len()));
                held.extend_from_slice(next);
                rest = later;
            }
            Step::End { skip, .. } => {
                held.drain(..skip);
                return Ok(Some(Body { payload, left: held.len().saturating_add(rest.len()) }));
            }
        }
    }
}
