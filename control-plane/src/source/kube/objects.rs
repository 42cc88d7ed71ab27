//! Kinds whose objects become an object of the mesh each: namespaces, services, slices, workloads, routes, grants.

use std::sync::Arc;

use kube::Client;
use kube::runtime::watcher::Event;

use super::follow::{Follow, Need, News, Trouble};
use super::table::{Change, Table};
use super::watched::{Manifest, Watched};
use super::{Sink, origin, problem};
use crate::model::delta::Item;
use crate::model::ranges::WorkloadRanges;
use crate::model::{Delta, Kind, Object, ObjectRef, Problem, Severity};
use crate::source::object::{
    self, At, Converted, EndpointSliceManifest, GrantManifest, GrpcRouteManifest, HttpRouteManifest, LastGood,
    NamespaceManifest, ServiceManifest, WorkloadManifest,
};

/// The conversion of a kind, which all sources share.
type Convert<T> = fn(&T, LastGood<'_>) -> Result<Converted, Problem>;

/// A kind that is not there this often in a row is gone, and its objects with it.
const GONE: u32 = 3;

/// The objects of one kind and what was told of them.
#[derive(Debug)]
pub(super) struct Objects<T> {
    kind: Kind,
    convert: Convert<T>,
    /// Of Workloads: which addresses they may have.
    ranges: Option<Arc<WorkloadRanges>>,
    table: Table<Object>,
    /// How often in a row the API did not have the kind.
    absences: u32,
    trouble: Option<Problem>,
    told: Vec<Problem>,
}

impl Objects<NamespaceManifest> {
    pub(super) fn namespace() -> Self {
        Self::of(Kind::Namespace, |manifest, last| object::namespace(&At::NOWHERE, manifest, last))
    }
}

impl Objects<ServiceManifest> {
    pub(super) fn service() -> Self {
        Self::of(Kind::Service, |manifest, last| object::service(&At::NOWHERE, manifest, last))
    }
}

impl Objects<EndpointSliceManifest> {
    pub(super) fn endpoint_slice() -> Self {
        Self::of(Kind::EndpointSlice, |manifest, _| object::endpoint_slice(&At::NOWHERE, manifest))
    }
}

impl Objects<WorkloadManifest> {
    /// Workloads whose addresses are within what their namespaces may claim.
    pub(super) fn workload(ranges: Arc<WorkloadRanges>) -> Self {
        let all = Self::of(Kind::Workload, |manifest, _| object::workload(&At::NOWHERE, manifest));
        Self { ranges: Some(ranges), ..all }
    }
}

impl Objects<HttpRouteManifest> {
    pub(super) fn http_route() -> Self {
        Self::of(Kind::HttpRoute, |manifest, _| object::http_route(&At::NOWHERE, manifest))
    }
}

impl Objects<GrpcRouteManifest> {
    pub(super) fn grpc_route() -> Self {
        Self::of(Kind::GrpcRoute, |manifest, _| object::grpc_route(&At::NOWHERE, manifest))
    }
}

impl Objects<GrantManifest> {
    pub(super) fn grant() -> Self {
        Self::of(Kind::ReferenceGrant, |manifest, _| object::grant(&At::NOWHERE, manifest))
    }
}

impl<T: Manifest> Objects<T> {
    fn of(kind: Kind, convert: Convert<T>) -> Self {
        Self { kind, convert, ranges: None, table: Table::default(), absences: 0, trouble: None, told: Vec::new() }
    }

    /// Takes in an event and returns what to tell.
    pub(super) fn event(&mut self, event: Event<Watched<T>>) -> Vec<Delta> {
        self.trouble = None;
        // A list that begins may fail yet.
        if !matches!(event, Event::Init) {
            self.absences = 0;
        }
        let (kind, convert, ranges) = (self.kind, self.convert, self.ranges.as_deref());
        let change = self.table.apply(event, |object, last| {
            let reference = || ObjectRef { kind, key: object.key() };
            let wrong = |reason: &String| Problem::new(Severity::Error, reference(), "", reason.as_str());
            let manifest = object.manifest.as_ref().map_err(wrong)?;
            let Converted { object, problems } = convert(manifest, &|_| last.cloned())?;
            if let (Some(Object::Workload(workload)), Some(ranges)) = (&object, ranges) {
                let refused = |reason| Problem::new(Severity::Error, reference(), "spec.addresses", reason);
                ranges.permit(workload).map_err(refused)?;
            }
            Ok((object, problems))
        });
        let mut step = match change {
            Change::None => Vec::new(),
            Change::Reset => vec![Delta::Reset(self.table.values().cloned().map(item).collect())],
            Change::Set(object) => vec![Delta::Upsert(item(object))],
            Change::Gone(object) => vec![Delta::Remove(origin(), object.reference())],
        };
        step.extend(self.problems());
        step
    }

    /// Takes in that the kind cannot be seen, and returns what to tell.
    pub(super) fn trouble(&mut self, trouble: Trouble, need: Need) -> Vec<Delta> {
        let optional = need == Need::WhenThere;
        if let Some(reason) = trouble.reason.filter(|_| !(optional && trouble.absent)) {
            self.trouble = Some(problem(reason));
        }
        self.absences = if trouble.absent { self.absences.saturating_add(1) } else { 0 };
        let mut step = Vec::new();
        // An API that starts may not know its added kinds for a moment; one that keeps saying so has lost them.
        if optional && self.absences >= GONE && self.table.clear() {
            step.push(Delta::Reset(Vec::new()));
        }
        if optional && (trouble.absent || self.trouble.is_some()) && self.table.give_up() {
            step.push(Delta::Reset(Vec::new()));
        }
        step.extend(self.problems());
        step
    }

    /// All problems, when they are others than before.
    fn problems(&mut self) -> Option<Delta> {
        let problems: Vec<_> = self.trouble.iter().chain(self.table.problems()).cloned().collect();
        if problems == self.told {
            return None;
        }
        self.told.clone_from(&problems);
        Some(Delta::Problems(problems))
    }
}

fn item(object: Object) -> Item {
    Item { origin: origin(), object }
}

/// Watches a kind until the sink has had enough.
pub(super) async fn run<T: Manifest>(client: Client, sink: impl Sink, need: Need, mut objects: Objects<T>) {
    let mut follow = Follow::<T>::new(client);
    loop {
        let step = match follow.next().await {
            News::Event(event) => objects.event(*event),
            News::Trouble(trouble) => objects.trouble(trouble, need),
        };
        if !step.is_empty() && !sink.send(step).await {
            return;
        }
    }
}
