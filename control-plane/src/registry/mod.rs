//! The registry: the single writer of the mesh. It applies what sources say, waits out bursts, and publishes.
//!
//! The first change after a quiet time is published at once, later ones at most every `QUIET`.

mod addresses;
mod changes;
mod index;
mod merge;
mod mesh;
mod names;
mod ranges;
mod routes;
mod store;
mod topics;
mod writer;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::Instant;

pub use mesh::{
    Account, AddressOwner, Endpoint, InboundPort, InboundView, Mesh, PortView, ServiceView, Spread, WorkloadView,
};
pub(crate) use names::{OUTBOUND, POD_PREFIX, Target, target};
pub use routes::{BoundRoute, Condition, RouteView, Verdict};
pub(crate) use topics::{Changes, Topic};
pub(crate) use writer::Writer;

use crate::model::Delta;
use crate::model::policy::Mtls;

/// Shortest time between two published meshes: long enough for a rollout not to flood every proxy, short enough not
/// to be felt.
pub const QUIET: Duration = Duration::from_millis(50);

/// Steps of sources that wait for the writer; a source that is faster waits.
const BACKLOG: usize = 64;

/// Publications whose changes a reader may be behind before it is told that everything changed.
const CHANGES: usize = 64;

/// A running registry. Dropping it and all [`Input`]s ends its task.
#[derive(Debug)]
pub struct Registry {
    mesh: watch::Receiver<Arc<Mesh>>,
    synced: watch::Receiver<bool>,
    changes: broadcast::WeakSender<Arc<Changes>>,
}

/// Where one source puts what it reads.
#[derive(Clone, Debug)]
pub struct Input {
    source: usize,
    steps: mpsc::Sender<(usize, Vec<Delta>)>,
}

/// The registry has ended; the process is shutting down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the registry has ended")]
pub struct Closed;

impl Registry {
    /// Starts the writer task for `sources` sources, and returns an input for each. No mTLS mode of the mesh is weaker
    /// than `mtls_floor`. Must be called on a tokio runtime.
    pub fn start(sources: usize, mtls_floor: Option<Mtls>) -> (Self, Vec<Input>) {
        let (steps, received) = mpsc::channel(BACKLOG);
        let (mesh_sender, mesh) = watch::channel(Arc::new(Mesh::default()));
        let (synced_sender, synced) = watch::channel(sources == 0);
        let change_sender = broadcast::Sender::new(CHANGES);
        let changes = change_sender.downgrade();
        let waiting = (0..sources).collect();
        let published = Published { mesh: mesh_sender, changes: change_sender, synced: synced_sender, waiting };
        #[expect(clippy::disallowed_methods, reason = "the one writer, beside the request path")]
        tokio::spawn(run(Writer::new(mtls_floor), received, published));
        let input = |source| Input { source, steps: steps.clone() };
        (Self { mesh, synced, changes }, (0..sources).map(input).collect())
    }

    /// The newest mesh.
    pub(crate) fn mesh(&self) -> Arc<Mesh> {
        self.mesh.borrow().clone()
    }

    /// The newest mesh, and word of newer ones.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Mesh>> {
        self.mesh.clone()
    }

    /// What each mesh published from now on touched; told after the mesh is there. None when the writer has ended.
    pub(crate) fn changes(&self) -> Option<broadcast::Receiver<Arc<Changes>>> {
        Some(self.changes.upgrade()?.subscribe())
    }

    /// Whether every source delivered its first set, and a mesh with all of them is published.
    pub fn synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// Returns once [`Self::synced`] holds, or the registry has ended.
    pub async fn wait_synced(&self) {
        // An error is the end of the writer: nothing more will come.
        let _ = self.synced.clone().wait_for(|synced| *synced).await;
    }
}

impl Input {
    /// Hands over one step, waiting while the writer is behind. The deltas of a step are published together.
    ///
    /// # Errors
    /// [`Closed`] when the registry has ended.
    pub async fn send(&self, step: Vec<Delta>) -> Result<(), Closed> {
        self.steps.send((self.source, step)).await.map_err(|_| Closed)
    }

    /// As [`Self::send`], for a thread that is not tokio's.
    ///
    /// # Errors
    /// [`Closed`] when the registry has ended.
    pub fn send_blocking(&self, step: Vec<Delta>) -> Result<(), Closed> {
        self.steps.blocking_send((self.source, step)).map_err(|_| Closed)
    }
}

/// The writer's side of what readers see.
struct Published {
    mesh: watch::Sender<Arc<Mesh>>,
    changes: broadcast::Sender<Arc<Changes>>,
    synced: watch::Sender<bool>,
    /// Sources that did not deliver a set yet.
    waiting: Vec<usize>,
}

async fn run(mut writer: Writer, mut steps: mpsc::Receiver<(usize, Vec<Delta>)>, mut published: Published) {
    let mut earliest = Instant::now();
    while let Some(first) = steps.recv().await {
        writer_step(&mut writer, &mut published, first);
        // Whatever comes before the next publication is due goes into it, and what waits already by then.
        while let Ok(Some(step)) = tokio::time::timeout_at(earliest, steps.recv()).await {
            writer_step(&mut writer, &mut published, step);
            if Instant::now() >= earliest {
                break;
            }
        }
        for _ in 0..BACKLOG {
            let Ok(step) = steps.try_recv() else { break };
            writer_step(&mut writer, &mut published, step);
        }
        let (mesh, changes) = writer.build();
        published.mesh.send_replace(mesh);
        // An error means that nobody is there to be told.
        let _ = published.changes.send(Arc::new(changes));
        published.synced.send_replace(published.waiting.is_empty());
        earliest = Instant::now() + QUIET;
    }
}

fn writer_step(writer: &mut Writer, published: &mut Published, (source, step): (usize, Vec<Delta>)) {
    for delta in step {
        if matches!(delta, Delta::Reset(_)) {
            published.waiting.retain(|waiting| *waiting != source);
        }
        writer.apply(source, delta);
    }
}
