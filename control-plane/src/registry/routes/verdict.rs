//! Whether a route is in force, and why not: its status, and the problems its owner is told of.

use std::sync::Arc;

use super::bind::{names, rival};
use super::{Condition, RouteView, Verdict};
use crate::model::route::{Parent, To};
use crate::model::service::ServicePort;
use crate::model::{ObjectRef, Problem, Route, Service, Severity};
use crate::registry::index::Index;

/// Why no request can go to a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lack {
    reason: &'static str,
    message: String,
}

impl Lack {
    /// What is wrong with a destination of `route`; none when requests can go there.
    pub(super) fn of(index: &Index, route: &ObjectRef, to: &To) -> Option<Self> {
        let lack = |reason, message| Some(Self { reason, message });
        let (key, port) = match to {
            To::Unknown(kind) => {
                return lack("InvalidKind", format!("requests cannot be sent to a {kind}, only to a Service"));
            }
            To::Service(key, port) => (key, *port),
        };
        if !index.routes.permits(route, key) {
            let message = format!(
                "no ReferenceGrant in namespace {} lets a {} of {} use Service {key}",
                key.namespace, route.kind, route.key.namespace
            );
            return lack("RefNotPermitted", message);
        }
        let Some(service) = index.service(key) else {
            return lack("BackendNotFound", format!("there is no Service {key} with ports in the mesh"));
        };
        let Some(known) = service.ports.iter().find(|known| known.port == port) else {
            let ports: Vec<_> = service.ports.iter().map(|port| port.port.to_string()).collect();
            return lack("BackendNotFound", format!("Service {key} has no port {port}; it has {}", ports.join(", ")));
        };
        let protocol = index.protocol(service, known);
        if !protocol.is_http() {
            return lack("UnsupportedProtocol", format!("port {port} of Service {key} speaks {protocol}, not HTTP"));
        }
        None
    }
}

/// What each parent makes of `route`, and what of that is a problem.
pub(in crate::registry) fn verdicts(index: &Index, route: &Arc<Route>, problems: &mut Vec<Problem>) -> RouteView {
    let resolved = resolved(index, route);
    if !resolved.holds {
        let reason = format!("{}; such requests are answered with 500", resolved.message);
        problems.push(Problem::new(Severity::Warning, route.object.clone(), "spec.rules", reason));
    }
    let mut verdict = |(number, parent): (usize, &Parent)| {
        let accepted = accepted(index, route, parent);
        // What is wrong with the route itself is told by its source.
        if !accepted.holds && route.fault.is_none() {
            let field = format!("spec.parentRefs[{number}]");
            problems.push(Problem::new(Severity::Error, route.object.clone(), &field, &*accepted.message));
        }
        Verdict { parent: parent.clone(), accepted, resolved: resolved.clone() }
    };
    let verdicts = route.parents.iter().enumerate().map(&mut verdict).collect();
    RouteView { route: route.clone(), verdicts }
}

fn resolved(index: &Index, route: &Route) -> Condition {
    let backends = route.rules.iter().flat_map(|rule| &rule.backends);
    let lack = backends.filter_map(|backend| Lack::of(index, &route.object, &backend.to)).next();
    match lack {
        Some(Lack { reason, message }) => Condition::fails(reason, message),
        None => Condition::holds("ResolvedRefs", "all that it refers to is there"),
    }
}

fn accepted(index: &Index, route: &Route, parent: &Parent) -> Condition {
    if let Some(fault) = &route.fault {
        let kept = if route.rules.is_empty() { "" } else { "; its last good version stays in force" };
        return Condition::fails("UnsupportedValue", format!("{fault}{kept}"));
    }
    let Some(service) = index.service(&parent.service) else {
        return Condition::fails("NoMatchingParent", format!("there is no Service {} in the mesh", parent.service));
    };
    let ports: Vec<_> = service.ports.iter().filter(|port| names(parent, port)).collect();
    if ports.is_empty() {
        let all: Vec<_> = service.ports.iter().map(|port| port.port.to_string()).collect();
        let message = format!("Service {} has no such port; it has {}", parent.service, all.join(", "));
        return Condition::fails("NoMatchingParent", message);
    }
    let speaks_http = |port: &&&ServicePort| index.protocol(service, port).is_http();
    if !ports.iter().any(|port| speaks_http(&port)) {
        return no_http(index, service, &ports);
    }
    match ports.iter().filter(speaks_http).find_map(|port| rival(index, service, port, route)) {
        Some(rival) => Condition::fails(
            "Conflicted",
            format!("the older {} is on Service {}, and a port has routes of one kind", rival.object, parent.service),
        ),
        None => Condition::holds("Accepted", "it is in force"),
    }
}

fn no_http(index: &Index, service: &Service, ports: &[&ServicePort]) -> Condition {
    let spoken = ports.first().map_or("", |port| index.protocol(service, port).name());
    let message = format!(
        "Service {} speaks {spoken} there, not HTTP; say appProtocol: http or name the port http where it does",
        service.key
    );
    Condition::fails("NoMatchingParent", message)
}
