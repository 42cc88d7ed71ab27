//! What a connection speaks, from its first bytes: HTTP/1, HTTP/2, TLS or something opaque.
//!
//! `classify` is pure and decides once: more bytes never change a decision. `sniff` reads until there is one, the
//! peer is done or the time is up; it consumes nothing, as the bytes stay in the caller's buffer to be read again.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::unreachable
)]

/// The first message of a TLS client.
mod hello;

/// The first line of an HTTP client.
mod line;

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};

/// Bytes looked at before a connection counts as opaque. The largest ClientHello seen in the wild, with post-quantum
/// key shares and a resumption ticket, is under 4 KiB; one TLS record holds 16 KiB.
pub const MAX_BYTES: usize = 16 * 1024;

/// Bytes read at once: a whole ClientHello or the head of most requests.
const READ_BYTES: usize = 4096;

/// The first byte of a TLS client: a record of the type handshake (RFC 8446 section 5.1).
pub const TLS_HANDSHAKE: u8 = 22;

/// What a connection speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spoken {
    /// HTTP/1.x: a whole request line of an origin server's request.
    Http1,
    /// A line that some servers read as a request, and that the HTTP/1 codec does not serve: to a forward proxy, or not
    /// in the exact form. Where HTTP is declared it is refused as HTTP/1; elsewhere it passes as opaque bytes.
    HttpLike,
    /// HTTP/2 with prior knowledge: the whole connection preface.
    Http2,
    /// TLS: a whole ClientHello.
    Tls(ClientHello),
    /// Anything else.
    Opaque,
}

/// What is of interest in a ClientHello.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// Whether ALPN offers one of the mesh's tokens (decision D9): the client is a sidecar.
    pub mesh: bool,
    /// The server name in lower case; none when absent or not a host name.
    pub sni: Option<Box<str>>,
}

/// What the first bytes of a connection are. None: more are needed; never so for [`MAX_BYTES`] or more.
///
/// If it decides for some bytes, it decides the same for those bytes followed by any others.
pub fn classify(bytes: &[u8]) -> Option<Spoken> {
    let seen = bytes.get(..MAX_BYTES).unwrap_or(bytes);
    let spoken = match seen.first()? {
        &TLS_HANDSHAKE => hello::classify(seen),
        _ => line::classify(seen),
    };
    spoken.or_else(|| {
        (seen.len() == MAX_BYTES).then(|| match seen.first() {
            Some(&TLS_HANDSHAKE) | None => Spoken::Opaque,
            Some(_) => line::too_long(seen),
        })
    })
}

/// How long [`sniff`] waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For the first byte.
    pub silent: Duration,
    /// From there until it is clear what is spoken: whoever has begun to speak goes on.
    pub speaking: Duration,
}

/// What made [`sniff`] come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The bytes.
    Bytes,
    /// The time was up: a client that waits for the server to speak first, or a slow one.
    Timeout,
    /// The peer will send no more.
    Closed,
}

/// The result of [`sniff`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sniffed {
    /// What the connection speaks; opaque unless the cause is [`Cause::Bytes`].
    pub spoken: Spoken,
    /// Why it is taken for that.
    pub cause: Cause,
}

/// Reads from `io` to the end of `prefix` until it is clear what is spoken. Bytes that are in `prefix` already count.
///
/// Dropped before its end it loses nothing: what was read is in `prefix`. At most [`MAX_BYTES`] and one read are held,
/// and nothing is allocated before the first byte.
///
/// # Errors
/// What `io` says when it cannot be read: the peer reset the connection.
pub async fn sniff<R>(io: &mut R, prefix: &mut Vec<u8>, patience: Patience) -> io::Result<Sniffed>
where
    R: AsyncRead + Unpin,
{
    if let Some(spoken) = classify(prefix) {
        return Ok(Sniffed { spoken, cause: Cause::Bytes });
    }
    let closed = Sniffed { spoken: Spoken::Opaque, cause: Cause::Closed };
    let late = Sniffed { spoken: Spoken::Opaque, cause: Cause::Timeout };
    if prefix.is_empty() {
        match tokio::time::timeout(patience.silent, read(io, prefix)).await {
            Ok(Ok(0)) => return Ok(closed),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(error),
            Err(_) => return Ok(late),
        }
        if let Some(spoken) = classify(prefix) {
            return Ok(Sniffed { spoken, cause: Cause::Bytes });
        }
    }
    let reading = async {
        while read(io, prefix).await? > 0 {
            if let Some(spoken) = classify(prefix) {
                return Ok(Sniffed { spoken, cause: Cause::Bytes });
            }
        }
        Ok(closed)
    };
    tokio::time::timeout(patience.speaking, reading).await.unwrap_or(Ok(late))
}

/// Reads once to the end of `prefix`, through the stack: a connection that waits holds no buffer. 0: the peer is done.
///
/// # Errors
/// What `io` says when it cannot be read.
pub async fn read<R: AsyncRead + Unpin>(io: &mut R, prefix: &mut Vec<u8>) -> io::Result<usize> {
    poll_fn(|cx| {
        let mut stack = [const { MaybeUninit::uninit() }; READ_BYTES];
        let mut buffer = ReadBuf::uninit(&mut stack);
        ready!(Pin::new(&mut *io).poll_read(cx, &mut buffer))?;
        prefix.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(buffer.filled().len()))
    })
    .await
}

#[cfg(test)]
mod tests;
