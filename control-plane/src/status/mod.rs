//! What the control plane writes into a cluster: the trust bundle in every namespace, what is wrong with objects, and the
//! conditions of routes and Workloads. Of several replicas the leader writes.
//!
//! Nothing written here is read by a source, so that a write never makes another.

/// Who leads.
mod lease;

/// The trust bundle in every namespace.
mod bundles;

/// Problems, as Events.
mod events;

/// Conditions in the status of objects.
mod conditions;

use std::sync::Arc;

use kube::Client;
use tokio::sync::watch;
use tulle_identity::svid::TrustBundle;

use crate::registry::Mesh;
use bundles::Bundles;
use conditions::Conditions;
use events::Events;
use lease::Lease;

/// Writes for as long as it runs. Dropping the future ends it; another replica leads a few seconds later.
pub(crate) async fn run(client: Client, mesh: watch::Receiver<Arc<Mesh>>, trust: watch::Receiver<Arc<TrustBundle>>) {
    let (leads, leading) = watch::channel(false);
    let lease = Lease::new(client.clone());
    let events = Events::new(client.clone(), leading.clone()).run(mesh.clone());
    let conditions = Conditions::new(client.clone(), leading.clone()).run(mesh.clone());
    tokio::join!(lease.keep(leads), events, conditions, Bundles::new(client, leading).run(mesh, trust));
}
