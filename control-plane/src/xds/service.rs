//! The gRPC service: admits a caller and hands its stream to a task.

use std::pin::Pin;
use std::sync::Arc;

use futures_core::Stream;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};
use tulle_identity::svid::TrustBundle;
use tulle_proto::discovery::aggregated_discovery_service_server::AggregatedDiscoveryService;
use tulle_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse};

use super::session::{Delta, Session, Sotw};
use super::stream;
use super::{Admission, Interest, Proxies};
use crate::caller::{Caller, Callers, Head};
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::quota::InUse;
use crate::registry::Registry;
use crate::translate::Translator;

/// What every stream shares.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) translator: Arc<Translator>,
    /// The newest mesh.
    pub(crate) registry: Arc<Registry>,
    /// The newest trust bundle.
    pub(crate) bundle: watch::Receiver<Arc<TrustBundle>>,
    pub(crate) admission: Admission,
    pub(crate) interest: Interest,
    pub(crate) proxies: Proxies,
    pub(crate) quotas: InUse,
    pub(crate) metrics: Metrics,
    /// Ends every stream.
    pub(crate) shutdown: CancellationToken,
    /// Counts the streams' tasks.
    pub(crate) tasks: TaskTracker,
    /// By which tokens end.
    pub(crate) clock: Clock,
}

/// The aggregated discovery service of one listener.
#[derive(Clone)]
pub(crate) struct Ads {
    shared: Arc<Shared>,
    callers: Callers,
}

/// Responses on their way out.
type Responses<R> = Pin<Box<dyn Stream<Item = Result<R, Status>> + Send>>;

impl Ads {
    pub(crate) const fn new(shared: Arc<Shared>, callers: Callers) -> Self {
        Self { shared, callers }
    }

    async fn open<S: Session + 'static>(
        &self,
        request: Request<Streaming<S::Request>>,
    ) -> Result<Responses<S::Response>, Status> {
        let caller = self.callers.reader(Head::of(&request)).await.inspect_err(|_| {
            let label = crate::metrics::ReasonLabel { reason: "unauthenticated" };
            self.shared.metrics.refused.get_or_create(&label).inc();
        })?;
        let share = self.shared.quotas.stream(caller.as_ref().map(Caller::who))?;
        // One response on its way is enough: the session makes the next one from what is newest by then.
        let (responses, receiver) = mpsc::channel(1);
        let work = stream::run::<S>(self.shared.clone(), (caller, share), request.into_inner(), responses);
        self.shared.tasks.spawn(work);
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Ads {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        self.open::<Sotw>(request).await.map(Response::new)
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        self.open::<Delta>(request).await.map(Response::new)
    }
}
