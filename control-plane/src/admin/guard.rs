//! Who may see which page: debug pages and rotation answer callers on this machine only, and no web page.
//!
//! `kubectl port-forward` and a shell in the container arrive from loopback; another pod does not (AD-02). A browser on
//! this machine can be made to send requests by any site it shows, but it says so: in `Origin`, or, after a DNS rebinding,
//! in `Host`.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

/// The field that every command carries, as at a proxy's admin listener.
const COMMAND: &str = "tulle-admin";

/// Lets callers on this machine through; everybody else sees 403 and why.
pub(super) async fn only_from_this_machine(
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    match refusal(peer.ip(), request.method(), request.headers()) {
        None => next.run(request).await,
        Some(reason) => (StatusCode::FORBIDDEN, format!("{reason}\n")).into_response(),
    }
}

fn refusal(peer: IpAddr, method: &Method, headers: &HeaderMap) -> Option<&'static str> {
    if !peer.to_canonical().is_loopback() {
        return Some("this page answers only callers on the same machine; use kubectl port-forward");
    }
    if headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site") {
        return Some("this page does not answer browsers");
    }
    // What a proxy passes on may look local; this field no Tulle proxy passes on.
    if !matches!(*method, Method::GET | Method::HEAD) && !headers.contains_key(COMMAND) {
        return Some("commands need the header tulle-admin, with any value: curl -X POST -H 'tulle-admin: 1' ...");
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    (!host.is_some_and(is_local)).then_some("the Host must be localhost or a loopback address")
}

fn is_local(host: &str) -> bool {
    if let Ok(address) = host.parse::<SocketAddr>() {
        return address.ip().is_loopback();
    }
    let name = host.rsplit_once(':').map_or(host, |(name, port)| if port.contains(']') { host } else { name });
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(peer: &str, headers: &[(&'static str, &str)]) -> bool {
        asked_by(&Method::GET, peer, headers)
    }

    fn asked_by(method: &Method, peer: &str, headers: &[(&'static str, &str)]) -> bool {
        let headers = headers.iter().map(|(k, v)| (k.parse().unwrap(), v.parse().unwrap())).collect();
        refusal(peer.parse().unwrap(), method, &headers).is_none()
    }

    #[test]
    fn hostile_06_commands_need_a_field_that_does_not_pass_a_proxy() {
        for method in [Method::POST, Method::PUT, Method::DELETE] {
            assert!(!asked_by(&method, "127.0.0.1", &[("host", "localhost")]), "{method}");
            assert!(asked_by(&method, "127.0.0.1", &[("host", "localhost"), ("tulle-admin", "1")]), "{method}");
            assert!(!asked_by(&method, "127.0.0.1", &[("host", "evil.test"), ("tulle-admin", "1")]), "{method}");
        }
    }

    #[test]
    fn only_this_machine_and_no_browser() {
        for host in ["localhost", "localhost:15014", "127.0.0.1:15014", "[::1]:15014", "[::1]"] {
            assert!(asked("127.0.0.1", &[("host", host)]), "{host}");
        }
        assert!(asked("::1", &[("host", "localhost")]));
        assert!(asked("::ffff:127.0.0.1", &[("host", "localhost")]));
        assert!(!asked("10.0.0.7", &[("host", "localhost")]), "another machine");
        assert!(!asked("127.0.0.1", &[("host", "evil.test:15014")]), "rebound name");
        assert!(!asked("127.0.0.1", &[("host", "10.0.0.1:15014")]));
        assert!(!asked("127.0.0.1", &[]), "no host");
        assert!(!asked("127.0.0.1", &[("host", "localhost"), ("origin", "http://evil.test")]));
        assert!(!asked("127.0.0.1", &[("host", "localhost"), ("sec-fetch-site", "cross-site")]));
    }
}
