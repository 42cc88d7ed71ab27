//! One OS thread for each worker: a runtime of its own, its listening sockets, and every connection they accept.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::watch;
use tokio::time::Instant;

use super::accept::{Slot, Slots, accept_last, accept_loop};
use super::listen::Bound;
use crate::base::addr::Downstream;
use crate::base::failure::Failure;
use crate::drain::{Drain, Phase};
use crate::telemetry::Telemetry;
use crate::telemetry::labels::Direction;
use crate::worker::{Parts, Worker};
use crate::{inbound, outbound, spawn};

/// What a listening socket is for.
#[derive(Clone, Debug)]
pub(crate) enum Role {
    /// Connections of the workload.
    Outbound(outbound::Route),
    /// Connections to the workload.
    Inbound(inbound::Route),
}

impl Role {
    const fn direction(&self) -> Direction {
        match self {
            Self::Outbound(_) => Direction::Outbound,
            Self::Inbound(_) => Direction::Inbound,
        }
    }
}

/// Everything one worker thread starts with.
#[derive(Debug)]
pub(crate) struct Start {
    /// Which one, from 0.
    pub(crate) index: usize,
    /// Values every thread may hold.
    pub(crate) parts: Parts,
    /// Its sockets.
    pub(crate) sockets: Vec<Bound<Role>>,
    /// Counters of the process.
    pub(crate) telemetry: Arc<Telemetry>,
    /// Shutting down.
    pub(crate) drain: Drain,
    /// Becomes true when the thread shall end.
    pub(crate) stop: watch::Receiver<bool>,
}

/// Starts a worker thread. It ends when told to, with every connection that is then still open.
///
/// # Errors
/// The system gives no thread.
pub(crate) fn start(start: Start) -> io::Result<JoinHandle<io::Result<()>>> {
    let name = format!("tulle-worker-{}", start.index);
    std::thread::Builder::new().name(name).spawn(move || run(start))
}

fn run(start: Start) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(async move {
        let Start { index, parts, sockets, telemetry, drain, mut stop } = start;
        let worker = Worker::new(&parts, telemetry.worker(), drain.signal(index));
        spawn::local(Rc::clone(&worker).follow(parts));
        let signal = worker.drain.clone();
        spawn::local(async move { signal.follow().await });
        let slots = Slots::new(worker.settings.limits.max_connections);
        for Bound { role, socket, .. } in sockets {
            let listener = TcpListener::from_std(socket)?;
            spawn::local(listen(Rc::clone(&worker), listener, role, Rc::clone(&slots)));
        }
        // The sender is dropped only with the process.
        let _ = stop.wait_for(|stop| *stop).await;
        Ok(())
    })
}

/// Accepts until the process ends; inbound only until draining has come to its second part.
async fn listen(worker: Rc<Worker>, listener: TcpListener, role: Role, slots: Rc<Slots>) {
    let direction = role.direction();
    let handler = |tcp: TcpStream, from: Downstream, slot: Slot| {
        spawn::local(serve(Rc::clone(&worker), tcp, from, role.clone(), slot));
    };
    let failed = |error: &io::Error| {
        worker.telemetry.events().accept_errors.increment();
        tracing::warn!(%error, "accept failed");
    };
    tokio::select! {
        biased;
        () = worker.drain.reached(Phase::Closing), if direction == Direction::Inbound => {}
        () = accept_loop(&listener, &slots, handler, failed) => {}
    }
    accept_last(listener, &slots, handler);
}

async fn serve(worker: Rc<Worker>, tcp: TcpStream, from: Downstream, role: Role, slot: Slot) {
    let direction = role.direction();
    worker.telemetry.events().downstream_opened(direction);
    let ended = match role {
        Role::Outbound(route) => outbound::serve(Rc::clone(&worker), tcp, from, route).await,
        Role::Inbound(route) => inbound::serve(Rc::clone(&worker), tcp, from, route).await,
    };
    let events = worker.telemetry.events();
    if let Err(failure) = ended {
        events.connection_failed(direction, failure.reason);
        report(&worker, direction, from, &failure);
    }
    events.downstream_closed(direction);
    drop(slot);
}

/// A refusal is for somebody to know of; what else fails is usually the peer's business.
fn report(worker: &Worker, direction: Direction, from: Downstream, failure: &Failure) {
    let direction = direction.as_str();
    match worker.refusals.due(failure.reason, Instant::now()) {
        Some(others) => tracing::warn!(direction, downstream = %from, %failure, others, "connection refused"),
        None => tracing::debug!(direction, downstream = %from, %failure, "connection failed"),
    }
}

/// The address of each socket of the first worker, by what it is for; all workers have the same.
pub(crate) fn addresses(sockets: &[Bound<Role>]) -> Vec<(Direction, SocketAddr)> {
    sockets.iter().map(|bound| (bound.role.direction(), bound.address)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spawn::size;

    /// The future of a connection of any kind, from its acceptance on: what an idle one holds beside its socket.
    #[test]
    fn the_future_of_a_connection_stays_small() {
        let bytes = size(|(worker, tcp, from, role, slot)| serve(worker, tcp, from, role, slot));
        // 40 of them end the connection with what its peer has proved.
        assert!(bytes <= 1864, "{bytes} bytes");
    }
}
