//! One connection of an admin listener: its limits and deadlines, and the requests that are refused before anybody
//! looks at their path.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::uri::Authority;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

use super::routes::{self, Reply, Unanswered};
use super::{AdminHandles, Audience};

/// Longest time for a request's head, also on an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest life of a connection; a scraper that keeps one alive makes a new one then.
const LIFE: Duration = Duration::from_secs(120);

/// Time to write the reply under way when that is over. A probe or hook of the application takes its own time before.
const GRACE: Duration = Duration::from_secs(10);

/// Largest request head in bytes; hyper's smallest is 8 KiB.
const MAX_HEAD: usize = 16 * 1024;

/// The field that every command carries. Fields of this prefix do not pass a proxy of the mesh (`codec/fields.rs`).
const COMMAND: &str = "tulle-admin";

/// Most header fields of a request.
const MAX_FIELDS: usize = 64;

/// Serves a connection to its end.
pub(super) async fn serve(socket: TcpStream, audience: Audience, handles: &AdminHandles) {
    let answering = AtomicBool::new(false);
    let service = service_fn(async |request| {
        answering.store(true, Ordering::Relaxed);
        let response = respond(&request, audience, handles).await;
        answering.store(false, Ordering::Relaxed);
        response
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_FIELDS)
        .serve_connection(TokioIo::new(socket), service);
    let mut connection = pin!(connection);
    // How a connection of a probe or a browser ends is not worth a line in the log.
    if tokio::time::timeout(LIFE, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        while tokio::time::timeout(GRACE, connection.as_mut()).await.is_err() && answering.load(Ordering::Relaxed) {}
    }
}

async fn respond(
    request: &Request<Incoming>,
    audience: Audience,
    handles: &AdminHandles,
) -> Result<Response<Full<Bytes>>, Unanswered> {
    let reply = match refusal(request, audience) {
        Some(refusal) => refusal,
        None => routes::reply(request, audience, handles).await?,
    };
    let mut response = Response::new(Full::new(reply.body.into()));
    *response.status_mut() = reply.status;
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, value: &'static str| headers.insert(name, HeaderValue::from_static(value));
    set(header::CONTENT_TYPE, reply.content_type);
    set(header::CACHE_CONTROL, "no-store");
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    if let Some(allow) = reply.allow {
        set(header::ALLOW, allow);
    }
    Ok(response)
}

/// Why a request is not looked at any further.
fn refusal(request: &Request<Incoming>, audience: Audience) -> Option<Reply> {
    // No answer depends on a body. What is not read closes the connection.
    if !request.body().is_end_stream() {
        return Some(Reply::text(StatusCode::PAYLOAD_TOO_LARGE, "requests have no body here\n"));
    }
    if audience == Audience::Local && !is_local(request) {
        // A web page whose name was made to resolve to 127.0.0.1 (DNS rebinding) is told apart by its Host.
        return Some(Reply::text(StatusCode::FORBIDDEN, "ask for localhost, 127.0.0.1 or [::1]\n"));
    }
    if audience == Audience::Local && commands(request.method()) && !request.headers().contains_key(COMMAND) {
        // A request that a proxy rewrote to look local cannot have the field: every Tulle proxy drops it, and no route can
        // set it. Nor can a web page send it without being asked for its permission first.
        let how = format!("commands need the header {COMMAND}, with any value: curl -X POST -H '{COMMAND}: 1' ...\n");
        return Some(Reply::text(StatusCode::FORBIDDEN, how));
    }
    let from_page = [header::ORIGIN, HeaderName::from_static("sec-fetch-site")].into_iter();
    let from_page = from_page.filter_map(|name| request.headers().get(name)).any(|value| value != "none");
    (from_page && request.method() != Method::GET)
        .then(|| Reply::text(StatusCode::FORBIDDEN, "web pages may not send commands\n"))
}

/// Whether a method may change something.
fn commands(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Whether every name the request has for us is that of this machine.
fn is_local(request: &Request<Incoming>) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let host = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok());
    host.is_some_and(|host| is_loopback_name(&host)) && request.uri().authority().is_none_or(is_loopback_name)
}

fn is_loopback_name(authority: &Authority) -> bool {
    let host = authority.host();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.map_or_else(|_| host.eq_ignore_ascii_case("localhost"), |address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_machine() {
        let is = |name: &str| is_loopback_name(&name.parse().unwrap());
        assert!(["localhost", "LOCALHOST:15000", "127.0.0.1:15000", "127.9.9.9", "[::1]:15000"].into_iter().all(is));
        assert!(!["evil.example", "localhost.evil.example", "10.0.0.1:15000", "[::]:1", "0.0.0.0"].into_iter().any(is));
    }
}
