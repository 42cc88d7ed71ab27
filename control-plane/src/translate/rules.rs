//! Routes of the Gateway API as routes of a port: which of them a client uses, in the order they are tried, and what each
//! does to a request.

use std::cmp::Reverse;
use std::sync::Arc;

use tulle_proto::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use tulle_proto::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use tulle_proto::envoy::config::route::v3::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};
use tulle_proto::envoy::config::route::v3::route_action::{
    ClusterNotFoundResponseCode, ClusterSpecifier, HostRewriteSpecifier,
};
use tulle_proto::envoy::config::route::v3::weighted_cluster::ClusterWeight;
use tulle_proto::envoy::config::route::v3::{
    DirectResponseAction, RedirectAction, Route, RouteAction, WeightedCluster, route,
};
use tulle_proto::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;
use tulle_proto::names::NO_CLUSTER;
use tulle_proto::pattern;

use super::input::Naming;
use super::matches::{self, regex};
use super::route::ActionInput;
use super::scope::{ClientKind, Scope};
use super::wire;
use crate::model::route::{FieldChanges, Match, PathChange, PathMatch, Redirect, Rule};
use crate::model::{Key, Port};
use crate::registry::{BoundRoute, PortView};

/// Answer to what is to go where nothing may be sent.
/// Source: Gateway API, `HTTPRouteRule.backendRefs`.
const NOWHERE: u16 = 500;

/// The routes a client uses on a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct RulesInput {
    routes: Vec<BoundRoute>,
    port: Port,
    domain: Arc<str>,
    grpc_client: bool,
}

/// The routes of `port` for a client: those of its own namespace for it alone, and without any those for all. None when
/// there are none.
pub(super) fn input(scope: &Scope, naming: &Naming, port: &PortView) -> Option<RulesInput> {
    let own = |route: &&BoundRoute| route.consumer && route.object.key.namespace == scope.namespace;
    let mut routes: Vec<_> = port.routes.iter().filter(own).cloned().collect();
    if routes.is_empty() {
        routes = port.routes.iter().filter(|route| !route.consumer).cloned().collect();
    }
    (!routes.is_empty()).then(|| RulesInput {
        routes,
        port: port.port,
        domain: naming.domain.clone(),
        grpc_client: scope.client == ClientKind::Grpc,
    })
}

/// One match with all that belongs to it.
struct Entry<'r> {
    one: &'r Match,
    rule: &'r Rule,
    targets: &'r [Option<(Key, Port)>],
    bound: &'r BoundRoute,
}

impl RulesInput {
    /// The routes in the order they are tried. What none of them matches is answered with 404 by who asks.
    pub(super) fn build(&self, base: &ActionInput) -> Vec<Route> {
        let mut entries: Vec<Entry<'_>> = Vec::new();
        for bound in &self.routes {
            for (rule, targets) in bound.rules.iter().zip(&bound.targets) {
                entries.extend(rule.matches.iter().map(|one| Entry { one, rule, targets, bound }));
            }
        }
        // Stable: of what is alike the oldest route is first, then the first rule.
        entries.sort_by_key(|entry| Reverse(entry.one.rank));
        let route = |Entry { one, rule, targets, bound }: &Entry<'_>| Route {
            name: format!("{}/{}", bound.object.kind, bound.object.key),
            r#match: Some(matches::build(one, self.grpc_client)),
            request_headers_to_add: added(&rule.changes.request),
            request_headers_to_remove: removed(&rule.changes.request),
            response_headers_to_add: added(&rule.changes.reply),
            response_headers_to_remove: removed(&rule.changes.reply),
            action: Some(self.action(base, one, rule, targets)),
            ..Route::default()
        };
        entries.iter().map(route).collect()
    }

    fn action(&self, base: &ActionInput, one: &Match, rule: &Rule, targets: &[Option<(Key, Port)>]) -> route::Action {
        if rule.refused.is_some() {
            return nowhere();
        }
        if let Some(to) = &rule.redirect {
            return route::Action::Redirect(self.redirect(one, to));
        }
        let weights = rule.backends.iter().map(|backend| backend.weight);
        let shares: Vec<_> = targets.iter().zip(weights).filter(|(_, weight)| *weight > 0).collect();
        if shares.iter().all(|(target, _)| target.is_none()) {
            return nowhere();
        }
        let mut action = base.within(rule.timeout, rule.try_timeout).build();
        let name = |target: &Option<(Key, Port)>| match target {
            Some((key, port)) => format!("{}.{}.svc.{}:{port}", key.name, key.namespace, self.domain),
            None => NO_CLUSTER.to_owned(),
        };
        action.cluster_specifier = Some(match &shares[..] {
            [(target, _)] => ClusterSpecifier::Cluster(name(target)),
            shares => ClusterSpecifier::WeightedClusters(WeightedCluster {
                clusters: shares
                    .iter()
                    .map(|(target, weight)| ClusterWeight {
                        name: name(target),
                        weight: Some(wire::number(*weight)),
                        ..ClusterWeight::default()
                    })
                    .collect(),
                ..WeightedCluster::default()
            }),
        });
        if shares.iter().any(|(target, _)| target.is_none()) {
            action.cluster_not_found_response_code = ClusterNotFoundResponseCode::InternalServerError.into();
        }
        rewrite(&mut action, one, rule);
        route::Action::Route(action)
    }

    fn redirect(&self, one: &Match, to: &Redirect) -> RedirectAction {
        let standard = match to.scheme.as_deref() {
            Some("https") => Some(443),
            Some(_) => Some(80),
            None => None,
        };
        // A scheme brings its port, and without one the port is the one that was asked.
        // Source: Gateway API, `HTTPRequestRedirectFilter.port`.
        let port = to.port.map_or_else(|| standard.unwrap_or_else(|| self.port.number()), Port::number);
        // Clients of a port that is not the scheme's own name it in their requests, and it would be kept.
        let implied = port == standard.unwrap_or(80) && self.port.number() == 80;
        let path = to.path.as_ref().map(|change| match substitute(one, change) {
            Substitute::Prefix(with) => PathRewriteSpecifier::PrefixRewrite(with),
            Substitute::Regex(rewrite) => PathRewriteSpecifier::RegexRewrite(rewrite),
        });
        RedirectAction {
            host_redirect: to.host.as_deref().unwrap_or_default().to_owned(),
            port_redirect: if implied { 0 } else { port.into() },
            response_code: match to.status {
                301 => RedirectResponseCode::MovedPermanently,
                303 => RedirectResponseCode::SeeOther,
                307 => RedirectResponseCode::TemporaryRedirect,
                308 => RedirectResponseCode::PermanentRedirect,
                _ => RedirectResponseCode::Found,
            }
            .into(),
            scheme_rewrite_specifier: to
                .scheme
                .as_ref()
                .map(|scheme| SchemeRewriteSpecifier::SchemeRedirect(scheme.to_string())),
            path_rewrite_specifier: path,
            ..RedirectAction::default()
        }
    }
}

fn nowhere() -> route::Action {
    route::Action::DirectResponse(DirectResponseAction { status: NOWHERE.into(), ..DirectResponseAction::default() })
}

fn rewrite(action: &mut RouteAction, one: &Match, rule: &Rule) {
    if let Some(host) = &rule.changes.host {
        action.host_rewrite_specifier = Some(HostRewriteSpecifier::HostRewriteLiteral(host.to_string()));
    }
    match rule.changes.path.as_ref().map(|change| substitute(one, change)) {
        Some(Substitute::Prefix(with)) => action.prefix_rewrite = with,
        Some(Substitute::Regex(rewrite)) => action.regex_rewrite = Some(rewrite),
        None => {}
    }
}

/// How a path is changed on the wire.
enum Substitute {
    /// This instead of the characters that the match names.
    Prefix(String),
    Regex(RegexMatchAndSubstitute),
}

fn substitute(one: &Match, change: &PathChange) -> Substitute {
    match (change, &one.path) {
        (PathChange::Full(path), _) => Substitute::Regex(whole("^/.*$", path)),
        // The slash that the match names is not there in what it is replaced by.
        (PathChange::Prefix(with), PathMatch::Prefix(prefix)) if **prefix == *"/" => {
            Substitute::Prefix(if **with == *"/" { with.to_string() } else { format!("{with}/") })
        }
        // What follows the match begins with a slash of its own.
        (PathChange::Prefix(with), PathMatch::Prefix(prefix)) if **with == *"/" => {
            Substitute::Regex(whole(&format!("^{}/?", pattern::literal(prefix)), "/"))
        }
        (PathChange::Prefix(with), _) => Substitute::Prefix(with.to_string()),
    }
}

/// `with` instead of what the expression finds.
fn whole(pattern: &str, with: &str) -> RegexMatchAndSubstitute {
    // A backslash in what is put in would name a part of what was found.
    RegexMatchAndSubstitute { pattern: Some(regex(pattern)), substitution: with.replace('\\', "\\\\") }
}

/// A percent sign begins something that is computed; two are one.
fn added(changes: &FieldChanges) -> Vec<HeaderValueOption> {
    let option = |(name, value): &(Arc<str>, Arc<str>), action: HeaderAppendAction| HeaderValueOption {
        header: Some(HeaderValue { key: name.to_string(), value: value.replace('%', "%%"), ..HeaderValue::default() }),
        append_action: action.into(),
        keep_empty_value: value.is_empty(),
        ..HeaderValueOption::default()
    };
    let set = changes.set.iter().map(|pair| option(pair, HeaderAppendAction::OverwriteIfExistsOrAdd));
    let add = changes.add.iter().map(|pair| option(pair, HeaderAppendAction::AppendIfExistsOrAdd));
    set.chain(add).collect()
}

fn removed(changes: &FieldChanges) -> Vec<String> {
    changes.remove.iter().map(ToString::to_string).collect()
}
