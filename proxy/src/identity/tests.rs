//! All of identity against a scripted control plane.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tulle_identity::sign::Signer;

use super::*;
use crate::config::status::Facts;
use crate::control_plane::scripted::{Scripted, soon};

const SERVER: &str = "spiffe://cluster.local/ns/tulle-system/sa/tulle-control-plane";

struct Proxy {
    keys: watch::Receiver<Option<Arc<MeshTls>>>,
    bundle: watch::Sender<Option<Arc<TrustBundle>>>,
    status: Status,
    running: JoinHandle<()>,
}

impl Proxy {
    fn start(bootstrap: Arc<Bootstrap>) -> Self {
        let (keys, status) = (Keys::new(), Status::default());
        let published = keys.subscribe();
        let (sender, bundle) = watch::channel(None);
        let deps = Deps { bootstrap, keys, bundle, status: status.clone() };
        #[expect(clippy::disallowed_methods, reason = "the control thread of a test")]
        let running = tokio::spawn(async move { match Box::pin(run(deps)).await {} });
        Self { keys: published, bundle: sender, status, running }
    }

    /// The next identity that is published; none when there is no certificate any more.
    async fn next(&mut self) -> Option<Arc<MeshTls>> {
        soon("an identity", self.keys.changed()).await.unwrap();
        self.keys.borrow_and_update().clone()
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

#[tokio::test]
async fn a_certificate_is_had_and_renewed_and_follows_the_trust_bundle() {
    let control_plane = Scripted::start(SERVER).await;
    let mut proxy = Proxy::start(control_plane.bootstrap(&["--leaf-ttl=3s"]));
    let first = proxy.next().await.unwrap();
    assert_eq!(first.id().as_str(), "spiffe://cluster.local/ns/shop/sa/default");
    let facts = proxy.facts("the certificate", |facts| facts.certificate_expires.is_some()).await;
    assert!(facts.has_identity(SystemTime::now()));

    // The same roots from discovery change nothing; others are taken up without a new certificate.
    proxy.bundle.send_replace(Some(control_plane.ca.bundle()));
    let both = control_plane.ca.begin_rotation(SystemTime::now()).unwrap();
    proxy.bundle.send_replace(Some(both));
    let second = proxy.next().await.unwrap();
    assert!(!Arc::ptr_eq(&first, &second));
    assert_eq!(proxy.status.facts().certificate_expires, facts.certificate_expires);

    let renewed = proxy.next().await.unwrap();
    assert!(!Arc::ptr_eq(&second, &renewed));
    assert!(
        proxy
            .facts("the renewal", |now| now.certificate_expires > facts.certificate_expires)
            .await
            .identity_error
            .is_none()
    );
}

#[tokio::test]
async fn past_its_end_the_certificate_is_dropped_and_the_next_one_taken() {
    let mut control_plane = Scripted::start(SERVER).await;
    let mut proxy = Proxy::start(control_plane.bootstrap(&["--leaf-ttl=2s"]));
    assert!(proxy.next().await.is_some());
    control_plane.stop();
    while proxy.next().await.is_some() {}
    assert!(!proxy.status.facts().has_identity(SystemTime::now()));
    let failed = proxy.facts("a failed renewal", |now| now.identity_error.is_some()).await;
    assert!(failed.identity_error.unwrap().contains("cannot connect to"));
    control_plane.restart().await;
    assert!(proxy.next().await.is_some());
}

#[tokio::test]
async fn a_certificate_for_somebody_else_is_not_used() {
    let control_plane = Scripted::start(SERVER).await;
    std::fs::write(control_plane.dir.path().join("token"), "other").unwrap();
    let proxy = Proxy::start(control_plane.bootstrap(&[]));
    let facts = proxy.facts("the refusal", |facts| facts.identity_error.is_some()).await;
    let expected = "the control plane signed for spiffe://cluster.local/ns/shop/sa/other, not for us";
    assert_eq!(facts.identity_error.as_deref(), Some(expected));
    assert!(proxy.keys.borrow().is_none());
}

#[tokio::test]
async fn a_refused_token_is_reported() {
    let control_plane = Scripted::start(SERVER).await;
    std::fs::write(control_plane.dir.path().join("token"), "revoked").unwrap();
    let proxy = Proxy::start(control_plane.bootstrap(&[]));
    let facts = proxy.facts("the refusal", |facts| facts.identity_error.is_some()).await;
    assert!(facts.identity_error.as_deref().unwrap().contains("the token is revoked"), "{facts:?}");
}
