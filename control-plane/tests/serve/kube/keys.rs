//! An authority that an operator gives in the Secret, and replaces there at once.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};
use serde_json::json;
use tulle_control_plane::app;
use tulle_identity::svid::TrustBundle;
use tulle_testing::api_server::ApiServer;

use super::cluster::{self, Cluster};
use super::{settings, sign};
use crate::world::connect_tls;

/// Life of certificates: so long after its last one a root that was replaced is trusted. All of the middle must fit into it on a
/// busy machine.
const LIFE: Duration = Duration::from_secs(30);

/// A root as an operator would make one.
struct Root {
    certificate: String,
    key: String,
}

impl Root {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.not_before = (SystemTime::now() - Duration::from_secs(3600)).into();
        Self { certificate: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
    }

    /// Writes it into the Secret as `kubectl apply` does, which leaves alone what others have added.
    async fn give(&self, cluster: &Cluster) {
        let metadata = json!({"name": "tulle-ca", "namespace": "tulle-system"});
        let (certificate, key) = (&self.certificate, &self.key);
        let data = json!({"ca.crt": certificate, "tls.crt": certificate, "tls.key": key});
        cluster.apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data})).await;
    }
}

fn bundle(roots: &[&Root]) -> TrustBundle {
    let pem: String = roots.iter().map(|root| root.certificate.as_str()).collect();
    TrustBundle::from_pem(pem.as_bytes()).unwrap()
}

/// Waits until pods would mount these roots and no others.
async fn published(cluster: &Cluster, roots: &[&Root]) {
    let wanted = bundle(roots).hash();
    cluster::until("the trust bundle", || async { (cluster.bundle("shop").await.hash() == wanted).then_some(()) })
        .await;
}

async fn secret(api: &ApiServer) -> BTreeMap<String, ByteString> {
    let secrets: Api<Secret> = Api::namespaced(cluster::client(api).await, "tulle-system");
    secrets.get("tulle-ca").await.unwrap().data.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_given_authority_may_be_replaced_at_once() {
    let Some(api) = ApiServer::start().await else { return };
    let cluster = Cluster::furnish(&api).await;
    let (old, new) = (Root::new("old"), Root::new("new"));
    old.give(&cluster).await;
    let mut settings = settings(&api, "admin");
    settings.leaf_ttl = LIFE;
    let handle = app::start(settings.clone()).await.unwrap();
    published(&cluster, &[&old]).await;
    let token = cluster.token("web-1", &["tulle"]).await;
    sign(&handle, &bundle(&[&old]), &token).await.unwrap();
    let token_key = secret(&api).await["token.key"].clone();

    // Proxies that know either root trust everybody else's certificate from here on.
    new.give(&cluster).await;
    published(&cluster, &[&old, &new]).await;
    let trusts = async |root: &Root| connect_tls(handle.xds_addr, &bundle(&[root])).await.is_ok();
    cluster::until("the new root to sign", || async { trusts(&new).await.then_some(()) }).await;
    assert!(!trusts(&old).await, "one certificate is of one root");
    assert_eq!(sign(&handle, &bundle(&[&new]), &token).await.unwrap().service_account(), Some("web"));

    // A replica that begins in the middle signs with it too, and is told of the other.
    let told: serde_json::Value = serde_json::from_slice(&secret(&api).await["retired.json"].0).unwrap();
    assert_eq!(told["roots"], bundle(&[&old]).pem());
    let second = app::start(settings).await.unwrap();
    assert!(connect_tls(second.xds_addr, &bundle(&[&new])).await.is_ok());

    published(&cluster, &[&new]).await;
    cluster::until("the Secret to be as it was given", || async {
        (!secret(&api).await.contains_key("retired.json")).then_some(())
    })
    .await;
    assert_eq!(secret(&api).await["token.key"], token_key);

    // One that cannot be used is passed over.
    let broken = Root { key: old.key.clone(), certificate: new.certificate.clone() };
    broken.give(&cluster).await;
    old.give(&cluster).await;
    published(&cluster, &[&old, &new]).await;
    handle.shutdown().await;
}
