//! The application, asked in the kubelet's and Prometheus' place: always at its own port, never through a listener
//! of the mesh. Bounded in time and size; what the application does wrong is told, and fails nothing of ours.

/// Probes.
mod probe;

/// Scrapes.
mod scrape;

/// TLS that takes any certificate, as the kubelet's does.
mod tls;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::StatusCode;

use super::routes::Reply;
use crate::config::bootstrap::{Bootstrap, Probe, Scrape};

/// What is known about the application.
#[derive(Clone, Debug)]
pub struct Application {
    /// Where it is asked: the pod's address as the kubelet does, else loopback.
    pub address: IpAddr,
    /// Probes by path.
    pub probes: BTreeMap<String, Probe>,
    /// Its own metrics.
    pub scrape: Option<Scrape>,
}

impl Default for Application {
    /// One that is never asked.
    fn default() -> Self {
        Self { address: IpAddr::V4(Ipv4Addr::LOCALHOST), probes: BTreeMap::new(), scrape: None }
    }
}

impl Application {
    /// What the settings say.
    pub fn of(settings: &Bootstrap) -> Self {
        Self {
            address: settings.pod_ips.first().copied().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            probes: settings.app_probes.clone(),
            scrape: settings.app_metrics.clone(),
        }
    }

    /// The application's answer to the probe at `path`; `None` when there is no such probe.
    pub(super) async fn probe(&self, path: &str) -> Option<Reply> {
        let probe = self.probes.get(path)?;
        let address = SocketAddr::new(self.address, probe.port);
        let answer = match tokio::time::timeout(probe.timeout, Box::pin(probe::run(probe, address))).await {
            Ok(answer) => answer,
            Err(_) => Err((StatusCode::GATEWAY_TIMEOUT, format!("no answer within {:?}", probe.timeout))),
        };
        Some(match answer {
            Ok(()) => Reply::text(StatusCode::OK, "ok\n"),
            Err((status, reason)) => Reply::text(status, format!("the application at {address}: {reason}\n")),
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
