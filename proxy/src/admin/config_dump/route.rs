//! Routes of a listener, for `/config_dump`.

use serde::Serialize;

use super::seconds;
use crate::config::changes::{Changes, FieldChanges, PathRewrite, Redirect};
use crate::config::route::{
    Action, Domain, HeaderMatch, PathMatch, QueryMatch, RetryPolicy, Route, RouteTable, ValueMatch, VirtualHost,
};
use crate::config::{ClusterId, Snapshot};

/// A route table.
#[derive(Debug, Serialize)]
pub(super) struct Routes<'s> {
    name: &'s str,
    hosts: Vec<Host<'s>>,
}

#[derive(Debug, Serialize)]
struct Host<'s> {
    name: &'s str,
    domains: Vec<String>,
    routes: Vec<RouteView<'s>>,
}

#[derive(Debug, Serialize)]
struct RouteView<'s> {
    name: &'s str,
    path: PathView<'s>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    headers: Vec<HeaderView<'s>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    query: Vec<HeaderView<'s>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    changes: Option<String>,
    action: ActionView<'s>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_seconds: Option<f64>,
    retry: RetryView<'s>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum PathView<'s> {
    Any,
    Exact(&'s str),
    Prefix(&'s str),
    Segments(&'s str),
    Regex(&'s str),
}

#[derive(Debug, Serialize)]
struct HeaderView<'s> {
    name: &'s str,
    #[serde(flatten)]
    value: ValueView<'s>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    invert: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum ValueView<'s> {
    Present(bool),
    Exact(&'s str),
    Prefix(&'s str),
    Suffix(&'s str),
    Contains(&'s str),
    Regex(&'s str),
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum ActionView<'s> {
    Cluster(&'s str),
    Weighted(Vec<WeightView<'s>>),
    Local,
    Respond(u16),
    Redirect(String),
}

#[derive(Debug, Serialize)]
struct WeightView<'s> {
    cluster: &'s str,
    weight: u32,
}

#[derive(Debug, Serialize)]
struct RetryView<'s> {
    on: Vec<&'static str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    statuses: &'s [(u16, u16)],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    grpc: &'s [u8],
    limit: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    per_try_timeout_seconds: Option<f64>,
    backoff_base_seconds: f64,
    backoff_max_seconds: f64,
}

/// The view of a table of `snapshot`.
pub(super) fn routes<'s>(snapshot: &'s Snapshot, table: &'s RouteTable) -> Routes<'s> {
    Routes { name: &table.name, hosts: table.hosts().iter().map(|host| host_view(snapshot, host)).collect() }
}

fn host_view<'s>(snapshot: &'s Snapshot, host: &'s VirtualHost) -> Host<'s> {
    let domain = |domain: &Domain| match domain {
        Domain::Exact(name) => name.to_string(),
        Domain::Suffix(name) => format!("*{name}"),
        Domain::Any => "*".to_owned(),
    };
    Host {
        name: &host.name,
        domains: host.domains.iter().map(domain).collect(),
        routes: host.routes.iter().map(|route| route_view(snapshot, route)).collect(),
    }
}

fn route_view<'s>(snapshot: &'s Snapshot, route: &'s Route) -> RouteView<'s> {
    RouteView {
        name: &route.name,
        path: match &route.matcher.path {
            PathMatch::Any => PathView::Any,
            PathMatch::Exact(path) => PathView::Exact(path),
            PathMatch::Prefix(path) => PathView::Prefix(path),
            PathMatch::Segments(path) => PathView::Segments(path),
            PathMatch::Regex(pattern) => PathView::Regex(pattern.text()),
        },
        headers: route.matcher.headers.iter().map(header).collect(),
        query: route.matcher.query.iter().map(parameter).collect(),
        changes: route.changes.as_deref().map(changes),
        action: action(snapshot, &route.action),
        timeout_seconds: route.timeout.map(seconds),
        retry: retry(&route.retry),
    }
}

fn header(header: &HeaderMatch) -> HeaderView<'_> {
    HeaderView { name: &header.name, value: value(&header.value), invert: header.invert }
}

fn parameter(condition: &QueryMatch) -> HeaderView<'_> {
    HeaderView { name: &condition.name, value: value(&condition.value), invert: false }
}

fn value(value: &ValueMatch) -> ValueView<'_> {
    match value {
        ValueMatch::Present => ValueView::Present(true),
        ValueMatch::Exact(text) => ValueView::Exact(text),
        ValueMatch::Prefix(text) => ValueView::Prefix(text),
        ValueMatch::Suffix(text) => ValueView::Suffix(text),
        ValueMatch::Contains(text) => ValueView::Contains(text),
        ValueMatch::Regex(pattern) => ValueView::Regex(pattern.text()),
    }
}

/// What a route changes, in one line for people.
fn changes(changes: &Changes) -> String {
    let mut parts = Vec::new();
    parts.extend(changes.host.as_ref().map(|host| format!("host {host}")));
    parts.extend(changes.path.as_ref().map(rewrite));
    for (what, fields) in [("request", &changes.request), ("reply", &changes.reply)] {
        let FieldChanges { set, add, remove } = fields;
        parts.extend(set.iter().map(|(name, _)| format!("{what} sets {name}")));
        parts.extend(add.iter().map(|(name, _)| format!("{what} adds {name}")));
        parts.extend(remove.iter().map(|name| format!("{what} drops {name}")));
    }
    parts.join(", ")
}

fn rewrite(path: &PathRewrite) -> String {
    match path {
        PathRewrite::Prefix { matched, with } => format!("path begins {with} instead of {matched} bytes"),
        PathRewrite::Regex { pattern, with } => format!("path has {with} for {}", pattern.text()),
    }
}

fn redirect(redirect: &Redirect) -> String {
    format!("{} {}", redirect.status, redirect.location("HOST", "/PATH"))
}

fn action<'s>(snapshot: &'s Snapshot, action: &Action) -> ActionView<'s> {
    let name = |id: ClusterId| snapshot.cluster(id).map_or("", |cluster| &cluster.name);
    match action {
        Action::Cluster(id) => ActionView::Cluster(name(*id)),
        Action::Weighted { clusters, .. } => {
            let weight =
                |(id, weight): &(Option<ClusterId>, u32)| WeightView { cluster: id.map_or("", name), weight: *weight };
            ActionView::Weighted(clusters.iter().map(weight).collect())
        }
        Action::Local => ActionView::Local,
        Action::Respond(status) => ActionView::Respond(*status),
        Action::Redirect(to) => ActionView::Redirect(redirect(to)),
    }
}

fn retry(retry: &RetryPolicy) -> RetryView<'_> {
    // The names are those of the annotation `tulle.io/retry-on`.
    let on = [
        (retry.on.connect_failure, "connect-failure"),
        (retry.on.refused_stream, "refused-stream"),
        (retry.on.reset_before_request, "reset-before-request"),
        (retry.on.reset, "reset"),
    ];
    RetryView {
        on: on.into_iter().filter_map(|(on, name)| on.then_some(name)).collect(),
        statuses: &retry.on.statuses,
        grpc: &retry.on.grpc,
        limit: retry.limit,
        per_try_timeout_seconds: retry.per_try_timeout.map(seconds),
        backoff_base_seconds: seconds(retry.backoff_base),
        backoff_max_seconds: seconds(retry.backoff_max),
    }
}
