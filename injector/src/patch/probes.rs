//! Probes, lifecycle hooks and scrapes that come in the clear: they go to the proxy's status port, which asks the
//! application in their place. Timings stay as they are.

use serde_json::{Map, Value, json};

use super::sidecar::STATUS_PORT;
use super::{object, pod};

/// Fields of a container with a handler, and the last segment of the path it is rewritten to.
const HANDLERS: [(&str, &str); 5] = [
    ("/livenessProbe", "livez"),
    ("/readinessProbe", "readyz"),
    ("/startupProbe", "startupz"),
    ("/lifecycle/postStart", "poststart"),
    ("/lifecycle/preStop", "prestop"),
];

/// Rewrites every probe and hook that would go over the network. Gives what the proxy must know, as JSON: path ->
/// handler with a number for its port; `None` when there is nothing.
pub(super) fn rewrite(pod: &mut Value) -> Option<String> {
    let mut handed = Map::new();
    let lists = ["/spec/initContainers", "/spec/containers"];
    for list in lists {
        let Some(containers) = pod.pointer_mut(list).and_then(Value::as_array_mut) else { continue };
        for container in containers {
            let name = pod::name(container).to_owned();
            let ports = ports(container);
            for (pointer, word) in HANDLERS {
                let Some(handler) = container.pointer_mut(pointer) else { continue };
                let Some(local) = local(handler, &ports) else { continue };
                let path = format!("/app-health/{name}/{word}");
                redirect(handler, &path);
                handed.insert(path, local);
            }
        }
    }
    (!handed.is_empty()).then(|| Value::Object(handed).to_string())
}

/// Names of ports and their numbers.
fn ports(container: &Value) -> Vec<(String, u64)> {
    let ports = pod::list(container, "/ports").iter();
    ports.filter_map(|port| Some((pod::name(port).to_owned(), port.pointer("/containerPort")?.as_u64()?))).collect()
}

/// The handler as the proxy performs it. `None` for what does not go over the network, or to another host, or to a
/// port that has no number.
fn local(handler: &Value, ports: &[(String, u64)]) -> Option<Value> {
    let number = |kind: &Value| {
        let port = kind.pointer("/port")?;
        let named = || ports.iter().find(|(name, _)| Some(name.as_str()) == port.as_str()).map(|(_, number)| *number);
        // A number may be written as a string.
        let number = port.as_u64().or_else(named).or_else(|| port.as_str()?.parse().ok());
        number.filter(|number| (1..=65535).contains(number))
    };
    let timeout = handler.pointer("/timeoutSeconds").and_then(Value::as_u64).unwrap_or(1);
    let mut local = if let Some(http) = handler.get("httpGet").filter(|http| http.is_object()) {
        if pod::text(http, "/host").is_some_and(|host| !host.is_empty()) {
            return None;
        }
        let mut get = json!({"port": number(http)?, "path": pod::text(http, "/path").unwrap_or("/")});
        if pod::text(http, "/scheme") == Some("HTTPS") {
            get["scheme"] = json!("HTTPS");
        }
        if let Some(headers) = http.get("httpHeaders").filter(|headers| headers.is_array()) {
            get["httpHeaders"] = headers.clone();
        }
        json!({"httpGet": get})
    } else if let Some(tcp) = handler.get("tcpSocket").filter(|tcp| tcp.is_object()) {
        if pod::text(tcp, "/host").is_some_and(|host| !host.is_empty()) {
            return None;
        }
        json!({"tcpSocket": {"port": number(tcp)?}})
    } else {
        let grpc = handler.get("grpc").filter(|grpc| grpc.is_object())?;
        json!({"grpc": {"port": number(grpc)?, "service": pod::text(grpc, "/service").unwrap_or_default()}})
    };
    local["timeoutSeconds"] = json!(timeout);
    Some(local)
}

/// Points a handler at the proxy.
fn redirect(handler: &mut Value, path: &str) {
    if let Some(fields) = handler.as_object_mut() {
        for kind in ["tcpSocket", "grpc"] {
            fields.remove(kind);
        }
        fields.insert("httpGet".to_owned(), json!({"path": path, "port": STATUS_PORT, "scheme": "HTTP"}));
    }
}

/// Points the scrape of the pod at the proxy. Gives the address and path of the application's own metrics, `None` when
/// it has none; a pod that says `scrape: "false"` is left alone.
pub(super) fn merge_metrics(pod: &mut Value) -> Option<String> {
    let annotations = pod::strings(pod, "/metadata/annotations");
    let of = |key: &str| annotations.get(key).map(String::as_str);
    let scraped = match of("prometheus.io/scrape") {
        Some("true") => true,
        Some(_) => return None,
        None => false,
    };
    let port = of("prometheus.io/port").unwrap_or("80").parse::<u16>().ok().filter(|port| *port != 0);
    let path = of("prometheus.io/path").unwrap_or("/metrics");
    let plain = of("prometheus.io/scheme").is_none_or(|scheme| scheme == "http");
    // What cannot be fetched in its place is left as it is.
    if scraped && (port.is_none() || port == Some(STATUS_PORT) || !plain || !path.starts_with('/')) {
        return None;
    }
    let fields = object(object(pod, "metadata"), "annotations").as_object_mut()?;
    for (key, value) in [("scrape", "true"), ("port", &STATUS_PORT.to_string()), ("path", "/metrics")] {
        fields.insert(format!("prometheus.io/{key}"), json!(value));
    }
    port.filter(|_| scraped).map(|port| json!({"port": port, "path": path}).to_string())
}
