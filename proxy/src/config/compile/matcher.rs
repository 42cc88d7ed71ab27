//! RouteMatch -> [`Matcher`].
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::unreachable
)]

use tulle_proto::envoy::config::route::v3 as rds;
use tulle_proto::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use tulle_proto::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use tulle_proto::envoy::config::route::v3::route_match::PathSpecifier;
use tulle_proto::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use tulle_proto::envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher};

use super::fields;
use crate::config::changes::Pattern;
use crate::config::reject::{Fault, Within};
use crate::config::route::{HeaderMatch, Matcher, PathMatch, QueryMatch, ValueMatch};

/// Compiles the conditions of a route.
///
/// # Errors
/// When a condition is of a kind that the path does not evaluate; leaving one out would match too much.
pub(super) fn compile(condition: &rds::RouteMatch) -> Result<Matcher, Fault> {
    let insensitive = condition.case_sensitive.as_ref().is_some_and(|sensitive| !sensitive.value);
    fields::unset("case_sensitive", insensitive)?;
    fields::unset("runtime_fraction", condition.runtime_fraction.is_some())?;
    fields::unset("cookies", !condition.cookies.is_empty())?;
    fields::unset("grpc", condition.grpc.is_some())?;
    fields::unset("tls_context", condition.tls_context.is_some())?;
    fields::unset("dynamic_metadata", !condition.dynamic_metadata.is_empty())?;
    fields::unset("filter_state", !condition.filter_state.is_empty())?;
    let mut headers = Vec::with_capacity(condition.headers.len());
    for (index, matcher) in condition.headers.iter().enumerate() {
        headers.push(header(matcher).within_item("headers", index)?);
    }
    let mut query = Vec::with_capacity(condition.query_parameters.len());
    for (index, matcher) in condition.query_parameters.iter().enumerate() {
        query.push(parameter(matcher).within_item("query_parameters", index)?);
    }
    Ok(Matcher { path: path(condition.path_specifier.as_ref())?, headers, query })
}

fn path(specifier: Option<&PathSpecifier>) -> Result<PathMatch, Fault> {
    match specifier {
        Some(PathSpecifier::Prefix(prefix)) if prefix.is_empty() || prefix == "/" => Ok(PathMatch::Any),
        Some(PathSpecifier::Prefix(prefix)) => Ok(PathMatch::Prefix(prefix.as_str().into())),
        Some(PathSpecifier::Path(path)) => Ok(PathMatch::Exact(path.as_str().into())),
        Some(PathSpecifier::PathSeparatedPrefix(prefix)) => Ok(PathMatch::Segments(prefix.as_str().into())),
        Some(PathSpecifier::SafeRegex(regex)) => Ok(PathMatch::Regex(pattern(regex).within("safe_regex")?)),
        Some(PathSpecifier::ConnectMatcher(_) | PathSpecifier::PathMatchPolicy(_)) => {
            Err(Fault::unsupported("path_specifier"))
        }
        None => Err(Fault::missing("path_specifier")),
    }
}

/// An expression that describes a whole text.
fn pattern(matcher: &RegexMatcher) -> Result<Pattern, Fault> {
    let regex = tulle_proto::pattern::whole(&matcher.regex);
    let regex = regex.map_err(|error| Fault::new("regex", format!("does not compile: {error}")))?;
    Ok(Pattern::new(&matcher.regex, regex))
}

fn parameter(matcher: &rds::QueryParameterMatcher) -> Result<QueryMatch, Fault> {
    if matcher.name.is_empty() {
        return Err(Fault::missing("name"));
    }
    let value = match &matcher.query_parameter_match_specifier {
        None | Some(QueryParameterMatchSpecifier::PresentMatch(true)) => ValueMatch::Present,
        Some(QueryParameterMatchSpecifier::PresentMatch(false)) => return Err(Fault::unsupported("present_match")),
        Some(QueryParameterMatchSpecifier::StringMatch(text)) => string(text).within("string_match")?,
    };
    Ok(QueryMatch { name: matcher.name.as_str().into(), value })
}

/// Compiles a condition on a header field.
pub(super) fn header(matcher: &rds::HeaderMatcher) -> Result<HeaderMatch, Fault> {
    fields::unset("treat_missing_header_as_empty", matcher.treat_missing_header_as_empty)?;
    let name = matcher.name.to_ascii_lowercase();
    if name.is_empty() || (name.starts_with(':') && name != ":method") {
        return Err(Fault::new("name", "is neither a header field nor `:method`"));
    }
    let mut invert = matcher.invert_match;
    let value = match &matcher.header_match_specifier {
        None | Some(HeaderMatchSpecifier::PresentMatch(true)) => ValueMatch::Present,
        Some(HeaderMatchSpecifier::PresentMatch(false)) => {
            invert = !invert;
            ValueMatch::Present
        }
        Some(HeaderMatchSpecifier::StringMatch(text)) => string(text).within("string_match")?,
        // The deprecated forms say the same as `string_match`, and ranges and regular expressions are not evaluated.
        Some(_) => return Err(Fault::new("header_match_specifier", "is neither `present_match` nor `string_match`")),
    };
    Ok(HeaderMatch { name: name.into(), value, invert })
}

fn string(matcher: &StringMatcher) -> Result<ValueMatch, Fault> {
    fields::unset("ignore_case", matcher.ignore_case)?;
    match &matcher.match_pattern {
        Some(MatchPattern::Exact(text)) => Ok(ValueMatch::Exact(text.as_str().into())),
        Some(MatchPattern::Prefix(text)) => Ok(ValueMatch::Prefix(text.as_str().into())),
        Some(MatchPattern::Suffix(text)) => Ok(ValueMatch::Suffix(text.as_str().into())),
        Some(MatchPattern::Contains(text)) => Ok(ValueMatch::Contains(text.as_str().into())),
        Some(MatchPattern::SafeRegex(regex)) => Ok(ValueMatch::Regex(pattern(regex).within("safe_regex")?)),
        Some(MatchPattern::Custom(_)) => Err(Fault::unsupported("custom")),
        None => Err(Fault::missing("match_pattern")),
    }
}
