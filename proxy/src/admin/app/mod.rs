//! The application, asked in the kubelet's and Prometheus' place: always at its own port, never through a listener
//! of the mesh. Bounded in time and size; what the application does wrong is told, and fails nothing of ours.

/// Probes and lifecycle hooks.
mod probe;

/// Those over HTTP.
mod get;

/// Scrapes.
mod scrape;

/// TLS that takes any certificate, as the kubelet's does.
mod tls;

#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::{HeaderMap, HeaderValue, StatusCode, header};

use self::probe::Failed;
use super::routes::{Reply, Unanswered};
use crate::config::bootstrap::{Bootstrap, Probe, Probes, Scrape};

/// What is known about the application.
#[derive(Clone, Debug)]
pub struct Application {
    /// Where it is asked: the pod's address as the kubelet does, else loopback.
    pub address: IpAddr,
    /// Its probes and hooks.
    pub probes: Probes,
    /// Its own metrics.
    pub scrape: Option<Scrape>,
}

impl Default for Application {
    /// One that is never asked.
    fn default() -> Self {
        Self { address: IpAddr::V4(Ipv4Addr::LOCALHOST), probes: Probes::new(), scrape: None }
    }
}

impl Application {
    /// What the settings say.
    pub fn of(settings: &Bootstrap) -> Self {
        for (path, reason) in settings.app_probes.iter().filter_map(|(path, probe)| Some((path, probe.as_ref().err()?)))
        {
            tracing::warn!(
                path,
                reason,
                "a probe of the application cannot be performed and will fail: correct the pod's manifest"
            );
        }
        Self {
            address: settings.pod_ips.first().copied().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            probes: settings.app_probes.clone(),
            scrape: settings.app_metrics.clone(),
        }
    }

    /// Whether `path` is that of a lifecycle hook.
    pub(super) fn is_hook(&self, path: &str) -> bool {
        matches!(self.probes.get(path), Some(Ok(Probe { timeout: None, .. })))
    }

    /// The application's answer to the probe or hook at `path`, asked for with `headers`; `None` when there is no such probe.
    ///
    /// # Errors
    /// A hook that the application did not answer: the kubelet takes any response for a success.
    pub(super) async fn probe(&self, path: &str, headers: &HeaderMap) -> Option<Result<Reply, Unanswered>> {
        let probe = match self.probes.get(path)? {
            Ok(probe) => probe,
            Err(reason) => {
                return Some(Ok(Reply::text(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    format!("the probe is wrong: {reason}\n"),
                )));
            }
        };
        let address = SocketAddr::new(self.address, probe.port);
        let agent = agent(headers);
        let asked = Box::pin(probe::run(probe, address, &agent));
        let answer = match probe.timeout {
            None => asked.await,
            Some(timeout) => tokio::time::timeout(timeout, asked).await.unwrap_or_else(|_| {
                let reason = format!("no answer within {timeout:?}");
                Err(Failed { status: StatusCode::GATEWAY_TIMEOUT, reason, answered: false })
            }),
        };
        Some(match answer {
            Ok(status) if status.is_redirection() && probe.timeout.is_some() => {
                Ok(Reply::text(status, "it redirects to another host\n"))
            }
            Ok(_) => Ok(Reply::text(StatusCode::OK, "ok\n")),
            Err(Failed { answered: true, .. }) if probe.timeout.is_none() => Ok(Reply::text(StatusCode::OK, "ok\n")),
            Err(Failed { reason, .. }) if probe.timeout.is_none() => {
                tracing::warn!(path, %address, reason, "the application did not answer its lifecycle hook");
                Err(Unanswered)
            }
            Err(Failed { status, reason, .. }) => {
                Ok(Reply::text(status, format!("the application at {address}: {reason}\n")))
            }
        })
    }

    /// Our metrics with the application's own behind them.
    pub(super) async fn merge(&self, ours: String) -> String {
        match &self.scrape {
            Some(wanted) => {
                let address = SocketAddr::new(self.address, wanted.port);
                scrape::merge(ours, Box::pin(scrape::fetch(wanted, address)).await)
            }
            None => ours,
        }
    }
}

/// The application sees the kubelet that asks: `kube-probe/1.34`, `kube-lifecycle/1.34`.
fn agent(headers: &HeaderMap) -> HeaderValue {
    const OURS: HeaderValue = HeaderValue::from_static(concat!("kube-probe/tulle-", env!("CARGO_PKG_VERSION")));
    headers.get(header::USER_AGENT).filter(|agent| agent.as_bytes().starts_with(b"kube-")).cloned().unwrap_or(OURS)
}
