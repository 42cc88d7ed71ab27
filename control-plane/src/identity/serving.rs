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
use crate::clock::{Clock, LOOK_AGAIN, SET_BY};
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
    clock: Clock,
    issued_at: SystemTime,
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
    pub(crate) fn new(
        authority: Arc<Authority>,
        settings: &Settings,
        metrics: Metrics,
        clock: Clock,
    ) -> Result<Self, ServingError> {
        let id =
            SpiffeId::workload(&settings.trust_domain, names::CONTROL_PLANE_NAMESPACE, names::CONTROL_PLANE_ACCOUNT)?;
        let (ttl, dns_names) = (settings.leaf_ttl, settings.dns_names.clone());
        let issued_at = clock.now();
        let issued = issue(&authority, &id, &dns_names, ttl, issued_at)?;
        let config = watch::Sender::new(issued.config);
        metrics.serving_expiry.set(unix(issued.not_after));
        let renew_at = issued.renew_at;
        Ok(Self { authority, id, dns_names, ttl, metrics, config, clock, issued_at, renew_at })
    }

    /// The newest TLS configuration.
    pub(crate) fn configs(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.config.subscribe()
    }

    /// Renews forever. Dropping the future stops renewal; nothing else.
    pub(crate) async fn run(mut self) {
        let mut bundles = self.authority.bundle();
        loop {
            tokio::select! {
                biased; // a root that changed makes the pause moot
                changed = bundles.changed() => if changed.is_err() {
                    return;
                },
                () = self.due() => {}
            }
            let now = self.clock.now();
            match issue(&self.authority, &self.id, &self.dns_names, self.ttl, now) {
                Ok(issued) => {
                    (self.issued_at, self.renew_at) = (now, issued.renew_at);
                    self.metrics.serving_expiry.set(unix(issued.not_after));
                    self.config.send_replace(issued.config);
                    tracing::info!(id = %self.id, "serving certificate renewed");
                }
                Err(error) => {
                    tracing::error!(%error, "the serving certificate could not be renewed");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Waits until half the life of the certificate is over, or it has none yet: the clock was set back.
    async fn due(&self) {
        loop {
            let now = self.clock.now();
            if now >= self.renew_at || now + SET_BY < self.issued_at {
                return;
            }
            let remaining = self.renew_at.duration_since(now).unwrap_or_default();
            tokio::time::sleep(remaining.min(LOOK_AGAIN)).await;
        }
    }
}

struct Issued {
    config: Arc<ServerConfig>,
    renew_at: SystemTime,
    not_after: SystemTime,
}

fn issue(
    authority: &Authority,
    id: &SpiffeId,
    dns_names: &[String],
    ttl: Duration,
    now: SystemTime,
) -> Result<Issued, ServingError> {
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use tulle_identity::spiffe::TrustDomain;

    use super::*;
    use crate::clock::settable;

    const HOUR: u64 = 3_600;

    /// A certificate of a day, on a machine that sleeps, or whose clock is set, by so many hours.
    async fn renewed_after(hours: i64) -> (Duration, bool) {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings::new("", dir.path().join("state"), TrustDomain::parse("cluster.local").unwrap());
        let authority = Arc::new(Authority::open(&settings).unwrap());
        let (clock, set_by) = settable::clock();
        let metrics = Metrics::default();
        let serving = Serving::new(authority, &settings, metrics.clone(), clock.clone()).unwrap();
        let mut configs = serving.configs();
        configs.mark_unchanged();
        let jump = async {
            tokio::time::sleep(Duration::from_secs(100)).await;
            set_by.store(hours * 3_600, Ordering::Relaxed);
            let start = tokio::time::Instant::now();
            configs.changed().await.unwrap();
            start.elapsed()
        };
        let after = tokio::select! {
            () = serving.run() => unreachable!("it renews for ever"),
            after = jump => after,
        };
        let now = unix(clock.now());
        let end = metrics.serving_expiry.get();
        (after, end > now && end <= now + 24 * 3_600)
    }

    #[tokio::test(start_paused = true)]
    async fn hostile_05_the_serving_certificate_follows_the_clock_both_ways() {
        for hours in [26, 13, -26, -1, 24 * 400] {
            let (after, valid) = renewed_after(hours).await;
            assert!(after <= LOOK_AGAIN, "{hours} h: {after:?}");
            assert!(valid, "{hours} h: the certificate is not of now");
        }
        // A clock that is corrected a little changes nothing.
        let (after, valid) = renewed_after(0).await;
        assert!(valid && (11 * HOUR..=13 * HOUR).contains(&after.as_secs()), "{after:?}");
    }
}
