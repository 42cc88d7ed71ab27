//! Conditions: what the mesh makes of a route or a Workload, written into the status of the object.
//!
//! What is wanted is compared with what was written last; only what differs is read and, if it differs there too,
//! written. Routes share their status with other controllers, whose part stays as it is.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::model::{Kind, ObjectRef, Severity};
use crate::registry::{Condition, Mesh, Verdict};

/// Our name in the status of routes.
const CONTROLLER: &str = "tulle.io/mesh";

/// An object that could not be written is tried again after this.
const AGAIN: Duration = Duration::from_secs(5);

/// Pause between two objects: a thousand of them must not be a load on the API.
const PAUSE: Duration = Duration::from_millis(20);

/// What the status of an object is to say.
#[derive(Clone, Debug, PartialEq)]
enum Wanted {
    /// Of a route: generation, and what each parent makes of it; no parent, nothing of ours.
    Route(i64, Vec<Verdict>),
    /// Of a Workload: whether it is used as written, and when it last changed, which stands for its generation.
    Workload(Condition, u64),
}

/// Writes conditions.
pub(super) struct Conditions {
    client: Client,
    leading: watch::Receiver<bool>,
    /// Hash of what was written last.
    written: BTreeMap<ObjectRef, u64>,
    failed: BTreeMap<ObjectRef, Instant>,
}

impl Conditions {
    pub(super) fn new(client: Client, leading: watch::Receiver<bool>) -> Self {
        Self { client, leading, written: BTreeMap::new(), failed: BTreeMap::new() }
    }

    /// Writes what is new while this replica leads, without end.
    pub(super) async fn run(mut self, mut mesh: watch::Receiver<Arc<Mesh>>) {
        loop {
            let newest = mesh.borrow_and_update().clone();
            if *self.leading.borrow_and_update() {
                self.write(&newest).await;
            } else {
                // Another replica may write meanwhile.
                self.written.clear();
            }
            let again = self.failed.values().min().map(|failed| *failed + AGAIN);
            tokio::select! {
                changed = mesh.changed() => if changed.is_err() { return },
                changed = self.leading.changed() => if changed.is_err() { return },
                () = tokio::time::sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {}
            }
        }
    }

    async fn write(&mut self, mesh: &Mesh) {
        self.failed.retain(|_, failed| failed.elapsed() < AGAIN);
        let mut wanted = wanted(mesh);
        // A route that is for no Service any more loses what we said of it.
        for object in self.written.keys().filter(|object| crate::model::Route::is(object.kind)) {
            wanted.entry(object.clone()).or_insert_with(|| Wanted::Route(0, Vec::new()));
        }
        self.written.retain(|object, _| wanted.contains_key(object));
        for (object, wanted) in wanted {
            let hash = hash(&wanted);
            if self.written.get(&object) == Some(&hash) || self.failed.contains_key(&object) {
                continue;
            }
            let nothing = matches!(&wanted, Wanted::Route(_, verdicts) if verdicts.is_empty());
            match self.put(&object, &wanted).await {
                Ok(()) if nothing => {
                    self.written.remove(&object);
                }
                Ok(()) => {
                    self.written.insert(object, hash);
                }
                Err(error) => {
                    tracing::debug!(%error, %object, "its status could not be written");
                    self.failed.insert(object, Instant::now());
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn put(&self, object: &ObjectRef, wanted: &Wanted) -> Result<(), kube::Error> {
        let (group, version, kind) = match object.kind {
            Kind::HttpRoute => ("gateway.networking.k8s.io", "v1", "HTTPRoute"),
            Kind::GrpcRoute => ("gateway.networking.k8s.io", "v1", "GRPCRoute"),
            Kind::Workload | Kind::Namespace | Kind::Service | Kind::EndpointSlice | Kind::ReferenceGrant => {
                ("tulle.io", "v1alpha1", "Workload")
            }
        };
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &object.key.namespace, &resource);
        let Some(there) = api.get_opt(&object.key.name).await? else { return Ok(()) };
        let before = there.data.get("status").cloned().unwrap_or_default();
        let now = json!(Time(Timestamp::now()));
        let status = match wanted {
            Wanted::Route(generation, verdicts) => json!({"parents": parents(*generation, verdicts, &before, &now)}),
            Wanted::Workload(condition, _) => {
                let generation = there.metadata.generation.unwrap_or(0);
                let conditions = conditions(&[("Accepted", condition)], generation, &before["conditions"], &now);
                json!({"observedGeneration": generation, "conditions": conditions})
            }
        };
        if before == status || (before.is_null() && status == json!({"parents": []})) {
            return Ok(());
        }
        // Its version is in it: what somebody else has written meanwhile is not overwritten.
        let patch = json!({"metadata": {"resourceVersion": there.metadata.resource_version}, "status": status});
        api.patch_status(&object.key.name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        Ok(())
    }
}

/// What every object's status is to say.
fn wanted(mesh: &Mesh) -> BTreeMap<ObjectRef, Wanted> {
    let route = |view: &Arc<crate::registry::RouteView>| {
        (view.route.object.clone(), Wanted::Route(view.route.generation, view.verdicts.clone()))
    };
    let mut wanted: BTreeMap<_, _> = mesh.routes().map(route).collect();
    let accepted = Condition { holds: true, reason: "Accepted", message: "it is in the mesh as written".into() };
    for view in mesh.workloads().filter(|view| view.workload.pod.is_none()) {
        let object = ObjectRef { kind: Kind::Workload, key: view.workload.key.clone() };
        wanted.insert(object, Wanted::Workload(accepted.clone(), view.changed));
    }
    for problem in mesh.problems().iter().filter(|problem| problem.severity > Severity::Info) {
        let Some(object) = problem.object.as_ref().filter(|object| object.kind == Kind::Workload) else { continue };
        let pod = mesh.workload(&object.key).filter(|view| view.workload.pod.is_some());
        if pod.is_none() {
            let changed = mesh.workload(&object.key).map_or(0, |view| view.changed);
            let field = if problem.field.is_empty() { String::new() } else { format!("{}: ", problem.field) };
            let message = format!("{field}{}", problem.reason).into();
            let refused = Condition { holds: false, reason: "Invalid", message };
            wanted.insert(object.clone(), Wanted::Workload(refused, changed));
        }
    }
    wanted
}

/// `status.parents` of a route: those of other controllers as they are, then ours.
fn parents(generation: i64, verdicts: &[Verdict], before: &Value, now: &Value) -> Vec<Value> {
    let known: Vec<Value> = before["parents"].as_array().cloned().unwrap_or_default();
    let ours = |parent: &&Value| parent["controllerName"] == CONTROLLER;
    let mut all: Vec<Value> = known.iter().filter(|parent| !ours(parent)).cloned().collect();
    for Verdict { parent, accepted, resolved, partly_invalid } in verdicts {
        let group = parent.group.as_deref().unwrap_or_default();
        let mut reference = json!({"group": group, "kind": "Service", "name": &*parent.service.name});
        if let Some(namespace) = &parent.namespace {
            reference["namespace"] = json!(&**namespace);
        }
        if let Some(section) = &parent.section {
            reference["sectionName"] = json!(&**section);
        }
        if let Some(port) = parent.port {
            reference["port"] = json!(port.number());
        }
        let before = known.iter().filter(ours).find(|known| known["parentRef"] == reference);
        let before = before.map_or(Value::Null, |known| known["conditions"].clone());
        let mut wanted = vec![("Accepted", accepted), ("ResolvedRefs", resolved)];
        wanted.extend(partly_invalid.as_ref().map(|condition| ("PartiallyInvalid", condition)));
        all.push(json!({
            "parentRef": reference,
            "controllerName": CONTROLLER,
            "conditions": conditions(&wanted, generation, &before, now),
        }));
    }
    all
}

/// Conditions; one whose status is as it was keeps the time it came to that.
fn conditions(wanted: &[(&str, &Condition)], generation: i64, before: &Value, now: &Value) -> Vec<Value> {
    let one = |(name, condition): &(&str, &Condition)| {
        let status = if condition.holds { "True" } else { "False" };
        let known = before.as_array().into_iter().flatten().find(|known| known["type"] == **name);
        let since = known.filter(|known| known["status"] == status).map(|known| known["lastTransitionTime"].clone());
        json!({
            "type": name,
            "status": status,
            "reason": condition.reason,
            "message": &*condition.message,
            "observedGeneration": generation,
            "lastTransitionTime": since.unwrap_or_else(|| now.clone()),
        })
    };
    wanted.iter().map(one).collect()
}

fn hash(wanted: &Wanted) -> u64 {
    let mut hasher = rapidhash::fast::RapidHasher::default_const();
    format!("{wanted:?}").hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::route::Parent;
    use crate::model::{Key, Port};

    fn verdict(holds: bool) -> Verdict {
        let parent = Parent {
            service: Key::new("shop", "web"),
            namespace: None,
            port: Port::new(80),
            section: None,
            group: None,
            fault: None,
        };
        let of = |reason| Condition { holds, reason, message: "so".into() };
        Verdict { parent, accepted: of("Accepted"), resolved: of("ResolvedRefs"), partly_invalid: None }
    }

    #[test]
    fn others_parts_stay_and_times_change_with_the_status_alone() {
        let other = json!({"controllerName": "example.com/other", "parentRef": {"name": "gw"}, "conditions": []});
        let before = json!({"parents": [other]});
        let first = parents(1, &[verdict(true)], &before, &json!("t1"));
        assert_eq!(first[0], other);
        assert_eq!(first[1]["parentRef"], json!({"group": "", "kind": "Service", "name": "web", "port": 80}));
        let accepted = |parents: &[Value]| parents[1]["conditions"][0].clone();
        assert_eq!(accepted(&first)["status"], "True");
        let before = json!({"parents": first});
        assert_eq!(parents(1, &[verdict(true)], &before, &json!("t2")), first, "nothing to write");
        let second = parents(2, &[verdict(true)], &before, &json!("t2"));
        assert_eq!(
            (&accepted(&second)["observedGeneration"], &accepted(&second)["lastTransitionTime"]),
            (&json!(2), &json!("t1"))
        );
        let third = parents(3, &[verdict(false)], &json!({"parents": second}), &json!("t3"));
        assert_eq!(
            (&accepted(&third)["status"], &accepted(&third)["lastTransitionTime"]),
            (&json!("False"), &json!("t3"))
        );
        assert_eq!(parents(3, &[], &json!({"parents": third}), &json!("t4")), [other]);
    }
}
