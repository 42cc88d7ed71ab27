//! What the injector hands over about the application: probes that the proxy performs in the kubelet's place, and the
//! scrape that it appends to its own. JSON in one variable each.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use serde::Deserialize;

/// Most probes of a pod: five for each of its containers.
const MOST: usize = 500;

/// A probe of the application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What is done.
    pub check: Check,
    /// Port of the application.
    pub port: u16,
    /// How long the application may take.
    pub timeout: Duration,
}

/// What a probe does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// GET; 200 to 399 is good.
    Http {
        /// Over TLS, whatever the certificate, as the kubelet does.
        tls: bool,
        /// Path and query.
        path: http::uri::PathAndQuery,
        /// Fields to send.
        headers: Vec<(HeaderName, HeaderValue)>,
    },
    /// A connection; that it opens is good.
    Tcp,
    /// grpc.health.v1; SERVING is good.
    Grpc {
        /// The service asked about; may be empty.
        service: String,
    },
}

/// The application's own metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scrape {
    /// Port of the application.
    pub port: u16,
    /// Path and query.
    pub path: http::uri::PathAndQuery,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProbeText {
    http_get: Option<HttpText>,
    tcp_socket: Option<PortText>,
    grpc: Option<PortText>,
    timeout_seconds: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HttpText {
    port: u16,
    path: Option<String>,
    scheme: Option<String>,
    #[serde(default)]
    http_headers: Vec<HeaderText>,
}

#[derive(Deserialize)]
struct PortText {
    port: u16,
    #[serde(default)]
    service: String,
}

#[derive(Deserialize)]
struct HeaderText {
    name: String,
    #[serde(default)]
    value: String,
}

#[derive(Deserialize)]
struct ScrapeText {
    port: u16,
    path: String,
}

/// Reads probes by the path they are asked for at.
///
/// # Errors
/// What is wrong, with the path it is wrong for.
pub(super) fn probes(text: &str) -> Result<BTreeMap<String, Probe>, String> {
    let texts: BTreeMap<String, ProbeText> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if texts.len() > MOST {
        return Err(format!("there are more than {MOST} probes"));
    }
    let read = |(path, text)| match probe(text) {
        Ok(probe) => Ok((path, probe)),
        Err(reason) => Err(format!("{path}: {reason}")),
    };
    texts.into_iter().map(read).collect()
}

fn probe(text: ProbeText) -> Result<Probe, String> {
    // An hour: the kubelet has no bound.
    let timeout = Duration::from_secs(text.timeout_seconds.unwrap_or(1).clamp(1, 3600));
    let (check, port) = match (text.http_get, text.tcp_socket, text.grpc) {
        (Some(http), None, None) => {
            let port = http.port;
            (http_check(http)?, port)
        }
        (None, Some(tcp), None) => (Check::Tcp, tcp.port),
        (None, None, Some(grpc)) => (Check::Grpc { service: grpc.service }, grpc.port),
        _ => return Err("it is not one of httpGet, tcpSocket and grpc".to_owned()),
    };
    if port == 0 { Err("0 is no port".to_owned()) } else { Ok(Probe { check, port, timeout }) }
}

fn http_check(text: HttpText) -> Result<Check, String> {
    let header = |HeaderText { name, value }| {
        let name = HeaderName::try_from(&name).map_err(|_| format!("`{name}` is no name of a field"))?;
        let value = HeaderValue::try_from(&value).map_err(|_| format!("the value of {name} is none"))?;
        Ok::<_, String>((name, value))
    };
    Ok(Check::Http {
        tls: text.scheme.as_deref() == Some("HTTPS"),
        path: path(text.path.as_deref().unwrap_or("/"))?,
        headers: text.http_headers.into_iter().map(header).collect::<Result<_, _>>()?,
    })
}

/// Reads the application's scrape.
///
/// # Errors
/// What is wrong.
pub(super) fn scrape(text: &str) -> Result<Scrape, String> {
    let ScrapeText { port, path: text } = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if port == 0 { Err("0 is no port".to_owned()) } else { Ok(Scrape { port, path: path(&text)? }) }
}

/// Kubernetes takes paths without the slash.
fn path(text: &str) -> Result<http::uri::PathAndQuery, String> {
    let slash = if text.starts_with('/') { "" } else { "/" };
    format!("{slash}{text}").parse().map_err(|_| format!("`{text}` is no path"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_of_each_kind() {
        let text = r#"{
            "/app-health/web/livez": {"httpGet": {"port": 8080, "path": "live?x=1", "scheme": "HTTPS",
                "httpHeaders": [{"name": "Host", "value": "web"}]}, "timeoutSeconds": 3},
            "/app-health/web/readyz": {"tcpSocket": {"port": 5432}},
            "/app-health/web/startupz": {"grpc": {"port": 9000, "service": "s"}}
        }"#;
        let probes = probes(text).unwrap();
        let live = &probes["/app-health/web/livez"];
        assert_eq!((live.port, live.timeout), (8080, Duration::from_secs(3)));
        let Check::Http { tls: true, path, headers } = &live.check else { panic!("{live:?}") };
        assert_eq!((path.as_str(), headers.len()), ("/live?x=1", 1));
        assert_eq!(probes["/app-health/web/readyz"].check, Check::Tcp);
        assert_eq!(probes["/app-health/web/startupz"].check, Check::Grpc { service: "s".to_owned() });
        assert_eq!(scrape(r#"{"port": 9090, "path": "/m"}"#).unwrap().path, "/m");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, part) in [
            ("{", "EOF"),
            (r#"{"/a": {}}"#, "/a: it is not one of"),
            (r#"{"/a": {"tcpSocket": {"port": 0}}}"#, "/a: 0 is no port"),
            (r#"{"/a": {"httpGet": {"port": 1, "path": "/ /"}}}"#, "no path"),
            (r#"{"/a": {"httpGet": {"port": 1, "httpHeaders": [{"name": "a b"}]}}}"#, "no name of a field"),
        ] {
            let reason = probes(text).unwrap_err();
            assert!(reason.contains(part), "{reason}");
        }
        assert!(scrape("{}").is_err() && scrape(r#"{"port": 0, "path": "/"}"#).is_err());
    }
}
