//! Copies bytes both ways between two streams until both have ended: `copy_both`.
//!
//! It knows no protocol. An end of one direction is passed on while the other goes on (half-close); an error of
//! either peer ends both, and the caller passes it on with `abort`. One future, no task, and no buffer while
//! nothing moves.

/// Buffers of this thread.
mod buffer;

/// One direction.
mod copy;

/// Bulk between plain sockets.
mod splice;

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use crate::base::failure::{Failure, Reason};
use crate::conn::Io;
use copy::{Broken, Half};

/// Who is told of bytes as they move, so that a connection that lives for days is seen while it does.
pub trait Counts {
    /// Bytes written to the upstream.
    fn sent(&self, bytes: u64);
    /// Bytes written to the downstream.
    fn received(&self, bytes: u64);
}

/// A stream that can be relayed.
pub trait Stream: AsyncRead + AsyncWrite + Unpin {
    /// The socket whose bytes are the stream's from here on, neither encrypted nor partly read; for those the kernel
    /// moves bulk alone.
    fn plain(&self) -> Option<&TcpStream>;
}

impl Stream for Io {
    fn plain(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(socket) => socket.direct(),
            Self::Tls(_) => None,
        }
    }
}

impl Stream for TcpStream {
    fn plain(&self) -> Option<&TcpStream> {
        Some(self)
    }
}

/// Relays between `downstream` and `upstream` until both have sent their end and it was passed on.
///
/// `idle` is the longest time in which no byte moves in either direction, noticed up to a quarter late;
/// [`Duration::MAX`] is for ever. Dropped before its end it leaves both streams as they are; what was read and not
/// yet written is lost.
///
/// # Errors
/// `DownstreamClosed` and `UpstreamReset` when that stream cannot be read or written, `IdleTimeout`. Both streams
/// should then be reset ([`abort`]), lest the other peer takes what it has for all there was.
pub async fn copy_both<D, U>(
    downstream: &mut D,
    upstream: &mut U,
    idle: Duration,
    counts: &impl Counts,
) -> Result<(), Failure>
where
    D: Stream,
    U: Stream,
{
    let (mut there, mut back) = (Half::default(), Half::default());
    // Not less than the timer can tell.
    let every = (idle / LOOKS).max(Duration::from_millis(1));
    let timer = pin!(tokio::time::sleep(every));
    let mut watch = IdleWatch::new(timer, every);
    poll_fn(|cx| {
        let sent = there.poll(cx, downstream, upstream, |bytes| counts.sent(bytes));
        let sent = sent.map_err(|broken| match broken {
            Broken::From(error) => failure(Reason::DownstreamClosed, error),
            Broken::To(error) => failure(Reason::UpstreamReset, error),
        })?;
        let received = back.poll(cx, upstream, downstream, |bytes| counts.received(bytes));
        let received = received.map_err(|broken| match broken {
            Broken::From(error) => failure(Reason::UpstreamReset, error),
            Broken::To(error) => failure(Reason::DownstreamClosed, error),
        })?;
        if sent.is_ready() && received.is_ready() {
            return Poll::Ready(Ok(()));
        }
        let moved = there.take_moved() | back.take_moved();
        watch.poll(cx, moved).map(|()| Err(Reason::IdleTimeout.into()))
    })
    .await
}

fn failure(reason: Reason, error: io::Error) -> Failure {
    Failure::new(reason).because(error)
}

/// Makes the end of `socket` a reset instead of an orderly one, when it is dropped: the peer learns that something
/// broke (security.md RB-21). Bytes not yet sent are dropped.
pub fn abort(socket: &TcpStream) {
    // It fails only for a socket that is gone, which needs no reset.
    socket.set_zero_linger().ok();
}

/// Parts of the idle time after which the watch looks whether something has moved: fewer, and idle connections are
/// noticed later; more, and they wake up more often.
const LOOKS: u32 = 4;

/// Tells when nothing has moved for a while, without asking the clock whenever something moves.
struct IdleWatch<'a> {
    timer: Pin<&'a mut Sleep>,
    every: Duration,
    moved: bool,
    /// Looks in a row that saw nothing move.
    quiet: u32,
}

impl<'a> IdleWatch<'a> {
    const fn new(timer: Pin<&'a mut Sleep>, every: Duration) -> Self {
        Self { timer, every, moved: false, quiet: 0 }
    }

    /// Takes note of what `moved`; ready when nothing has for all looks.
    fn poll(&mut self, cx: &mut Context<'_>, moved: bool) -> Poll<()> {
        self.moved |= moved;
        while self.timer.as_mut().poll(cx).is_ready() {
            self.quiet = if self.moved { 0 } else { self.quiet + 1 };
            self.moved = false;
            if self.quiet >= LOOKS {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(Instant::now() + self.every);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests;
