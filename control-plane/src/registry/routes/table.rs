//! The routes and grants that count, by what joins them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::{Grant, Key, ObjectRef, Route};
use crate::registry::index::Dirty;

/// All routes and grants.
#[derive(Debug, Default)]
pub(in crate::registry) struct RouteTable {
    routes: BTreeMap<ObjectRef, Arc<Route>>,
    /// By the services they are for, and by those they send requests to.
    of: BTreeMap<Key, BTreeSet<ObjectRef>>,
    to: BTreeMap<Key, BTreeSet<ObjectRef>>,
    /// Grants by namespace, then by name.
    grants: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Arc<Grant>>>,
}

impl RouteTable {
    pub(in crate::registry) fn put(&mut self, route: &Arc<Route>) {
        for parent in &route.parents {
            self.of.entry(parent.service.clone()).or_default().insert(route.object.clone());
        }
        for service in route.rules.iter().flat_map(|rule| rule.services()) {
            self.to.entry(service.clone()).or_default().insert(route.object.clone());
        }
        self.routes.insert(route.object.clone(), route.clone());
    }

    pub(in crate::registry) fn take(&mut self, route: &Route) {
        for parent in &route.parents {
            leave(&mut self.of, &parent.service, &route.object);
        }
        for service in route.rules.iter().flat_map(|rule| rule.services()) {
            leave(&mut self.to, service, &route.object);
        }
        self.routes.remove(&route.object);
    }

    pub(in crate::registry) fn put_grant(&mut self, grant: &Arc<Grant>) {
        self.grants.entry(grant.key.namespace.clone()).or_default().insert(grant.key.name.clone(), grant.clone());
    }

    pub(in crate::registry) fn take_grant(&mut self, grant: &Grant) {
        if let Some(grants) = self.grants.get_mut(&grant.key.namespace) {
            grants.remove(&grant.key.name);
            if grants.is_empty() {
                self.grants.remove(&grant.key.namespace);
            }
        }
    }

    /// Marks what `route` has a part in, while it is here: its services, and the other routes of these.
    pub(in crate::registry) fn touch(&self, route: &Route, dirty: &mut Dirty) {
        dirty.routes.insert(route.object.clone());
        for parent in &route.parents {
            dirty.services.insert(parent.service.clone());
            dirty.routes.extend(self.of.get(&parent.service).into_iter().flatten().cloned());
        }
    }

    /// Marks what depends on what `service` is.
    pub(in crate::registry) fn touch_service(&self, service: &Key, dirty: &mut Dirty) {
        dirty.routes.extend(self.of.get(service).into_iter().flatten().cloned());
        for route in self.to.get(service).into_iter().flatten() {
            dirty.routes.insert(route.clone());
            let parents = self.routes.get(route).into_iter().flat_map(|route| &route.parents);
            dirty.services.extend(parents.map(|parent| parent.service.clone()));
        }
    }

    /// Marks what depends on the grants of `namespace`.
    pub(in crate::registry) fn touch_grants(&self, namespace: &Arc<str>, dirty: &mut Dirty) {
        let from = Key { namespace: namespace.clone(), name: "".into() };
        let services = self.to.range(from..).map(|(service, _)| service);
        for service in services.take_while(|service| service.namespace == *namespace) {
            self.touch_service(service, dirty);
        }
    }

    /// The route called so.
    pub(in crate::registry) fn get(&self, object: &ObjectRef) -> Option<&Arc<Route>> {
        self.routes.get(object)
    }

    /// The routes that are for a service, the oldest first, then by kind and name.
    pub(super) fn of(&self, service: &Key) -> Vec<&Arc<Route>> {
        let routes = self.of.get(service).into_iter().flatten().filter_map(|object| self.routes.get(object));
        let mut routes: Vec<_> = routes.collect();
        routes.sort_by_key(|route| (route.created.is_none(), route.created.clone(), route.object.key.clone()));
        routes
    }

    /// Whether a route may send requests to a service.
    pub(super) fn permits(&self, route: &ObjectRef, service: &Key) -> bool {
        let mut grants = self.grants.get(&service.namespace).into_iter().flat_map(BTreeMap::values);
        route.key.namespace == service.namespace
            || grants.any(|grant| grant.permits(route.kind, &route.key.namespace, &service.name))
    }
}

fn leave(map: &mut BTreeMap<Key, BTreeSet<ObjectRef>>, key: &Key, object: &ObjectRef) {
    if let Some(objects) = map.get_mut(key) {
        objects.remove(object);
        if objects.is_empty() {
            map.remove(key);
        }
    }
}
