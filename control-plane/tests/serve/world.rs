//! A control plane over a directory of manifests, and clients of it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};
use tulle_control_plane::app::{self, Handle};
use tulle_control_plane::settings::Settings;
use tulle_identity::spiffe::{SpiffeId, TrustDomain};
use tulle_identity::svid::TrustBundle;
use tulle_identity::token::TokenIssuer;
use tulle_proto::ResourceType;
use tulle_proto::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use tulle_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse};
use tulle_proto::envoy::config::core::v3::Node;
use tulle_proto::google::protobuf::value::Kind;
use tulle_proto::google::protobuf::{Struct, Value};

/// Nothing here takes longer than this unless it is broken.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// One service with one workload.
pub(crate) const REVIEWS: &str = "
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec:
  clusterIP: 10.96.0.12
  selector: {app: reviews}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: tulle.io/v1alpha1
kind: Workload
metadata: {name: reviews-1, namespace: shop, labels: {app: reviews}}
spec:
  addresses: [127.1.0.11]
  serviceAccount: reviews
  ports: [{name: http, port: 8080}]
";

/// Its name.
pub(crate) const REVIEWS_80: &str = "reviews.shop.svc.cluster.local:80";

/// A second workload of it.
pub(crate) const REVIEWS_2: &str = "
apiVersion: tulle.io/v1alpha1
kind: Workload
metadata: {name: reviews-2, namespace: shop, labels: {app: reviews}}
spec:
  addresses: [127.1.0.12]
  serviceAccount: reviews
  ports: [{name: http, port: 8080}]
";

/// A control plane and its directories.
pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) handle: Handle,
}

impl World {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("mesh")).unwrap();
        std::fs::write(dir.path().join("mesh/reviews.yaml"), REVIEWS).unwrap();
        let handle = app::start(settings(&dir)).await.unwrap();
        let world = Self { dir, handle };
        world.read().await;
        world
    }

    /// Returns once the directory was read: pages answer before that, with an empty mesh.
    async fn read(&self) {
        tokio::time::timeout(DEADLINE, async {
            while http(self.handle.admin_addr, "GET", "/healthz/ready", &[("host", "localhost")]).await.0 != 200 {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
    }

    /// Ends it and starts another on the same directories.
    pub(crate) async fn restart(self) -> Self {
        let Self { dir, handle } = self;
        tokio::time::timeout(DEADLINE, handle.shutdown()).await.unwrap();
        let handle = app::start(settings(&dir)).await.unwrap();
        let world = Self { dir, handle };
        world.read().await;
        world
    }

    pub(crate) fn write(&self, file: &str, manifest: &str) {
        let whole = self.dir.path().join("new");
        std::fs::write(&whole, manifest).unwrap();
        std::fs::rename(whole, self.dir.path().join("mesh").join(file)).unwrap();
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub(crate) fn bundle(&self) -> TrustBundle {
        TrustBundle::from_pem(&std::fs::read(self.state().join("trust-bundle.pem")).unwrap()).unwrap()
    }

    pub(crate) fn token(&self, namespace: &str, account: &str) -> String {
        self.token_for(namespace, account, Duration::from_secs(600))
    }

    pub(crate) fn token_for(&self, namespace: &str, account: &str, life: Duration) -> String {
        let id = SpiffeId::workload(&domain(), namespace, account).unwrap();
        let issuer = TokenIssuer::open(&self.state()).unwrap();
        issuer.issue(&id, life, SystemTime::now()).unwrap()
    }

    /// A connection over TLS, trusting the published bundle.
    pub(crate) async fn connect(&self) -> Channel {
        connect_tls(self.handle.xds_addr, &self.bundle()).await.unwrap()
    }

    pub(crate) async fn connect_plain(&self) -> Channel {
        let address = self.handle.plaintext_addr.unwrap();
        Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
    }
}

pub(crate) fn domain() -> TrustDomain {
    TrustDomain::parse("cluster.local").unwrap()
}

pub(crate) fn settings(dir: &TempDir) -> Settings {
    let any_port: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let mut settings = Settings::new(dir.path().join("mesh"), dir.path().join("state"), domain());
    settings.xds_address = any_port;
    settings.xds_plaintext_address = Some(any_port);
    settings.admin_address = any_port;
    settings
}

/// A connection over TLS that insists on the control plane's identity.
pub(crate) async fn connect_tls(address: SocketAddr, bundle: &TrustBundle) -> Result<Channel, tonic::transport::Error> {
    let id = SpiffeId::workload(&domain(), "tulle-system", "tulle-control-plane").unwrap();
    let config = tulle_identity::tls::control_plane_client(bundle, &id).unwrap();
    let connector = tower::service_fn(move |_| {
        let config = config.clone();
        async move {
            let tcp = TcpStream::connect(address).await?;
            let name = ServerName::try_from("localhost").unwrap();
            let tls = tokio_rustls::TlsConnector::from(config).connect(name, tcp).await?;
            Ok::<_, std::io::Error>(TokioIo::new(tls))
        }
    });
    Endpoint::from_static("http://control-plane").connect_with_connector(connector).await
}

/// A request with a token.
pub(crate) fn with_token<T>(message: T, token: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(token) = token {
        let value: MetadataValue<_> = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    request
}

pub(crate) fn tulle_node(namespace: &str, account: &str, workload: &str) -> Node {
    let text = |value: &str| Value { kind: Some(Kind::StringValue(value.to_owned())) };
    let fields = [("NAMESPACE", namespace), ("SERVICE_ACCOUNT", account), ("WORKLOAD_NAME", workload)];
    Node {
        id: format!("{workload}.{namespace}"),
        user_agent_name: "tulle-proxy".to_owned(),
        metadata: Some(Struct { fields: fields.map(|(k, v)| (k.to_owned(), text(v))).into() }),
        ..Node::default()
    }
}

pub(crate) fn envoy_node() -> Node {
    Node { id: "envoy".to_owned(), user_agent_name: "envoy".to_owned(), ..Node::default() }
}

/// An open stream of either variant.
pub(crate) struct Ads<Q, R> {
    requests: mpsc::Sender<Q>,
    responses: Streaming<R>,
    node: Option<Node>,
}

pub(crate) type Delta = Ads<DeltaDiscoveryRequest, DeltaDiscoveryResponse>;
pub(crate) type Sotw = Ads<DiscoveryRequest, DiscoveryResponse>;

impl<Q, R> Ads<Q, R> {
    pub(crate) async fn send(&self, request: Q) {
        self.requests.send(request).await.unwrap();
    }

    /// The next response, or how the stream ended.
    pub(crate) async fn next(&mut self) -> Result<R, Status> {
        let next = tokio::time::timeout(DEADLINE, self.responses.message()).await;
        next.expect("no response in time")?.ok_or_else(|| Status::cancelled("the stream ended"))
    }
}

impl Delta {
    pub(crate) async fn open(channel: Channel, token: Option<&str>, node: Node) -> Result<Self, Status> {
        let (requests, receiver) = mpsc::channel(16);
        let request = with_token(ReceiverStream::new(receiver), token);
        let mut client = AggregatedDiscoveryServiceClient::new(channel);
        let responses = client.delta_aggregated_resources(request).await?.into_inner();
        Ok(Self { requests, responses, node: Some(node) })
    }

    pub(crate) async fn ask(&mut self, ty: ResourceType, names: &[&str]) {
        self.resume(ty, names, &[]).await;
    }

    pub(crate) async fn resume(&mut self, ty: ResourceType, names: &[&str], held: &[(&str, &str)]) {
        let request = DeltaDiscoveryRequest {
            node: self.node.take(),
            type_url: ty.url().to_owned(),
            resource_names_subscribe: names.iter().map(ToString::to_string).collect(),
            initial_resource_versions: held.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect(),
            ..DeltaDiscoveryRequest::default()
        };
        self.send(request).await;
    }

    pub(crate) async fn answer(&self, response: &DeltaDiscoveryResponse, refusal: Option<&str>) {
        let request = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail: refusal.map(refused),
            ..DeltaDiscoveryRequest::default()
        };
        self.send(request).await;
    }

    /// The next response, accepted.
    pub(crate) async fn take(&mut self) -> DeltaDiscoveryResponse {
        let response = self.next().await.unwrap();
        self.answer(&response, None).await;
        response
    }
}

impl Sotw {
    pub(crate) async fn open(channel: Channel, token: Option<&str>, node: Node) -> Result<Self, Status> {
        let (requests, receiver) = mpsc::channel(16);
        let request = with_token(ReceiverStream::new(receiver), token);
        let mut client = AggregatedDiscoveryServiceClient::new(channel);
        let responses = client.stream_aggregated_resources(request).await?.into_inner();
        Ok(Self { requests, responses, node: Some(node) })
    }

    pub(crate) async fn ask(&mut self, ty: ResourceType, names: &[&str]) {
        let request = DiscoveryRequest {
            node: self.node.take(),
            type_url: ty.url().to_owned(),
            resource_names: names.iter().map(ToString::to_string).collect(),
            ..DiscoveryRequest::default()
        };
        self.send(request).await;
    }

    /// The next response, accepted; the names wanted stay `names`.
    pub(crate) async fn take(&mut self, names: &[&str]) -> DiscoveryResponse {
        let response = self.next().await.unwrap();
        let request = DiscoveryRequest {
            type_url: response.type_url.clone(),
            version_info: response.version_info.clone(),
            response_nonce: response.nonce.clone(),
            resource_names: names.iter().map(ToString::to_string).collect(),
            ..DiscoveryRequest::default()
        };
        self.send(request).await;
        response
    }
}

fn refused(reason: &str) -> tulle_proto::google::rpc::Status {
    tulle_proto::google::rpc::Status { code: 3, message: reason.to_owned(), ..Default::default() }
}

/// A request to the admin port: status and body.
pub(crate) async fn http(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: 0\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
    let mut reply = Vec::new();
    tokio::time::timeout(DEADLINE, stream.read_to_end(&mut reply)).await.unwrap().unwrap();
    let reply = String::from_utf8(reply).unwrap();
    let status = reply.split(' ').nth(1).unwrap().parse().unwrap();
    (status, reply.split_once("\r\n\r\n").unwrap().1.to_owned())
}
