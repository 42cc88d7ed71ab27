//! The transport of the scripted control plane. It runs in a runtime of its own, so that stopping it cuts every
//! connection at once, as the end of a process does.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming};
use tulle_identity::csr;
use tulle_identity::sign::Signer;
use tulle_identity::spiffe::SpiffeId;
use tulle_identity::tls::control_plane_server;
use tulle_proto::auth::istio_certificate_service_server::{IstioCertificateService, IstioCertificateServiceServer};
use tulle_proto::auth::{IstioCertificateRequest, IstioCertificateResponse};
use tulle_proto::discovery::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use tulle_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse};

use super::State;
use super::delta::Stream as Delta;
use crate::stream::Stream;
use crate::wait;

/// Namespace and service account of every control plane.
const SELF: (&str, &str) = ("tulle-system", "tulle-control-plane");

#[derive(Debug)]
pub(super) struct Server {
    addr: SocketAddr,
    runtime: Option<Runtime>,
}

impl Server {
    /// Listens at `addr` and serves `state`.
    pub(super) async fn start(addr: SocketAddr, state: Arc<State>) -> Self {
        let tls = state
            .ca
            .as_ref()
            .map(|ca| control_plane_server(&ca.identity(SELF.0, SELF.1)).expect("an identity that was just issued"));
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let handle = runtime.handle().clone();
        let listener = wait::until_ready("the control plane's address", || async {
            handle.spawn(TcpListener::bind(addr)).await.expect("the runtime lives").ok()
        })
        .await;
        let addr = listener.local_addr().expect("a bound socket has an address");
        let (accepted, incoming) = mpsc::channel(16);
        runtime.spawn(accept(listener, tls, accepted));
        let service = Service(state);
        let discovery = AggregatedDiscoveryServiceServer::new(service.clone());
        let router = tonic::transport::Server::builder()
            .add_service(discovery)
            .add_service(IstioCertificateServiceServer::new(service));
        runtime.spawn(router.serve_with_incoming(ReceiverStream::new(incoming)));
        Self { addr, runtime: Some(runtime) }
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Ends it, and waits until the address refuses connections.
    pub(super) async fn stop(self) {
        let addr = self.addr;
        drop(self);
        wait::until_ready("the control plane to stop", || async move {
            tokio::net::TcpStream::connect(addr).await.is_err().then_some(())
        })
        .await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A plain drop would block, which the test's own runtime forbids.
            runtime.shutdown_background();
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a handshake must not hold up the next connection")]
async fn accept(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    accepted: mpsc::Sender<std::io::Result<Stream>>,
) {
    while let Ok((tcp, _)) = listener.accept().await {
        let (tls, accepted) = (tls.clone(), accepted.clone());
        tokio::spawn(async move {
            if let Ok(stream) = Stream::accept(tcp, tls.as_ref()).await {
                // An error means the server is going away.
                let _ = accepted.send(Ok(stream)).await;
            }
        });
    }
}

impl Connected for Stream {
    type ConnectInfo = ();

    fn connect_info(&self) -> Self::ConnectInfo {}
}

#[derive(Clone)]
struct Service(Arc<State>);

type Responses<T> = Pin<Box<dyn tokio_stream::Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Service {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        _request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("the scripted control plane speaks the incremental protocol only"))
    }

    #[expect(clippy::disallowed_methods, reason = "each stream runs beside the others")]
    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let authorization = authorization(request.metadata());
        let (out, responses) = mpsc::channel(16);
        let stream = Delta::new(Arc::clone(&self.0), authorization, out);
        tokio::spawn(stream.run(request.into_inner()));
        Ok(Response::new(Box::pin(ReceiverStream::new(responses))))
    }
}

#[tonic::async_trait]
impl IstioCertificateService for Service {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let ca = self.0.ca.as_ref().ok_or_else(|| Status::unimplemented("this control plane signs nothing"))?;
        let now = SystemTime::now();
        let credential = authorization(request.metadata()).unwrap_or_default();
        let token = credential.strip_prefix("Bearer ").unwrap_or_default();
        let claims = ca.token_verifier().verify(token, now).map_err(|e| Status::unauthenticated(e.to_string()))?;
        let id: SpiffeId = claims.id;
        let (refuse, ttl) = {
            let world = self.0.world();
            (world.refuse_certificates, world.certificate_ttl)
        };
        if refuse {
            return Err(Status::unavailable("told to refuse"));
        }
        let asked = request.into_inner();
        let csr = csr::parse(&asked.csr).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let seconds = u64::try_from(asked.validity_duration).unwrap_or(0);
        let ttl = ttl.unwrap_or_else(|| std::time::Duration::from_secs(seconds));
        let signed = ca.signer().sign(&csr, &id, &[], ttl, now).map_err(|e| Status::internal(e.to_string()))?;
        self.0.world().certificates.push(id.as_str().to_owned());
        Ok(Response::new(IstioCertificateResponse { cert_chain: signed }))
    }
}

fn authorization(metadata: &MetadataMap) -> Option<String> {
    metadata.get("authorization").and_then(|value| value.to_str().ok()).map(str::to_owned)
}
