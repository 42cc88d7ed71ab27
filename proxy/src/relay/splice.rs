//! Bulk from one plain socket to another inside the kernel: into a pipe and out of it, never through our memory.
//!
//! A pipe costs two descriptors and more than a read and a write for few bytes, so it is held only while bulk moves.

use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use rustix::pipe::{PipeFlags, SpliceFlags};
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::base::spare::{self, Spares};

/// Size of a pipe: a place for each page of it, which holds that page or a larger piece of what was received. A quarter
/// of it, the size a pipe begins with, moves a fifth fewer bytes in a second of CPU. All processes of one user that may
/// not exceed limits share 64 MiB of pipes (pipe(7), pipe-user-pages-soft).
const PIPE_BYTES: usize = 256 * 1024;

/// Asked of a socket at a time, and so the most that a pipe holds.
const AT_ONCE_BYTES: usize = 512 * 1024;

/// Less than this at a time is no bulk: what one read of a large buffer brings as well.
pub(super) const BULK_BYTES: usize = 16 * 1024;

/// Empty pipes kept for the next one who needs one.
const KEPT: usize = 4;

thread_local! {
    static FREE: Spares<Ends> = const { Spares::at_most(KEPT) };
}

struct Ends {
    out: OwnedFd,
    into: OwnedFd,
}

/// A pipe and how many bytes are in it.
pub(super) struct Pipe {
    /// None only while it is dropped.
    ends: Option<Ends>,
    held: usize,
}

impl Pipe {
    /// An empty pipe; none when the process has no descriptors or the user no pipes left, and then bytes are copied.
    pub(super) fn take() -> Option<Self> {
        let ends = spare::take(&FREE).or_else(|| {
            let (out, into) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
            rustix::pipe::fcntl_setpipe_size(&into, PIPE_BYTES).ok()?;
            Some(Ends { out, into })
        });
        ends.map(|ends| Self { ends: Some(ends), held: 0 })
    }

    /// Whether nothing is in it.
    pub(super) const fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Takes what `from` has; 0 is its end. To be called only while the pipe is empty: a full one and a socket
    /// without bytes look the same.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>, from: &TcpStream) -> Poll<io::Result<usize>> {
        let Some(ends) = &self.ends else { return Poll::Ready(Ok(0)) };
        loop {
            ready!(from.poll_read_ready(cx))?;
            match from.try_io(Interest::READABLE, || splice(from, &ends.into, AT_ONCE_BYTES)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(read) => {
                    self.held = read;
                    return Poll::Ready(Ok(read));
                }
            }
        }
    }

    /// Gives what is in it to `to`, as much as goes.
    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>, to: &TcpStream) -> Poll<io::Result<usize>> {
        let Some(ends) = &self.ends else { return Poll::Ready(Ok(0)) };
        loop {
            ready!(to.poll_write_ready(cx))?;
            match to.try_io(Interest::WRITABLE, || splice(&ends.out, to, self.held)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(written) => {
                    self.held = self.held.saturating_sub(written);
                    return Poll::Ready(Ok(written));
                }
            }
        }
    }
}

fn splice(from: impl rustix::fd::AsFd, to: impl rustix::fd::AsFd, bytes: usize) -> io::Result<usize> {
    loop {
        match rustix::pipe::splice(&from, None, &to, None, bytes, SpliceFlags::MOVE | SpliceFlags::NONBLOCK) {
            Err(rustix::io::Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        // One with bytes in it is closed: they belong to a connection that is over.
        let Some(ends) = self.ends.take().filter(|_| self.held == 0) else { return };
        spare::give(&FREE, ends);
    }
}
