//! The first bytes of an opaque connection, or of one of which nobody knows yet whether it is HTTP. They go on to the
//! upstream at once and are kept until it speaks: when its proxy reports that none was delivered, another endpoint gets
//! them; when they turn out to be HTTP, the connection is served as such.

use tokio::io::AsyncWriteExt as _;

use crate::base::failure::{Failure, Reason};
use crate::conn::{Io, is_not_delivered};
use crate::detect::{self, Spoken};
use crate::view::ClusterState;

/// What came first.
pub(super) enum First {
    /// The upstream spoke or ended, or the downstream said what is not HTTP: to be relayed from here on.
    Opaque {
        /// Lenient servers may take it for HTTP.
        http_like: bool,
        /// Bytes that were sent to the upstream, and taken from the downstream.
        sent: u64,
    },
    /// A whole beginning of HTTP, none of which is taken from the downstream.
    Http(Spoken),
    /// The upstream's proxy reports that nothing was delivered. Nothing is taken from the downstream.
    NotDelivered(Failure),
}

/// Passes bytes between `down` and `up` until one of [`First`] holds. `undecided`: what is spoken is not known.
///
/// # Errors
/// `DownstreamClosed` or `UpstreamReset`: that stream broke.
pub(super) async fn exchange(
    down: &mut Io,
    up: &mut Io,
    cluster: &ClusterState,
    undecided: bool,
) -> Result<First, Failure> {
    let closed = |error| Failure::new(Reason::DownstreamClosed).because(error);
    let reset = |error| Failure::new(Reason::UpstreamReset).because(error);
    let (mut undecided, mut http_like) = (undecided, false);
    let learns = undecided;
    let (mut sent, mut ended) = (0, false);
    loop {
        let more = tokio::select! {
            // An upstream that has spoken is not HTTP's: its word counts before the client's next.
            biased;
            first = peek(up, 0) => match first {
                Err(error) if is_not_delivered(&error) => {
                    return Ok(First::NotDelivered(Failure::safe(Reason::ConnectRefused).because(error)));
                }
                first => {
                    let spoke = !first.map_err(reset)?.is_empty();
                    if learns && sent == 0 && !ended {
                        cluster.server_first.set(spoke);
                    }
                    down.skip(sent);
                    return Ok(First::Opaque { http_like, sent: sent as u64 });
                }
            },
            more = peek(down, sent), if !ended => more.map_err(closed)?,
        };
        if learns {
            cluster.server_first.set(false);
        }
        if more.len() <= sent {
            ended = true;
            // The relay passes the end on once more, which does no harm. What failed is known by reading.
            up.shutdown().await.ok();
            continue;
        }
        match undecided.then(|| detect::classify(more)).flatten() {
            Some(spoken @ (Spoken::Http1 | Spoken::Http2)) => return Ok(First::Http(spoken)),
            Some(spoken) => {
                undecided = false;
                http_like = spoken == Spoken::HttpLike;
            }
            None => {}
        }
        // To an upstream in plain, connected means delivered.
        let kept = undecided || matches!(up, Io::Tls(_));
        if !kept || more.len() >= detect::MAX_BYTES {
            down.skip(sent);
            return Ok(First::Opaque { http_like, sent: sent as u64 });
        }
        let rest = more.get(sent..).unwrap_or_default();
        let seen = more.len();
        if up.write_all(rest).await.is_err() || up.flush().await.is_err() {
            // Why is known by reading: the report that nothing was delivered may be there.
            ended = true;
        } else {
            sent = seen;
        }
    }
}

/// Bytes that are there, without taking them, once there are more than `seen`; no more than these is the end.
async fn peek(io: &mut Io, seen: usize) -> std::io::Result<&[u8]> {
    match io {
        Io::Plain(socket) => {
            let (tcp, prefix) = socket.unread();
            if prefix.len() <= seen {
                detect::read(tcp, prefix).await?;
            }
            Ok(prefix)
        }
        Io::Tls(stream) => stream.peek_beyond(seen).await,
    }
}
