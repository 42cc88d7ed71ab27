//! This workload's certificate: the key is made here and never leaves, the control plane signs a request for it (D8),
//! and it is renewed well before its end. One future on the control thread; the path sees only `tls::keys`.

/// When to ask for the next certificate.
mod rotate;

#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tracing::{error, info, warn};
use tulle_identity::csr::{CsrError, PendingKey};
use tulle_identity::spiffe::SpiffeId;
use tulle_identity::svid::{Identity, Svid, TrustBundle};
use tulle_identity::tls::{MeshTls, TlsError, TlsOptions};
use tulle_proto::auth::IstioCertificateRequest;
use tulle_proto::auth::istio_certificate_service_client::IstioCertificateServiceClient;

use crate::config::bootstrap::{Bootstrap, ControlPlane};
use crate::config::status::Status;
use crate::control_plane::{self, ConnectError};
use crate::tls::keys::Keys;
use rotate::{Rotation, Step};

/// Longest time for the control plane to sign.
const SIGN_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest sleep: a clock that was set, or a machine that slept, is noticed within it.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// Everything identity needs.
#[derive(Debug)]
pub struct Deps {
    /// Settings of the process.
    pub bootstrap: Arc<Bootstrap>,
    /// Where the current identity goes.
    pub keys: Keys,
    /// The mesh's trust bundle, as discovery receives it; until then the one that came with the certificate counts.
    pub bundle: watch::Receiver<Option<Arc<TrustBundle>>>,
    /// Where facts for readiness go.
    pub status: Status,
}

/// Why an attempt brought no certificate.
#[derive(Debug, thiserror::Error)]
enum IdentityError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the control plane does not sign: {0}")]
    Refused(String),
    #[error("the control plane did not sign within {SIGN_TIMEOUT:?}")]
    Timeout,
    #[error(transparent)]
    Csr(#[from] CsrError),
    #[error("the control plane signed for {0}, not for us")]
    OtherIdentity(SpiffeId),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Keeps a valid certificate until dropped. A certificate in use is kept through failures until its end; past it there
/// is none and handshakes fail closed. Without a control plane, or without a valid identity, it only waits.
pub async fn run(deps: Deps) -> Infallible {
    let Deps { bootstrap, keys, bundle, status } = deps;
    let (Some(control_plane), Some(id)) = (bootstrap.control_plane.clone(), bootstrap.identity()) else {
        return std::future::pending().await;
    };
    let mut rotation = Rotation::new(SystemTime::now());
    let mut holder = Holder { keys, bundle, status, svid: None, in_use: None, bundle_ended: false };
    loop {
        match rotation.step(SystemTime::now()) {
            Step::Expire => holder.expired(),
            Step::Wait(wait) => holder.attend(tokio::time::sleep(wait.min(LONGEST_SLEEP))).await,
            Step::Renew => {
                let request = Box::pin(request(&control_plane, &id, bootstrap.leaf_ttl));
                let now = SystemTime::now;
                match holder.attend(request).await.and_then(|(svid, bundle)| holder.issued(svid, bundle)) {
                    Ok(expires) => rotation.issued(expires, now(), rand::random()),
                    Err(error) => {
                        rotation.failed(now(), rand::random());
                        holder.failed(&error);
                    }
                }
            }
        }
    }
}

/// One request for a certificate around a fresh key.
async fn request(
    control_plane: &ControlPlane,
    id: &SpiffeId,
    ttl: Option<Duration>,
) -> Result<(Svid, TrustBundle), IdentityError> {
    let key = PendingKey::generate()?;
    let csr = key.csr_pem(id)?;
    let connection = control_plane::connect(control_plane).await?;
    let validity_duration = ttl.map_or(0, |ttl| i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX));
    let call = connection.authorized(IstioCertificateRequest { csr, validity_duration, metadata: None });
    let mut client = IstioCertificateServiceClient::new(connection.channel.clone());
    let answer = match tokio::time::timeout(SIGN_TIMEOUT, client.create_certificate(call)).await {
        Ok(Ok(answer)) => answer.into_inner(),
        Ok(Err(status)) => return Err(IdentityError::Refused(control_plane::causes(&status))),
        Err(_elapsed) => return Err(IdentityError::Timeout),
    };
    let (svid, bundle) = key.into_svid(&answer.cert_chain, SystemTime::now())?;
    if svid.id() != id {
        return Err(IdentityError::OtherIdentity(svid.id().clone()));
    }
    Ok((svid, bundle))
}

/// The identity in use.
struct Holder {
    keys: Keys,
    bundle: watch::Receiver<Option<Arc<TrustBundle>>>,
    status: Status,
    svid: Option<Arc<Svid>>,
    /// Bundle of the published identity.
    in_use: Option<Arc<TrustBundle>>,
    /// Discovery is gone, and no other bundle will come.
    bundle_ended: bool,
}

impl Holder {
    /// Waits for `future`, and takes up trust bundles that come meanwhile.
    async fn attend<F: Future>(&mut self, future: F) -> F::Output {
        let mut future = std::pin::pin!(future);
        loop {
            // Biased: a new bundle first, so that what is waited for meets current trust.
            tokio::select! {
                biased;
                changed = self.bundle.changed(), if !self.bundle_ended => {
                    self.bundle_ended = changed.is_err();
                    self.bundle_changed();
                }
                output = &mut future => return output,
            }
        }
    }

    /// Puts a new certificate to use; its end is returned.
    fn issued(&mut self, svid: Svid, came_with: TrustBundle) -> Result<SystemTime, IdentityError> {
        let bundle = self.bundle.borrow().clone().unwrap_or_else(|| Arc::new(came_with));
        let (expires, svid) = (svid.not_after(), Arc::new(svid));
        self.publish(&svid, bundle)?;
        info!(id = %svid.id(), expires = ?expires, "certificate issued");
        self.svid = Some(svid);
        self.status.update(|facts| {
            facts.certificate_expires = Some(expires);
            facts.identity_error = None;
        });
        Ok(expires)
    }

    fn publish(&mut self, svid: &Arc<Svid>, bundle: Arc<TrustBundle>) -> Result<(), IdentityError> {
        let identity = Identity { svid: Arc::clone(svid), bundle };
        self.keys.publish(Some(Arc::new(MeshTls::new(&identity, &TlsOptions::default())?)));
        self.in_use = Some(identity.bundle);
        Ok(())
    }

    fn bundle_changed(&mut self) {
        let (Some(svid), Some(bundle)) = (self.svid.clone(), self.bundle.borrow().clone()) else { return };
        if self.in_use.as_ref().is_some_and(|in_use| in_use.hash() == bundle.hash()) {
            return;
        }
        match self.publish(&svid, bundle) {
            Ok(()) => info!("trust bundle replaced"),
            Err(error) => warn!(%error, "the new trust bundle is not used"),
        }
    }

    fn expired(&mut self) {
        error!("the certificate has expired before the control plane signed another; mesh connections are refused");
        self.svid = None;
        self.keys.publish(None);
    }

    fn failed(&self, error: &IdentityError) {
        let text = error.to_string();
        if self.status.facts().identity_error.as_deref() != Some(text.as_str()) {
            warn!(error = text, "no new certificate");
        }
        self.status.update(|facts| facts.identity_error = Some(text.into()));
    }
}
