//! Message bodies of either version, as streams with back-pressure: a chunk is read when the last one was written.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;

use super::{h1, h2};

/// A piece of a body.
#[derive(Debug)]
pub(crate) struct Chunk<'b> {
    /// The bytes.
    pub(crate) data: Data<'b>,
    /// Nothing follows, neither bytes nor trailers.
    pub(crate) last: bool,
}

/// Bytes of a body, borrowed from a connection's buffer or shared.
#[derive(Debug)]
pub(crate) enum Data<'b> {
    /// In a connection's buffer.
    Borrowed(&'b [u8]),
    /// In memory of their own.
    Shared(Bytes),
}

impl Data<'_> {
    /// The bytes.
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Borrowed(slice) => slice,
            Self::Shared(bytes) => bytes,
        }
    }

    /// The bytes, copied if they are not shared yet.
    pub(crate) fn into_shared(self) -> Bytes {
        match self {
            Self::Borrowed(slice) => Bytes::copy_from_slice(slice),
            Self::Shared(bytes) => bytes,
        }
    }
}

/// Why a body stopped short.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The connection ended in the middle.
    #[error("closed in the middle of a body")]
    Closed,
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Its framing is wrong.
    #[error(transparent)]
    Malformed(#[from] h1::decode::DecodeError),
    /// It is not what its head says, or breaks other rules of its stream; the field of its trailers that does.
    #[error("breaks the rules of its framing{}", .0.as_ref().map(|field| format!(": trailer `{field}`")).unwrap_or_default())]
    Rules(Option<Box<str>>),
    /// The stream was reset.
    #[error("stream reset: {0}")]
    Reset(h2::ResetCode),
}

/// How the sender of a request went away after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// It sends no more. Whether it still reads is not known before something is written to it.
    Silent,
    /// Its connection is broken.
    Away,
}

/// Most bytes of a body kept for sending it again.
const REPLAY_BYTES: usize = 64 * 1024;

/// The receiving end of a body. It can be read a second time as long as little of it was read.
#[derive(Debug)]
pub(crate) struct BodyIn<'c> {
    source: Source<'c>,
    replay: Replay,
}

#[derive(Debug)]
enum Source<'c> {
    H1(h1::conn::BodyReader<'c>),
    H2(h2::BodyReader),
}

/// What was read already, for another reading.
#[derive(Debug, Default)]
struct Replay {
    kept: Vec<Bytes>,
    /// The next of `kept` to give out.
    next: usize,
    bytes: usize,
    /// More was read than is kept.
    lost: bool,
    /// Pieces are kept from now on.
    keeping: bool,
    trailers: Option<Box<HeaderMap>>,
}

impl<'c> From<h1::conn::BodyReader<'c>> for BodyIn<'c> {
    fn from(reader: h1::conn::BodyReader<'c>) -> Self {
        Self { source: Source::H1(reader), replay: Replay::default() }
    }
}

impl From<h2::BodyReader> for BodyIn<'_> {
    fn from(reader: h2::BodyReader) -> Self {
        Self { source: Source::H2(reader), replay: Replay::default() }
    }
}

impl BodyIn<'_> {
    /// The next piece; none at the end. Cancel safe.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Chunk<'_>>, BodyError> {
        let Self { source, replay } = self;
        if let Some(kept) = replay.kept.get(replay.next) {
            replay.next = replay.next.saturating_add(1);
            let last = replay.next == replay.kept.len() && source.is_done() && replay.trailers.is_none();
            return Ok(Some(Chunk { data: Data::Shared(kept.clone()), last }));
        }
        let chunk = match source {
            Source::H1(body) => body.chunk().await?,
            Source::H2(body) => body.chunk().await?,
        };
        Ok(chunk.map(|chunk| replay.note(chunk)))
    }

    /// Waits until there is a piece, or the end; both are then still to be read. Cancel safe.
    pub(crate) async fn begin(&mut self) -> Result<(), BodyError> {
        self.keep();
        self.chunk().await?;
        self.trailers();
        self.replay.next = 0;
        Ok(())
    }

    /// The trailers, once the end was seen.
    pub(crate) fn trailers(&mut self) -> Option<&HeaderMap> {
        let fresh = match &mut self.source {
            Source::H1(body) => body.take_trailers(),
            Source::H2(body) => body.take_trailers(),
        };
        if fresh.is_some() {
            self.replay.trailers = fresh;
        }
        self.replay.trailers.as_deref()
    }

    /// Whether the end was seen.
    pub(crate) fn is_done(&self) -> bool {
        self.source.is_done()
    }

    /// Whether nothing is left to give out: neither new pieces nor kept ones, nor trailers.
    pub(crate) fn is_spent(&self) -> bool {
        let Replay { kept, next, trailers, .. } = &self.replay;
        self.source.is_done() && *next == kept.len() && trailers.is_none()
    }

    /// Keeps what is read from now on, up to a bound, so that [`BodyIn::rewind`] may succeed.
    pub(crate) const fn keep(&mut self) {
        self.replay.keeping = true;
    }

    /// Starts again from the beginning; `false` if that is no longer there.
    pub(crate) fn rewind(&mut self) -> bool {
        self.replay.next = 0;
        !self.replay.lost
    }

    /// After the end: waits until the sender of an HTTP/1 body goes away. Never returns for HTTP/2, where
    /// [`BodyOut::gone`] tells. Cancel safe.
    pub(crate) async fn gone(&mut self) -> Gone {
        match &mut self.source {
            Source::H1(body) => body.gone().await,
            Source::H2(_) => std::future::pending().await,
        }
    }
}

impl Source<'_> {
    fn is_done(&self) -> bool {
        match self {
            Self::H1(body) => body.is_done(),
            Self::H2(body) => body.is_done(),
        }
    }
}

impl Replay {
    /// Keeps a copy of a piece, or notes that it is lost.
    fn note<'b>(&mut self, chunk: Chunk<'b>) -> Chunk<'b> {
        let length = chunk.data.as_slice().len();
        if self.lost || !self.keeping || self.bytes.saturating_add(length) > REPLAY_BYTES {
            self.lost = true;
            self.kept = Vec::new();
            self.next = 0;
            return chunk;
        }
        self.bytes = self.bytes.saturating_add(length);
        let shared = chunk.data.into_shared();
        self.kept.push(shared.clone());
        self.next = self.kept.len();
        Chunk { data: Data::Shared(shared), last: chunk.last }
    }
}

/// The sending end of a body.
#[derive(Debug)]
pub(crate) enum BodyOut<'c> {
    /// To an HTTP/1 connection; the head goes out with the first bytes.
    H1(h1::conn::BodyWriter<'c>),
    /// To an HTTP/2 stream.
    H2(h2::BodyWriter),
}

impl BodyOut<'_> {
    /// Sends a piece.
    pub(crate) async fn write(&mut self, chunk: Chunk<'_>) -> Result<(), BodyError> {
        match self {
            Self::H1(body) => body.write(&chunk).await,
            Self::H2(body) => body.write(chunk).await,
        }
    }

    /// Sends what was held back to go out together with more.
    pub(crate) async fn flush(&mut self) -> Result<(), BodyError> {
        match self {
            Self::H1(body) => body.flush().await,
            Self::H2(_) => Ok(()),
        }
    }

    /// Ends a body whose last piece did not say so.
    pub(crate) async fn finish(&mut self, trailers: Option<&HeaderMap>) -> Result<(), BodyError> {
        match self {
            Self::H1(body) => body.finish(trailers).await,
            Self::H2(body) => body.finish(trailers),
        }
    }

    /// Takes the head back, if not one byte of it was written yet (HTTP/1): another reply may go out instead.
    pub(crate) fn withdraw(&mut self) -> bool {
        match self {
            Self::H1(body) => body.withdraw(),
            Self::H2(_) => false,
        }
    }

    /// Waits until the receiver says that it wants no more (HTTP/2). Never returns for HTTP/1. Cancel safe.
    pub(crate) async fn gone(&mut self) {
        match self {
            Self::H1(_) => std::future::pending().await,
            Self::H2(body) => body.gone().await,
        }
    }
}

/// Which end of a relay failed.
#[derive(Debug)]
pub(crate) enum RelayError {
    /// The sender of the body.
    From(BodyError),
    /// Its receiver; what it has to say comes on its own side.
    To,
    /// Its receiver, which has taken nothing for too long.
    Stalled,
}

/// What a relayed body amounted to.
#[derive(Debug, Default)]
pub(crate) struct Relayed {
    /// Payload bytes.
    pub(crate) bytes: std::cell::Cell<u64>,
    /// `grpc-status` of the trailers.
    pub(crate) grpc_status: std::cell::Cell<Option<u8>>,
}

/// Moves a whole body. Dropped half way, both ends must be closed. `patience`: how long the receiver may take nothing.
pub(crate) async fn relay(
    from: &mut BodyIn<'_>,
    to: &mut BodyOut<'_>,
    seen: &Relayed,
    patience: Option<Duration>,
) -> Result<(), RelayError> {
    loop {
        // What is at hand goes out in one piece with the head; before waiting, the head goes alone.
        let next = match now(from.chunk()).await {
            Some(next) => next,
            None => {
                to.flush().await.map_err(|_| RelayError::To)?;
                tokio::select! {
                    // The sender first: its last bytes count even when the receiver has just left.
                    biased;
                    next = from.chunk() => next,
                    () = to.gone() => return Err(RelayError::To),
                }
            }
        };
        match next.map_err(RelayError::From)? {
            Some(chunk) => {
                let last = chunk.last;
                seen.bytes.set(seen.bytes.get().saturating_add(chunk.data.as_slice().len() as u64));
                patiently(patience, pin!(to.write(chunk))).await?;
                if last {
                    return Ok(());
                }
            }
            None => {
                let trailers = from.trailers();
                if let Some(status) = trailers.and_then(|t| super::head::value(t, "grpc-status")) {
                    seen.grpc_status.set(super::head::grpc_status(status));
                }
                return to.finish(trailers).await.map_err(|_| RelayError::To);
            }
        }
    }
}

/// What comes of `work` without waiting. Polled with the task's own waker: one that wakes nobody would have to be
/// replaced by it in a moment.
async fn now<F: Future>(work: F) -> Option<F::Output> {
    let mut work = pin!(work);
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// Waits for a write; a timer is made only where it does not go through at once.
async fn patiently(
    patience: Option<Duration>,
    mut write: Pin<&mut impl Future<Output = Result<(), BodyError>>>,
) -> Result<(), RelayError> {
    let done = match (patience, now(write.as_mut()).await) {
        (_, Some(done)) => done,
        (None, None) => write.await,
        (Some(patience), None) => {
            let waited = tokio::time::timeout(patience, write).await;
            waited.map_err(|_| RelayError::Stalled)?
        }
    };
    done.map_err(|_| RelayError::To)
}
