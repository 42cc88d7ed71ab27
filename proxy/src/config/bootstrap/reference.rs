//! References to pages of the application: the paths of probes and the `Location` fields of their responses, read as Go's
//! `net/url` reads them, because the kubelet does. Every text of a manifest has a reading; nothing here does I/O.

use http::uri::PathAndQuery;

/// A URL reference (RFC 3986, section 4.1). A fragment is dropped: it is never sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reference {
    /// Lower case, without the colon.
    pub scheme: Option<String>,
    /// Host and port, without user information.
    pub authority: Option<String>,
    /// Percent-encoded where needed; may be empty, and relative.
    pub path: String,
    /// As written.
    pub query: Option<String>,
}

impl Reference {
    /// Reads a reference.
    ///
    /// # Errors
    /// What `net/url` refuses, and why.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.bytes().any(|byte| byte.is_ascii_control()) {
            return Err("it has a control character");
        }
        let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
        decode(fragment)?;
        let (scheme, rest) = scheme(rest)?;
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) => (rest, Some(query.to_owned())),
            None => (rest, None),
        };
        if !rest.starts_with('/') {
            if scheme.is_some() {
                return Err("it has a scheme and no path");
            }
            if rest.split('/').next().is_some_and(|segment| segment.contains(':')) {
                return Err("its first segment has a colon");
            }
        }
        let network = rest.strip_prefix("//").filter(|rest| scheme.is_some() || !rest.starts_with('/'));
        let (authority, path) = match network {
            Some(rest) => {
                let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                (Some(host_and_port(authority)?), path)
            }
            None => (None, rest),
        };
        Ok(Self { scheme, authority, path: encode(path)?, query })
    }

    /// The path of a probe, as the kubelet makes it a URL: what is no reference counts as a path, character by character,
    /// and what a reference has before its path is not looked at.
    pub fn of_probe(text: &str) -> Self {
        Self::parse(text).unwrap_or_else(|_| Self { path: escape(text.as_bytes()), ..Self::default() })
    }

    /// This reference as seen from `base`, whose path is absolute (RFC 3986, section 5.2.2).
    #[must_use]
    pub fn from(self, base: &Self) -> Self {
        let absolute = self.scheme.is_some() || self.authority.is_some();
        let (path, query) = if absolute || self.path.starts_with('/') {
            (self.path, self.query)
        } else if self.path.is_empty() {
            (base.path.clone(), self.query.or_else(|| base.query.clone()))
        } else {
            let folder = base.path.rsplit_once('/').map(|(folder, _)| folder).unwrap_or_default();
            (format!("{folder}/{}", self.path), self.query)
        };
        Self {
            scheme: self.scheme.or_else(|| base.scheme.clone()),
            authority: if absolute { self.authority } else { base.authority.clone() },
            path: without_dots(&path),
            query,
        }
    }

    /// What a request line has. Bytes that no request line may have are percent-encoded, in the query too, where Go would
    /// send them as they are.
    ///
    /// # Errors
    /// It is longer than 64 KiB.
    pub fn target(&self) -> Result<PathAndQuery, &'static str> {
        let slash = if self.path.starts_with('/') { "" } else { "/" };
        let mut text = format!("{slash}{}", self.path);
        if let Some(query) = &self.query {
            text.push('?');
            query.bytes().for_each(|byte| match byte {
                b'!' | b'$'..=b';' | b'=' | b'?'..=b'~' => text.push(char::from(byte)),
                other => push_encoded(&mut text, other),
            });
        }
        text.parse().map_err(|_| "the path is too long")
    }

    /// The host without its port, and the port; brackets of an IPv6 address are taken off.
    pub fn host(&self) -> (&str, Option<&str>) {
        let authority = self.authority.as_deref().unwrap_or_default();
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port).filter(|port| !port.is_empty())),
            Some(_) | None => (authority, None),
        };
        (host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host), port)
    }
}

/// The scheme before the first colon, if what stands there could be one.
fn scheme(text: &str) -> Result<(Option<String>, &str), &'static str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    match text.split_once(':') {
        Some(("", _)) => Err("its scheme is missing"),
        Some((scheme, rest))
            if scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(is_part) =>
        {
            Ok((Some(scheme.to_ascii_lowercase()), rest))
        }
        Some(_) | None => Ok((None, text)),
    }
}

fn host_and_port(authority: &str) -> Result<String, &'static str> {
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let port = host.rsplit_once(':').map(|(_, port)| port).filter(|port| !port.contains(']'));
    if port.is_some_and(|port| !port.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err("its port is not a number");
    }
    if host.bytes().any(|byte| byte.is_ascii_whitespace() || b"<>\"\\^`{|}".contains(&byte)) {
        return Err("its host has a character that no host has");
    }
    Ok(host.to_owned())
}

/// A path that needs no encoding stays as it is; any other is decoded and encoded anew, as `URL.EscapedPath` does.
fn encode(path: &str) -> Result<String, &'static str> {
    let decoded = decode(path)?;
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~!$&'()*+,;=:@[]/%".contains(&byte);
    if path.bytes().all(fine) { Ok(path.to_owned()) } else { Ok(escape(&decoded)) }
}

fn escape(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for byte in path {
        if byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(byte) {
            text.push(char::from(*byte));
        } else {
            push_encoded(&mut text, *byte);
        }
    }
    text
}

fn push_encoded(text: &mut String, byte: u8) {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or_default().to_ascii_uppercase();
    text.extend(['%', digit(byte >> 4), digit(byte & 15)]);
}

fn decode(text: &str) -> Result<Vec<u8>, &'static str> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(if byte == b'%' {
            let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
            let (Some(high), Some(low)) = (digit(), digit()) else { return Err("it has a % without two digits") };
            u8::try_from(high * 16 + low).unwrap_or_default()
        } else {
            byte
        });
    }
    Ok(bytes)
}

/// Takes `.` and `..` out of an absolute path.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
            segment => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Go 1.25 makes of the same texts: `formatURL` of the kubelet, then `RequestURI`.
    #[test]
    fn mend_23_the_path_of_a_probe_is_read_as_the_kubelet_reads_it() {
        for (text, target) in [
            ("/health check", "/health%20check"),
            ("/live?x=1", "/live?x=1"),
            ("live", "/live"),
            ("", "/"),
            ("?a=b", "/?a=b"),
            ("/a%2Fb", "/a%2Fb"),
            ("/a%20b c", "/a%20b%20c"),
            ("/50%", "/50%25"),
            ("/%zz?q", "/%25zz%3Fq"),
            ("/h\u{e9}alth", "/h%C3%A9alth"),
            ("/a#b", "/a"),
            ("/a?b#c", "/a?b"),
            ("/a!b", "/a!b"),
            ("/a|b", "/a%7Cb"),
            ("/\"{}<>^`\\", "/%22%7B%7D%3C%3E%5E%60%5C"),
            ("a:b", "/a:b"),
            ("//other/x", "/x"),
            ("http://other:80/x?y", "/x?y"),
            ("/tab\there", "/tab%09here"),
            ("/line\nend", "/line%0Aend"),
            // Go sends these three as they are, which RFC 9112 forbids; every server decodes them to the same.
            ("/q?<>", "/q?%3C%3E"),
            ("/q?a b", "/q?a%20b"),
            ("/q?\u{e9}", "/q?%C3%A9"),
        ] {
            assert_eq!(Reference::of_probe(text).target().unwrap(), target, "{text:?}");
        }
        assert!(Reference::of_probe(&"x".repeat(100_000)).target().is_err());
    }

    #[test]
    fn mend_23_locations_are_seen_from_the_page_before() {
        let base = Reference::parse("http://10.0.0.1:8080/a/b?q").unwrap();
        for (location, authority, target) in [
            ("/x", "10.0.0.1:8080", "/x"),
            ("x?y", "10.0.0.1:8080", "/a/x?y"),
            ("../x/./y/..", "10.0.0.1:8080", "/x/"),
            ("?z", "10.0.0.1:8080", "/a/b?z"),
            ("#f", "10.0.0.1:8080", "/a/b?q"),
            ("//other/x", "other", "/x"),
            ("https://10.0.0.1/x", "10.0.0.1", "/x"),
            ("http://u:p@other:1", "other:1", "/"),
        ] {
            let next = Reference::parse(location).unwrap().from(&base);
            assert_eq!(
                (next.authority.as_deref(), next.target().unwrap().as_str()),
                (Some(authority), target),
                "{location}: {next:?}"
            );
        }
        assert_eq!(Reference::parse("https://[fd00::1]:8443/").unwrap().host(), ("fd00::1", Some("8443")));
        for wrong in [":x", "http://a:b/", "http://a b/", "/%", "mailto:x", "a:b"] {
            assert!(Reference::parse(wrong).is_err(), "{wrong}");
        }
    }
}
