//! One connection: the socket, the bytes already read from it, and TLS where there is some.
//!
//! Buffers are not kept here: whoever reads brings one, so that an idle connection holds its socket, its TLS state
//! and nothing else.

/// TLS after its handshake.
mod tls;

/// Records of TLS.
mod record;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::io::poll_read_buf;

pub(crate) use self::tls::{Received, Session, Tls, is_not_delivered};

/// A TCP socket and bytes that were read from it before its owner was known, which are read again first.
#[derive(Debug)]
pub(crate) struct Socket {
    tcp: TcpStream,
    prefix: Vec<u8>,
    at: usize,
}

impl Socket {
    /// A socket whose next bytes are `prefix`, then whatever arrives.
    pub(crate) const fn new(tcp: TcpStream, prefix: Vec<u8>) -> Self {
        Self { tcp, prefix, at: 0 }
    }

    /// The TCP socket, for its addresses and options.
    pub(crate) const fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// The socket, and the bytes that are to be read again before more of it. More may be put behind them.
    pub(crate) fn unread(&mut self) -> (&mut TcpStream, &mut Vec<u8>) {
        self.prefix.drain(..std::mem::take(&mut self.at));
        (&mut self.tcp, &mut self.prefix)
    }

    /// Drops the next `count` of the bytes that are to be read again.
    pub(crate) fn skip(&mut self, count: usize) {
        self.at += count;
        if self.at >= self.prefix.len() {
            (self.prefix, self.at) = (Vec::new(), 0);
        }
    }

    /// The TCP socket, if its next bytes are ours.
    pub(crate) fn direct(&self) -> Option<&TcpStream> {
        self.prefix.is_empty().then_some(&self.tcp)
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(rest) = this.prefix.get(this.at..).filter(|rest| !rest.is_empty()) {
            let (now, later) = rest.split_at(rest.len().min(buf.remaining()));
            buf.put_slice(now);
            this.at += now.len();
            if later.is_empty() {
                this.prefix = Vec::new();
                this.at = 0;
            }
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().tcp).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(cx)
    }
}

/// A byte stream.
#[derive(Debug)]
pub(crate) enum Io {
    /// TCP.
    Plain(Socket),
    /// TLS.
    Tls(Box<Tls>),
}

impl Io {
    /// The TCP socket underneath.
    pub(crate) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(s) => s.tcp(),
            Self::Tls(s) => s.socket().tcp(),
        }
    }

    /// Drops the next `count` bytes, which were looked at.
    pub(crate) fn skip(&mut self, count: usize) {
        match self {
            Self::Plain(socket) => socket.skip(count),
            Self::Tls(stream) => stream.skip(count),
        }
    }
}

macro_rules! each {
    ($self:ident, $s:ident => $call:expr) => {
        match $self.get_mut() {
            Io::Plain($s) => $call,
            Io::Tls(boxed) => {
                let $s = boxed.as_mut();
                $call
            }
        }
    };
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, s => Pin::new(s).poll_read(cx, buf))
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, s => Pin::new(s).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, s => Pin::new(s).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, s => Pin::new(s).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, s => Pin::new(s).poll_shutdown(cx))
    }
}

/// A stream that one future reads and writes at the same time. The cell is borrowed only inside a poll.
#[derive(Debug)]
pub(crate) struct Duplex(RefCell<Io>);

impl Duplex {
    /// Wraps a stream.
    pub(crate) const fn new(io: Io) -> Self {
        Self(RefCell::new(io))
    }

    /// Gives the stream back.
    pub(crate) fn into_inner(self) -> Io {
        self.0.into_inner()
    }

    /// Appends what has arrived to `buf`; 0 is the end of the stream.
    pub(crate) fn poll_read(&self, cx: &mut Context<'_>, buf: &mut Vec<u8>) -> Poll<io::Result<usize>> {
        poll_read_buf(Pin::new(&mut *self.0.borrow_mut()), cx, buf)
    }

    /// Writes all of `bytes` and hands them to the network. Cancel safety: dropped half way, part was written.
    pub(crate) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let n = poll_fn(|cx| Pin::new(&mut *self.0.borrow_mut()).poll_write(cx, bytes)).await?;
            if n == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            bytes = bytes.get(n..).unwrap_or_default();
        }
        self.flush().await
    }

    /// Hands what was written to the network.
    pub(crate) async fn flush(&self) -> io::Result<()> {
        poll_fn(|cx| Pin::new(&mut *self.0.borrow_mut()).poll_flush(cx)).await
    }

    /// Ends our direction: FIN, after close_notify where there is TLS.
    pub(crate) async fn shutdown(&self) -> io::Result<()> {
        poll_fn(|cx| Pin::new(&mut *self.0.borrow_mut()).poll_shutdown(cx)).await
    }

    /// Whether an idle stream is still good: nothing has arrived on it, no end and no unasked bytes.
    /// Costs no system call while the driver has seen no event.
    pub(crate) fn is_quiet(&self) -> bool {
        let mut byte = [0];
        let mut buf = ReadBuf::new(&mut byte);
        let mut cx = Context::from_waker(Waker::noop());
        Pin::new(&mut *self.0.borrow_mut()).poll_read(&mut cx, &mut buf).is_pending()
    }
}
