//! Bytes that a lenient server may read as requests, on a port that declares nothing: they pass untouched, but for the
//! field by which an application learns who its peer is. Only this proxy may set that field, and in opaque bytes it cannot
//! remove one, so such a connection ends.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::codec::fields::PEER_HEADER;
use crate::conn::Io;
use crate::relay;

/// A downstream whose bytes are looked at.
pub(super) struct Screened<'i> {
    io: &'i mut Io,
    /// Bytes of a line end and the field's name that came last; 0: none.
    matched: usize,
    /// The field was seen.
    found: &'i Cell<bool>,
}

impl<'i> Screened<'i> {
    /// Looks at what is read from `io`. The field ends it with an error and sets `found`.
    pub(super) const fn new(io: &'i mut Io, found: &'i Cell<bool>) -> Self {
        Self { io, matched: 0, found }
    }

    /// Whether the field is within `bytes`, or ends there.
    fn finds(&mut self, bytes: &[u8]) -> bool {
        let name = PEER_HEADER.as_bytes();
        bytes.iter().any(|byte| {
            self.matched = match (self.matched, byte) {
                (_, b'\r' | b'\n') => 1,
                (0, _) => 0,
                (at, byte) if name.get(at - 1) == Some(&byte.to_ascii_lowercase()) => at + 1,
                _ => 0,
            };
            self.matched > name.len()
        })
    }
}

impl AsyncRead for Screened<'_> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut *this.io).poll_read(cx, buf))?;
        if this.finds(buf.filled().get(before..).unwrap_or_default()) {
            this.found.set(true);
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Screened<'_> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get_mut().io).poll_shutdown(cx)
    }
}

impl relay::Stream for Screened<'_> {
    /// None: what the kernel moves is not looked at.
    fn plain(&self) -> Option<&TcpStream> {
        None
    }
}
