//! The source `kubernetes` over a real API server: what a pod of a cluster gets, and who gets nothing.

mod cluster;
mod definitions;
mod keys;
mod routes;

use std::time::{Duration, SystemTime};

use serde_json::json;
use tonic::Code;
use tulle_control_plane::app::{self, Handle};
use tulle_control_plane::settings::{Settings, Source};
use tulle_identity::csr::PendingKey;
use tulle_identity::spiffe::SpiffeId;
use tulle_identity::svid::TrustBundle;
use tulle_proto::ResourceType::{Endpoint, Listener};
use tulle_proto::auth::IstioCertificateRequest;
use tulle_proto::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use tulle_proto::discovery::DeltaDiscoveryResponse;
use tulle_proto::envoy::config::core::v3::HealthStatus;
use tulle_proto::envoy::config::endpoint::v3::{ClusterLoadAssignment, LbEndpoint, lb_endpoint::HostIdentifier};
use tulle_testing::api_server::ApiServer;

use self::cluster::Cluster;
use super::world::{Delta, connect_tls, domain, http, tulle_node, with_token};

const REVIEWS: &str = "reviews.shop.svc.cluster.local:80";

/// A control plane of the cluster, ready.
async fn start(api: &ApiServer, user: &str) -> Handle {
    let handle = begin(api, user).await;
    let ready = || http(handle.admin_addr, "GET", "/healthz/ready", &[("host", "localhost")]);
    cluster::until("the control plane is ready", || async { (ready().await.0 == 200).then_some(()) }).await;
    handle
}

async fn begin(api: &ApiServer, user: &str) -> Handle {
    app::start(settings(api, user)).await.unwrap()
}

fn settings(api: &ApiServer, user: &str) -> Settings {
    let any_port = "127.0.0.1:0".parse().unwrap();
    let mut settings = Settings::new("", "", domain());
    settings.source = Source::Kubernetes(Some(api.kubeconfig(user)));
    settings.xds_address = any_port;
    settings.admin_address = any_port;
    settings
}

/// Endpoints in an answer, by address.
fn endpoints(response: &DeltaDiscoveryResponse) -> Vec<(String, LbEndpoint)> {
    let assignment: ClusterLoadAssignment = response.resources[0].resource.as_ref().unwrap().unpack().unwrap();
    let all = assignment.endpoints.into_iter().flat_map(|locality| locality.lb_endpoints);
    let address = |endpoint: &LbEndpoint| match endpoint.host_identifier.as_ref().unwrap() {
        HostIdentifier::Endpoint(endpoint) => format!("{:?}", endpoint.address),
        HostIdentifier::EndpointName(name) => name.clone(),
    };
    let mut all: Vec<_> = all.map(|endpoint| (address(&endpoint), endpoint)).collect();
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    all
}

/// A certificate for the bearer of `token`.
async fn sign(handle: &Handle, bundle: &TrustBundle, token: &str) -> Result<SpiffeId, tonic::Status> {
    let mut client = IstioCertificateServiceClient::new(connect_tls(handle.xds_addr, bundle).await.unwrap());
    let key = PendingKey::generate().unwrap();
    let victim = SpiffeId::workload(&domain(), "bank", "vault").unwrap();
    let csr = key.csr_pem(&victim).unwrap();
    let request = IstioCertificateRequest { csr, validity_duration: 600, metadata: None };
    let reply = client.create_certificate(with_token(request, Some(token))).await?;
    let (svid, _) = key.into_svid(&reply.into_inner().cert_chain, SystemTime::now()).unwrap();
    Ok(svid.id().clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_gets_its_identity_and_its_endpoints() {
    let Some(mut api) = ApiServer::start().await else { return };
    let cluster = Cluster::furnish(&api).await;
    let handle = start(&api, "admin").await;
    let bundle = cluster.bundle("shop").await;
    let token = cluster.token("web-1", &["tulle"]).await;

    // Its identity, and no other, whatever it asks for.
    let web = SpiffeId::workload(&domain(), "shop", "web").unwrap();
    assert_eq!(sign(&handle, &bundle, &token).await.unwrap(), web);

    // So does one that the mesh does not have: the cluster is asked for it.
    cluster.node_pod("agent-1", "reviews").await;
    let agent = cluster.token("agent-1", &["tulle"]).await;
    let reviews = SpiffeId::workload(&domain(), "shop", "reviews").unwrap();
    assert_eq!(sign(&handle, &bundle, &agent).await.unwrap(), reviews);

    // Its endpoints.
    let open = async |token: &str, workload: &str| {
        let channel = connect_tls(handle.xds_addr, &bundle).await.unwrap();
        Delta::open(channel, Some(token), tulle_node("shop", "web", workload)).await
    };
    let mut stream = open(&token, "web").await.unwrap();
    stream.ask(Endpoint, &[REVIEWS]).await;
    let first = endpoints(&stream.take().await);
    assert_eq!(first.len(), 1, "{first:?}");
    let text = format!("{:?}", first[0].1);
    assert!(text.contains("10.1.0.1") && text.contains("spiffe://cluster.local/ns/shop/sa/reviews"), "{text}");
    stream.ask(Listener, &["inbound/shop/web"]).await;
    assert_eq!(stream.take().await.resources.len(), 1);

    // What changes in the cluster follows.
    let addresses = [
        ("10.1.0.1", json!({"ready": false, "serving": true, "terminating": true})),
        ("10.1.0.9", json!({"ready": true})),
    ];
    cluster.slice(&addresses).await;
    let changed = endpoints(&stream.take().await);
    let health: Vec<_> = changed.iter().map(|(_, endpoint)| endpoint.health_status()).collect();
    assert_eq!(health, [HealthStatus::Draining, HealthStatus::Healthy]);

    // Another replica signs with the same root.
    let second = start(&api, "admin").await;
    assert_eq!(sign(&second, &bundle, &token).await.unwrap(), web);

    // While the API server is away, who is known is served, and who is not is told so; then all goes on.
    api.crash();
    assert_eq!(sign(&handle, &bundle, &token).await.unwrap(), web);
    let other = cluster.saved_token();
    assert_eq!(sign(&handle, &bundle, &other).await.unwrap_err().code(), Code::Unavailable);
    api.resume().await;
    cluster.slice(&addresses[1..]).await;
    let after = tokio::time::timeout(Duration::from_secs(120), stream.next()).await.unwrap().unwrap();
    assert_eq!(endpoints(&after).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_that_pod_gets_nothing() {
    let Some(api) = ApiServer::start().await else { return };
    let cluster = Cluster::furnish(&api).await;
    cluster.role("tulle-control-plane", &[]).await;
    let handle = start(&api, "admin").await;
    let bundle = cluster.bundle("shop").await;
    assert_eq!(cluster.bundle_owner("shop").await, "tulle-control-plane", "what uninstalling takes away");
    // CP-02: other audiences, more audiences, no pod; garbage.
    let tokens = [
        cluster.token("web-1", &["https://kubernetes.default.svc"]).await,
        cluster.token("web-1", &["tulle", "vault"]).await,
        cluster.unbound_token().await,
        "garbage".to_owned(),
        "e30.e30.e30".to_owned(),
    ];
    for token in &tokens {
        let refused = sign(&handle, &bundle, token).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    }
    // CP-07: another workload, namespace or account than its pod's.
    let token = cluster.token("web-1", &["tulle"]).await;
    for (namespace, account, workload) in
        [("shop", "web", "reviews"), ("bank", "web", "web"), ("shop", "reviews", "web")]
    {
        let channel = connect_tls(handle.xds_addr, &bundle).await.unwrap();
        let mut stream = Delta::open(channel, Some(&token), tulle_node(namespace, account, workload)).await.unwrap();
        stream.ask(Listener, &["inbound/shop/reviews"]).await;
        assert_eq!(stream.next().await.unwrap_err().code(), Code::PermissionDenied, "{namespace} {account} {workload}");
    }
    // CP-02: a pod that is gone, though its token was good a moment ago and is not past its time.
    assert!(sign(&handle, &bundle, &token).await.is_ok());
    let channel = connect_tls(handle.xds_addr, &bundle).await.unwrap();
    let mut stream = Delta::open(channel, Some(&token), tulle_node("shop", "web", "web")).await.unwrap();
    stream.ask(Endpoint, &[REVIEWS]).await;
    assert_eq!(stream.take().await.resources.len(), 1);
    cluster.delete_pod("web-1").await;
    assert_eq!(stream.next().await.unwrap_err().code(), Code::Unauthenticated);
    let refused = async || sign(&handle, &bundle, &token).await.err().map(|status| status.code());
    cluster::until("the token of a pod that is gone is refused", || async {
        (refused().await == Some(Code::Unauthenticated)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_that_are_missing_are_named_and_the_mesh_waits_for_what_it_needs() {
    let Some(api) = ApiServer::start().await else { return };
    let cluster = Cluster::furnish(&api).await;
    // All but nodes and pods.
    let read = |group: &str, kinds: &[&str]| json!({"apiGroups": [group], "resources": kinds, "verbs": ["get", "list", "watch"]});
    let keys = json!({"apiGroups": [""], "resources": ["secrets"], "verbs": ["*"]});
    let rules = vec![read("", &["namespaces", "services"]), read("discovery.k8s.io", &["endpointslices"]), keys];
    cluster.role("narrow", &rules).await;
    let handle = begin(&api, "narrow").await;
    let problems = || http(handle.admin_addr, "GET", "/debug/mesh", &[("host", "localhost")]);
    cluster::until("the missing rights are named", || async {
        let text = problems().await.1;
        (text.contains("may not list and watch pods") && text.contains("may not list and watch nodes")).then_some(())
    })
    .await;
    assert_eq!(http(handle.admin_addr, "GET", "/healthz/ready", &[("host", "localhost")]).await.0, 503);
    // Nodes are not needed.
    cluster.role("narrow", &[rules, vec![read("", &["pods"])]].concat()).await;
    cluster::until("the control plane is ready", || async {
        (http(handle.admin_addr, "GET", "/healthz/ready", &[("host", "localhost")]).await.0 == 200).then_some(())
    })
    .await;
}
