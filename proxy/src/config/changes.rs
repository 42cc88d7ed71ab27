//! What a route changes of a request and of its reply, and where it sends a client instead.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue};
use regex::bytes::Regex;

/// A regular expression, equal to others of the same text.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: Box<str>,
    regex: Regex,
}

impl Pattern {
    /// An expression and the text it was made of.
    pub fn new(text: &str, regex: Regex) -> Self {
        Self { text: text.into(), regex }
    }

    /// As written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it holds for `value`.
    pub fn holds(&self, value: &[u8]) -> bool {
        self.regex.is_match(value)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

/// What a route changes.
#[derive(Debug, Default)]
pub struct Changes {
    /// Fields of the request.
    pub request: FieldChanges,
    /// Fields of the reply.
    pub reply: FieldChanges,
    /// The host that the request is for.
    pub host: Option<Box<str>>,
    /// Its path.
    pub path: Option<PathRewrite>,
}

/// Changes of header fields, none of which frames a message or names a peer.
#[derive(Debug, Default)]
pub struct FieldChanges {
    /// The only ones with their name from now on.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Beside those that are there.
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// Not passed on.
    pub remove: Vec<HeaderName>,
}

impl FieldChanges {
    /// Whether nothing is changed.
    pub const fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }

    /// Whether what the sender wrote under `name`, in any case, is dropped.
    pub fn drops(&self, name: &[u8]) -> bool {
        let is = |known: &HeaderName| known.as_str().as_bytes().eq_ignore_ascii_case(name);
        self.remove.iter().any(is) || self.set.iter().any(|(known, _)| is(known))
    }

    /// The fields that are written beside those that are passed on.
    pub fn written(&self) -> impl Iterator<Item = &(HeaderName, HeaderValue)> {
        self.set.iter().chain(&self.add)
    }
}

/// How a path is changed; its query stays.
#[derive(Debug)]
pub enum PathRewrite {
    /// This instead of so many bytes at its beginning.
    Prefix {
        /// Bytes that the match names.
        matched: usize,
        /// What stands there instead.
        with: Box<str>,
    },
    /// This instead of everything that is found.
    Regex {
        /// What is looked for.
        pattern: Pattern,
        /// What stands there instead, with `$1` for parts of what was found.
        with: Box<str>,
    },
}

impl PathRewrite {
    /// The target with its path changed. As it was when the outcome could not be sent.
    pub fn apply<'t>(&self, target: &'t str) -> Cow<'t, str> {
        let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
        let changed = match self {
            Self::Prefix { matched, with } => {
                format!("{with}{}", path.get((*matched).min(path.len())..).unwrap_or_default())
            }
            Self::Regex { pattern, with } => {
                match String::from_utf8(pattern.regex.replace_all(path.as_bytes(), with.as_bytes()).into_owned()) {
                    Ok(changed) => changed,
                    Err(_) => return Cow::Borrowed(target),
                }
            }
        };
        let sendable = changed.starts_with('/') && changed.bytes().all(|b| (0x21..=0x7e).contains(&b));
        if sendable { Cow::Owned(changed + query) } else { Cow::Borrowed(target) }
    }
}

/// Where a client is sent. What is unset stays as in its request.
#[derive(Debug)]
pub struct Redirect {
    /// `http` or `https`.
    pub scheme: Option<Box<str>>,
    /// The host.
    pub host: Option<Box<str>>,
    /// The port.
    pub port: Option<u16>,
    /// The path.
    pub path: Option<PathRewrite>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

impl Redirect {
    /// The address for a request to `authority` and `target`.
    pub fn location(&self, authority: &str, target: &str) -> String {
        let scheme = self.scheme.as_deref().unwrap_or("http");
        let (name, asked) = match authority.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => (name, port.parse::<u16>().ok()),
            Some(_) | None => (authority, None),
        };
        let standard = if scheme == "https" { 443 } else { 80 };
        // A port that was asked for is not taken along to another host, nor into another scheme.
        let kept = asked.filter(|_| self.host.is_none() && self.scheme.is_none());
        let port = self.port.or(kept).filter(|port| *port != standard);
        let host = self.host.as_deref().unwrap_or(name);
        let path = self.path.as_ref().map_or(Cow::Borrowed(target), |path| path.apply(target));
        match port {
            Some(port) => format!("{scheme}://{host}:{port}{path}"),
            None => format!("{scheme}://{host}{path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regex(pattern: &str, with: &str) -> PathRewrite {
        let regex = tulle_proto::pattern::anywhere(pattern).unwrap();
        PathRewrite::Regex { pattern: Pattern::new(pattern, regex), with: with.into() }
    }

    fn prefix(matched: usize, with: &str) -> PathRewrite {
        PathRewrite::Prefix { matched, with: with.into() }
    }

    #[test]
    fn paths_as_the_gateway_api_has_them() {
        // What the control plane makes of a match and its replacement, and what comes of it.
        for (rewrite, path, after) in [
            (prefix(4, "/xyz"), "/foo/bar", "/xyz/bar"),
            (prefix(4, "/xyz"), "/foo", "/xyz"),
            (prefix(4, "/xyz"), "/foo/", "/xyz/"),
            (prefix(4, "/xyz"), "/foo?a=/foo", "/xyz?a=/foo"),
            (prefix(1, "/xyz/"), "/foo", "/xyz/foo"),
            (regex("^/foo/?", "/"), "/foo/bar", "/bar"),
            (regex("^/foo/?", "/"), "/foo/", "/"),
            (regex("^/foo/?", "/"), "/foo?x", "/?x"),
            (regex("^/.*$", "/one"), "/foo/bar?x=1", "/one?x=1"),
            (regex("^/(a+)", "/b${1}"), "/aa", "/baa"),
            (regex("^/.*$", "no path"), "/foo", "/foo"),
            (prefix(9, ""), "/foo", "/foo"),
        ] {
            assert_eq!(rewrite.apply(path), after, "{path} by {rewrite:?}");
        }
    }

    #[test]
    fn locations() {
        let to = |scheme: Option<&str>, host: Option<&str>, port| Redirect {
            scheme: scheme.map(Into::into),
            host: host.map(Into::into),
            port,
            path: None,
            status: 302,
        };
        for (redirect, authority, location) in [
            (to(None, None, None), "a.shop:8080", "http://a.shop:8080/x?y"),
            (to(None, None, None), "a.shop:80", "http://a.shop/x?y"),
            (to(Some("https"), None, None), "a.shop:8080", "https://a.shop/x?y"),
            (to(Some("https"), None, Some(443)), "a.shop", "https://a.shop/x?y"),
            (to(Some("https"), None, Some(8443)), "[fd00::1]", "https://[fd00::1]:8443/x?y"),
            (to(None, Some("b"), None), "a.shop:8080", "http://b/x?y"),
            (to(None, Some("b"), Some(8080)), "a.shop", "http://b:8080/x?y"),
        ] {
            assert_eq!(redirect.location(authority, "/x?y"), location, "{redirect:?}");
        }
    }
}
