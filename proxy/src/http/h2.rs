//! HTTP/2 from a downstream: a task for each stream, beside the one that moves the connection's frames.

use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use futures_util::FutureExt;

use super::{Connection, Idle, LINGER};
use crate::base::failure::Reason;
use crate::codec::body::BodyIn;
use crate::codec::h2::head::{Refusal as Cause, Refused};
use crate::codec::h2::server::{Arrival, Call, Connection as Wire, Reply};
use crate::codec::h2::{Fault, H2Error, ResetCode};
use crate::codec::reply::Reply as AnyReply;
use crate::conn::Io;
use crate::drain::{Guard, Phase};
use crate::forward::{self, Refusal};
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
    let mut ended = false;
    loop {
        tokio::select! {
            // Frames first: streams that are open must go on.
            biased;
            call = wire.next() => match call {
                Some(Ok(Arrival::Refused(refused, reply))) => {
                    // A response without content is queued at once.
                    let _ = refuse(&connection, refused, reply).now_or_never();
                }
                // Not delivered: the peer sends it again on another connection.
                Some(Ok(Arrival::Call((_, _, reply)))) if connection.over().is_some() => {
                    reply.reset(ResetCode::REFUSED);
                }
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
            () = poll_fn(|cx| connection.poll_ended(cx)), if !ended => {
                ended = true;
                wire.graceful_shutdown();
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
async fn refuse(connection: &Connection, refused: Refused, reply: Reply) {
    let Refused { cause, outline, fault } = refused;
    let (status, reason, what) = match cause {
        Cause::TooLarge => (Some(431), Reason::HeadersTooLarge, "head larger than the limit"),
        Cause::Connect => (Some(405), Reason::BadRequest, "CONNECT is not supported"),
        Cause::Malformed => (None, Reason::BadRequest, "malformed head"),
    };
    count(connection, reason);
    let detail = match fault {
        Some(field) => format!("{what}: field `{field}`"),
        None => what.to_owned(),
    };
    let refusal = Refusal { outline: *outline, status, reason, detail, duration: Duration::ZERO };
    forward::refuse(&connection.context(), &refusal, &mut AnyReply::H2(reply)).await;
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
        // 8 of them watch for the end of what the peer has proved.
        assert!(connection <= 1048, "{connection} bytes");
    }
}
