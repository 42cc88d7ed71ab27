//! Texts of routes that must have a certain shape: paths, hosts, field names, expressions, durations.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tulle_proto::{fields, pattern};

use super::Asked;
use crate::model::Problem;
use crate::model::route::{PathMatch, TextMatch, ValueMatch};
use crate::source::object::at::Located;

/// Longest path, host or value.
const LONGEST: usize = 4096;

/// A condition on a named value, as written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ValueManifest {
    r#type: Option<Located<String>>,
    name: Located<String>,
    value: Located<String>,
}

/// A condition on a text by type; Exact when none is named.
fn condition(asked: &Asked<'_>, kind: Option<&Located<String>>, text: &Located<String>) -> Result<TextMatch, Problem> {
    match kind.map(|kind| kind.as_str()) {
        None | Some("Exact") => Ok(TextMatch::Exact(text.as_str().into())),
        Some("RegularExpression") => Ok(TextMatch::Regex(expression(&asked.part("value"), text)?)),
        Some(other) => {
            let reason = format!("there is no match of type \"{other}\"");
            Err(asked.part("type").wrong(kind.unwrap_or(text), reason).example("Exact"))
        }
    }
}

/// Conditions on header fields: of several on one name the first counts.
/// Source: Gateway API, `HTTPHeaderMatch.name`.
pub(super) fn headers(asked: &Asked<'_>, written: &[ValueManifest], faults: &mut Vec<Problem>) -> Vec<ValueMatch> {
    values(asked, written, faults, |asked, name| {
        if fields::is_name(name) {
            return Ok(name.to_ascii_lowercase().into());
        }
        let reason = format!("\"{}\" is not the name of a header field", name.as_str());
        Err(asked.part("name").wrong(name, reason).example("x-version"))
    })
}

/// Conditions on the parameters of a query: of several on one name the first counts.
pub(super) fn query(asked: &Asked<'_>, written: &[ValueManifest], faults: &mut Vec<Problem>) -> Vec<ValueMatch> {
    values(asked, written, faults, |asked, name| {
        if name.is_empty() {
            return Err(asked.part("name").wrong(name, "a parameter has a name").example("version"));
        }
        Ok(name.as_str().into())
    })
}

/// Conditions without those that are wrong, which go to `faults`.
fn values(
    asked: &Asked<'_>,
    written: &[ValueManifest],
    faults: &mut Vec<Problem>,
    name: impl Fn(&Asked<'_>, &Located<String>) -> Result<Arc<str>, Problem>,
) -> Vec<ValueMatch> {
    let mut found: Vec<ValueMatch> = Vec::new();
    for (index, written) in written.iter().enumerate() {
        let asked = asked.item(index);
        let read = name(&asked, &written.name).and_then(|name| {
            Ok(ValueMatch { name, value: condition(&asked, written.r#type.as_ref(), &written.value)? })
        });
        match read {
            Ok(one) if found.iter().any(|known| known.name == one.name) => {}
            Ok(one) => found.push(one),
            Err(problem) => faults.push(problem),
        }
    }
    found
}

/// A match for the paths that begin as all those do that an expression which cannot be read may describe; none when that
/// is nothing but a slash.
pub(super) fn wider(expression: &str) -> Option<PathMatch> {
    if expression.contains('|') {
        return None;
    }
    let text = expression.strip_prefix('^').unwrap_or(expression);
    let end = text.find(|c| r"\.+*?()[]{}^$".contains(c)).unwrap_or(text.len());
    let (literal, rest) = text.split_at(end);
    // The character before these may not be there.
    let optional = rest.starts_with(['*', '?', '{']);
    let mut literal = literal.to_owned();
    if optional {
        literal.pop();
    }
    let fits = literal.starts_with('/') && literal.len() > 1 && literal.len() <= LONGEST;
    fits.then(|| PathMatch::Regex(format!("{}.*", pattern::literal(&literal)).into()))
}

/// A regular expression.
pub(super) fn expression(asked: &Asked<'_>, text: &Located<String>) -> Result<Arc<str>, Problem> {
    match pattern::whole(text) {
        Ok(_) => Ok(text.as_str().into()),
        Err(reason) => {
            let reason = format!("\"{}\" is not a regular expression (RE2): {reason}", text.as_str());
            Err(asked.wrong(text, reason).example("/v[0-9]+/.*"))
        }
    }
}

/// An absolute path, as it may stand in a request.
pub(super) fn path(asked: &Asked<'_>, text: &Located<String>) -> Result<Arc<str>, Problem> {
    let right = text.len() <= LONGEST
        && text.starts_with('/')
        && text.bytes().all(|b| (0x21..=0x7e).contains(&b) && b != b'?' && b != b'#');
    if right && !text.contains("//") && !text.split('/').any(|segment| segment == "." || segment == "..") {
        return Ok(text.as_str().into());
    }
    let reason = format!(
        "\"{}\" is not a path: it begins with /, and has no empty segment, no . or .., no query and no space",
        text.as_str()
    );
    Err(asked.wrong(text, reason).example("/v1/users"))
}

/// Segments that a path begins with; one slash at their end means nothing.
/// Source: Gateway API, `PathMatchPathPrefix`.
pub(super) fn prefix(asked: &Asked<'_>, text: &Located<String>) -> Result<Arc<str>, Problem> {
    let path = path(asked, text)?;
    Ok(path.strip_suffix('/').filter(|path| !path.is_empty()).map_or_else(|| path.clone(), Arc::from))
}

/// A host without a port.
pub(super) fn host(asked: &Asked<'_>, text: &Located<String>) -> Result<Arc<str>, Problem> {
    let label = |label: &str| {
        let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = label.as_bytes();
        edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
    };
    if text.len() <= 253 && text.split('.').all(label) {
        return Ok(text.as_str().into());
    }
    let reason = format!("\"{}\" is not a host name", text.as_str());
    Err(asked.wrong(text, reason).example("reviews.example.com"))
}

/// A duration as the Gateway API writes it: numbers of at most five digits with h, m, s or ms; `0s` is none.
/// Source: Gateway API, GEP-2257.
pub(super) fn duration(asked: &Asked<'_>, text: &Located<String>) -> Result<Duration, Problem> {
    parse(text).ok_or_else(|| {
        let reason = format!("\"{}\" is not a duration such as 1h, 10s or 500ms", text.as_str());
        asked.wrong(text, reason).example("10s")
    })
}

fn parse(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    for _ in 0..4 {
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(end);
        let unit = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        if number.is_empty() || number.len() > 5 {
            return None;
        }
        let number: u64 = number.parse().ok()?;
        total += match unit {
            "h" => Duration::from_secs(number.saturating_mul(3600)),
            "m" => Duration::from_secs(number.saturating_mul(60)),
            "s" => Duration::from_secs(number),
            "ms" => Duration::from_millis(number),
            _ => return None,
        };
        if tail.is_empty() {
            return Some(total);
        }
        rest = tail;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, milliseconds) in [("0s", 0), ("1h30m", 5_400_000), ("1s500ms", 1_500), ("99999ms", 99_999)] {
            assert_eq!(parse(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "1", "s", "1.5s", "100000s", "1d", "-1s", "1s1s1s1s1s", "1 s"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
