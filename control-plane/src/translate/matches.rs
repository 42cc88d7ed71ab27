//! Conditions of a route on the wire.

use tulle_proto::envoy::config::route::v3::{
    HeaderMatcher, QueryParameterMatcher, RouteMatch, header_matcher, query_parameter_matcher, route_match,
};
use tulle_proto::envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher, string_matcher};

use tulle_proto::pattern;

use crate::model::route::{Match, PathMatch, TextMatch, ValueMatch};

/// The conditions; gRPC clients know no prefix of whole segments.
pub(super) fn build(one: &Match, grpc_client: bool) -> RouteMatch {
    let path = match &one.path {
        PathMatch::Exact(path) => route_match::PathSpecifier::Path(path.to_string()),
        PathMatch::Prefix(prefix) if prefix.ends_with('/') => route_match::PathSpecifier::Prefix(prefix.to_string()),
        PathMatch::Prefix(prefix) if grpc_client => {
            route_match::PathSpecifier::SafeRegex(regex(&format!("{}(?:/.*)?", pattern::literal(prefix))))
        }
        PathMatch::Prefix(prefix) => route_match::PathSpecifier::PathSeparatedPrefix(prefix.to_string()),
        PathMatch::Regex(text) => route_match::PathSpecifier::SafeRegex(regex(text)),
    };
    let method = one.method.iter().map(|method| header(":method", &TextMatch::Exact(method.clone())));
    let headers = one.headers.iter().map(|ValueMatch { name, value }| header(name, value));
    let parameter = |ValueMatch { name, value }: &ValueMatch| QueryParameterMatcher {
        name: name.to_string(),
        query_parameter_match_specifier: Some(query_parameter_matcher::QueryParameterMatchSpecifier::StringMatch(
            text(value),
        )),
    };
    RouteMatch {
        path_specifier: Some(path),
        headers: method.chain(headers).collect(),
        query_parameters: one.query.iter().map(parameter).collect(),
        ..RouteMatch::default()
    }
}

pub(super) fn regex(text: &str) -> RegexMatcher {
    RegexMatcher { regex: text.to_owned(), ..RegexMatcher::default() }
}

fn header(name: &str, value: &TextMatch) -> HeaderMatcher {
    HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(header_matcher::HeaderMatchSpecifier::StringMatch(text(value))),
        ..HeaderMatcher::default()
    }
}

fn text(value: &TextMatch) -> StringMatcher {
    let pattern = match value {
        TextMatch::Exact(text) => string_matcher::MatchPattern::Exact(text.to_string()),
        TextMatch::Regex(text) => string_matcher::MatchPattern::SafeRegex(regex(text)),
    };
    StringMatcher { match_pattern: Some(pattern), ..StringMatcher::default() }
}
