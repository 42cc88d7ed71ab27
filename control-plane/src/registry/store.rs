//! Every object of every source, duplicates included, and which of the duplicates counts.
//!
//! The rule, stated once: **a pod wins over a Workload of its name, else the oldest wins**. Age is `creationTimestamp`;
//! objects without one are younger than those with one, and among them the order of files and documents decides, so that
//! every replica decides alike.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::delta::Item;
use crate::model::problem::Place;
use crate::model::{Object, ObjectRef, Origin, Problem, Severity};

/// Index of a source among those the registry was started with.
pub(super) type SourceId = usize;

/// What decides between duplicates; the smallest wins. A pod comes first: nobody replaces it by writing a Workload.
fn rank(object: &Object) -> (bool, bool, Option<&Arc<str>>) {
    let is_pod = matches!(object, Object::Workload(workload) if workload.pod.is_some());
    let created = object.created();
    (!is_pod, created.is_none(), created)
}

/// All objects.
#[derive(Debug, Default)]
pub(super) struct Store {
    objects: BTreeMap<ObjectRef, BTreeMap<(SourceId, Origin), Object>>,
}

/// The object that counts for a reference, before and after a step.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) reference: ObjectRef,
    pub(super) old: Option<Object>,
    pub(super) new: Option<Object>,
}

impl Store {
    /// Replaces everything `source` had.
    pub(super) fn reset(&mut self, source: SourceId, items: Vec<Item>) -> Vec<Change> {
        let before = self.winners();
        self.objects.retain(|_, candidates| {
            candidates.retain(|(id, _), _| *id != source);
            !candidates.is_empty()
        });
        for Item { origin, object } in items {
            self.objects.entry(object.reference()).or_default().insert((source, origin), object);
        }
        let after = self.winners();
        let references: BTreeSet<_> = before.keys().chain(after.keys()).collect();
        let change = |reference: &ObjectRef| Change {
            old: before.get(reference).cloned(),
            new: after.get(reference).cloned(),
            reference: reference.clone(),
        };
        references.into_iter().map(change).filter(|c| c.old != c.new).collect()
    }

    /// Sets one object.
    pub(super) fn upsert(&mut self, source: SourceId, item: Item) -> Option<Change> {
        let reference = item.object.reference();
        self.step(reference, |candidates| {
            candidates.insert((source, item.origin), item.object);
        })
    }

    /// Takes one object away.
    pub(super) fn remove(&mut self, source: SourceId, origin: Origin, reference: ObjectRef) -> Option<Change> {
        self.step(reference, |candidates| {
            candidates.remove(&(source, origin));
        })
    }

    fn step(
        &mut self,
        reference: ObjectRef,
        change: impl FnOnce(&mut BTreeMap<(SourceId, Origin), Object>),
    ) -> Option<Change> {
        let candidates = self.objects.entry(reference.clone()).or_default();
        let old = winner(candidates).map(|(_, object)| object.clone());
        change(candidates);
        let new = winner(candidates).map(|(_, object)| object.clone());
        if candidates.is_empty() {
            self.objects.remove(&reference);
        }
        (old != new).then_some(Change { reference, old, new })
    }

    fn winners(&self) -> BTreeMap<ObjectRef, Object> {
        let winner = |(reference, candidates): (&ObjectRef, &BTreeMap<_, _>)| {
            winner(candidates).map(|(_, object)| (reference.clone(), object.clone()))
        };
        self.objects.iter().filter_map(winner).collect()
    }

    /// Where the object that counts for a reference was read.
    pub(super) fn place(&self, reference: &ObjectRef) -> Option<Place> {
        winner(self.objects.get(reference)?).map(|((_, origin), _)| place(origin))
    }

    /// A problem for every object that lost to an older one.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (reference, candidates) in self.objects.iter().filter(|(_, candidates)| candidates.len() > 1) {
            let Some((first, _)) = winner(candidates) else {
                continue;
            };
            for loser in candidates.keys().filter(|id| *id != first) {
                let reason = format!("it is defined twice; the one at {} is used", first.1);
                let place = place(&loser.1);
                problems.push(Problem::new(Severity::Error, reference.clone(), "", reason).at(place));
            }
        }
        problems
    }
}

fn place(origin: &Origin) -> Place {
    Place { file: origin.file.clone(), line: origin.line, column: 0 }
}

fn winner(candidates: &BTreeMap<(SourceId, Origin), Object>) -> Option<(&(SourceId, Origin), &Object)> {
    candidates.iter().min_by_key(|(id, object)| (rank(object), *id))
}
