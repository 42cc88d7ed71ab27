//! All of discovery against a scripted control plane: TLS, token, reconnect, NACK, last-good file.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tulle_identity::sign::Signer;
use tulle_identity::svid::TrustBundle;
use tulle_proto::ResourceType;

use super::super::{Deps, run};
use super::{INBOUND, NAME, resource, response, service};
use crate::config::bootstrap::Bootstrap;
use crate::config::compile::samples;
use crate::config::demand::{Demand, DemandKey};
use crate::config::publish::Publisher;
use crate::config::status::{Facts, Status};
use crate::config::{Known, Snapshot};
use crate::control_plane::scripted::{Scripted, ServerStream, soon};

const SERVER: &str = "spiffe://cluster.local/ns/tulle-system/sa/tulle-control-plane";

/// A proxy's control thread, as far as discovery is concerned.
struct Proxy {
    demand: Demand,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    bundle: watch::Receiver<Option<Arc<TrustBundle>>>,
    status: Status,
    running: JoinHandle<()>,
}

impl Proxy {
    fn start(bootstrap: Arc<Bootstrap>) -> Self {
        let publisher = Publisher::new();
        let snapshots = publisher.subscribe();
        let (demand, demands) = Demand::channel();
        let (bundle_sender, bundle) = watch::channel(None);
        let status = Status::default();
        let deps = Deps {
            bootstrap,
            publisher,
            demands,
            bundle: bundle_sender,
            names: watch::Sender::default(),
            status: status.clone(),
        };
        #[expect(clippy::disallowed_methods, reason = "the control thread of a test")]
        let running = tokio::spawn(async move { match Box::pin(run(deps)).await {} });
        Self { demand, snapshots, bundle, status, running }
    }

    async fn snapshot(&mut self, what: &str, condition: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
        let found = soon(what, self.snapshots.wait_for(|snapshot| condition(snapshot))).await.unwrap();
        Arc::clone(&found)
    }

    async fn facts(&self, what: &str, condition: impl Fn(&Facts) -> bool) -> Facts {
        soon(what, self.status.subscribe().wait_for(|facts| condition(facts))).await.unwrap().clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.running.abort();
    }
}

fn serves(snapshot: &Snapshot) -> bool {
    matches!(snapshot.by_name.get(NAME), Some(Known::Service(_)))
}

async fn configure(stream: &ServerStream, version: &str) {
    let own = samples::inbound(INBOUND, vec![samples::inbound_chain(8080, true, "http")]);
    let own = response(ResourceType::Listener, "own", vec![resource(INBOUND, version, &own)]);
    for response in service(version).into_iter().chain([own]) {
        stream.send(response).await;
    }
}

#[tokio::test]
async fn configuration_arrives_on_demand_and_survives_a_restart_of_the_control_plane() {
    let mut control_plane = Scripted::start(SERVER).await;
    let mut proxy = Proxy::start(control_plane.bootstrap(&[]));
    let mut stream = control_plane.stream().await;
    assert_eq!(stream.authorization, "Bearer first");
    let first = stream.request().await;
    let node = first.node.unwrap();
    assert_eq!((node.id.as_str(), node.user_agent_name.as_str()), ("web.shop", "tulle-proxy"));
    let keys: Vec<&String> = node.metadata.as_ref().unwrap().fields.keys().collect();
    assert_eq!(keys.len(), 3, "{keys:?}");

    assert!(proxy.demand.want(DemandKey::Name(NAME.into())));
    let cds = stream.request_of(ResourceType::Cluster.url(), "").await;
    assert_eq!(cds.resource_names_subscribe, [NAME]);
    configure(&stream, "1").await;
    let snapshot = proxy.snapshot("the service", |snapshot| serves(snapshot) && snapshot.inbound.is_some()).await;
    let facts = proxy.facts("facts", |facts| facts.connected && facts.inbound_config).await;
    assert_eq!((facts.generation, facts.nacks, facts.last_error), (snapshot.generation, 0, None));

    // Gone: nothing changes but the facts.
    control_plane.stop();
    drop(stream);
    let facts = proxy.facts("the loss", |facts| !facts.connected).await;
    assert!(facts.last_error.is_some());
    assert!(Arc::ptr_eq(&proxy.snapshots.borrow(), &snapshot));

    // Back, with another token: what is held is told, and nothing has to be sent again.
    std::fs::write(control_plane.dir.path().join("token"), "second").unwrap();
    control_plane.restart().await;
    let mut stream = control_plane.stream().await;
    assert_eq!(stream.authorization, "Bearer second");
    let cds = stream.request_of(ResourceType::Cluster.url(), "").await;
    assert_eq!(cds.initial_resource_versions.get(NAME).map(String::as_str), Some("1"));
    let lds = stream.request_of(ResourceType::Listener.url(), "").await;
    assert_eq!(lds.initial_resource_versions.len(), 2);
    let moved = samples::endpoints(NAME, &["10.0.0.7:80"]);
    stream.send(response(ResourceType::Endpoint, "e2", vec![resource(NAME, "2", &moved)])).await;
    let after = proxy.snapshot("the new endpoint", |now| now.generation > snapshot.generation).await;
    assert_eq!(after.clusters[0].endpoints.list[0].address, "10.0.0.7:80".parse().unwrap());
    assert_eq!(proxy.facts("the recovery", |facts| facts.connected).await.streams, 2);
}

#[tokio::test]
async fn a_bad_resource_is_refused_with_its_reason() {
    let mut control_plane = Scripted::start(SERVER).await;
    let proxy = Proxy::start(control_plane.bootstrap(&[&format!("--prefetch={NAME}")]));
    let mut stream = control_plane.stream().await;
    let mut bad = samples::cluster(NAME);
    bad.transport_socket = Some(Default::default());
    stream.send(response(ResourceType::Cluster, "n1", vec![resource(NAME, "1", &bad)])).await;
    let nack = stream.request_of(ResourceType::Cluster.url(), "n1").await;
    let reason = format!("cds {NAME}: transport_socket is not supported by this proxy");
    assert_eq!(nack.error_detail.unwrap().message, reason);
    let facts = proxy.facts("the refusal", |facts| facts.nacks == 1).await;
    assert_eq!(facts.last_error.as_deref(), Some(reason.as_str()));

    stream.send(response(ResourceType::Cluster, "n2", vec![resource(NAME, "2", &samples::cluster(NAME))])).await;
    assert_eq!(stream.request_of(ResourceType::Cluster.url(), "n2").await.error_detail, None);
}

#[tokio::test]
async fn the_trust_bundle_is_handed_on() {
    let mut control_plane = Scripted::start(SERVER).await;
    let mut proxy = Proxy::start(control_plane.bootstrap(&[]));
    let stream = control_plane.stream().await;
    let bundle = control_plane.ca.bundle();
    let secret = resource("ROOTCA", "1", &samples::bundle(&bundle.pem()));
    stream.send(response(ResourceType::Secret, "s", vec![secret])).await;
    let handed = soon("the bundle", proxy.bundle.wait_for(Option::is_some)).await.unwrap().clone().unwrap();
    assert_eq!(handed.hash(), bundle.hash());
}

#[tokio::test]
async fn the_last_good_configuration_serves_while_the_control_plane_is_away() {
    let mut control_plane = Scripted::start(SERVER).await;
    let bootstrap = control_plane.bootstrap(&[&format!("--prefetch={NAME}")]);
    let mut proxy = Proxy::start(Arc::clone(&bootstrap));
    let stream = control_plane.stream().await;
    configure(&stream, "1").await;
    proxy.snapshot("the service", serves).await;
    proxy.facts("the last-good file", |facts| facts.saves > 0).await;
    assert!(control_plane.state_file().exists());
    drop(proxy);
    control_plane.stop();

    let mut restarted = Proxy::start(Arc::clone(&bootstrap));
    let snapshot = restarted.snapshot("the restored service", serves).await;
    assert!(snapshot.inbound.is_some());
    let facts = restarted.facts("the failure to connect", |facts| facts.last_error.is_some()).await;
    assert!(facts.from_last_good && facts.inbound_config && !facts.connected);

    control_plane.restart().await;
    let mut stream = control_plane.stream().await;
    let lds = stream.request_of(ResourceType::Listener.url(), "").await;
    assert_eq!(lds.initial_resource_versions.len(), 2);
}

#[tokio::test]
async fn whoever_is_not_the_control_plane_is_not_talked_to() {
    let mut impostor = Scripted::start("spiffe://cluster.local/ns/shop/sa/impostor").await;
    let proxy = Proxy::start(impostor.bootstrap(&[]));
    let facts = proxy.facts("the refusal", |facts| facts.last_error.is_some()).await;
    assert!(facts.last_error.as_deref().unwrap().contains("cannot connect to"), "{facts:?}");
    assert!(impostor.streams.try_recv().is_err());
}

#[tokio::test]
async fn a_refused_token_is_named() {
    let control_plane = Scripted::start(SERVER).await;
    let token = control_plane.dir.path().join("token");
    std::fs::write(&token, "revoked").unwrap();
    let proxy = Proxy::start(control_plane.bootstrap(&[]));
    let facts = proxy.facts("the refusal", |facts| facts.last_error.is_some()).await;
    let text = facts.last_error.unwrap();
    assert!(text.contains("the token is revoked") && text.contains(&token.display().to_string()), "{text}");
}

#[tokio::test]
async fn missing_files_are_named_and_looked_for_again() {
    let mut control_plane = Scripted::start(SERVER).await;
    let token = control_plane.dir.path().join("token");
    std::fs::remove_file(&token).unwrap();
    let proxy = Proxy::start(control_plane.bootstrap(&[]));
    let facts = proxy.facts("the failure", |facts| facts.last_error.is_some()).await;
    assert!(facts.last_error.as_deref().unwrap().starts_with(&format!("cannot read token {}", token.display())));
    std::fs::write(&token, "late").unwrap();
    assert_eq!(control_plane.stream().await.authorization, "Bearer late");
}
