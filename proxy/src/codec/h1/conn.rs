//! One HTTP/1 connection in either role: heads and bodies over a [`Duplex`].

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use http::HeaderMap;

use super::decode::{Decoder, Step};
use super::outline;
use super::parse::{self, Framing, HeadError, Limits};
use super::write;
use crate::codec::body::{BodyError, Chunk, Data, Gone};
use crate::codec::buffer::{self, Received};
use crate::codec::head::Outline;
use crate::conn::{Duplex, Io};

/// A connection between messages.
#[derive(Debug)]
pub(crate) struct Connection {
    duplex: Duplex,
    received: Received,
}

/// Why no head could be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The connection ended before the head did.
    #[error("connection closed")]
    Closed,
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The head took too long to arrive. Made by whoever keeps the time.
    #[error("head not complete in time")]
    Timeout,
    /// The head is unacceptable.
    #[error(transparent)]
    Head(#[from] HeadError),
}

impl ReadError {
    /// The field of `head` that is why.
    fn culprit(&self, head: &[u8]) -> Option<String> {
        match self {
            Self::Head(HeadError::TooLarge) => outline::largest_field(head),
            Self::Head(HeadError::Lexical(_)) => outline::broken_field(head),
            // The others name the field themselves.
            Self::Head(
                HeadError::TargetTooLong | HeadError::Framing(_) | HeadError::Target(_) | HeadError::Connect,
            )
            | Self::Closed
            | Self::Io(_)
            | Self::Timeout => None,
        }
    }
}

impl Connection {
    /// A connection with nothing received yet.
    pub(crate) fn new(io: Io) -> Self {
        Self { duplex: Duplex::new(io), received: Received::default() }
    }

    /// The stream and what was received beyond the last message.
    pub(crate) fn into_parts(self) -> (Io, Received) {
        (self.duplex.into_inner(), self.received)
    }

    /// Whether a parked connection can take another request: nothing arrived, not even its end.
    pub(crate) fn is_quiet(&self) -> bool {
        self.received.is_empty() && self.duplex.is_quiet()
    }

    /// Waits for the first byte of the next message; `false` at the end of the stream. Holds no buffer meanwhile.
    /// Cancel safe.
    pub(crate) async fn wait(&mut self) -> io::Result<bool> {
        Ok(!self.received.is_empty() || fill(&self.duplex, &mut self.received).await? > 0)
    }

    /// Reads the head of a request. Cancel safe.
    pub(crate) async fn request_head(&mut self, limits: Limits) -> Result<parse::Request, ReadError> {
        let mut pieces = Pieces::default();
        loop {
            if pieces.worth_parsing(self.received.unread(), limits)
                && let Some((head, taken)) = parse::request(self.received.unread(), limits)?
            {
                self.received.consume(taken);
                return Ok(head);
            }
            if fill(&self.duplex, &mut self.received).await? == 0 {
                return Err(ReadError::Closed);
            }
        }
    }

    /// The two halves of an exchange, as client: the request is written while the reply is read.
    pub(crate) const fn halves(&mut self) -> (&Duplex, HeadReader<'_>) {
        (&self.duplex, HeadReader { duplex: &self.duplex, received: &mut self.received })
    }

    /// The two halves of an exchange, as server: the request's body and the way back.
    pub(crate) const fn serve(&mut self, framing: Framing) -> (BodyReader<'_>, &Duplex) {
        let body = BodyReader::new(&self.duplex, &mut self.received, Decoder::new(framing));
        (body, &self.duplex)
    }

    /// What can be read of a request whose head was refused.
    pub(crate) fn outline(&self) -> Outline {
        outline::request(self.received.unread())
    }

    /// The field that makes a request's head too large or malformed.
    pub(crate) fn culprit(&self, error: &ReadError) -> Option<String> {
        error.culprit(self.received.unread())
    }

    /// Ends our direction, then reads and drops what still comes until the peer has ended its own, or nothing has come for
    /// `quiet`: closing with unread bytes would reset the connection and could destroy the response on its way, before a
    /// peer that sends its whole request first has read it (RFC 9112 section 9.6). The caller bounds the time.
    pub(crate) async fn close(&mut self, quiet: Duration) {
        let _ = self.duplex.shutdown().await;
        loop {
            self.received = Received::default();
            match tokio::time::timeout(quiet, fill(&self.duplex, &mut self.received)).await {
                Ok(Ok(n)) if n > 0 => {}
                Ok(_) | Err(_) => break,
            }
        }
    }
}

/// A head that comes in many pieces. It is parsed when it may be complete and whenever it has doubled, so that the work is
/// in proportion to its size, however small the pieces are.
#[derive(Debug, Default)]
struct Pieces {
    /// Bytes that were searched for the end.
    searched: usize,
    /// Bytes that there were when it was parsed last.
    parsed: usize,
}

impl Pieces {
    /// Whether `head`, which begins with what was there the last time, is to be parsed: it may be complete, has reached the
    /// limit, has doubled, or has a line feed that is refused at once.
    fn worth_parsing(&mut self, head: &[u8], limits: Limits) -> bool {
        let from = self.searched.saturating_sub(2);
        self.searched = head.len();
        let fresh = head.get(from..).unwrap_or_default();
        let grown = head.len() >= self.parsed.saturating_mul(2) || head.len() >= limits.bytes;
        let worth = grown
            || fresh.windows(2).any(|pair| matches!(pair, [before, b'\n'] if *before != b'\r'))
            || fresh.windows(3).any(|end| end == b"\n\r\n");
        if worth {
            self.parsed = head.len();
        }
        worth
    }
}

async fn fill(duplex: &Duplex, received: &mut Received) -> io::Result<usize> {
    poll_fn(|cx| received.fill(|buffer| duplex.poll_read(cx, buffer))).await
}

/// Reads the heads of replies, then becomes the body's reader.
#[derive(Debug)]
pub(crate) struct HeadReader<'c> {
    duplex: &'c Duplex,
    received: &'c mut Received,
}

impl<'c> HeadReader<'c> {
    /// Reads one head, interim or final. Cancel safe.
    pub(crate) async fn head(&mut self, to_head: bool, limits: Limits) -> Result<parse::Response, ReadError> {
        let mut pieces = Pieces::default();
        loop {
            if !self.received.is_empty()
                && pieces.worth_parsing(self.received.unread(), limits)
                && let Some((head, taken)) = parse::response(self.received.unread(), to_head, limits)?
            {
                self.received.consume(taken);
                return Ok(head);
            }
            if fill(self.duplex, self.received).await? == 0 {
                return Err(ReadError::Closed);
            }
        }
    }

    /// The field that makes a response's head too large or malformed.
    pub(crate) fn culprit(&self, error: &ReadError) -> Option<String> {
        error.culprit(self.received.unread())
    }

    /// Whether any byte of a reply has arrived.
    pub(crate) const fn has_received(&self) -> bool {
        !self.received.is_empty()
    }

    /// The reader of the body that follows the final head.
    pub(crate) const fn into_body(self, framing: Framing) -> BodyReader<'c> {
        BodyReader::new(self.duplex, self.received, Decoder::of_response(framing))
    }
}

/// Reads one body.
#[derive(Debug)]
pub(crate) struct BodyReader<'c> {
    duplex: &'c Duplex,
    received: &'c mut Received,
    decoder: Decoder,
    /// Bytes of `received` that the last chunk lent out.
    lent: usize,
    trailers: Option<Box<HeaderMap>>,
}

impl<'c> BodyReader<'c> {
    const fn new(duplex: &'c Duplex, received: &'c mut Received, decoder: Decoder) -> Self {
        Self { duplex, received, decoder, lent: 0, trailers: None }
    }

    /// The next piece. Cancel safe: a piece is consumed when the next one is asked for.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Chunk<'_>>, BodyError> {
        self.received.consume(std::mem::take(&mut self.lent));
        loop {
            if self.decoder.is_done() {
                return Ok(None);
            }
            match self.decoder.step(self.received.unread())? {
                Step::Data { skip, data } => {
                    self.received.consume(skip);
                    self.lent = data;
                    let data = Data::Borrowed(self.received.unread().get(..data).unwrap_or_default());
                    return Ok(Some(Chunk { data, last: self.decoder.is_done() }));
                }
                Step::End { skip, trailers } => {
                    self.received.consume(skip);
                    self.trailers = trailers;
                    return Ok(None);
                }
                Step::More { skip } => {
                    self.received.consume(skip);
                    if fill(self.duplex, self.received).await? == 0 {
                        return if self.decoder.may_end_by_close() { Ok(None) } else { Err(BodyError::Closed) };
                    }
                }
            }
        }
    }

    /// The trailers, once the end was seen.
    pub(crate) const fn take_trailers(&mut self) -> Option<Box<HeaderMap>> {
        self.trailers.take()
    }

    /// Whether the end was seen.
    pub(crate) const fn is_done(&self) -> bool {
        self.decoder.is_done()
    }

    /// Waits until the sender goes away. Bytes that arrive meanwhile belong to its next message and are kept, up to
    /// one buffer; then it waits forever.
    pub(crate) async fn gone(&mut self) -> Gone {
        self.received.consume(std::mem::take(&mut self.lent));
        while self.received.unread().len() < buffer::SIZE {
            match fill(self.duplex, self.received).await {
                Ok(0) => return Gone::Silent,
                Ok(_) => {}
                Err(_) => return Gone::Away,
            }
        }
        std::future::pending().await
    }
}

impl Drop for BodyReader<'_> {
    fn drop(&mut self) {
        self.received.consume(self.lent);
    }
}

/// Writes one message whose head is waiting in `out`.
#[derive(Debug)]
pub(crate) struct BodyWriter<'c> {
    duplex: &'c Duplex,
    out: Vec<u8>,
    chunked: bool,
    /// Bytes that the body may still have, as its head says: more would be read as the next message.
    left: u64,
    /// Writing has begun: some of the head may be with the peer.
    begun: bool,
}

impl<'c> BodyWriter<'c> {
    /// A writer that sends `head` with the first bytes of the body. `framing` is what the head says.
    pub(crate) const fn new(duplex: &'c Duplex, head: Vec<u8>, framing: Framing) -> Self {
        let left = match framing {
            Framing::None => 0,
            Framing::Length(length) => length,
            Framing::Chunked | Framing::UntilClose => u64::MAX,
        };
        Self { duplex, out: head, chunked: matches!(framing, Framing::Chunked), left, begun: false }
    }

    /// Sends a piece; pieces of up to a buffer go out with the head in one write.
    pub(crate) async fn write(&mut self, chunk: &Chunk<'_>) -> Result<(), BodyError> {
        let data = chunk.data.as_slice();
        let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
        self.left = self.left.checked_sub(length).ok_or(BodyError::Rules(None))?;
        if self.chunked {
            if !data.is_empty() {
                write::chunk(data, &mut self.out);
            }
            if chunk.last {
                write::last_chunk(None, &mut self.out);
            }
            return self.flush().await;
        }
        if self.out.is_empty() {
            return Ok(self.duplex.write_all(data).await?);
        }
        if self.out.len().saturating_add(data.len()) <= buffer::SIZE {
            self.out.extend_from_slice(data);
            return self.flush().await;
        }
        // One full buffer first, so that the head does not travel alone.
        let (now, rest) = data.split_at(buffer::SIZE.saturating_sub(self.out.len()).min(data.len()));
        self.out.extend_from_slice(now);
        self.flush().await?;
        Ok(self.duplex.write_all(rest).await?)
    }

    /// Sends what is held back.
    pub(crate) async fn flush(&mut self) -> Result<(), BodyError> {
        if !self.out.is_empty() {
            self.begun = true;
            self.duplex.write_all(&self.out).await?;
            self.out.clear();
        }
        Ok(())
    }

    /// Drops the head if no byte of it was written yet; `false` if it is too late for that.
    pub(crate) fn withdraw(&mut self) -> bool {
        if !self.begun {
            self.out.clear();
        }
        !self.begun
    }

    /// Ends the body.
    pub(crate) async fn finish(&mut self, trailers: Option<&HeaderMap>) -> Result<(), BodyError> {
        if self.chunked {
            write::last_chunk(trailers, &mut self.out);
        }
        self.flush().await
    }
}

impl Drop for BodyWriter<'_> {
    fn drop(&mut self) {
        buffer::give(std::mem::take(&mut self.out));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { bytes: 65_535, fields: 100 };

    /// How often a head that comes in pieces of this size is parsed, and whether that is so when it is complete.
    fn parsed(head: &[u8], piece: usize) -> (usize, bool) {
        let mut pieces = Pieces::default();
        let ends = (piece..head.len()).step_by(piece).chain([head.len()]);
        let tries: Vec<bool> = ends.map(|end| pieces.worth_parsing(&head[..end], LIMITS)).collect();
        (tries.iter().filter(|tried| **tried).count(), tries.last() == Some(&true))
    }

    #[test]
    fn mend_13_a_head_in_small_pieces_is_parsed_as_often_as_it_doubles() {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(60_000)).into_bytes();
        for piece in [1, 2, 3, 7, 100, 70_000] {
            let (times, last) = parsed(&head, piece);
            assert!(times <= 18 && last, "pieces of {piece}: {times} times");
        }
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(98)).into_bytes();
        assert!(parsed(&many, 1).0 <= 12);
        // What is refused at once is looked at at once.
        let mut pieces = Pieces::default();
        assert!(pieces.worth_parsing(b"GET / HTTP/1.1\r\nHost: a", LIMITS));
        assert!(!pieces.worth_parsing(b"GET / HTTP/1.1\r\nHost: ab", LIMITS));
        assert!(pieces.worth_parsing(b"GET / HTTP/1.1\r\nHost: ab\n", LIMITS));
    }
}
