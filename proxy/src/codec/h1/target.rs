//! The request line: exact spacing, allowed target forms, and which authority the request is for.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use std::ops::Range;

use super::parse::{Facts, HeadError, Position};
use crate::codec::fields;

/// Checks that the line is `METHOD SP target SP HTTP/1.x CRLF` to the byte; the lexer forgives some blanks.
pub(super) fn check_line(head: &[u8], method: &str, path: &str, http10: bool) -> Result<(), HeadError> {
    let rest = head
        .strip_prefix(method.as_bytes())
        .and_then(|rest| rest.strip_prefix(b" "))
        .and_then(|rest| rest.strip_prefix(path.as_bytes()));
    let end: &[u8] = if http10 { b" HTTP/1.0\r\n" } else { b" HTTP/1.1\r\n" };
    if !rest.is_some_and(|rest| rest.starts_with(end)) {
        return Err(HeadError::Lexical("request line"));
    }
    if path.bytes().any(|b| !(0x21..=0x7e).contains(&b)) {
        return Err(HeadError::Target("not a visible character"));
    }
    // What some readers cut off there, others match rules against.
    if path.contains('#') {
        return Err(HeadError::Target("fragment"));
    }
    Ok(())
}

/// Splits the target into path and authority, and checks it against `Host` (RFC 9112 section 3.2).
/// The authority of an absolute target replaces `Host`, for every reader alike; what it has for a path may be
/// empty or a query alone.
pub(super) fn resolve(
    at: Position<'_>,
    method: &[u8],
    target: &str,
    http10: bool,
    facts: &Facts,
) -> Result<(Range<u16>, Range<u16>), HeadError> {
    if facts.hosts > 1 {
        return Err(HeadError::Target("more than one host"));
    }
    if facts.hosts == 0 && !http10 {
        return Err(HeadError::Target("no host"));
    }
    if facts.hosts == 1 && !fields::is_authority(at.slice(&facts.host)) {
        return Err(HeadError::Target("host"));
    }
    if method == b"CONNECT" {
        let with_port = target.rsplit_once(':').is_some_and(|(_, port)| !port.is_empty());
        let good = with_port && fields::is_authority(target.as_bytes());
        return Err(if good { HeadError::Connect } else { HeadError::Target("CONNECT target") });
    }
    let host = facts.host.clone();
    if target.starts_with('/') || (target == "*" && method == b"OPTIONS") {
        return Ok((at.range(target.as_bytes())?, host));
    }
    let rest = target
        .get(..7)
        .filter(|scheme| scheme.eq_ignore_ascii_case("http://"))
        .and_then(|_| target.get(7..))
        .ok_or(HeadError::Target("form"))?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(end).ok_or(HeadError::Target("form"))?;
    if !fields::is_authority(authority.as_bytes()) {
        return Err(HeadError::Target("authority"));
    }
    Ok((at.range(path.as_bytes())?, at.range(authority.as_bytes())?))
}
