//! What the injector hands over about the application: probes that the proxy performs in the kubelet's place, and the
//! scrape that it appends to its own. JSON in one variable each.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use serde::Deserialize;

use super::reference::Reference;

/// A probe or lifecycle hook of the application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What is done.
    pub check: Check,
    /// Port of the application.
    pub port: u16,
    /// Time for the application to answer; `None` for a hook, which ends when the kubelet no longer waits for it.
    pub timeout: Option<Duration>,
}

/// Probes and hooks by the path at which the status listener is asked for them. One that cannot be performed fails, with the
/// reason, and no other.
pub type Probes = BTreeMap<String, Result<Probe, String>>;

/// What a probe does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// GET; 200 to 399 is good.
    Http {
        /// Over TLS, whatever the certificate, as the kubelet does.
        tls: bool,
        /// Path and query.
        page: Reference,
        /// Fields to send, in the place of those that a probe has by itself.
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
    pub page: Reference,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProbeText {
    http_get: Option<HttpText>,
    tcp_socket: Option<PortText>,
    grpc: Option<PortText>,
    timeout_seconds: Option<u64>,
    /// A lifecycle hook has no time-out.
    #[serde(default)]
    hook: bool,
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
/// The text is not a JSON object.
pub(super) fn probes(text: &str) -> Result<Probes, String> {
    let values: BTreeMap<String, serde_json::Value> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let read = |value| serde_json::from_value(value).map_err(|error| error.to_string()).and_then(probe);
    Ok(values.into_iter().map(|(path, value)| (path, read(value))).collect())
}

fn probe(text: ProbeText) -> Result<Probe, String> {
    let timeout = (!text.hook).then(|| Duration::from_secs(text.timeout_seconds.unwrap_or(1).max(1)));
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
        let name = HeaderName::try_from(&name).map_err(|_| format!("`{name}` is not a name of a header field"))?;
        let value = HeaderValue::try_from(value.trim_matches([' ', '\t']))
            .map_err(|_| format!("the value of {name} has a control character"))?;
        Ok::<_, String>((name, value))
    };
    Ok(Check::Http {
        tls: text.scheme.as_deref() == Some("HTTPS"),
        page: Reference::of_probe(text.path.as_deref().unwrap_or("/")),
        headers: text.http_headers.into_iter().map(header).collect::<Result<_, _>>()?,
    })
}

/// Reads the application's scrape.
///
/// # Errors
/// What is wrong.
pub(super) fn scrape(text: &str) -> Result<Scrape, String> {
    let ScrapeText { port, path } = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if port == 0 { Err("0 is no port".to_owned()) } else { Ok(Scrape { port, page: Reference::of_probe(&path) }) }
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
            "/app-health/web/startupz": {"grpc": {"port": 9000, "service": "s"}},
            "/app-health/web/prestop": {"httpGet": {"port": 8080}, "hook": true}
        }"#;
        let probes = probes(text).unwrap();
        let of = |path: &str| probes[&format!("/app-health/web/{path}")].clone().unwrap();
        let live = of("livez");
        assert_eq!((live.port, live.timeout), (8080, Some(Duration::from_secs(3))));
        let Check::Http { tls: true, page, headers } = &live.check else { panic!("{live:?}") };
        assert_eq!((page.target().unwrap().as_str(), headers.len()), ("/live?x=1", 1));
        assert_eq!(of("readyz").check, Check::Tcp);
        assert_eq!(of("startupz").check, Check::Grpc { service: "s".to_owned() });
        assert_eq!(of("prestop").timeout, None);
        assert_eq!(scrape(r#"{"port": 9090, "path": "/m"}"#).unwrap().page.target().unwrap(), "/m");
    }

    #[test]
    fn mend_23_one_bad_probe_fails_alone() {
        let good = r#""/good": {"tcpSocket": {"port": 1}}"#;
        for (text, part) in [
            (r#"{}"#, "it is not one of"),
            (r#""x""#, "invalid type"),
            (r#"{"httpGet": {"port": "web"}}"#, "invalid type"),
            (r#"{"tcpSocket": {"port": 0}}"#, "0 is no port"),
            (r#"{"tcpSocket": {"port": 65536}}"#, "65536"),
            (r#"{"tcpSocket": {"port": 1}, "timeoutSeconds": -1}"#, "-1"),
            (r#"{"httpGet": {"port": 1, "httpHeaders": [{"name": "a b"}]}}"#, "not a name of a header field"),
            (r#"{"httpGet": {"port": 1, "httpHeaders": [{"name": "a", "value": "b\nc"}]}}"#, "control character"),
        ] {
            let probes = probes(&format!("{{{good}, \"/bad\": {text}}}")).unwrap();
            assert!(probes["/good"].is_ok());
            let reason = probes["/bad"].clone().unwrap_err();
            assert!(reason.contains(part), "{reason}");
        }
        assert!(probes("{").is_err() && probes("[]").is_err(), "what is not written by the injector is a mistake");
        assert!(scrape("{}").is_err() && scrape(r#"{"port": 0, "path": "/"}"#).is_err());
    }

    /// Whatever a manifest may have in a path is read.
    #[test]
    fn mend_23_no_path_of_a_manifest_is_refused() {
        for path in ["/health check", "/x?<>", "/\u{1}", "/%", "//", ":", "http://", "é", "/?\"", "*", "a:b"] {
            let text = serde_json::json!({"/p": {"httpGet": {"port": 1, "path": path}}}).to_string();
            assert!(probes(&text).unwrap()["/p"].is_ok(), "{path}");
            assert!(scrape(&serde_json::json!({"port": 1, "path": path}).to_string()).is_ok(), "{path}");
        }
    }
}
