//! Routes of a service port: where a request goes, how long it may take, and what is tried again.

use std::sync::Arc;
use std::time::Duration;

use tulle_proto::envoy::config::route::v3::retry_policy::RetryBackOff;
use tulle_proto::envoy::config::route::v3::route_action::{ClusterSpecifier, MaxStreamDuration};
use tulle_proto::envoy::config::route::v3::{
    HeaderMatcher, RetryPolicy, Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, header_matcher, route,
    route_match,
};

use super::input::Subject;
use super::rules::RulesInput;
use super::scope::ClientKind;
use super::wire;
use crate::model::Policy;
use crate::model::policy::{Backoff, RetryOn};

/// The routes of one port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct RouteInput {
    name: Arc<str>,
    action: ActionInput,
    rules: Option<RulesInput>,
}

/// One route's action.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ActionInput {
    cluster: Arc<str>,
    grpc_client: bool,
    timeout: Option<Duration>,
    idle_timeout: Option<Duration>,
    per_try_timeout: Option<Duration>,
    retry_on: Vec<RetryOn>,
    retry_limit: u32,
    backoff: Backoff,
}

pub(super) fn input(client: ClientKind, name: Arc<str>, subject: &Subject) -> RouteInput {
    RouteInput { name, action: action(client, subject.cluster.clone(), &subject.policy), rules: subject.rules.clone() }
}

pub(super) fn action(client: ClientKind, cluster: Arc<str>, policy: &Policy) -> ActionInput {
    ActionInput {
        cluster,
        grpc_client: client == ClientKind::Grpc,
        timeout: policy.timeout,
        idle_timeout: policy.idle_timeout,
        per_try_timeout: policy.per_try_timeout.filter(|timeout| !timeout.is_zero()),
        retry_on: policy.retry_on(),
        retry_limit: policy.retry_limit(),
        backoff: policy.retry_backoff(),
    }
}

impl RouteInput {
    pub(super) fn build(&self) -> RouteConfiguration {
        RouteConfiguration {
            name: self.name.to_string(),
            virtual_hosts: vec![service_host(&self.name, vec!["*".to_owned()], &self.action, self.rules.as_ref())],
            ..RouteConfiguration::default()
        }
    }
}

impl ActionInput {
    /// The same with limits of a rule, where it has any.
    pub(super) fn within(&self, timeout: Option<Duration>, try_timeout: Option<Duration>) -> Self {
        let try_timeout = try_timeout.or(self.per_try_timeout).filter(|timeout| !timeout.is_zero());
        Self { timeout: timeout.or(self.timeout), per_try_timeout: try_timeout, ..self.clone() }
    }

    pub(super) fn build(&self) -> RouteAction {
        let limit = self.timeout.filter(|timeout| !timeout.is_zero());
        // A gRPC client takes its limit from here and refuses a policy of no retries (gRFC A44).
        let stream_limit = limit.filter(|_| self.grpc_client).map(|limit| MaxStreamDuration {
            max_stream_duration: Some(wire::duration(limit)),
            ..MaxStreamDuration::default()
        });
        RouteAction {
            timeout: Some(wire::duration(limit.unwrap_or_default())),
            idle_timeout: self.idle_timeout.map(wire::duration),
            retry_policy: (self.retry_limit > 0 || !self.grpc_client).then(|| self.retry_policy()),
            max_stream_duration: stream_limit,
            ..plain_route(&self.cluster)
        }
    }

    fn retry_policy(&self) -> RetryPolicy {
        RetryPolicy {
            retry_on: conditions(&self.retry_on),
            num_retries: Some(wire::number(self.retry_limit)),
            per_try_timeout: self.per_try_timeout.map(wire::duration),
            retriable_status_codes: self.retry_on.iter().flat_map(RetryOn::statuses).collect(),
            retriable_headers: self.retry_on.iter().filter_map(RetryOn::header).map(has_header).collect(),
            retry_back_off: Some(RetryBackOff {
                base_interval: Some(wire::duration(self.backoff.base)),
                max_interval: Some(wire::duration(self.backoff.max)),
            }),
            ..RetryPolicy::default()
        }
    }
}

/// The list of conditions, in Envoy's words, each once.
fn conditions(on: &[RetryOn]) -> String {
    let mut words: Vec<&str> = Vec::new();
    for condition in on {
        let word = match condition {
            RetryOn::ConnectFailure => "connect-failure",
            RetryOn::RefusedStream => "refused-stream",
            RetryOn::ResetBeforeRequest => "reset-before-request",
            RetryOn::Reset => "reset",
            RetryOn::ServerError => "5xx",
            RetryOn::GatewayError => "gateway-error",
            RetryOn::Retriable4xx => "retriable-4xx",
            RetryOn::Header(_) => "retriable-headers",
            RetryOn::Status(..) => "retriable-status-codes",
            RetryOn::Grpc(name) => name,
        };
        if !words.contains(&word) {
            words.push(word);
        }
    }
    words.join(",")
}

fn has_header(name: &str) -> HeaderMatcher {
    HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(header_matcher::HeaderMatchSpecifier::PresentMatch(true)),
        ..HeaderMatcher::default()
    }
}

/// To `cluster`, without a limit.
pub(super) fn plain_route(cluster: &str) -> RouteAction {
    RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.to_owned())),
        timeout: Some(wire::duration(Duration::ZERO)),
        ..RouteAction::default()
    }
}

/// The virtual host of a service port: its rules, or without any one route for everything.
pub(super) fn service_host(
    name: &str,
    domains: Vec<String>,
    action: &ActionInput,
    rules: Option<&RulesInput>,
) -> VirtualHost {
    match rules {
        None => virtual_host(name, domains, action.build()),
        Some(rules) => {
            VirtualHost { name: name.to_owned(), domains, routes: rules.build(action), ..VirtualHost::default() }
        }
    }
}

/// A virtual host with one route for everything.
pub(super) fn virtual_host(name: &str, domains: Vec<String>, action: RouteAction) -> VirtualHost {
    VirtualHost {
        name: name.to_owned(),
        domains,
        routes: vec![Route {
            r#match: Some(RouteMatch {
                path_specifier: Some(route_match::PathSpecifier::Prefix("/".to_owned())),
                ..RouteMatch::default()
            }),
            action: Some(route::Action::Route(action)),
            ..Route::default()
        }],
        ..VirtualHost::default()
    }
}
