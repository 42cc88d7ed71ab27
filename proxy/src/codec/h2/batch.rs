//! The stream below an HTTP/2 connection. The `h2` crate writes and flushes after each DATA frame; here its writes are
//! collected, and go out in one piece when whoever polls the connection has nothing more to do: one system call, one TLS
//! record.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::codec::buffer;
use crate::conn::Io;

/// Bytes collected before they are written without waiting for more.
const ENOUGH: usize = buffer::SIZE;

/// A piece of this size is not copied: it goes out alone, after what was collected.
const LARGE: usize = buffer::SIZE / 2;

/// Least room for a read from a socket.
const ROOM: usize = buffer::SIZE / 4;

/// The stream, shared by the crate and whoever polls its connection. The cell is borrowed only inside a poll.
#[derive(Clone, Debug)]
pub(super) struct Batch(Rc<RefCell<Inner>>);

#[derive(Debug)]
struct Inner {
    io: Io,
    /// Written, not yet sent. Holds memory only while there are bytes.
    out: Vec<u8>,
    sent: usize,
    /// Read, not yet taken.
    ahead: buffer::Received,
    /// Why collected bytes could not be sent, until the crate is told by its next call.
    failed: Option<io::Error>,
}

impl Batch {
    pub(super) fn new(io: Io) -> Self {
        let inner = Inner { io, out: Vec::new(), sent: 0, ahead: buffer::Received::default(), failed: None };
        Self(Rc::new(RefCell::new(inner)))
    }

    /// Polls `work` on the connection, and sends what it has written when it has to wait.
    pub(super) async fn drive<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|cx| {
            let polled = work.as_mut().poll(cx);
            if polled.is_pending() {
                self.send(cx);
            }
            polled
        })
        .await
    }

    /// Sends what was collected, as far as the socket takes it; the task is woken when it takes more.
    fn send(&self, cx: &mut Context<'_>) {
        let mut inner = self.0.borrow_mut();
        if let Poll::Ready(Err(error)) = inner.poll_send(cx) {
            inner.drop_out();
            inner.failed = Some(error);
            // The crate learns of it as of any failure: by its next read.
            cx.waker().wake_by_ref();
        }
    }
}

impl Inner {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.out.get(self.sent..).filter(|rest| !rest.is_empty()) {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent = self.sent.saturating_add(written);
        }
        self.drop_out();
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn drop_out(&mut self) {
        self.sent = 0;
        buffer::give(std::mem::take(&mut self.out));
    }

    fn check(&mut self) -> io::Result<()> {
        self.failed.take().map_or(Ok(()), Err)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.check()?;
        let total = pieces.iter().map(|piece| piece.len()).fold(0, usize::saturating_add);
        if total >= LARGE || self.out.len().saturating_add(total) > ENOUGH {
            ready!(self.poll_send(cx))?;
        }
        if total >= LARGE {
            return Pin::new(&mut self.io).poll_write_vectored(cx, pieces);
        }
        if self.out.capacity() == 0 {
            self.out = buffer::take();
        }
        for piece in pieces {
            self.out.extend_from_slice(piece);
        }
        Poll::Ready(Ok(total))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        if self.ahead.is_empty() {
            // The crate's buffer has little room when it holds most of a frame, or is nearly used up.
            if room.remaining() >= ROOM {
                return Pin::new(&mut self.io).poll_read(cx, room);
            }
            let Self { io, ahead, .. } = self;
            ready!(ahead.fill(|bytes| tokio_util::io::poll_read_buf(Pin::new(io), cx, bytes)))?;
        }
        let taken = self.ahead.unread().len().min(room.remaining());
        room.put_slice(self.ahead.unread().get(..taken).unwrap_or_default());
        self.ahead.consume(taken);
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Batch {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_read(cx, room)
    }
}

impl AsyncWrite for Batch {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Says yes: [`Batch::drive`] flushes.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.borrow_mut().check())
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        inner.check()?;
        ready!(inner.poll_send(cx))?;
        Pin::new(&mut inner.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::conn::Socket;

    async fn pair() -> (Batch, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (ours, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        (Batch::new(Io::Plain(Socket::new(ours.unwrap(), Vec::new()))), accepted.unwrap().0)
    }

    /// Waits once, as a connection does that has nothing more to do.
    async fn pause() {
        let mut waited = false;
        poll_fn(|cx| {
            cx.waker().wake_by_ref();
            if std::mem::replace(&mut waited, true) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    #[tokio::test]
    async fn what_is_written_without_a_pause_arrives_in_one_piece() {
        let (batch, peer) = pair().await;
        let mut peer = peer.into_std().unwrap();
        let mut writer = batch.clone();
        for piece in ["one ", "two ", "three"] {
            writer.write_all(piece.as_bytes()).await.unwrap();
            writer.flush().await.unwrap();
        }
        let mut got = [0; 64];
        let nothing = io::Read::read(&mut peer, &mut got).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        batch.drive(pause()).await;
        peer.set_nonblocking(false).unwrap();
        let n = io::Read::read(&mut peer, &mut got).unwrap();
        assert_eq!(got.get(..n), Some(b"one two three".as_slice()));
        assert_eq!(batch.0.borrow().out.capacity(), 0);
    }

    #[tokio::test]
    async fn pieces_of_any_size_keep_their_order_when_the_peer_is_slow() {
        let (batch, mut peer) = pair().await;
        let sizes = [1, 9, LARGE - 1, LARGE, 40_000, 17, ENOUGH, 3, 100_000];
        let bytes: Vec<u8> = (0..4 << 20).map(|i: usize| i.to_le_bytes().iter().fold(0, |a, b| a ^ b)).collect();
        let mut writer = batch.clone();
        let sent = batch.drive(async {
            let mut rest = bytes.as_slice();
            for size in sizes.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at(rest.len().min(*size));
                writer.write_all(now).await.unwrap();
                rest = later;
            }
            writer.shutdown().await.unwrap();
        });
        let mut got = Vec::new();
        let received = async { peer.read_to_end(&mut got).await.unwrap() };
        tokio::join!(sent, received);
        assert!(got == bytes, "{} of {} bytes", got.len(), bytes.len());
    }

    #[tokio::test]
    async fn a_reader_with_little_room_gets_everything() {
        let (mut batch, mut peer) = pair().await;
        let bytes: Vec<u8> = (0..100_000usize).map(|i| (i % 251).to_le_bytes()[0]).collect();
        let sent = async {
            peer.write_all(&bytes).await.unwrap();
            peer.shutdown().await.unwrap();
        };
        let mut got = Vec::new();
        let received = async {
            let mut room = [0; 77];
            loop {
                let n = batch.read(&mut room).await.unwrap();
                if n == 0 {
                    break;
                }
                got.extend_from_slice(room.get(..n).unwrap());
            }
        };
        tokio::join!(sent, received);
        assert!(got == bytes, "{} of {} bytes", got.len(), bytes.len());
    }

    #[tokio::test]
    async fn what_could_not_be_sent_fails_the_connection() {
        let (batch, peer) = pair().await;
        socket2::SockRef::from(&peer).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        drop(peer);
        let (mut writer, mut reader) = (batch.clone(), batch.clone());
        // The reset is there once the socket says so.
        match &batch.0.borrow().io {
            Io::Plain(socket) => while socket.tcp().take_error().unwrap().is_none() {},
            Io::Tls(_) => unreachable!("it is plain"),
        }
        writer.write_all(b"lost").await.unwrap();
        batch.drive(pause()).await;
        reader.read(&mut [0; 16]).await.unwrap_err();
    }
}
