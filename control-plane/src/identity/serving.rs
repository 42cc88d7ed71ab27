//! The certificate the control plane serves with: issued by its own authority, renewed at half its life and whenever
//! the signing root changes.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use tokio::sync::watch;
use tulle_identity::csr::{self, CsrError, PendingKey};
use tulle_identity::sign::SignError;
use tulle_identity::spiffe::{SpiffeError, SpiffeId};
use tulle_identity::svid::Identity;
use tulle_identity::tls::{self, TlsError};
use tulle_proto::names;

use super::Authority;
use crate::metrics::Metrics;
use crate::settings::Settings;

/// Pause after a failed renewal. The certificate in use has half its life left when renewal starts.
const RETRY: Duration = Duration::from_secs(30);

/// Issues and renews the serving certificate.
#[derive(Debug)]
pub(crate) struct Serving {
    authority: Arc<Authority>,
    id: SpiffeId,
    dns_names: Vec<String>,
    ttl: Duration,
    metrics: Metrics,
    config: watch::Sender<Arc<ServerConfig>>,
    renew_at: SystemTime,
}

/// Why no certificate could be issued.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServingError {
    /// The identity is not one.
    #[error(transparent)]
    Id(#[from] SpiffeError),
    /// The request could not be made or its answer not be used.
    #[error(transparent)]
    Request(#[from] CsrError),
    /// The authority refused.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// No TLS configuration could be made of it.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Serving {
    /// Issues the first certificate.
    ///
    /// # Errors
    /// When the authority cannot sign; the control plane cannot start then.
    pub(crate) fn new(authority: Arc<Authority>, settings: &Settings, metrics: Metrics) -> Result<Self, ServingError> {
        let id =
            SpiffeId::workload(&settings.trust_domain, names::CONTROL_PLANE_NAMESPACE, names::CONTROL_PLANE_ACCOUNT)?;
        let (ttl, dns_names) = (settings.leaf_ttl, settings.dns_names.clone());
        let issued = issue(&authority, &id, &dns_names, ttl)?;
        let config = watch::Sender::new(issued.config);
        metrics.serving_expiry.set(unix(issued.not_after));
        Ok(Self { authority, id, dns_names, ttl, metrics, config, renew_at: issued.renew_at })
    }

    /// The newest TLS configuration.
    pub(crate) fn configs(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.config.subscribe()
    }

    /// Renews forever. Dropping the future stops renewal; nothing else.
    pub(crate) async fn run(mut self) {
        let mut bundles = self.authority.bundle();
        loop {
            let pause = self.renew_at.duration_since(SystemTime::now()).unwrap_or_default();
            tokio::select! {
                biased; // a root that changed makes the pause moot
                changed = bundles.changed() => if changed.is_err() {
                    return;
                },
                () = tokio::time::sleep(pause) => {}
            }
            match issue(&self.authority, &self.id, &self.dns_names, self.ttl) {
                Ok(issued) => {
                    self.renew_at = issued.renew_at;
                    self.metrics.serving_expiry.set(unix(issued.not_after));
                    self.config.send_replace(issued.config);
                    tracing::info!(id = %self.id, "serving certificate renewed");
                }
                Err(error) => {
                    tracing::error!(%error, "the serving certificate could not be renewed");
                    self.renew_at = SystemTime::now() + RETRY;
                }
            }
        }
    }
}

struct Issued {
    config: Arc<ServerConfig>,
    renew_at: SystemTime,
    not_after: SystemTime,
}

fn issue(authority: &Authority, id: &SpiffeId, dns_names: &[String], ttl: Duration) -> Result<Issued, ServingError> {
    let now = SystemTime::now();
    let key = PendingKey::generate()?;
    let request = csr::parse(&key.csr_pem(id)?)?;
    let chain = authority.sign(&request, id, dns_names, ttl, now)?;
    let (svid, bundle) = key.into_svid(&chain, now)?;
    let not_after = svid.not_after();
    let half = not_after.duration_since(now).unwrap_or_default() / 2;
    let identity = Identity { svid: Arc::new(svid), bundle: Arc::new(bundle) };
    Ok(Issued { config: tls::control_plane_server(&identity)?, renew_at: now + half, not_after })
}

fn unix(time: SystemTime) -> i64 {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    i64::try_from(seconds).unwrap_or(i64::MAX)
}
