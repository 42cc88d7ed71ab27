//! Body framing as received: how many of the bytes at hand are payload, and where the body ends.
//!
//! Pure: bytes in, ranges out. Chunk extensions are dropped; trailers are kept and bounded.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)
)]

use http::{HeaderMap, HeaderName, HeaderValue};

use super::parse::Framing;
use crate::base::protocol::{MAX_HEAD_BYTES, MAX_HEAD_FIELDS};

/// Longest line of a chunk size with its extension.
const MAX_CHUNK_LINE: usize = 256;
/// Largest trailer section.
const MAX_TRAILERS: usize = MAX_HEAD_BYTES;
/// Most trailer fields.
const MAX_TRAILER_FIELDS: usize = MAX_HEAD_FIELDS;

/// Why a body was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed chunked body: {0}")]
pub(crate) struct DecodeError(&'static str);

/// Follows one body.
#[derive(Debug)]
pub(crate) struct Decoder {
    state: State,
    /// It is a response's: white space before the colon of a trailer is removed (RFC 9112 section 5.1).
    of_response: bool,
}

#[derive(Debug)]
enum State {
    Length(u64),
    UntilClose,
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    /// Bytes of the section that were searched for its end.
    Trailers(usize),
    Done,
}

/// What the bytes at hand are. `take` of them are then done with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The first `skip` are framing, the next `data` payload.
    Data {
        /// Bytes of framing.
        skip: usize,
        /// Bytes of payload that follow.
        data: usize,
    },
    /// More bytes are needed; the first `skip` are done with.
    More {
        /// Bytes of framing.
        skip: usize,
    },
    /// The body is complete.
    End {
        /// Bytes of framing.
        skip: usize,
        /// Trailers, if any came.
        trailers: Option<Box<HeaderMap>>,
    },
}

impl Decoder {
    /// A decoder for a request's body framed so.
    pub(crate) const fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(n) => State::Length(n),
            Framing::Chunked => State::ChunkSize,
            Framing::UntilClose => State::UntilClose,
        };
        Self { state, of_response: false }
    }

    /// A decoder for a response's.
    pub(crate) const fn of_response(framing: Framing) -> Self {
        Self { of_response: true, ..Self::new(framing) }
    }

    /// Whether the whole body was seen.
    pub(crate) const fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Whether the end of the stream is a proper end of the body.
    pub(crate) const fn may_end_by_close(&self) -> bool {
        matches!(self.state, State::UntilClose | State::Done)
    }

    /// Looks at the bytes at hand.
    pub(crate) fn step(&mut self, input: &[u8]) -> Result<Step, DecodeError> {
        let mut skip = 0usize;
        loop {
            let rest = input.get(skip..).unwrap_or_default();
            match &mut self.state {
                State::Done => return Ok(Step::End { skip, trailers: None }),
                State::UntilClose if rest.is_empty() => return Ok(Step::More { skip }),
                State::UntilClose => return Ok(Step::Data { skip, data: rest.len() }),
                State::Length(left) | State::ChunkData(left) if rest.is_empty() && *left > 0 => {
                    return Ok(Step::More { skip });
                }
                State::Length(left) => {
                    let data = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    *left = left.saturating_sub(data as u64);
                    if *left == 0 {
                        self.state = State::Done;
                    }
                    return Ok(Step::Data { skip, data });
                }
                State::ChunkData(left) => {
                    let data = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    *left = left.saturating_sub(data as u64);
                    if *left == 0 {
                        self.state = State::ChunkEnd;
                    }
                    return Ok(Step::Data { skip, data });
                }
                State::ChunkEnd => match rest {
                    [b'\r', b'\n', ..] => {
                        skip = skip.saturating_add(2);
                        self.state = State::ChunkSize;
                    }
                    [] | [b'\r'] => return Ok(Step::More { skip }),
                    _ => return Err(DecodeError("no line end after a chunk")),
                },
                State::ChunkSize => match line(rest)? {
                    None => return Ok(Step::More { skip }),
                    Some((text, taken)) => {
                        let size = chunk_size(text)?;
                        skip = skip.saturating_add(taken);
                        self.state = if size == 0 { State::Trailers(0) } else { State::ChunkData(size) };
                    }
                },
                State::Trailers(searched) => {
                    // A section that comes in small pieces is read once, when its end is there.
                    let section = if section_ends(rest, searched) { trailers(rest, self.of_response)? } else { None };
                    let Some((map, taken)) = section else { return Ok(Step::More { skip }) };
                    self.state = State::Done;
                    return Ok(Step::End { skip: skip.saturating_add(taken), trailers: map });
                }
            }
        }
    }
}

/// A line that ends in CRLF: its text, and its length with the end.
fn line(input: &[u8]) -> Result<Option<(&[u8], usize)>, DecodeError> {
    match input.iter().take(MAX_CHUNK_LINE).position(|b| *b == b'\n') {
        Some(end) => match input.get(..end) {
            Some([text @ .., b'\r']) => Ok(Some((text, end.saturating_add(1)))),
            _ => Err(DecodeError("line feed without carriage return")),
        },
        None if input.len() >= MAX_CHUNK_LINE => Err(DecodeError("chunk size line too long")),
        None => Ok(None),
    }
}

fn chunk_size(text: &[u8]) -> Result<u64, DecodeError> {
    let (digits, extension) = text.split_at(text.iter().position(|b| *b == b';').unwrap_or(text.len()));
    // "Bad" white space before an extension is removed (RFC 9112 section 7.1.1); without an extension there is none.
    let digits = if extension.is_empty() { digits } else { trim_end(digits) };
    if digits.is_empty() || digits.len() > 15 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(DecodeError("chunk size"));
    }
    if extension.iter().any(|b| *b < 0x20 && *b != b'\t' || *b == 0x7f) {
        return Err(DecodeError("chunk extension"));
    }
    let text = std::str::from_utf8(digits).map_err(|_| DecodeError("chunk size"))?;
    u64::from_str_radix(text, 16).map_err(|_| DecodeError("chunk size"))
}

fn trim_end(mut text: &[u8]) -> &[u8] {
    while let [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

type Trailers = Option<Box<HeaderMap>>;

fn trailers(input: &[u8], of_response: bool) -> Result<Option<(Trailers, usize)>, DecodeError> {
    if input.starts_with(b"\r\n") {
        return Ok(Some((None, 2)));
    }
    let mut slots = [httparse::EMPTY_HEADER; MAX_TRAILER_FIELDS];
    match httparse::parse_headers(input, &mut slots) {
        Ok(httparse::Status::Complete((taken, _))) if taken > MAX_TRAILERS => Err(DecodeError("trailers too large")),
        Ok(httparse::Status::Complete((taken, fields))) => {
            strict_lines(input.get(..taken).unwrap_or_default())?;
            let mut map = HeaderMap::with_capacity(fields.len());
            for field in fields {
                let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| DecodeError("trailer name"))?;
                let value = HeaderValue::from_bytes(field.value).map_err(|_| DecodeError("trailer value"))?;
                map.append(name, value);
            }
            Ok(Some((Some(Box::new(map)), taken)))
        }
        Ok(httparse::Status::Partial) if input.len() < MAX_TRAILERS => Ok(None),
        Ok(httparse::Status::Partial) => Err(DecodeError("trailers too large")),
        Err(httparse::Error::HeaderName) if of_response => match without_blanks(input) {
            Some((section, removed)) => {
                let read = trailers(&section, false)?;
                Ok(read.map(|(map, taken)| (map, taken.saturating_add(removed))))
            }
            None => Err(DecodeError("trailers")),
        },
        Err(_) => Err(DecodeError("trailers")),
    }
}

/// A section without white space between names and colons, and how much that was; none where there is none.
fn without_blanks(input: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut section = Vec::with_capacity(input.len());
    let mut lines = input.split_inclusive(|b| *b == b'\n');
    for line in lines.by_ref().take_while(|line| *line != b"\r\n") {
        let (name, value) = line.split_at(line.iter().position(|b| *b == b':').unwrap_or(line.len()));
        // A line that begins with a blank continues the one before it: that stays, and is refused.
        section.extend_from_slice(if name.first().is_some_and(|b| *b == b' ' || *b == b'\t') {
            name
        } else {
            trim_end(name)
        });
        section.extend_from_slice(value);
    }
    section.extend_from_slice(b"\r\n");
    let whole = input.len().saturating_sub(lines.map(<[u8]>::len).sum());
    let removed = whole.checked_sub(section.len())?;
    (removed > 0).then_some((section, removed))
}

/// Whether a section's end may be in `section`, whose first `searched` bytes were looked at before: an empty line, or more
/// than is allowed. Each byte is looked at once.
fn section_ends(section: &[u8], searched: &mut usize) -> bool {
    let from = searched.saturating_sub(2);
    *searched = section.len();
    let fresh = section.get(from..).unwrap_or_default();
    let empty_line = |rest: &[u8]| matches!(rest, [b'\n', b'\n', ..] | [b'\n', b'\r', b'\n', ..]);
    matches!(section, [b'\n', ..] | [b'\r', b'\n', ..])
        || section.len() >= MAX_TRAILERS
        || (0..fresh.len()).any(|at| fresh.get(at..).is_some_and(empty_line))
}

/// The lexer forgives bare line feeds; a section of trailers ends where everybody else thinks it does.
fn strict_lines(section: &[u8]) -> Result<(), DecodeError> {
    let bare = section.split_inclusive(|b| *b == b'\n').any(|line| !line.ends_with(b"\r\n"));
    if bare { Err(DecodeError("line feed without carriage return")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes `input` given `piece` bytes at a time: payload, leftover, trailers.
    fn decode(input: &[u8], piece: usize) -> Result<(Vec<u8>, Vec<u8>, Trailers), DecodeError> {
        let mut decoder = Decoder::new(Framing::Chunked);
        let (mut held, mut payload, mut fed) = (Vec::new(), Vec::new(), 0);
        loop {
            match decoder.step(&held)? {
                Step::Data { skip, data } => {
                    payload.extend_from_slice(&held[skip..skip + data]);
                    held.drain(..skip + data);
                }
                Step::More { skip } => {
                    held.drain(..skip);
                    assert!(fed < input.len(), "the body never ended");
                    let next = (fed + piece).min(input.len());
                    held.extend_from_slice(&input[fed..next]);
                    fed = next;
                }
                Step::End { skip, trailers } => {
                    held.drain(..skip);
                    held.extend_from_slice(&input[fed..]);
                    return Ok((payload, held, trailers));
                }
            }
        }
    }

    #[test]
    fn chunks_in_any_pieces() {
        let body = b"5\r\nhello\r\n6;x=\"y\"\r\n world\r\n0\r\nX-Sum: 11\r\n\r\nNEXT";
        for piece in 1..body.len() {
            let (payload, left, trailers) = decode(body, piece).unwrap();
            assert_eq!(payload, b"hello world");
            assert_eq!(left, b"NEXT");
            assert_eq!(trailers.unwrap().get("x-sum").unwrap(), "11");
        }
    }

    /// `mend_07`: RFC 9112 section 7.1.1.
    #[test]
    fn mend_07_bad_white_space_before_an_extension_is_removed() {
        for body in [&b"5 ;ext\r\nhello\r\n0\r\n\r\n"[..], b"5 \t; a = b\r\nhello\r\n0 ;x\r\n\r\n"] {
            for piece in 1..body.len() {
                assert_eq!(decode(body, piece).unwrap().0, b"hello");
            }
        }
    }

    #[test]
    fn mend_07_white_space_before_the_colon_of_a_trailer_is_removed_from_a_response() {
        let body = b"0\r\nX-Sum : 11\r\nX-Other\t: a:b \r\n\r\nHTTP/1.1 200 OK\r\nX : y\r\n\r\n";
        let Ok(Step::End { skip, trailers: Some(trailers) }) = Decoder::of_response(Framing::Chunked).step(body) else {
            panic!("no trailers");
        };
        assert!(body[skip..].starts_with(b"HTTP/1.1"), "{skip}");
        assert_eq!(trailers["x-sum"], "11");
        assert_eq!(trailers["x-other"], "a:b");
        assert!(Decoder::new(Framing::Chunked).step(body).is_err(), "a request's are refused");
        for bad in [&b"0\r\n: x\r\n\r\n"[..], b"0\r\nA b : x\r\n\r\n", b"0\r\nX: y\r\n : z\r\n\r\n"] {
            assert!(Decoder::of_response(Framing::Chunked).step(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn mend_13_trailers_in_single_bytes_are_read_once() {
        let mut body = b"0\r\n".to_vec();
        for n in 0..60 {
            body.extend_from_slice(format!("X-{n}: {}\r\n", "v".repeat(200)).as_bytes());
        }
        body.extend_from_slice(b"\r\n");
        assert_eq!(decode(&body, 1).unwrap().2.unwrap().len(), 60);
        // The end is found wherever the pieces are cut.
        let mut decoder = Decoder { state: State::Trailers(0), of_response: false };
        let mut searched = 0;
        let section = &body[3..];
        for end in 0..section.len() {
            let ended = section_ends(&section[..end], &mut searched);
            assert!(!ended, "{end}");
            assert_eq!(searched, end);
        }
        assert!(matches!(decoder.step(section), Ok(Step::End { .. })));
    }

    #[test]
    fn malformed_chunks_are_refused() {
        for bad in [
            &b"g\r\n"[..],
            b"\r\n",
            b"5\nhello",
            b"5\r\nhelloXX",
            b"ffffffffffffffff\r\n",
            b"-1\r\n",
            b"0x5\r\n",
            b" 5\r\nhello\r\n",
            b"5 \r\nhello\r\n",
            b"5;\x00\r\nhello\r\n",
            b"0\r\nbad name: x\r\n\r\n",
            b"0\r\nX-A: 1\n\r\n",
            b"0\r\nX-A: 1\r\n\n",
            b"0\r\nX-A: 1\r\n folded\r\n\r\n",
            b"0\n\r\n",
            b"0\r\n\n",
            b"+5\r\nhello\r\n",
            b"5\rhello\r\n",
            b"5;a\rb\r\nhello\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"5\r\nhello\r0\r\n\r\n",
            b"1_0\r\n",
            b";x\r\n",
            b"0000000000000005\r\nhello\r\n",
        ] {
            let mut padded = bad.to_vec();
            padded.resize(bad.len() + 300, b'a');
            assert!(decode(&padded, padded.len()).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
    }
}
