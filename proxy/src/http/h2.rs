//! HTTP/2 from a downstream: a task for each stream, beside the one that moves the connection's frames.

use std::rc::Rc;

use super::Connection;
use crate::base::failure::Reason;
use crate::codec::body::BodyIn;
use crate::codec::h2::server::{Call, Connection as Wire};
use crate::codec::reply::Reply;
use crate::conn::Io;
use crate::drain::Phase;
use crate::spawn;

/// Serves streams until the downstream is done or we shut down. Streams that are open end by themselves, until the
/// deadline of the shutdown.
pub(super) async fn serve(connection: Rc<Connection>, io: Io) {
    let mut arriving = connection.arriving.take();
    let limits = &connection.worker.settings.limits;
    let max_header_bytes = u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX);
    let handshake = tokio::time::timeout(limits.header_timeout, Wire::accept(io, max_header_bytes)).await;
    let mut wire = match handshake {
        Ok(Ok(wire)) => wire,
        Ok(Err(error)) => return refuse(&connection, &error.to_string()),
        Err(_) => return refuse(&connection, "no preface in time"),
    };
    let mut phase = Some(Phase::Draining);
    loop {
        tokio::select! {
            // Frames first: streams that are open must go on.
            biased;
            call = wire.next() => match call {
                Some(Ok(call)) => {
                    begin(&connection, call);
                    drop(arriving.take());
                }
                Some(Err(error)) => return refuse(&connection, &error.to_string()),
                None => return,
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
        }
    }
}

fn begin(connection: &Rc<Connection>, (head, body, reply): Call) {
    let connection = Rc::clone(connection);
    let busy = connection.worker.drain.guard();
    #[expect(clippy::large_futures, reason = "part of the one allocation that an exchange is")]
    spawn::local(async move {
        let _busy = busy;
        let mut body = BodyIn::from(body);
        let mut reply = Reply::H2(reply);
        connection.request(&head, &mut body, &mut reply).await;
    });
}

fn refuse(connection: &Connection, error: &str) {
    tracing::debug!(downstream = %connection.downstream, error, "HTTP/2 connection failed");
    connection.worker.telemetry.events().connection_failed(connection.direction, Reason::BadRequest);
}
