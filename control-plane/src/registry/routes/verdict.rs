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
    // A filter's kind is told by the route's source.
    if !resolved.holds && !route.rules.iter().filter_map(|rule| rule.refused.as_ref()).any(|r| r.unknown_kind) {
        let reason = format!("{}; such requests are answered with 500", resolved.message);
        problems.push(Problem::new(Severity::Warning, route.object.clone(), "spec.rules", reason));
    }
    let mut verdict = |(number, parent): (usize, &Parent)| {
        let accepted = accepted(index, route, parent);
        // What is wrong with the route itself is told by its source.
        if !accepted.holds && parent.fault.is_none() && accepted.reason != "UnsupportedValue" {
            let field = format!("spec.parentRefs[{number}]");
            problems.push(Problem::new(Severity::Error, route.object.clone(), &field, &*accepted.message));
        }
        let partly_invalid = partly_invalid(route).filter(|_| accepted.holds);
        Verdict { parent: parent.clone(), accepted, resolved: resolved.clone(), partly_invalid }
    };
    let verdicts = route.parents.iter().enumerate().map(&mut verdict).collect();
    RouteView { route: route.clone(), verdicts }
}

fn resolved(index: &Index, route: &Route) -> Condition {
    let backends = route.rules.iter().flat_map(|rule| &rule.backends);
    let refused = route.rules.iter().filter_map(|rule| rule.refused.as_ref()).find(|refused| refused.unknown_kind);
    if let Some(refused) = refused {
        return Condition::fails("InvalidKind", refused.reason.clone());
    }
    let lack = backends.filter_map(|backend| Lack::of(index, &route.object, &backend.to)).next();
    match lack {
        Some(Lack { reason, message }) => Condition::fails(reason, message),
        None => Condition::holds("ResolvedRefs", "all that it refers to is there"),
    }
}

fn accepted(index: &Index, route: &Route, parent: &Parent) -> Condition {
    if let Some(fault) = &parent.fault {
        return Condition::fails("NoMatchingParent", fault.clone());
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
        None => match refused(route) {
            Some(reasons) if route.rules.iter().all(|rule| rule.refused.is_some()) => {
                Condition::fails("UnsupportedValue", format!("all requests are answered with 500: {reasons}"))
            }
            Some(_) | None => Condition::holds("Accepted", "it is in force"),
        },
    }
}

/// Whether some rules are not carried out while others are; none when that is not so.
/// Source: Gateway API, `RouteConditionPartiallyInvalid`, which wants the first words of the message.
fn partly_invalid(route: &Route) -> Option<Condition> {
    let reasons = refused(route).filter(|_| route.rules.iter().any(|rule| rule.refused.is_none()))?;
    let message = format!("Dropped Rule: requests that match it are answered with 500: {reasons}");
    Some(Condition { holds: true, reason: "UnsupportedValue", message: message.into() })
}

/// Why rules are not carried out; none when all are.
fn refused(route: &Route) -> Option<String> {
    let reasons: Vec<&str> =
        route.rules.iter().filter_map(|rule| rule.refused.as_ref()).map(|refused| &*refused.reason).collect();
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

fn no_http(index: &Index, service: &Service, ports: &[&ServicePort]) -> Condition {
    let spoken = ports.first().map_or("", |port| index.protocol(service, port).name());
    let message = format!(
        "Service {} speaks {spoken} there, not HTTP; say appProtocol: http or name the port http where it does",
        service.key
    );
    Condition::fails("NoMatchingParent", message)
}
