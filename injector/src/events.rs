//! Events: what happened to pods, told to the controller that makes them, which has a name when they do not.
//!
//! Telling never waits and never fails a verdict: what is said is queued, at the bound it is dropped. The same is said
//! once in ten minutes.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, PostParams};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::pod;

/// Notes that wait to be written.
const QUEUE: usize = 256;

/// The same note to the same object is left out for this long.
const QUIET: Duration = Duration::from_secs(600);

/// Notes remembered for that.
const REMEMBERED: usize = 4096;

/// Longest message of an Event that Kubernetes takes is 1024 bytes.
const LONGEST: usize = 1000;

/// Something to tell.
#[derive(Clone, Debug)]
pub(crate) struct Note {
    /// One word in capitals.
    pub(crate) reason: &'static str,
    /// Something to look into.
    pub(crate) warning: bool,
    /// A sentence.
    pub(crate) text: String,
}

/// Where notes are left.
#[derive(Clone, Debug)]
pub(crate) struct Notes(mpsc::Sender<(ObjectReference, Note)>);

/// Notes to be written.
#[derive(Debug)]
pub(crate) struct Queue(mpsc::Receiver<(ObjectReference, Note)>);

/// Both ends.
pub(crate) fn queue() -> (Notes, Queue) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (Notes(sender), Queue(receiver))
}

impl Notes {
    /// Tells the controller of `pod`, or the pod itself when it has none.
    pub(crate) fn tell(&self, pod: &Value, namespace: &str, note: Note) {
        if let Some(object) = about(pod, namespace) {
            // A full queue means an API server that does not take Events; the verdict says the same.
            let _ = self.0.try_send((object, note));
        }
    }
}

fn about(pod: &Value, namespace: &str) -> Option<ObjectReference> {
    let text = |value: &Value, pointer: &str| pod::text(value, pointer).map(str::to_owned);
    let namespace = Some(namespace.to_owned());
    if let Some(controller) = pod::controller(pod) {
        return Some(ObjectReference {
            api_version: text(controller, "/apiVersion"),
            kind: text(controller, "/kind"),
            name: text(controller, "/name"),
            uid: text(controller, "/uid"),
            namespace,
            ..ObjectReference::default()
        });
    }
    Some(ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: Some(text(pod, "/metadata/name")?),
        namespace,
        ..ObjectReference::default()
    })
}

/// Remembers what was said, so that a Deployment of a hundred pods is told once.
#[derive(Debug, Default)]
struct Said(HashMap<String, Instant>);

impl Said {
    fn is_new(&mut self, object: &ObjectReference, note: &Note, now: Instant) -> bool {
        if self.0.len() >= REMEMBERED {
            self.0.retain(|_, at| now.saturating_duration_since(*at) < QUIET);
        }
        if self.0.len() >= REMEMBERED {
            self.0.clear();
        }
        let part = |text: &Option<String>| text.clone().unwrap_or_default();
        let key = [part(&object.namespace), part(&object.kind), part(&object.name), part(&object.uid)].join("/");
        let key = format!("{key} {} {}", note.reason, note.text);
        match self.0.get(&key) {
            Some(at) if now.saturating_duration_since(*at) < QUIET => false,
            Some(_) | None => {
                self.0.insert(key, now);
                true
            }
        }
    }
}

/// Writes notes as Events, for as long as it is polled.
pub(crate) async fn write(mut queue: Queue, client: kube::Client) {
    let mut said = Said::default();
    while let Some((object, note)) = queue.0.recv().await {
        if !said.is_new(&object, &note, Instant::now()) {
            continue;
        }
        let namespace = object.namespace.clone().unwrap_or_default();
        let event = event(object, &note);
        if let Err(error) = Api::namespaced(client.clone(), &namespace).create(&PostParams::default(), &event).await {
            tracing::warn!(%error, namespace, reason = note.reason, "an Event was not written");
        }
    }
}

fn event(object: ObjectReference, note: &Note) -> Event {
    let now = Time(k8s_openapi::jiff::Timestamp::now());
    let prefix = object.name.as_deref().unwrap_or("tulle");
    Event {
        metadata: ObjectMeta {
            generate_name: Some(format!("{prefix}.")),
            namespace: object.namespace.clone(),
            ..ObjectMeta::default()
        },
        count: Some(1),
        first_timestamp: Some(now.clone()),
        last_timestamp: Some(now),
        involved_object: object,
        message: Some(note.text.chars().take(LONGEST).collect()),
        reason: Some(note.reason.to_owned()),
        reporting_component: Some("tulle-injector".to_owned()),
        source: Some(EventSource { component: Some("tulle-injector".to_owned()), host: None }),
        type_: Some(if note.warning { "Warning" } else { "Normal" }.to_owned()),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_controller_is_told_once() {
        let pod = json!({"metadata": {"ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "uid": "u", "controller": true}
        ]}});
        let object = about(&pod, "shop").unwrap();
        let note = Note { reason: "TulleInjected", warning: false, text: "x".to_owned() };
        let (mut said, now) = (Said::default(), Instant::now());
        assert!(said.is_new(&object, &note, now));
        assert!(!said.is_new(&object, &note, now + QUIET / 2));
        assert!(said.is_new(&object, &note, now + QUIET * 2));
        let event = event(object, &note);
        assert_eq!(event.involved_object.kind.as_deref(), Some("ReplicaSet"));
        assert_eq!(event.metadata.namespace.as_deref(), Some("shop"));
        assert!(about(&json!({"metadata": {"generateName": "x-"}}), "shop").is_none(), "nobody to tell");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut said, now) = (Said::default(), Instant::now());
        let note = Note { reason: "TulleInjected", warning: false, text: String::new() };
        for index in 0..REMEMBERED * 2 {
            let object = ObjectReference { name: Some(index.to_string()), ..ObjectReference::default() };
            assert!(said.is_new(&object, &note, now));
            assert!(said.0.len() <= REMEMBERED);
        }
    }
}
