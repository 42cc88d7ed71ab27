//! The trust bundle in every namespace, as ConfigMap `tulle-trust-bundle`, from where pods mount it. One that was
//! changed or deleted is put right. Each is owned by the control plane's ClusterRole: when that is uninstalled, by whatever
//! tool, the cluster's garbage collector takes them away.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_stream::StreamExt as _;
use tulle_identity::svid::TrustBundle;

use crate::registry::Mesh;

/// Name of the ConfigMaps.
const NAME: &str = "tulle-trust-bundle";

/// Key of the bundle in them.
const KEY: &str = "bundle.pem";

/// Name under which the control plane owns what it writes.
const MANAGER: &str = "tulle-control-plane";

/// The ClusterRole that owns them. It has no namespace, as the owner of something in every namespace must.
const OWNER: &str = "tulle-control-plane";

/// A namespace that could not be written is tried again after this.
const AGAIN: Duration = Duration::from_secs(5);

/// The ConfigMaps there are and those there should be.
pub(super) struct Bundles {
    client: Client,
    leading: watch::Receiver<bool>,
    /// Content by namespace.
    there: BTreeMap<Arc<str>, Content>,
    failed: BTreeMap<Arc<str>, Instant>,
    /// Uid of the owner; empty until it is known, and where there is none.
    owner: String,
}

/// Hash of what a ConfigMap holds, and of its owner.
type Content = u64;

impl Bundles {
    pub(super) fn new(client: Client, leading: watch::Receiver<bool>) -> Self {
        Self { client, leading, there: BTreeMap::new(), failed: BTreeMap::new(), owner: String::new() }
    }

    /// Writes what is missing while this replica leads, without end.
    pub(super) async fn run(
        mut self,
        mut mesh: watch::Receiver<Arc<Mesh>>,
        mut trust: watch::Receiver<Arc<TrustBundle>>,
    ) {
        let config = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
        let maps: Api<ConfigMap> = Api::all(self.client.clone());
        let mut events = Box::pin(watcher(maps, config).default_backoff());
        loop {
            let (namespaces, bundle) = (mesh.borrow_and_update().clone(), trust.borrow_and_update().clone());
            let leads = *self.leading.borrow_and_update();
            if leads {
                self.write(&namespaces, &bundle.pem()).await;
            }
            let again = self.failed.values().min().filter(|_| leads).map(|failed| *failed + AGAIN);
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(event)) => self.seen(event),
                    Some(Err(error)) => tracing::warn!(%error, "ConfigMaps {NAME} cannot be watched"),
                    None => return,
                },
                changed = mesh.changed() => if changed.is_err() { return },
                changed = trust.changed() => if changed.is_err() { return },
                changed = self.leading.changed() => if changed.is_err() { return },
                () = tokio::time::sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {}
            }
        }
    }

    fn seen(&mut self, event: Event<ConfigMap>) {
        match event {
            Event::Init => self.there.clear(),
            Event::Apply(map) | Event::InitApply(map) => {
                let pem = map.data.as_ref().and_then(|data| data.get(KEY)).map(String::as_str).unwrap_or_default();
                let owners = map.metadata.owner_references.iter().flatten();
                let owner = owners.filter(|owner| owner.name == OWNER).map(|owner| owner.uid.as_str()).next();
                let content = content(pem, owner.unwrap_or_default());
                self.there.insert(map.metadata.namespace.unwrap_or_default().into(), content);
            }
            Event::Delete(map) => {
                // The owner that was known may be why: one that was made anew has another uid.
                self.owner.clear();
                self.there.remove(map.metadata.namespace.unwrap_or_default().as_str());
            }
            Event::InitDone => {}
        }
    }

    /// Writes the bundle into each namespace that does not have it.
    async fn write(&mut self, mesh: &Mesh, pem: &str) {
        self.failed.retain(|_, failed| failed.elapsed() < AGAIN);
        let mut lacking = self.lacking(mesh, pem);
        if !lacking.is_empty() && self.owner.is_empty() {
            self.owner = self.find_owner().await;
            lacking = self.lacking(mesh, pem);
        }
        let wanted = content(pem, &self.owner);
        for namespace in lacking {
            let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &namespace);
            let map = serde_json::json!({
                "apiVersion": "v1", "kind": "ConfigMap", "data": {KEY: pem},
                "metadata": {"name": NAME, "ownerReferences": self.references()},
            });
            let params = PatchParams::apply(MANAGER).force();
            match maps.patch(NAME, &params, &Patch::Apply(&map)).await {
                Ok(_) => {
                    self.there.insert(namespace, wanted);
                }
                Err(error) => {
                    // A namespace that ends takes nothing new, and that is nobody's problem.
                    tracing::debug!(%error, %namespace, "the trust bundle could not be written");
                    self.failed.insert(namespace, Instant::now());
                }
            }
        }
    }

    /// The namespaces without the bundle, but for those that were tried a moment ago.
    fn lacking(&self, mesh: &Mesh, pem: &str) -> Vec<Arc<str>> {
        let wanted = content(pem, &self.owner);
        let lacks = |namespace: &&Arc<str>| {
            self.there.get(*namespace) != Some(&wanted) && !self.failed.contains_key(*namespace)
        };
        mesh.namespace_names().filter(lacks).cloned().collect()
    }

    /// The uid of the owner; empty when it cannot be had, and then the ConfigMaps have none.
    async fn find_owner(&self) -> String {
        let roles: Api<ClusterRole> = Api::all(self.client.clone());
        match roles.get_opt(OWNER).await {
            Ok(role) => role.and_then(|role| role.metadata.uid).unwrap_or_default(),
            Err(error) => {
                tracing::debug!(%error, "the trust bundles have no owner");
                String::new()
            }
        }
    }

    fn references(&self) -> Vec<serde_json::Value> {
        let owned = !self.owner.is_empty();
        let reference = serde_json::json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "name": OWNER, "uid": self.owner,
        });
        owned.then_some(reference).into_iter().collect()
    }
}

fn content(pem: &str, owner: &str) -> Content {
    rapidhash::v3::rapidhash_v3(format!("{owner}\n{pem}").as_bytes())
}
