//! What a request becomes after a switch of protocols (101): a relay of bytes. They are counted as the request's, which is
//! recorded when the relay ends.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::{Context, Progress, record};
use crate::base::failure::{Failure, Reason};
use crate::codec::head::RequestHead;
use crate::conn::Io;
use crate::drain::Phase;
use crate::pool::H1Lease;
use crate::relay::{self, Counts};
use crate::view::ClusterState;
use crate::worker::Worker;

/// The upstream's side of a switch of protocols, and what is known of the request. Dropped, the request is not recorded.
#[derive(Debug)]
pub(crate) struct Tunnel {
    pub(super) lease: H1Lease,
    pub(super) progress: Progress,
    pub(super) cluster: Rc<ClusterState>,
    pub(super) route: Arc<str>,
}

impl Tunnel {
    /// Relays until both peers are done, beginning with `early`, which the downstream sent behind its request. Then
    /// records the request, whose head was `head`.
    pub(crate) async fn carry(self, cx: &Context<'_>, head: &RequestHead, down: Io, early: &[u8]) {
        let Self { lease, progress, cluster, route } = self;
        let (up, late, _slot) = lease.into_parts();
        let relayed = joined(cx.worker, (down, early), (up, late.unread()), &progress).await;
        if let Err(failure) = relayed {
            tracing::debug!(cause = %failure, path = head.path(), "connection failed after a switch of protocols");
            progress.reason.set(Some(failure.reason));
            if let Some(source) = failure.source {
                let _ = progress.detail.set(source.to_string().into());
            }
        }
        record::finish(cx, Some((&cluster, &route)), head, &progress);
    }
}

/// Relays between two connections that switched protocols, each with the bytes that were received on it meanwhile, until
/// both peers are done.
///
/// # Errors
/// The relay broke; both connections are reset.
async fn joined(
    worker: &Worker,
    (mut down, early): (Io, &[u8]),
    (mut up, late): (Io, &[u8]),
    counts: &impl Counts,
) -> Result<(), Failure> {
    let relayed = async {
        let first = async {
            up.write_all(early).await?;
            up.flush().await?;
            counts.sent(early.len() as u64);
            down.write_all(late).await?;
            counts.received(late.len() as u64);
            down.flush().await
        };
        first.await.map_err(|error| Failure::new(Reason::UpstreamReset).because(error))?;
        relay::copy_both(&mut down, &mut up, Duration::MAX, counts).await
    };
    let result = tokio::select! {
        biased;
        result = relayed => result,
        () = worker.drain.reached(Phase::Forced) => Err(Reason::Draining.into()),
    };
    if result.is_err() {
        relay::abort(down.tcp());
        relay::abort(up.tcp());
    }
    result
}

impl Counts for Progress {
    fn sent(&self, bytes: u64) {
        self.sent.bytes.set(self.sent.bytes.get().saturating_add(bytes));
    }

    fn received(&self, bytes: u64) {
        self.received.bytes.set(self.received.bytes.get().saturating_add(bytes));
    }
}
