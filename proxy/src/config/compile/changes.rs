//! What a route changes of requests and replies, and redirects: Envoy's messages -> [`Changes`], [`Redirect`].
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::unreachable
)]

use http::{HeaderName, HeaderValue};
use tulle_proto::envoy::config::core::v3::HeaderValueOption;
use tulle_proto::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use tulle_proto::envoy::config::route::v3 as rds;
use tulle_proto::envoy::config::route::v3::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};
use tulle_proto::envoy::config::route::v3::route_action::HostRewriteSpecifier;
use tulle_proto::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;

use super::fields;
use crate::config::changes::{Changes, FieldChanges, PathRewrite, Pattern, Redirect};
use crate::config::reject::{Fault, Within};
use crate::config::route::PathMatch;

/// What `route` changes; none when it changes nothing.
///
/// # Errors
/// When a change is of a kind that the path does not make, or of a field that frames a message or names a peer.
pub(super) fn compile(route: &rds::Route, path: &PathMatch) -> Result<Option<Box<Changes>>, Fault> {
    let mut changes = Changes {
        request: fields_of("request_headers", &route.request_headers_to_add, &route.request_headers_to_remove)?,
        reply: fields_of("response_headers", &route.response_headers_to_add, &route.response_headers_to_remove)?,
        ..Changes::default()
    };
    if let Some(rds::route::Action::Route(action)) = &route.action {
        changes.host = match &action.host_rewrite_specifier {
            None => None,
            Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => {
                Some(host_name(host, "route.host_rewrite_literal")?)
            }
            Some(_) => return Err(Fault::unsupported("route.host_rewrite_specifier")),
        };
        changes.path = match (&*action.prefix_rewrite, &action.regex_rewrite) {
            ("", None) => None,
            ("", Some(rewrite)) => Some(regex(rewrite).within("route.regex_rewrite")?),
            (with, None) => Some(prefix(path, with, "route.prefix_rewrite")?),
            (_, Some(_)) => return Err(Fault::new("route.regex_rewrite", "stands beside prefix_rewrite")),
        };
    }
    let none = changes.request.is_empty() && changes.reply.is_empty();
    let none = none && changes.host.is_none() && changes.path.is_none();
    Ok((!none).then(|| Box::new(changes)))
}

/// Compiles a redirect.
///
/// # Errors
/// As [`compile`].
pub(super) fn redirect(action: &rds::RedirectAction, path: &PathMatch) -> Result<Redirect, Fault> {
    fields::unset("strip_query", action.strip_query)?;
    let scheme = match &action.scheme_rewrite_specifier {
        None => None,
        Some(SchemeRewriteSpecifier::HttpsRedirect(https)) => https.then(|| "https".into()),
        Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) if ["http", "https"].contains(&scheme.as_str()) => {
            Some(scheme.as_str().into())
        }
        Some(SchemeRewriteSpecifier::SchemeRedirect(_)) => {
            return Err(Fault::new("scheme_redirect", "is neither http nor https"));
        }
    };
    let host = match action.host_redirect.as_str() {
        "" => None,
        host => Some(host_name(host, "host_redirect")?),
    };
    let port = match action.port_redirect {
        0 => None,
        port => Some(u16::try_from(port).map_err(|_| Fault::new("port_redirect", "is above 65535"))?),
    };
    let path = match &action.path_rewrite_specifier {
        None => None,
        Some(PathRewriteSpecifier::PrefixRewrite(with)) => Some(prefix(path, with, "prefix_rewrite")?),
        Some(PathRewriteSpecifier::RegexRewrite(rewrite)) => Some(regex(rewrite).within("regex_rewrite")?),
        Some(_) => return Err(Fault::unsupported("path_rewrite_specifier")),
    };
    let status = match RedirectResponseCode::try_from(action.response_code) {
        Ok(RedirectResponseCode::MovedPermanently) => 301,
        Ok(RedirectResponseCode::Found) => 302,
        Ok(RedirectResponseCode::SeeOther) => 303,
        Ok(RedirectResponseCode::TemporaryRedirect) => 307,
        Ok(RedirectResponseCode::PermanentRedirect) => 308,
        Err(_) => return Err(Fault::new("response_code", "is not known")),
    };
    Ok(Redirect { scheme, host, port, path, status })
}

fn fields_of(what: &str, add: &[HeaderValueOption], remove: &[String]) -> Result<FieldChanges, Fault> {
    let mut changes = FieldChanges::default();
    for (index, option) in add.iter().enumerate() {
        let (name, value) = field(option).within_item(&format!("{what}_to_add"), index)?;
        match HeaderAppendAction::try_from(option.append_action) {
            Ok(HeaderAppendAction::AppendIfExistsOrAdd) => changes.add.push((name, value)),
            Ok(HeaderAppendAction::OverwriteIfExistsOrAdd) => changes.set.push((name, value)),
            _ => return Err(Fault::unsupported("append_action")).within_item(&format!("{what}_to_add"), index),
        }
    }
    for (index, text) in remove.iter().enumerate() {
        changes.remove.push(name(text).within_item(&format!("{what}_to_remove"), index)?);
    }
    Ok(changes)
}

fn field(option: &HeaderValueOption) -> Result<(HeaderName, HeaderValue), Fault> {
    #[expect(deprecated, reason = "a peer may still say it this way, and then means something else")]
    let append = option.append.is_some();
    fields::unset("append", append)?;
    let header = option.header.as_ref().ok_or_else(|| Fault::missing("header"))?;
    fields::unset("header.raw_value", !header.raw_value.is_empty())?;
    let wrong = || Fault::new("header.value", "is not the value of a field");
    let value = HeaderValue::from_str(&literal(&header.value)?).map_err(|_| wrong())?;
    Ok((name(&header.key).within("header")?, value))
}

/// The text itself, in which `%%` is a percent sign and every other one begins something that is computed.
fn literal(text: &str) -> Result<String, Fault> {
    let plain = text.replace("%%", "");
    if plain.contains('%') {
        return Err(Fault::unsupported("header.value"));
    }
    Ok(text.replace("%%", "%"))
}

fn name(text: &str) -> Result<HeaderName, Fault> {
    if !tulle_proto::fields::is_changeable(text) {
        return Err(Fault::new("key", "is not a field that a route may change"));
    }
    text.parse().map_err(|_| Fault::new("key", "is not the name of a field"))
}

fn host_name(host: &str, field: &str) -> Result<Box<str>, Fault> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
    if host.is_empty() || !host.bytes().all(fits) || host.parse::<http::uri::Authority>().is_err() {
        return Err(Fault::new(field.to_owned(), "is not a host"));
    }
    Ok(host.into())
}

fn prefix(path: &PathMatch, with: &str, field: &str) -> Result<PathRewrite, Fault> {
    let matched = match path {
        PathMatch::Any => 1,
        PathMatch::Exact(text) | PathMatch::Prefix(text) => text.len(),
        PathMatch::Segments(text) => text.strip_suffix('/').unwrap_or(text).len(),
        PathMatch::Regex(_) => {
            return Err(Fault::new(field.to_owned(), "has no prefix to replace: the match is an expression"));
        }
    };
    Ok(PathRewrite::Prefix { matched, with: with.into() })
}

fn regex(rewrite: &RegexMatchAndSubstitute) -> Result<PathRewrite, Fault> {
    let text = rewrite.pattern.as_ref().map_or("", |pattern| pattern.regex.as_str());
    let regex = tulle_proto::pattern::anywhere(text);
    let regex = regex.map_err(|error| Fault::new("pattern", format!("does not compile: {error}")))?;
    Ok(PathRewrite::Regex { pattern: Pattern::new(text, regex), with: substitution(&rewrite.substitution)? })
}

/// From RE2's way to write it, where `\\1` is a part of what was found, to `${1}`.
fn substitution(text: &str) -> Result<Box<str>, Fault> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '$' => out.push_str("$$"),
            '\\' => match chars.next() {
                Some('\\') => out.push('\\'),
                Some(digit) if digit.is_ascii_digit() => out.push_str(&format!("${{{digit}}}")),
                Some(_) | None => return Err(Fault::new("substitution", "has a backslash before no digit")),
            },
            c => out.push(c),
        }
    }
    Ok(out.into())
}
