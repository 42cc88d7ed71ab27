//! Sessions as vectors: requests and changes of a scripted world in, responses out.

mod converge;
mod delta;
mod sotw;

use std::collections::BTreeMap;

use tulle_proto::{Any, ResourceType};

use super::World;
use crate::registry::Topic;
use crate::translate::Resource;

/// A world that is changed by hand; every change is one version.
#[derive(Debug, Default)]
struct Script {
    version: u64,
    /// Bodies tell name and version, for clients that see nothing else.
    distinct_bodies: bool,
    resources: BTreeMap<(ResourceType, String), Resource>,
    changed: BTreeMap<(ResourceType, String), u64>,
}

impl Script {
    fn new(resources: &[(ResourceType, &str, &str)]) -> Self {
        let mut script = Self { version: 1, ..Self::default() };
        for (ty, name, version) in resources {
            script.put(*ty, name, version);
        }
        script
    }

    /// Begins a new version of the world; what follows belongs to it.
    fn tick(&mut self) -> &mut Self {
        self.version += 1;
        self
    }

    fn put(&mut self, ty: ResourceType, name: &str, version: &str) -> &mut Self {
        self.put_sized(ty, name, version, 1)
    }

    fn put_sized(&mut self, ty: ResourceType, name: &str, version: &str, bytes: usize) -> &mut Self {
        let body = Any { type_url: ty.url().to_owned(), value: self.value(name, version, bytes) };
        let resource = Resource { name: name.into(), version: version.into(), body };
        self.resources.insert((ty, name.to_owned()), resource);
        self.changed.insert((ty, name.to_owned()), self.version);
        self
    }

    fn value(&self, name: &str, version: &str, bytes: usize) -> bytes::Bytes {
        if self.distinct_bodies { format!("{name} {version}").into() } else { vec![7; bytes].into() }
    }

    fn remove(&mut self, ty: ResourceType, name: &str) -> &mut Self {
        self.resources.remove(&(ty, name.to_owned()));
        self.changed.insert((ty, name.to_owned()), self.version);
        self
    }
}

impl World for Script {
    fn clock(&self, _: ResourceType) -> u64 {
        self.version
    }

    fn changed_at(&self, ty: ResourceType, name: &str) -> u64 {
        if name == "*" {
            return self.changed.iter().filter(|((t, _), _)| *t == ty).map(|(_, at)| *at).max().unwrap_or(0);
        }
        self.changed.get(&(ty, name.to_owned())).copied().unwrap_or(0)
    }

    fn touched(&self, _: ResourceType, _: Topic) -> bool {
        true
    }

    fn resource(&self, ty: ResourceType, name: &str) -> Option<Resource> {
        self.resources.get(&(ty, name.to_owned())).cloned()
    }

    fn all(&self, ty: ResourceType) -> Vec<Resource> {
        self.resources.iter().filter(|((t, _), _)| *t == ty).map(|(_, resource)| resource.clone()).collect()
    }
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}
