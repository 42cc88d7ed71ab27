//! HTTP/2 over the `h2` crate: the one place that names its types.

/// Requests off a server connection, replies back.
pub(crate) mod server;

/// Requests onto a client connection.
pub(crate) mod client;

/// What the crate does not check of a request's head.
pub(crate) mod check;

/// The stream below a connection, written to in large pieces.
mod batch;

/// Compressed heads.
#[expect(dead_code, reason = "the engine that uses it is not there yet")]
pub(crate) mod hpack;

use std::fmt;
use std::future::poll_fn;

use bytes::Bytes;
use http::HeaderMap;

use super::body::{BodyError, Chunk, Data};
use super::fields::{self, Role};

/// Stream window.
const STREAM_WINDOW: u32 = 256 * 1024;
/// Connection window: all of its streams together. Streams whose bytes nobody takes never leave others without a window,
/// and what may wait to be taken is bounded by it.
const CONNECTION_WINDOW: u32 = MAX_STREAMS * STREAM_WINDOW;
/// What pieces of bodies that nobody has read yet may cost beside their bytes. The crate charges 256 bytes less its
/// length for each small DATA frame and ends the connection beyond this: a client that sends its messages byte by byte
/// to a slow reader is stopped by the windows long before, one that has a purpose is not.
const SMALL_FRAMES: usize = 4 << 20;
/// Bytes buffered per stream for sending.
const SEND_BUFFER: usize = 64 * 1024;
/// Concurrent streams of a connection, in either direction; beyond it a pool opens another.
const MAX_STREAMS: u32 = 128;
/// Largest frame accepted: four reads of a TLS record.
const MAX_FRAME: u32 = 64 * 1024;

/// The code of an RST_STREAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ResetCode(h2::Reason);

impl ResetCode {
    /// The sender does not want the stream any more.
    pub(crate) const CANCEL: Self = Self(h2::Reason::CANCEL);
    /// The stream failed here.
    pub(crate) const INTERNAL: Self = Self(h2::Reason::INTERNAL_ERROR);
    /// The request breaks the rules.
    pub(crate) const PROTOCOL: Self = Self(h2::Reason::PROTOCOL_ERROR);
}

impl fmt::Display for ResetCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A connection or stream failure.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct H2Error(#[from] h2::Error);

impl H2Error {
    /// The peer says it has not looked at the request: REFUSED_STREAM, or a stream above the last of its GOAWAY.
    pub(crate) fn is_refused(&self) -> bool {
        self.0.is_remote()
            && (self.0.is_go_away() || (self.0.is_reset() && self.0.reason() == Some(h2::Reason::REFUSED_STREAM)))
    }

    /// The code of a stream reset by the peer.
    pub(crate) fn reset(&self) -> Option<ResetCode> {
        self.0.reason().filter(|_| self.0.is_reset() && self.0.is_remote()).map(ResetCode)
    }
}

/// Why a downstream's connection failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It was lost.
    Lost,
    /// The peer breaks the rules.
    Rules,
    /// The peer keeps to the rules, but sends too much of what costs it nothing.
    Flood,
}

impl H2Error {
    /// Whose doing the end of a connection is.
    pub(crate) fn fault(&self) -> Fault {
        match self.0.reason() {
            _ if self.0.is_io() || self.0.is_remote() => Fault::Lost,
            Some(h2::Reason::ENHANCE_YOUR_CALM) => Fault::Flood,
            Some(_) | None => Fault::Rules,
        }
    }
}

impl From<h2::Error> for BodyError {
    fn from(error: h2::Error) -> Self {
        match error.reason() {
            Some(reason) if error.is_reset() => Self::Reset(ResetCode(reason)),
            _ => match error.into_io() {
                Some(io) => Self::Io(io),
                None => Self::Closed,
            },
        }
    }
}

/// The receiving end of a stream's body. Dropped before the end, the stream is reset.
pub(crate) struct BodyReader {
    stream: h2::RecvStream,
    /// Bytes handed on whose window was not given back yet.
    lent: usize,
    done: bool,
    trailers: Option<Box<HeaderMap>>,
}

impl fmt::Debug for BodyReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyReader").field("done", &self.done).finish_non_exhaustive()
    }
}

impl BodyReader {
    fn new(stream: h2::RecvStream) -> Self {
        let done = stream.is_end_stream();
        Self { stream, lent: 0, done, trailers: None }
    }

    /// The next piece; its window is given back when the one after it is asked for. Cancel safe.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Chunk<'_>>, BodyError> {
        if self.done {
            return Ok(None);
        }
        if self.lent > 0 {
            self.stream.flow_control().release_capacity(std::mem::take(&mut self.lent))?;
        }
        match poll_fn(|cx| self.stream.poll_data(cx)).await {
            Some(data) => {
                let data = data?;
                self.lent = data.len();
                self.done = self.stream.is_end_stream();
                Ok(Some(Chunk { data: Data::Shared(data), last: self.done }))
            }
            None => {
                self.trailers = poll_fn(|cx| self.stream.poll_trailers(cx)).await?.map(Box::new);
                self.done = true;
                Ok(None)
            }
        }
    }

    /// The trailers, once the end was seen.
    pub(crate) const fn take_trailers(&mut self) -> Option<Box<HeaderMap>> {
        self.trailers.take()
    }

    /// Whether the end was seen.
    pub(crate) const fn is_done(&self) -> bool {
        self.done
    }
}

/// The sending end of a stream's body. Dropped before the end, the stream is reset.
pub(crate) struct BodyWriter {
    stream: h2::SendStream<Bytes>,
    ended: bool,
}

impl fmt::Debug for BodyWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyWriter").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl BodyWriter {
    const fn new(stream: h2::SendStream<Bytes>, ended: bool) -> Self {
        Self { stream, ended }
    }

    /// Sends a piece, as far as the peer's window allows at a time.
    pub(crate) async fn write(&mut self, chunk: Chunk<'_>) -> Result<(), BodyError> {
        let last = chunk.last;
        let mut data = chunk.data.into_shared();
        while !data.is_empty() {
            self.stream.reserve_capacity(data.len());
            if self.stream.capacity() == 0 {
                match poll_fn(|cx| self.stream.poll_capacity(cx)).await {
                    Some(capacity) => capacity?,
                    None => return Err(BodyError::Closed),
                };
            }
            let part = data.split_to(self.stream.capacity().min(data.len()));
            self.ended = last && data.is_empty();
            if !part.is_empty() {
                self.stream.send_data(part, self.ended)?;
            }
        }
        if last && !self.ended {
            self.ended = true;
            self.stream.send_data(Bytes::new(), true)?;
        }
        Ok(())
    }

    /// Ends the body.
    pub(crate) fn finish(&mut self, trailers: Option<&HeaderMap>) -> Result<(), BodyError> {
        if self.ended {
            return Ok(());
        }
        self.ended = true;
        match trailers {
            Some(trailers) => {
                let mut passed = trailers.clone();
                for name in trailers.keys() {
                    if fields::role(name.as_str().as_bytes()) != Role::End {
                        passed.remove(name);
                    }
                }
                self.stream.send_trailers(passed)?;
            }
            None => self.stream.send_data(Bytes::new(), true)?,
        }
        Ok(())
    }

    /// Waits until the peer resets the stream or the connection fails. Cancel safe.
    pub(crate) async fn gone(&mut self) {
        let _ = poll_fn(|cx| self.stream.poll_reset(cx)).await;
    }
}

impl Drop for BodyWriter {
    fn drop(&mut self) {
        if !self.ended {
            self.stream.send_reset(h2::Reason::CANCEL);
        }
    }
}

/// Removes the fields that are not passed on. `content-length` stays: it is no framing in HTTP/2. `keep_te`: so does `te`.
fn drop_fields(headers: &mut HeaderMap, edit: super::head::Edit<'_>, keep_te: bool) {
    let drops = |name: &http::HeaderName| {
        let role = fields::role(name.as_str().as_bytes());
        let kept = role == Role::ContentLength || (role == Role::Te && keep_te);
        !kept && !edit.passes(role)
    };
    // Almost always there is nothing to drop: look first, collect only then.
    if headers.keys().any(drops) {
        let names: Vec<_> = headers.keys().filter(|name| drops(name)).cloned().collect();
        for name in names {
            headers.remove(name);
        }
    }
}

/// Makes the changes of a route.
fn change_fields(headers: &mut HeaderMap, edit: super::head::Edit<'_>) {
    let Some(changes) = edit.fields() else { return };
    for name in &changes.remove {
        headers.remove(name);
    }
    for (name, value) in &changes.set {
        headers.insert(name, value.clone());
    }
    for (name, value) in &changes.add {
        headers.append(name, value.clone());
    }
}

/// Copies the fields of an HTTP/1 head that are passed on.
fn copy_fields(raw: &super::h1::parse::RawHead, edit: super::head::Edit<'_>, headers: &mut HeaderMap) {
    headers.reserve(raw.fields.len());
    for field in &raw.fields {
        if edit.passes(field.role) || field.role == Role::ContentLength {
            let name = http::HeaderName::from_bytes(raw.slice(&field.name));
            let value = http::HeaderValue::from_bytes(raw.slice(&field.value));
            if let (Ok(name), Ok(value)) = (name, value) {
                headers.append(name, value);
            }
        }
    }
}
