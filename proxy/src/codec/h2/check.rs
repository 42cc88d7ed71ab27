//! What the `h2` crate does not check of a request's head (security.md DG-01 to DG-03).
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use http::request::Parts;

use crate::codec::fields;

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is malformed: the stream is reset with PROTOCOL_ERROR.
    Malformed,
    /// CONNECT, which this proxy does not serve.
    Connect,
    /// More fields than allowed.
    TooLarge,
}

/// Checks a head before anything else reads it. `max_fields` is the limit of HTTP/1 too: what is taken here can be
/// passed on there.
pub(crate) fn request(head: &Parts, max_fields: usize) -> Result<(), Refusal> {
    let authority = head.uri.authority();
    if head.headers.len().saturating_add(usize::from(authority.is_some())) > max_fields {
        return Err(Refusal::TooLarge);
    }
    if head.method == http::Method::CONNECT {
        return Err(Refusal::Connect);
    }
    let path = head.uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
    let path_ok = path.starts_with('/') || (path == "*" && head.method == http::Method::OPTIONS);
    if !path_ok || path.bytes().any(|b| !(0x21..=0x7e).contains(&b)) {
        return Err(Refusal::Malformed);
    }
    if head.uri.scheme_str().is_some_and(|scheme| scheme != "http" && scheme != "https") {
        return Err(Refusal::Malformed);
    }
    if !head.headers.keys().all(fields::is_token) {
        return Err(Refusal::Malformed);
    }
    let mut hosts = head.headers.get_all(http::header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Refusal::Malformed);
    }
    let good = match (authority.map(http::uri::Authority::as_str), host) {
        (Some(authority), None) => fields::is_authority(authority.as_bytes()),
        (None, Some(host)) => fields::is_authority(host.as_bytes()),
        (Some(authority), Some(host)) => {
            fields::is_authority(authority.as_bytes()) && authority.as_bytes().eq_ignore_ascii_case(host.as_bytes())
        }
        (None, None) => false,
    };
    if good { Ok(()) } else { Err(Refusal::Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(request: http::request::Builder) -> Result<(), Refusal> {
        request_of(request.body(()).unwrap().into_parts().0)
    }

    fn request_of(parts: Parts) -> Result<(), Refusal> {
        request(&parts, 100)
    }

    #[test]
    fn as_many_fields_as_in_http1() {
        let with = |count: usize| {
            let request = http::Request::get("http://a.test/f");
            check((0..count).fold(request, |request, n| request.header("x", n)))
        };
        assert_eq!(with(99), Ok(()), "the authority counts as well");
        assert_eq!(with(100), Err(Refusal::TooLarge), "one name many times is many fields");
    }

    #[test]
    fn authority_and_host_must_agree() {
        let with = |host: &str| http::Request::get("http://a.test/f").header("host", host);
        assert_eq!(check(with("a.test")), Ok(()));
        assert_eq!(check(with("A.TEST")), Ok(()));
        assert_eq!(check(with("b.test")), Err(Refusal::Malformed));
        assert_eq!(check(with("a.test").header("host", "a.test")), Err(Refusal::Malformed));
        assert_eq!(check(http::Request::get("/f")), Err(Refusal::Malformed));
        assert_eq!(check(http::Request::get("/f").header("host", "a/x")), Err(Refusal::Malformed));
        assert_eq!(check(http::Request::get("/f").header("host", "a")), Ok(()));
    }

    #[test]
    fn names_are_tokens() {
        let with = |name: &[u8]| {
            // As the frames' decoder makes them.
            let name = http::HeaderName::from_lowercase(name).unwrap();
            check(http::Request::get("http://a.test/f").header(name, "x"))
        };
        assert_eq!(with(b"a-b"), Ok(()));
        assert_eq!(with(b"a\"b"), Err(Refusal::Malformed), "HTTP/1 has no such name");
    }

    #[test]
    fn targets() {
        assert_eq!(check(http::Request::get("ftp://a.test/f")), Err(Refusal::Malformed));
        assert_eq!(check(http::Request::get("http://u@a.test/f")), Err(Refusal::Malformed));
        assert_eq!(check(http::Request::get("*").header("host", "a")), Err(Refusal::Malformed));
        assert_eq!(check(http::Request::options("*").header("host", "a")), Ok(()));
        assert_eq!(check(http::Request::connect("a.test:80")), Err(Refusal::Connect));
    }
}
