//! Answers by method and path.

use std::time::SystemTime;

use http::{Method, Request, StatusCode};

use super::{AdminHandles, Audience, certs, clusters, config_dump, metrics, ready};
use crate::telemetry::exposition;

/// What is answered.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) content_type: &'static str,
    /// Methods allowed, when the one asked for is not.
    pub(super) allow: Option<&'static str>,
    pub(super) body: String,
}

impl Reply {
    /// Plain text.
    pub(super) fn text(status: StatusCode, body: impl Into<String>) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", allow: None, body: body.into() }
    }

    fn json(value: &impl serde::Serialize) -> Self {
        match serde_json::to_string_pretty(value) {
            Ok(body) => Self { content_type: "application/json", ..Self::text(StatusCode::OK, body + "\n") },
            Err(error) => Self::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }

    /// The application's own follow where Prometheus asks.
    async fn metrics(handles: &AdminHandles, audience: Audience) -> Self {
        let ours = metrics::render(handles);
        let text = match audience {
            Audience::Local => ours,
            Audience::Network => handles.application.merge(ours).await,
        };
        Self { content_type: exposition::CONTENT_TYPE, ..Self::text(StatusCode::OK, text) }
    }

    fn not_allowed(allow: &'static str) -> Self {
        Self { allow: Some(allow), ..Self::text(StatusCode::METHOD_NOT_ALLOWED, format!("use {allow}\n")) }
    }
}

/// What a path stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    Index,
    ConfigDump,
    Clusters,
    Certs,
    Dns,
    DnsDump,
    Metrics,
    Ready,
    Logging,
    Drain,
    Quit,
}

/// Pages of the local listener. Shown at `/`.
const LOCAL: [(&str, Page, &str); 12] = [
    ("/", Page::Index, "this list"),
    ("/config_dump", Page::ConfigDump, "configuration in force, as JSON"),
    ("/clusters", Page::Clusters, "clusters and their endpoints"),
    ("/certs", Page::Certs, "certificate and roots in use, as JSON"),
    ("/dns", Page::Dns, "names of the mesh, nameservers and cached answers"),
    ("/dns_dump", Page::DnsDump, "the same, as JSON"),
    ("/stats", Page::Metrics, "metrics, in Prometheus' text format"),
    ("/metrics", Page::Metrics, "the same"),
    ("/ready", Page::Ready, "whether the workload may receive traffic, and why not"),
    ("/logging", Page::Logging, "log filter; POST ?level=info,tulle_proxy=debug replaces it"),
    ("/drain", Page::Drain, "POST: stop being ready and finish what is under way"),
    ("/quitquitquit", Page::Quit, "POST: drain, then end the process"),
];

/// Where probes of the application are asked for, on the status listener.
const PROBES: &str = "/app-health/";

/// Pages of the status listener.
const NETWORK: [(&str, Page, &str); 2] = [("/healthz/ready", Page::Ready, ""), ("/metrics", Page::Metrics, "")];

/// A lifecycle hook that the application did not answer: the connection is closed without a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the application did not answer its lifecycle hook")]
pub(super) struct Unanswered;

/// The reply to a request.
///
/// # Errors
/// There must not be one.
pub(super) async fn reply<B>(
    request: &Request<B>,
    audience: Audience,
    handles: &AdminHandles,
) -> Result<Reply, Unanswered> {
    let path = request.uri().path();
    if audience == Audience::Network && request.method() == Method::GET && path.starts_with(PROBES) {
        // A proxy that is asked to end before its application waits for the end of the application's preStop.
        let _held = handles.application.is_hook(path).then(|| handles.control.hold());
        if let Some(answer) = handles.application.probe(path, request.headers()).await {
            return answer;
        }
    }
    Ok(page(request, audience, handles).await)
}

async fn page<B>(request: &Request<B>, audience: Audience, handles: &AdminHandles) -> Reply {
    let path = request.uri().path();
    let pages: &[_] = match audience {
        Audience::Local => &LOCAL,
        Audience::Network => &NETWORK,
    };
    let Some((_, page, _)) = pages.iter().find(|(page, _, _)| *page == path) else {
        return Reply::text(StatusCode::NOT_FOUND, "no such page\n");
    };
    let (reads, commands) = (matches!(*request.method(), Method::GET | Method::HEAD), request.method() == Method::POST);
    match page {
        Page::Drain | Page::Quit if !commands => Reply::not_allowed("POST"),
        Page::Logging if !reads && !commands => Reply::not_allowed("GET, HEAD, POST"),
        Page::Drain => {
            handles.control.drain();
            Reply::text(StatusCode::OK, "draining\n")
        }
        Page::Quit => {
            handles.control.quit();
            Reply::text(StatusCode::OK, "draining, then ending\n")
        }
        Page::Logging if commands => set_logging(request.uri().query().unwrap_or_default(), handles),
        Page::Logging => Reply::text(StatusCode::OK, handles.control.log_filter() + "\n"),
        Page::Index
        | Page::ConfigDump
        | Page::Clusters
        | Page::Certs
        | Page::Dns
        | Page::DnsDump
        | Page::Metrics
        | Page::Ready
            if !reads =>
        {
            Reply::not_allowed("GET, HEAD")
        }
        Page::Index => Reply::text(StatusCode::OK, index()),
        Page::ConfigDump => Reply::json(&config_dump::view(&handles.snapshot.borrow().clone())),
        Page::Clusters => Reply::text(StatusCode::OK, clusters::text(&handles.snapshot.borrow().clone())),
        Page::Certs => Reply::json(&certs::view(handles.keys.borrow().as_deref())),
        Page::Dns => handles.dns.as_ref().map_or_else(no_dns, |dns| Reply::text(StatusCode::OK, dns.text())),
        Page::DnsDump => handles.dns.as_ref().map_or_else(no_dns, |dns| Reply::json(&dns.dump())),
        Page::Metrics => Reply::metrics(handles, audience).await,
        Page::Ready => ready::reply(handles, audience, SystemTime::now()),
    }
}

fn no_dns() -> Reply {
    Reply::text(StatusCode::NOT_FOUND, "DNS is not captured here: tulle.io/dns-capture, --dns-capture\n")
}

fn index() -> String {
    let pages = LOCAL.iter().map(|(path, _, what)| format!("{path:<16} {what}\n"));
    pages
        .chain(["\nPOST needs a header: curl -X POST -H 'tulle-admin: 1' http://127.0.0.1:15000/drain\n".to_owned()])
        .collect()
}

/// Takes `level=FILTER`. A filter needs no percent encoding, and percent signs are in no filter.
fn set_logging(query: &str, handles: &AdminHandles) -> Reply {
    let level = query.split('&').find_map(|pair| pair.strip_prefix("level=")).filter(|level| !level.is_empty());
    let Some(level) = level else {
        return Reply::text(StatusCode::BAD_REQUEST, "say which: POST /logging?level=debug\n");
    };
    match handles.control.set_log_filter(level) {
        Ok(()) => Reply::text(StatusCode::OK, handles.control.log_filter() + "\n"),
        Err(error) => Reply::text(StatusCode::BAD_REQUEST, format!("{level}: {error}\n")),
    }
}
