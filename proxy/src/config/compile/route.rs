//! RouteConfiguration -> [`RouteTable`]. Cluster names become numbers here; what this proxy would have to ignore is
//! refused, with the path of the field.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::unreachable
)]

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tulle_proto::envoy::config::route::v3 as rds;
use tulle_proto::envoy::config::route::v3::route_action::ClusterSpecifier;
use tulle_proto::envoy::config::route::v3::weighted_cluster::ClusterWeight;
use tulle_proto::names::NO_CLUSTER;

use super::changes;
use super::fields;
use super::ids::Ids;
use super::matcher;
use super::retry;
use crate::base::host;
use crate::config::ClusterId;
use crate::config::reject::{Fault, Within};
use crate::config::route::{Action, Domain, Route, RouteTable, VirtualHost};

/// Timeout of a route that names none. Source: `RouteAction.timeout` of Envoy's API.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Routes and the clusters they name.
#[derive(Debug)]
pub(super) struct RoutesSpec {
    /// The routes.
    pub(super) table: Arc<RouteTable>,
    /// Every cluster they name, once.
    pub(super) clusters: Arc<[ClusterId]>,
}

impl RoutesSpec {
    /// Routes that do not exist: nothing matches.
    pub(super) fn nonexistent(name: &str) -> Self {
        Self { table: Arc::new(RouteTable::new(name.into(), Vec::new())), clusters: Arc::default() }
    }
}

/// Compiles a route configuration.
///
/// # Errors
/// When a domain is served twice, a route has no condition or no action, or a field asks for something that would have
/// to be ignored.
pub(super) fn compile(config: &rds::RouteConfiguration, ids: &mut Ids) -> Result<RoutesSpec, Fault> {
    fields::unset("vhds", config.vhds.is_some())?;
    fields::unset("request_headers_to_add", !config.request_headers_to_add.is_empty())?;
    fields::unset("request_headers_to_remove", !config.request_headers_to_remove.is_empty())?;
    fields::unset("response_headers_to_add", !config.response_headers_to_add.is_empty())?;
    fields::unset("response_headers_to_remove", !config.response_headers_to_remove.is_empty())?;
    fields::unset("cluster_specifier_plugins", !config.cluster_specifier_plugins.is_empty())?;
    fields::unset("request_mirror_policies", !config.request_mirror_policies.is_empty())?;
    let mut clusters = BTreeSet::new();
    let mut number = |name: &str| {
        let id = ids.number(name);
        clusters.insert(id.0);
        id
    };
    let mut seen = HashSet::new();
    let mut hosts = Vec::with_capacity(config.virtual_hosts.len().min(1024));
    for (index, host) in config.virtual_hosts.iter().enumerate() {
        hosts.push(virtual_host(host, &mut seen, &mut number).within_item("virtual_hosts", index)?);
    }
    Ok(RoutesSpec {
        table: Arc::new(RouteTable::new(config.name.as_str().into(), hosts)),
        clusters: clusters.into_iter().map(ClusterId).collect(),
    })
}

fn virtual_host(
    host: &rds::VirtualHost,
    seen: &mut HashSet<String>,
    number: &mut impl FnMut(&str) -> ClusterId,
) -> Result<VirtualHost, Fault> {
    fields::unset("matcher", host.matcher.is_some())?;
    fields::unset("require_tls", host.require_tls != 0)?;
    fields::unset("rate_limits", !host.rate_limits.is_empty())?;
    fields::unset("request_headers_to_add", !host.request_headers_to_add.is_empty())?;
    fields::unset("request_headers_to_remove", !host.request_headers_to_remove.is_empty())?;
    fields::unset("response_headers_to_add", !host.response_headers_to_add.is_empty())?;
    fields::unset("response_headers_to_remove", !host.response_headers_to_remove.is_empty())?;
    fields::unset("request_mirror_policies", !host.request_mirror_policies.is_empty())?;
    if host.domains.is_empty() {
        return Err(Fault::missing("domains"));
    }
    let mut domains = Vec::with_capacity(host.domains.len());
    for (index, text) in host.domains.iter().enumerate() {
        let text = text.to_ascii_lowercase();
        domains.push(domain(&text).within_item("domains", index)?);
        if !seen.insert(text) {
            return Err(Fault::new("", "is served by an earlier virtual host as well")).within_item("domains", index);
        }
    }
    let mut routes = Vec::with_capacity(host.routes.len());
    for (index, entry) in host.routes.iter().enumerate() {
        let mut entry = route(entry, host.retry_policy.as_ref(), number).within_item("routes", index)?;
        // Series of telemetry are kept by the name as an object: what is called the same is one.
        if let Some(known) = routes.iter().find(|known: &&Route| known.name == entry.name) {
            entry.name = Arc::clone(&known.name);
        }
        routes.push(entry);
    }
    Ok(VirtualHost { name: host.name.as_str().into(), domains, routes })
}

fn domain(text: &str) -> Result<Domain, Fault> {
    // Requests are looked up without the dot that ends a host.
    let (host, port) = host::split(text);
    let text = &*port.map_or(Cow::Borrowed(host), |port| Cow::Owned(format!("{host}:{port}")));
    match text.strip_prefix('*') {
        Some("") => Ok(Domain::Any),
        Some(suffix) if suffix.starts_with(['.', '-']) && !suffix.contains('*') => Ok(Domain::Suffix(suffix.into())),
        None if !text.is_empty() && !text.contains('*') => Ok(Domain::Exact(text.into())),
        Some(_) | None => Err(Fault::new("", "is neither a host, `*.host` nor `*`")),
    }
}

fn route(
    route: &rds::Route,
    host_retry: Option<&rds::RetryPolicy>,
    number: &mut impl FnMut(&str) -> ClusterId,
) -> Result<Route, Fault> {
    let condition = route.r#match.as_ref().ok_or_else(|| Fault::missing("match"))?;
    let matcher = matcher::compile(condition).within("match")?;
    let changes = changes::compile(route, &matcher.path)?;
    let name: Arc<str> = route.name.as_str().into();
    match &route.action {
        Some(rds::route::Action::Route(action)) => {
            let timeout = match &action.timeout {
                None => Some(TIMEOUT),
                some => fields::nonzero(some.as_ref(), "route.timeout")?,
            };
            let retry = retry::compile(action.retry_policy.as_ref().or(host_retry)).within("route.retry_policy")?;
            Ok(Route { name, matcher, action: forward(action, number).within("route")?, changes, timeout, retry })
        }
        Some(rds::route::Action::DirectResponse(response)) => {
            fields::unset("direct_response.body", response.body.is_some())?;
            let status = u16::try_from(response.status).ok().filter(|status| (200..600).contains(status));
            let status = status.ok_or_else(|| Fault::new("direct_response.status", "is not within 200..=599"))?;
            let action = Action::Respond(status);
            Ok(Route { name, matcher, action, changes, timeout: None, retry: retry::compile(None)? })
        }
        Some(rds::route::Action::Redirect(to)) => {
            let action = Action::Redirect(Box::new(changes::redirect(to, &matcher.path).within("redirect")?));
            Ok(Route { name, matcher, action, changes, timeout: None, retry: retry::compile(None)? })
        }
        Some(rds::route::Action::FilterAction(_) | rds::route::Action::NonForwardingAction(_)) | None => {
            Err(Fault::missing("route"))
        }
    }
}

fn forward(action: &rds::RouteAction, number: &mut impl FnMut(&str) -> ClusterId) -> Result<Action, Fault> {
    fields::unset("metadata_match", action.metadata_match.is_some())?;
    fields::unset("path_rewrite_policy", action.path_rewrite_policy.is_some())?;
    fields::unset("request_mirror_policies", !action.request_mirror_policies.is_empty())?;
    fields::unset("rate_limits", !action.rate_limits.is_empty())?;
    fields::unset("hash_policy", !action.hash_policy.is_empty())?;
    match &action.cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) if !name.is_empty() => Ok(Action::Cluster(number(name))),
        Some(ClusterSpecifier::WeightedClusters(weighted)) => {
            split(&weighted.clusters, number).within("weighted_clusters")
        }
        Some(ClusterSpecifier::Cluster(_)) | None => Err(Fault::missing("cluster")),
        Some(
            ClusterSpecifier::ClusterHeader(_)
            | ClusterSpecifier::ClusterSpecifierPlugin(_)
            | ClusterSpecifier::InlineClusterSpecifierPlugin(_),
        ) => Err(Fault::unsupported("cluster_specifier")),
    }
}

fn split(entries: &[ClusterWeight], number: &mut impl FnMut(&str) -> ClusterId) -> Result<Action, Fault> {
    let mut clusters = Vec::with_capacity(entries.len());
    let mut total = 0u32;
    for (index, entry) in entries.iter().enumerate() {
        if entry.name.is_empty() {
            return Err(Fault::missing("name")).within_item("clusters", index);
        }
        plain(entry).within_item("clusters", index)?;
        let weight = entry.weight.as_ref().map_or(0, |weight| weight.value);
        total =
            total.checked_add(weight).ok_or_else(|| Fault::new("clusters", "has weights that sum above 2^32 - 1"))?;
        if weight > 0 {
            let cluster = (entry.name != NO_CLUSTER).then(|| number(&entry.name));
            clusters.push((cluster, weight));
        }
    }
    if total == 0 {
        return Err(Fault::new("clusters", "has no weight above 0"));
    }
    Ok(Action::Weighted { clusters, total })
}

/// Changes belong to the route, not to one of its clusters.
fn plain(entry: &ClusterWeight) -> Result<(), Fault> {
    fields::unset("request_headers_to_add", !entry.request_headers_to_add.is_empty())?;
    fields::unset("request_headers_to_remove", !entry.request_headers_to_remove.is_empty())?;
    fields::unset("response_headers_to_add", !entry.response_headers_to_add.is_empty())?;
    fields::unset("response_headers_to_remove", !entry.response_headers_to_remove.is_empty())?;
    fields::unset("host_rewrite_literal", entry.host_rewrite_specifier.is_some())
}
