//! What people and probes ask of a running proxy: two HTTP listeners on the control thread.
//!
//! The *local* one (port 15000) shows configuration and takes commands; it binds loopback addresses only, and takes
//! neither foreign `Host` names nor anything a web page can send; commands need a header that no request has which a
//! proxy of the mesh has passed on. The *status* one (port 15020) answers readiness and
//! metrics to the network, and nothing else. Neither ever shows a key.

/// Answers by method and path.
mod routes;

/// One connection: limits, deadlines, and who may ask.
mod connection;

/// Whether the workload may receive traffic.
mod ready;

/// The application, asked in others' place.
mod app;

/// Metrics of the workers and of the control thread.
mod metrics;

/// The snapshot as JSON.
mod config_dump;

/// Clusters and endpoints as text.
mod clusters;

/// The certificate in use.
mod certs;

pub use app::Application;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tulle_identity::tls::MeshTls;

use crate::config::Snapshot;
use crate::config::status::Status;
use crate::dns::DnsView;
use crate::drain::Held;
use crate::telemetry::Telemetry;

/// Connections of one listener at a time; more wait in the kernel's queue.
const CONNECTIONS: usize = 64;

/// What the admin listeners read and command.
pub struct AdminHandles {
    /// The configuration in force.
    pub snapshot: watch::Receiver<Arc<Snapshot>>,
    /// The identity in use.
    pub keys: watch::Receiver<Option<Arc<MeshTls>>>,
    /// What the control thread knows about itself.
    pub status: Status,
    /// What the workers count.
    pub telemetry: Arc<Telemetry>,
    /// The application beside the proxy.
    pub application: Application,
    /// DNS for the workload, where it is on.
    pub dns: Option<DnsView>,
    /// What can be commanded.
    pub control: Box<dyn Control>,
}

impl fmt::Debug for AdminHandles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminHandles").finish_non_exhaustive()
    }
}

/// What can be commanded from the local listener.
pub trait Control: Send + Sync {
    /// Stops being ready, and takes connections no more once the least time to drain is over; the process stays.
    /// Draining twice is draining once.
    fn drain(&self);

    /// Drains, and ends the process afterwards, as SIGTERM does.
    fn quit(&self);

    /// Whether draining has begun.
    fn is_draining(&self) -> bool;

    /// Keeps a draining process from ending until what is returned is dropped.
    fn hold(&self) -> Held;

    /// The log filter in force: `info`, `info,tulle_proxy=debug`.
    fn log_filter(&self) -> String;

    /// Replaces the log filter.
    ///
    /// # Errors
    /// What is wrong with it, for the one who asked; the old one stays.
    fn set_log_filter(&self, filter: &str) -> Result<(), String>;
}

/// Why the listeners cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The local listener would be reachable from elsewhere.
    #[error(
        "the admin address {0} is not a loopback address: it would show configuration and take commands from anyone"
    )]
    NotLoopback(SocketAddr),
    /// The address cannot be bound.
    #[error("cannot listen on {address} for {purpose}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// `admin` or `status`.
        purpose: &'static str,
        /// What the system says.
        source: io::Error,
    },
}

/// Which of the two listeners a request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Audience {
    /// Processes of the same pod or machine.
    Local,
    /// The network.
    Network,
}

/// Both listeners, bound.
#[derive(Debug)]
pub struct Admin {
    local: TcpListener,
    status: TcpListener,
}

impl Admin {
    /// Binds both; needs a running tokio runtime.
    ///
    /// # Errors
    /// [`AdminError`], the configuration's fault or the machine's.
    pub async fn bind(local: SocketAddr, status: SocketAddr) -> Result<Self, AdminError> {
        if !local.ip().to_canonical().is_loopback() {
            return Err(AdminError::NotLoopback(local));
        }
        let bind = async |address, purpose| {
            TcpListener::bind(address).await.map_err(|source| AdminError::Bind { address, purpose, source })
        };
        Ok(Self { local: bind(local, "admin").await?, status: bind(status, "status").await? })
    }

    /// Addresses of the local and the status listener.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn addresses(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.local.local_addr()?, self.status.local_addr()?))
    }

    /// Answers requests for as long as it is polled; dropping it closes every connection.
    pub async fn run(self, handles: Arc<AdminHandles>) {
        tokio::join!(
            listen(self.local, Audience::Local, Arc::clone(&handles)),
            listen(self.status, Audience::Network, handles)
        );
    }
}

async fn listen(listener: TcpListener, audience: Audience, handles: Arc<AdminHandles>) {
    let mut connections = JoinSet::new();
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((socket, _)) => {
                let handles = Arc::clone(&handles);
                connections.spawn(async move {
                    connection::serve(socket, audience, &handles).await;
                    drop(slot);
                });
            }
            Err(error) => {
                // Mostly EMFILE: it ends when a connection somewhere does, and until then would spin.
                tracing::warn!(%error, "admin listener cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

#[cfg(test)]
mod tests;
