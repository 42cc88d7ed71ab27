//! A control plane for tests: real TLS and gRPC, while the test says every word of it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tulle_identity::csr::{self, PendingKey};
use tulle_identity::sign::{BuiltInCa, Limits, Signer};
use tulle_identity::spiffe::{SpiffeId, TrustDomain};
use tulle_identity::svid::Identity;
use tulle_identity::tls::control_plane_server;
use tulle_proto::auth::istio_certificate_service_server::{IstioCertificateService, IstioCertificateServiceServer};
use tulle_proto::auth::{IstioCertificateRequest, IstioCertificateResponse};
use tulle_proto::discovery::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use tulle_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse};

use crate::config::bootstrap::Bootstrap;

/// Longest wait for anything in these tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for `future`, but not for ever.
pub(crate) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited too long for {what}"))
}

/// One discovery stream, seen from the server.
#[derive(Debug)]
pub(crate) struct ServerStream {
    /// The `authorization` it came with.
    pub(crate) authorization: String,
    /// What the proxy says.
    pub(crate) requests: Streaming<DeltaDiscoveryRequest>,
    /// What it hears.
    pub(crate) responses: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
}

impl ServerStream {
    /// The next request.
    pub(crate) async fn request(&mut self) -> DeltaDiscoveryRequest {
        soon("a request", self.requests.message()).await.unwrap().expect("the stream is open")
    }

    /// The next request of a type that answers a response, or subscribes when `nonce` is empty.
    pub(crate) async fn request_of(&mut self, type_url: &str, nonce: &str) -> DeltaDiscoveryRequest {
        loop {
            let request = self.request().await;
            if request.type_url == type_url && request.response_nonce == nonce {
                return request;
            }
        }
    }

    /// Says something.
    pub(crate) async fn send(&self, response: DeltaDiscoveryResponse) {
        self.responses.send(Ok(response)).await.unwrap();
    }
}

/// A running control plane.
pub(crate) struct Scripted {
    /// Files that proxies are given: trust bundle, token, state.
    pub(crate) dir: tempfile::TempDir,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Its authority.
    pub(crate) ca: Arc<BuiltInCa>,
    /// Streams as they are opened.
    pub(crate) streams: mpsc::Receiver<ServerStream>,
    identity: Identity,
    serving: AbortHandle,
}

impl Scripted {
    /// Starts one that proves to be `server`.
    pub(crate) async fn start(server: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let domain = TrustDomain::parse("cluster.local").unwrap();
        let limits = Limits { min_ttl: Duration::from_millis(100), ..Limits::default() };
        let ca = Arc::new(BuiltInCa::open(&dir.path().join("ca"), &domain).unwrap().with_limits(limits));
        std::fs::write(dir.path().join("roots.pem"), ca.bundle().pem()).unwrap();
        std::fs::write(dir.path().join("token"), "first\n").unwrap();
        let id = SpiffeId::parse(server).unwrap();
        let key = PendingKey::generate().unwrap();
        let request = csr::parse(&key.csr_pem(&id).unwrap()).unwrap();
        let now = SystemTime::now();
        let chain = ca.sign(&request, &id, &[], Duration::ZERO, now).unwrap();
        let (svid, bundle) = key.into_svid(&chain, now).unwrap();
        let identity = Identity { svid: Arc::new(svid), bundle: Arc::new(bundle) };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (serving, streams) = serve(listener, &identity, Arc::clone(&ca));
        Self { dir, address, ca, streams, identity, serving }
    }

    /// Settings of a proxy of this control plane.
    pub(crate) fn bootstrap(&self, more: &[&str]) -> Arc<Bootstrap> {
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        let own = [
            "tulle-proxy".to_owned(),
            "--namespace=shop".to_owned(),
            "--workload=web".to_owned(),
            format!("--control-plane={}", self.address),
            format!("--trust-bundle={}", path("roots.pem")),
            format!("--token={}", path("token")),
            format!("--state-dir={}", path("state")),
        ];
        Arc::new(Bootstrap::parse(own.into_iter().chain(more.iter().map(|flag| (*flag).to_owned()))).unwrap())
    }

    /// The file of the last good configuration.
    pub(crate) fn state_file(&self) -> PathBuf {
        self.dir.path().join("state/last-good.bin")
    }

    /// The next stream.
    pub(crate) async fn stream(&mut self) -> ServerStream {
        soon("a stream", self.streams.recv()).await.unwrap()
    }

    /// Goes away: the listener and every connection are closed.
    pub(crate) fn stop(&self) {
        self.serving.abort();
    }

    /// Comes back at the same address.
    pub(crate) async fn restart(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        (self.serving, self.streams) = serve(listener, &self.identity, Arc::clone(&self.ca));
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.stop();
    }
}

fn serve(
    listener: TcpListener,
    identity: &Identity,
    ca: Arc<BuiltInCa>,
) -> (AbortHandle, mpsc::Receiver<ServerStream>) {
    let tls = TlsAcceptor::from(control_plane_server(identity).unwrap());
    let (opened, streams) = mpsc::channel(16);
    let services = tonic::service::Routes::new(AggregatedDiscoveryServiceServer::new(Discovery { opened }))
        .add_service(IstioCertificateServiceServer::new(Authority { ca }));
    let accepting = async move {
        // Dropped with this future: then the connections end too.
        let mut connections = JoinSet::new();
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let (tls, services) = (tls.clone(), services.clone());
            connections.spawn(async move {
                let Ok(stream) = tls.accept(tcp).await else { return };
                let service = TowerToHyperService::new(services);
                let builder = auto::Builder::new(TokioExecutor::new()).http2_only();
                let _closed = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    };
    #[expect(clippy::disallowed_methods, reason = "a server of a test")]
    let serving = tokio::spawn(accepting).abort_handle();
    (serving, streams)
}

struct Discovery {
    opened: mpsc::Sender<ServerStream>,
}

type Responses<T> = Pin<Box<dyn tokio_stream::Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Discovery {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        _request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("delta only"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let authorization = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let authorization = authorization.unwrap_or_default().to_owned();
        if authorization == "Bearer revoked" {
            return Err(Status::unauthenticated("the token is revoked"));
        }
        let (responses, queue) = mpsc::channel(16);
        let stream = ServerStream { authorization, requests: request.into_inner(), responses };
        self.opened.send(stream).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(queue))))
    }
}

struct Authority {
    ca: Arc<BuiltInCa>,
}

#[tonic::async_trait]
impl IstioCertificateService for Authority {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let authorization = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let id = match authorization {
            Some("Bearer revoked") | None => return Err(Status::unauthenticated("the token is revoked")),
            Some("Bearer other") => "spiffe://cluster.local/ns/shop/sa/other",
            Some(_) => "spiffe://cluster.local/ns/shop/sa/default",
        };
        let message = request.into_inner();
        let csr = csr::parse(&message.csr).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let ttl = Duration::from_secs(u64::try_from(message.validity_duration).unwrap_or(0));
        let cert_chain = self.ca.sign(&csr, &SpiffeId::parse(id).unwrap(), &[], ttl, SystemTime::now()).unwrap();
        Ok(Response::new(IstioCertificateResponse { cert_chain }))
    }
}
