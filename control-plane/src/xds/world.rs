//! What one client sees of the newest mesh: the [`World`] of its session.

use std::sync::Arc;

use tulle_identity::svid::TrustBundle;
use tulle_proto::{ResourceType, names};

use super::interest::Touched;
use super::session::World;
use crate::registry::{Mesh, Topic};
use crate::translate::{Resource, Scope, Translator, secret};

/// The newest mesh and trust bundle, through the eyes of one client.
pub(crate) struct View {
    translator: Arc<Translator>,
    scope: Scope,
    /// The one inbound listener this client may read: its own.
    inbound: String,
    mesh: Arc<Mesh>,
    trust: Resource,
    /// Counts the bundles seen, as the clock of secrets.
    trust_clock: u64,
    /// What may have changed since the session was looked at to its end.
    touched: Touched,
    trust_touched: bool,
}

impl View {
    pub(crate) fn new(translator: Arc<Translator>, scope: Scope, mesh: Arc<Mesh>, bundle: &TrustBundle) -> Self {
        let inbound = names::inbound_listener(&scope.namespace, &scope.workload);
        Self {
            translator,
            scope,
            inbound,
            mesh,
            trust: secret(bundle),
            trust_clock: 1,
            touched: Touched::Nothing,
            trust_touched: false,
        }
    }

    /// Moves to a newer mesh, with word of what it touched; of what it touched beyond, word will come.
    pub(crate) fn set_mesh(&mut self, mesh: Arc<Mesh>, touched: Touched) {
        self.mesh = mesh;
        self.touched.add(touched);
    }

    /// The session has looked at everything that was touched.
    pub(crate) fn settle(&mut self) {
        (self.touched, self.trust_touched) = (Touched::Nothing, false);
    }

    /// Moves to a newer trust bundle.
    pub(crate) fn set_bundle(&mut self, bundle: &TrustBundle) {
        self.trust = secret(bundle);
        self.trust_clock = self.trust_clock.saturating_add(1);
        self.trust_touched = true;
    }
}

impl World for View {
    fn clock(&self, ty: ResourceType) -> u64 {
        if ty == ResourceType::Secret { self.trust_clock } else { self.mesh.version }
    }

    fn changed_at(&self, ty: ResourceType, name: &str) -> u64 {
        match ty {
            ResourceType::Secret if name == names::TRUST_BUNDLE || name == "*" => self.trust_clock,
            ResourceType::Secret => 0,
            ResourceType::Cluster
            | ResourceType::Endpoint
            | ResourceType::Listener
            | ResourceType::Route
            | ResourceType::Name
            | ResourceType::Ranges => self.mesh.changed_at(ty, name),
        }
    }

    fn touched(&self, ty: ResourceType, topic: Topic) -> bool {
        if ty == ResourceType::Secret { self.trust_touched } else { self.touched.has(topic) }
    }

    fn resource(&self, ty: ResourceType, name: &str) -> Option<Resource> {
        if ty == ResourceType::Secret {
            return (name == names::TRUST_BUNDLE).then(|| self.trust.clone());
        }
        // The inbound listener tells what a workload accepts and from whom: nobody else's business.
        if name.starts_with(names::INBOUND_PREFIX) && name != self.inbound {
            return None;
        }
        self.translator.resource(&self.mesh, &self.scope, ty, name)
    }

    fn all(&self, ty: ResourceType) -> Vec<Resource> {
        match ty {
            ResourceType::Secret => vec![self.trust.clone()],
            ResourceType::Cluster | ResourceType::Endpoint | ResourceType::Listener | ResourceType::Route => {
                self.translator.all(&self.mesh, &self.scope, ty)
            }
            // Asked for one by one only.
            ResourceType::Name | ResourceType::Ranges => Vec::new(),
        }
    }
}
