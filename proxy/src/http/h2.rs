//! HTTP/2 from a downstream: a task for each stream, beside the one that moves the connection's frames.

use std::rc::Rc;
use std::time::Duration;

use super::{Connection, Idle, LINGER};
use crate::base::failure::Reason;
use crate::codec::body::BodyIn;
use crate::codec::fields::{PROXY_HEADER, REASON_HEADER};
use crate::codec::h2::head::Refusal;
use crate::codec::h2::server::{Arrival, Call, Connection as Wire, Reply};
use crate::codec::h2::{Fault, H2Error, ResetCode};
use crate::codec::reply::Reply as AnyReply;
use crate::conn::Io;
use crate::drain::{Guard, Phase};
use crate::spawn;

/// How long the peer may take to read the last words, if it says something every [`LINGER`].
const LONGEST: Duration = Duration::from_secs(30);

/// Serves streams until the downstream is done or we shut down. Streams that are open end by themselves, until the
/// deadline of the shutdown.
pub(super) async fn serve(connection: Rc<Connection>, io: Io) {
    let mut arriving = connection.arriving.take();
    let limits = &connection.worker.settings.limits;
    let handshake =
        tokio::time::timeout(limits.header_timeout, Wire::accept(io, connection.worker.head_limits())).await;
    let mut wire = match handshake {
        Ok(Ok(wire)) => wire,
        Ok(Err(error)) => return failed(&connection, &error),
        Err(_) => return count(&connection, Reason::HeaderTimeout),
    };
    let mut idle = Idle::new(limits.downstream_idle);
    let mut phase = Some(Phase::Draining);
    loop {
        tokio::select! {
            // Frames first: streams that are open must go on.
            biased;
            call = wire.next() => match call {
                Some(Ok(Arrival::Refused(refusal, reply))) => refuse(&connection, refusal, reply),
                Some(Ok(Arrival::Call(call))) => {
                    idle.begin();
                    begin(&connection, call);
                    drop(arriving.take());
                }
                Some(Err(error)) => {
                    failed(&connection, &error);
                    if error.fault() != Fault::Lost {
                        linger(&connection, wire).await;
                    }
                    return;
                }
                None => return linger(&connection, wire).await,
            },
            () = connection.worker.drain.reached(phase.unwrap_or_default()), if phase.is_some() => {
                phase = match phase {
                    Some(Phase::Forced) => {
                        wire.cut();
                        None
                    }
                    _ => {
                        wire.graceful_shutdown();
                        Some(Phase::Forced)
                    }
                };
            }
            // A stream that is open is work, however little moves on it.
            () = idle.over() => if wire.is_busy() { idle.begin() } else { wire.cut() },
        }
    }
}

/// Lets the peer read the last words, which may still be on their way. Until then the process stays.
async fn linger(connection: &Connection, wire: Wire) {
    let _busy = connection.worker.drain.guard();
    let _ = tokio::time::timeout(LONGEST, Box::pin(wire.linger(LINGER))).await;
}

fn begin(connection: &Rc<Connection>, call: Call) {
    let busy = connection.worker.drain.guard();
    spawn::local(exchange(Rc::clone(connection), call, busy));
}

fn exchange(connection: Rc<Connection>, (head, body, reply): Call, busy: Guard) -> impl Future<Output = ()> {
    let mut body = BodyIn::from(body);
    let mut reply = AnyReply::H2(reply);
    async move {
        let _busy = busy;
        connection.request(&head, &mut body, &mut reply).await;
    }
}

/// Answers a head that cannot be served. Its stream is over, the others go on.
fn refuse(connection: &Connection, refusal: Refusal, reply: Reply) {
    let (status, reason) = match refusal {
        Refusal::TooLarge => (Some(431), Reason::HeadersTooLarge),
        Refusal::Connect => (Some(405), Reason::BadRequest),
        Refusal::Malformed => (None, Reason::BadRequest),
    };
    tracing::debug!(downstream = %connection.downstream, ?refusal, "request refused");
    count(connection, reason);
    let Some(status) = status else { return reply.reset(ResetCode::PROTOCOL) };
    let extra = [(REASON_HEADER, reason.as_str()), (PROXY_HEADER, connection.direction.as_str())];
    // That the peer has gone is nothing to say about a request that is refused.
    let _ = reply.own(status, &extra);
}

fn failed(connection: &Connection, error: &H2Error) {
    tracing::debug!(downstream = %connection.downstream, %error, "HTTP/2 connection failed");
    count(
        connection,
        match error.fault() {
            Fault::Lost => Reason::DownstreamClosed,
            Fault::Rules => Reason::BadRequest,
            Fault::Flood => Reason::Flood,
        },
    );
}

fn count(connection: &Connection, reason: Reason) {
    connection.worker.telemetry.events().connection_failed(connection.direction, reason);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spawn::size;

    /// What a connection costs while it waits. A figure that rises is paid by everyone: say why.
    #[test]
    fn the_future_of_a_connection_stays_small() {
        let connection = size(|(connection, io)| serve(connection, io));
        assert!(connection <= 1040, "{connection} bytes");
    }
}
