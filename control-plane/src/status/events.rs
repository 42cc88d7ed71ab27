//! What is wrong with an object, told where its owner looks: as an Event on it. Told once while it lasts, in a trickle, and
//! by the leader only.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::model::{Kind, ObjectRef, Problem, Severity};
use crate::registry::Mesh;

/// Pause between two Events: a thousand bad objects must not be a load on the API.
const PAUSE: Duration = Duration::from_millis(500);

/// A problem that lasts is told again after this, when the Event before has been cleared away.
const AGAIN: Duration = Duration::from_secs(3_000);

/// Longest note the API takes, in bytes.
const NOTE_BYTES: usize = 1_000;

/// Problems that were told are remembered up to this number; more are not told.
const MOST: usize = 4_096;

/// Tells of problems.
pub(super) struct Events {
    client: Client,
    recorder: Recorder,
    leading: watch::Receiver<bool>,
    told: BTreeMap<Problem, Instant>,
}

impl Events {
    pub(super) fn new(client: Client, leading: watch::Receiver<bool>) -> Self {
        let reporter = Reporter { controller: "tulle-control-plane".to_owned(), instance: None };
        Self { recorder: Recorder::new(client.clone(), reporter), client, leading, told: BTreeMap::new() }
    }

    /// Tells of every problem of an object while this replica leads, without end.
    pub(super) async fn run(mut self, mut mesh: watch::Receiver<Arc<Mesh>>) {
        loop {
            let newest = mesh.borrow_and_update().clone();
            if !*self.leading.borrow_and_update() {
                tokio::select! {
                    changed = self.leading.changed() => if changed.is_err() { return },
                    changed = mesh.changed() => if changed.is_err() { return },
                }
                continue;
            }
            let news = self.news(newest.problems()).cloned();
            if let Some(problem) = news {
                self.tell(&newest, &problem).await;
                self.told.insert(problem, Instant::now());
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            tokio::select! {
                changed = mesh.changed() => if changed.is_err() { return },
                changed = self.leading.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    }

    /// The first problem that was not told lately. What is no problem any more is forgotten.
    fn news<'a>(&mut self, problems: &'a [Problem]) -> Option<&'a Problem> {
        self.told.retain(|problem, told| told.elapsed() < AGAIN && problems.contains(problem));
        let matters = |problem: &&Problem| problem.severity > Severity::Info && problem.object.is_some();
        let new = |problem: &&Problem| self.told.len() < MOST && !self.told.contains_key(*problem);
        problems.iter().filter(matters).find(new)
    }

    async fn tell(&self, mesh: &Mesh, problem: &Problem) {
        let Some(object) = &problem.object else {
            return;
        };
        let event = Event {
            type_: EventType::Warning,
            reason: "TulleProblem".to_owned(),
            note: Some(note(problem)),
            action: "Read".to_owned(),
            secondary: None,
        };
        let told = match self.reference(mesh, object).await {
            Ok(reference) => self.recorder.publish(&event, &reference).await,
            Err(error) => Err(error),
        };
        if let Err(error) = told {
            tracing::debug!(%error, %object, "an Event could not be written");
        }
    }

    /// The object as the API knows it: tools find Events by its uid.
    async fn reference(&self, mesh: &Mesh, object: &ObjectRef) -> Result<ObjectReference, kube::Error> {
        let pod = mesh.workload(&object.key).is_some_and(|known| known.workload.pod.is_some());
        let (group, version, kind) = match object.kind {
            Kind::Namespace => ("", "v1", "Namespace"),
            Kind::Service => ("", "v1", "Service"),
            Kind::EndpointSlice => ("discovery.k8s.io", "v1", "EndpointSlice"),
            Kind::Workload if pod => ("", "v1", "Pod"),
            Kind::Workload => ("tulle.io", "v1alpha1", "Workload"),
            Kind::HttpRoute => ("gateway.networking.k8s.io", "v1", "HTTPRoute"),
            Kind::GrpcRoute => ("gateway.networking.k8s.io", "v1", "GRPCRoute"),
            Kind::ReferenceGrant => ("gateway.networking.k8s.io", "v1beta1", "ReferenceGrant"),
        };
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let api: Api<DynamicObject> = match object.kind {
            Kind::Namespace => Api::all_with(self.client.clone(), &resource),
            Kind::Service
            | Kind::EndpointSlice
            | Kind::Workload
            | Kind::HttpRoute
            | Kind::GrpcRoute
            | Kind::ReferenceGrant => Api::namespaced_with(self.client.clone(), &object.key.namespace, &resource),
        };
        let metadata = api.get_metadata(&object.key.name).await?.metadata;
        Ok(ObjectReference {
            api_version: Some(resource.api_version),
            kind: Some(resource.kind),
            name: metadata.name,
            namespace: metadata.namespace,
            uid: metadata.uid,
            ..ObjectReference::default()
        })
    }
}

/// The problem for the owner of the object: without naming it, and within the API's bounds.
fn note(problem: &Problem) -> String {
    let plain = Problem { object: None, place: None, ..problem.clone() };
    let mut note = plain.to_string();
    let mut end = NOTE_BYTES.min(note.len());
    while !note.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    note.truncate(end);
    note
}
