//! HTTP/1 from a downstream: one request at a time, in one future that owns the connection.

use std::future::poll_fn;
use std::time::Duration;

use futures_util::FutureExt;

use super::{Connection, Idle};
use crate::base::failure::Reason;
use crate::codec::body::BodyIn;
use crate::codec::h1::conn::{Connection as Wire, ReadError};
use crate::codec::h1::parse::{self, Framing, HeadError};
use crate::codec::head::RequestHead;
use crate::codec::reply::{H1Reply, Reply};
use crate::conn::Io;
use crate::drain::Phase;
use crate::forward::{self, End, Refusal, Tunnel};
use crate::relay;

/// Serves requests until the downstream is done, breaks the rules, or we shut down.
pub(super) async fn serve(connection: &Connection, io: Io) {
    let mut wire = Wire::new(io);
    let mut idle = Idle::new(connection.worker.settings.limits.downstream_idle);
    let mut arriving = connection.arriving.take();
    loop {
        if !wait(connection, &mut wire, &mut idle, arriving.is_some()).await {
            return;
        }
        let head = match read(connection, &mut wire).await {
            Ok(head) => head,
            Err(error) => return Box::pin(refuse(connection, &mut wire, &error)).await,
        };
        if let Some(reason) = connection.over() {
            return Box::pin(ended(connection, &mut wire, RequestHead::H1(head).is_head(), reason)).await;
        }
        let draining = connection.worker.drain.phase() > Phase::Running;
        // Boxed: a connection that waits must not hold the room of an exchange.
        match Box::pin(exchange(connection, &mut wire, head, draining)).await {
            After::Next => arriving = None,
            After::Close => return Box::pin(linger(&mut wire)).await,
            // An orderly end would be taken for the end of the reply.
            After::Reset => return relay::abort(wire.into_parts().0.tcp()),
            After::Switched(parts) => return Box::pin(switched(connection, wire, *parts)).await,
        }
    }
}

enum After {
    Next,
    Close,
    Reset,
    Switched(Box<(Tunnel, RequestHead)>),
}

async fn exchange(connection: &Connection, wire: &mut Wire, head: parse::Request, draining: bool) -> After {
    let _busy = connection.worker.drain.guard();
    let close = !head.keep_alive || draining;
    let (reader, duplex) = wire.serve(head.framing);
    let mut body = BodyIn::from(reader);
    let http10 = head.http10;
    let head = RequestHead::H1(head);
    let mut reply = Reply::H1(H1Reply::new(duplex, http10, close, head.is_head()));
    let end = connection.request(&head, &mut body, &mut reply).await;
    let (close, broken) = match &reply {
        Reply::H1(reply) => (reply.close, reply.is_broken()),
        Reply::H2(_) => (true, false),
    };
    match end {
        End::Switched(tunnel) => After::Switched(Box::new((*tunnel, head))),
        _ if broken => After::Reset,
        End::Complete if !close => After::Next,
        End::Complete | End::Broken => After::Close,
    }
}

/// Waits for the next request; `false` when there will be none. Nothing but the connection is held meanwhile. `first`:
/// none has come yet, and while we shut down one has a moment to come.
async fn wait(connection: &Connection, wire: &mut Wire, idle: &mut Idle, first: bool) -> bool {
    idle.begin();
    tokio::select! {
        // A request that is there is served even while we shut down.
        biased;
        more = wire.wait() => return more.unwrap_or(false),
        () = connection.worker.drain.reached(Phase::Closing) => {}
        () = poll_fn(|cx| connection.poll_ended(cx)) => return false,
        () = idle.over() => return false,
    }
    if !first {
        return false;
    }
    tokio::time::timeout(FIRST_REQUEST, wire.wait()).await.is_ok_and(|more| more.unwrap_or(false))
}

/// How long a connection that was just made may take for its first request while we shut down.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// Reads a head, within the time allowed once its first byte is there.
async fn read(connection: &Connection, wire: &mut Wire) -> Result<parse::Request, ReadError> {
    let limits = connection.worker.head_limits();
    // Nearly always it is all there: no timer then.
    if let Some(head) = wire.request_head(limits).now_or_never() {
        return head;
    }
    let timeout = connection.worker.settings.limits.header_timeout;
    // Boxed: a connection that waits must not hold the room of a slow head.
    match tokio::time::timeout(timeout, Box::pin(wire.request_head(limits))).await {
        Ok(head) => head,
        Err(_) => Err(ReadError::Timeout),
    }
}

/// Answers a head that cannot be served, and closes: what follows it has no known boundary.
async fn refuse(connection: &Connection, wire: &mut Wire, error: &ReadError) {
    let (status, reason) = match error {
        ReadError::Closed | ReadError::Io(_) => return,
        ReadError::Timeout => (408, Reason::HeaderTimeout),
        ReadError::Head(HeadError::TooLarge) => (431, Reason::HeadersTooLarge),
        ReadError::Head(HeadError::TargetTooLong) => (414, Reason::HeadersTooLarge),
        ReadError::Head(HeadError::Connect) => (405, Reason::BadRequest),
        ReadError::Head(HeadError::Lexical(_) | HeadError::Framing(_) | HeadError::Target(_)) => {
            (400, Reason::BadRequest)
        }
    };
    connection.worker.telemetry.events().connection_failed(connection.direction, reason);
    let detail = match wire.culprit(error) {
        Some(field) => format!("{error}: field `{field}`"),
        None => error.to_string(),
    };
    let timed_out = matches!(error, ReadError::Timeout);
    let duration = if timed_out { connection.worker.settings.limits.header_timeout } else { Duration::ZERO };
    let refusal = Refusal { outline: wire.outline(), status: Some(status), reason, detail, duration };
    let (_, duplex) = wire.serve(Framing::None);
    let mut reply = Reply::H1(H1Reply::new(duplex, false, true, false));
    forward::refuse(&connection.context(), &refusal, &mut reply).await;
    linger(wire).await;
}

/// Refuses a request on a connection that may not go on. It was read and goes nowhere.
async fn ended(connection: &Connection, wire: &mut Wire, is_head: bool, reason: Reason) {
    let detail = "the connection may not go on".to_owned();
    let status = Some(reason.row().status);
    let refusal = Refusal { outline: wire.outline(), status, reason, detail, duration: Duration::ZERO };
    let (_, duplex) = wire.serve(Framing::None);
    let mut reply = Reply::H1(H1Reply::new(duplex, false, true, is_head));
    forward::refuse(&connection.context(), &refusal, &mut reply).await;
    linger(wire).await;
}

/// Longest time that what a peer still sends is read and dropped after the last response: a client that sends its whole
/// request before it reads gets a response that came early. As long as nginx's `lingering_time`.
const LINGER: Duration = Duration::from_secs(30);
/// Longest time without a byte of it.
const QUIET: Duration = Duration::from_secs(5);

/// Ends our direction and reads what the peer still sends, for a while.
async fn linger(wire: &mut Wire) {
    let _ = tokio::time::timeout(LINGER, wire.close(QUIET)).await;
}

/// Carries on as a byte relay after a switch of protocols.
async fn switched(connection: &Connection, wire: Wire, (tunnel, head): (Tunnel, RequestHead)) {
    let _busy = connection.worker.drain.guard();
    let (down, early) = wire.into_parts();
    tunnel.carry(&connection.context(), &head, down, early.unread()).await;
}
