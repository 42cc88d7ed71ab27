//! Pods and the nodes they run on: a pod is a workload whose zone and region are its node's. Nodes that may not be seen
//! leave pods without a place.

use std::sync::Arc;

use kube::Client;
use kube::runtime::watcher::Event;

use super::follow::{Follow, News, Trouble};
use super::table::{Change, Table};
use super::watched::Watched;
use super::{Sink, origin, problem};
use crate::model::delta::Item;
use crate::model::{Delta, Key, Kind, Locality, Object, ObjectRef, Problem, Severity, Workload};
use crate::source::object::{self, At, NodeManifest, Pod, PodManifest};

/// Pods and nodes, and what was told of them.
#[derive(Debug, Default)]
pub(super) struct Pods {
    pods: Table<Pod>,
    nodes: Table<Locality>,
    /// Both were told once.
    told_all: bool,
    pod_trouble: Option<Problem>,
    node_trouble: Option<Problem>,
    told: Vec<Problem>,
}

impl Pods {
    pub(super) fn pod(&mut self, event: Event<Watched<PodManifest>>) -> Vec<Delta> {
        self.pod_trouble = None;
        let change = self.pods.apply(event, |object, _| {
            let manifest = object.manifest.as_ref().map_err(|reason| wrong(object.key(), reason))?;
            Ok((object::pod(&At::NOWHERE, manifest)?, Vec::new()))
        });
        let mut step = match change {
            Change::None => Vec::new(),
            Change::Reset => self.all(),
            Change::Set(_) | Change::Gone(_) if !self.told_all => Vec::new(),
            Change::Set(pod) => vec![Delta::Upsert(self.item(&pod))],
            Change::Gone(pod) => vec![Delta::Remove(origin(), reference(pod.workload.key.clone()))],
        };
        step.extend(self.problems());
        step
    }

    pub(super) fn node(&mut self, event: Event<Watched<NodeManifest>>) -> Vec<Delta> {
        self.node_trouble = None;
        let name = match &event {
            Event::Apply(object) | Event::Delete(object) => Some(object.key().name),
            Event::Init | Event::InitApply(_) | Event::InitDone => None,
        };
        let change = self.nodes.apply(event, |object, _| {
            let manifest = object.manifest.as_ref().map_err(|reason| problem(reason.as_str()))?;
            Ok((Some(object::node(manifest)), Vec::new()))
        });
        let mut step = match change {
            Change::None => Vec::new(),
            Change::Reset => self.all(),
            Change::Set(_) | Change::Gone(_) if !self.told_all => Vec::new(),
            Change::Set(_) | Change::Gone(_) => {
                let on_it = self.pods.values().filter(|pod| pod.node == name);
                on_it.map(|pod| Delta::Upsert(self.item(pod))).collect()
            }
        };
        step.extend(self.problems());
        step
    }

    pub(super) fn pod_trouble(&mut self, trouble: Trouble) -> Vec<Delta> {
        self.pod_trouble = trouble.reason.map(problem).or_else(|| self.pod_trouble.take());
        self.problems().into_iter().collect()
    }

    pub(super) fn node_trouble(&mut self, trouble: Trouble) -> Vec<Delta> {
        let mut step = Vec::new();
        if let Some(reason) = trouble.reason {
            let reason = format!("{reason}; without nodes nothing is known of zones and regions");
            self.node_trouble = Some(Problem { severity: Severity::Warning, ..problem(reason) });
            if self.nodes.give_up() {
                step = self.all();
            }
        }
        step.extend(self.problems());
        step
    }

    /// Everything, once both kinds were listed.
    fn all(&mut self) -> Vec<Delta> {
        if !(self.pods.listed() && self.nodes.listed()) {
            return Vec::new();
        }
        self.told_all = true;
        vec![Delta::Reset(self.pods.values().map(|pod| self.item(pod)).collect())]
    }

    /// A pod with the locality of its node.
    fn item(&self, pod: &Pod) -> Item {
        let node = pod.node.as_ref().map(|name| Key { namespace: name.clone(), name: name.clone() });
        let locality = node.and_then(|node| self.nodes.get(&node));
        let workload = match locality {
            Some(locality) => Arc::new(Workload { locality: locality.clone(), ..Workload::clone(&pod.workload) }),
            None => pod.workload.clone(),
        };
        Item { origin: origin(), object: Object::Workload(workload) }
    }

    fn problems(&mut self) -> Option<Delta> {
        let trouble = self.pod_trouble.iter().chain(&self.node_trouble);
        let problems: Vec<_> = trouble.chain(self.pods.problems()).chain(self.nodes.problems()).cloned().collect();
        if problems == self.told {
            return None;
        }
        self.told.clone_from(&problems);
        Some(Delta::Problems(problems))
    }
}

fn wrong(key: Key, reason: &str) -> Problem {
    Problem::new(Severity::Error, reference(key), "", reason)
}

const fn reference(key: Key) -> ObjectRef {
    ObjectRef { kind: Kind::Workload, key }
}

/// Watches pods and nodes until the sink has had enough.
pub(super) async fn run(client: Client, sink: impl Sink, mut state: Pods) {
    let mut pods = Follow::<PodManifest>::new(client.clone());
    let mut nodes = Follow::<NodeManifest>::new(client);
    loop {
        let step = tokio::select! {
            news = pods.next() => match news {
                News::Event(event) => state.pod(*event),
                News::Trouble(trouble) => state.pod_trouble(trouble),
            },
            news = nodes.next() => match news {
                News::Event(event) => state.node(*event),
                News::Trouble(trouble) => state.node_trouble(trouble),
            },
        };
        if !step.is_empty() && !sink.send(step).await {
            return;
        }
    }
}
