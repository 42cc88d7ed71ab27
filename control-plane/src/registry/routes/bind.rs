//! Which routes are in force on a port, and where their requests go.

use std::collections::HashMap;
use std::sync::Arc;

use super::BoundRoute;
use super::verdict::Lack;
use crate::model::route::{Match, Parent, To};
use crate::model::service::ServicePort;
use crate::model::{Key, Kind, ObjectRef, Port, Problem, Route, Service, Severity};
use crate::registry::index::Index;

/// The routes in force on a port, the oldest first. For the clients of each namespace the kind of its oldest route counts,
/// so that routes of one namespace change nothing for the clients of another.
pub(in crate::registry) fn bind(index: &Index, service: &Service, port: &ServicePort) -> Arc<[BoundRoute]> {
    if !index.protocol(service, port).is_http() {
        return Arc::default();
    }
    let routes = index.routes.of(&service.key);
    let here = routes.iter().filter(|route| claims(route, service, port));
    let mut ruling: HashMap<&str, Kind> = HashMap::new();
    let in_force = here.filter(|route| {
        let kind = ruling.entry(&*route.object.key.namespace).or_insert(route.object.kind);
        route.object.kind == *kind
    });
    in_force
        .map(|route| BoundRoute {
            object: route.object.clone(),
            consumer: route.object.key.namespace != service.key.namespace,
            rules: route.rules.clone(),
            targets: targets(index, route),
        })
        .collect()
}

/// Whether a route that says anything is for this port.
fn claims(route: &Route, service: &Service, port: &ServicePort) -> bool {
    !route.rules.is_empty() && route.parents.iter().any(|parent| parent.service == service.key && names(parent, port))
}

/// Whether a parent means this port of its service.
pub(super) fn names(parent: &Parent, port: &ServicePort) -> bool {
    parent.fault.is_none()
        && parent.port.is_none_or(|number| number == port.port)
        && parent.section.as_ref().is_none_or(|name| *name == port.name)
}

/// The older route of the other kind, and of the same namespace, that is on the port instead of `route`.
pub(super) fn rival<'i>(
    index: &'i Index,
    service: &Service,
    port: &ServicePort,
    route: &Route,
) -> Option<&'i Arc<Route>> {
    let namespace = &route.object.key.namespace;
    let of_same_clients =
        |other: &&Arc<Route>| other.object.key.namespace == *namespace && claims(other, service, port);
    let first = index.routes.of(&service.key).into_iter().find(of_same_clients)?;
    (first.object.kind != route.object.kind).then_some(first)
}

fn targets(index: &Index, route: &Route) -> Vec<Vec<Option<(Key, Port)>>> {
    let target = |to: &To| match to {
        To::Service(key, port) => Lack::of(index, &route.object, to).is_none().then(|| (key.clone(), *port)),
        To::Unknown(_) => None,
    };
    let of_rule = |rule: &crate::model::route::Rule| rule.backends.iter().map(|backend| target(&backend.to)).collect();
    route.rules.iter().map(of_rule).collect()
}

/// A problem for every match that never gets a request, since an older route has the same one for the same clients.
pub(in crate::registry) fn overlaps(service: &Service, bound: &[BoundRoute], problems: &mut Vec<Problem>) {
    let mut seen: HashMap<(Option<&Arc<str>>, &Match), &ObjectRef> = HashMap::new();
    for route in bound {
        let clients = route.consumer.then_some(&route.object.key.namespace);
        for (index, rule) in route.rules.iter().enumerate() {
            for one in &rule.matches {
                match seen.get(&(clients, one)) {
                    Some(older) if **older != route.object => {
                        let reason = format!(
                            "requests to Service {} that match here are taken by the older {older}, which has the same match",
                            service.key
                        );
                        let field = format!("spec.rules[{index}].matches");
                        let problem = Problem::new(Severity::Warning, route.object.clone(), &field, reason);
                        if !problems.contains(&problem) {
                            problems.push(problem);
                        }
                    }
                    Some(_) => {}
                    None => {
                        seen.insert((clients, one), &route.object);
                    }
                }
            }
        }
    }
}
