//! Probes, lifecycle hooks and scrapes that come in the clear: they go to the proxy's status port, which asks the
//! application in their place. Timings stay as they are.

use serde_json::{Map, Value, json};

use super::sidecar::STATUS_PORT;
use super::{object, pod};

/// Fields of a container with a handler, the last segment of the path it is rewritten to, and whether it is a hook.
const HANDLERS: [(&str, &str, bool); 5] = [
    ("/livenessProbe", "livez", false),
    ("/readinessProbe", "readyz", false),
    ("/startupProbe", "startupz", false),
    ("/lifecycle/postStart", "poststart", true),
    ("/lifecycle/preStop", "prestop", true),
];

/// Where the proxy answers for the application.
const PREFIX: &str = "/app-health/";

/// Most bytes of all handlers together: Linux starts no program with a variable of 128 KiB. What is beyond stays as it is.
const LARGEST: usize = 96 * 1024;

/// The variable that hands them on.
const VARIABLE: &str = "TULLE_APP_PROBES";

/// What the proxy must know: path -> handler with a number for its port.
pub(super) type Handed = Map<String, Value>;

/// Rewrites every probe and hook that would go over the network, but those that are rewritten already.
pub(super) fn rewrite(pod: &mut Value, native: bool) -> Handed {
    visit(pod, native, 0).0
}

/// The same beside those that the `proxy` of the pod has been handed, and hands it these too.
pub(super) fn rewrite_more(pod: &mut Value, native: bool, proxy: &mut Value) {
    let known = handed_to(proxy);
    let size = Value::Object(known.clone()).to_string().len();
    let more = visit(pod, native, size).0;
    if more.is_empty() {
        return;
    }
    let Some(variable) = variable(known.into_iter().chain(more).collect()) else { return };
    let Some(variables) = proxy.pointer_mut("/env").and_then(Value::as_array_mut) else { return };
    match variables.iter_mut().find(|variable| pod::name(variable) == VARIABLE) {
        Some(known) => *known = variable,
        None => variables.push(variable),
    }
}

/// What the variable of a proxy's container says.
fn handed_to(proxy: &Value) -> Handed {
    let variable = pod::list(proxy, "/env").iter().find(|variable| pod::name(variable) == VARIABLE);
    let text = variable.and_then(|variable| pod::text(variable, "/value"));
    text.and_then(|text| serde_json::from_str(&super::unescaped(text)).ok()).unwrap_or_default()
}

/// Handlers that are too large to be handed on, and stay as they are.
pub(super) fn too_large(pod: &Value, native: bool) -> Vec<String> {
    visit(&mut pod.clone(), native, 0).1
}

/// `size`: bytes that are handed on already.
fn visit(pod: &mut Value, native: bool, mut size: usize) -> (Handed, Vec<String>) {
    let (mut handed, mut left) = (Handed::new(), Vec::new());
    // Init containers that stay run before a classic sidecar is there to answer for them.
    let lists: &[&str] = if native { &["/spec/initContainers", "/spec/containers"] } else { &["/spec/containers"] };
    for list in lists {
        let Some(containers) = pod.pointer_mut(list).and_then(Value::as_array_mut) else { continue };
        for container in
            containers.iter_mut().filter(|container| ![pod::PROXY, pod::INIT].contains(&pod::name(container)))
        {
            let name = pod::name(container).to_owned();
            let ports = ports(container);
            for (pointer, word, hook) in HANDLERS {
                let Some(handler) = container.pointer_mut(pointer) else { continue };
                let Some(local) = local(handler, &ports, hook) else { continue };
                let path = format!("{PREFIX}{name}/{word}");
                let with = size.saturating_add(path.len()).saturating_add(local.to_string().len());
                if with > LARGEST {
                    left.push(format!("container {name}: {}", pointer.trim_start_matches('/').replace('/', ".")));
                    continue;
                }
                size = with;
                redirect(handler, &path);
                handed.insert(path, local);
            }
        }
    }
    (handed, left)
}

/// The variable for `handed`; `None` when there is nothing.
pub(super) fn variable(handed: Handed) -> Option<Value> {
    let text = (!handed.is_empty()).then(|| super::literal(&Value::Object(handed).to_string()))?;
    Some(json!({"name": VARIABLE, "value": text}))
}

/// Names of ports and their numbers.
fn ports(container: &Value) -> Vec<(String, u64)> {
    let ports = pod::list(container, "/ports").iter();
    ports.filter_map(|port| Some((pod::name(port).to_owned(), port.pointer("/containerPort")?.as_u64()?))).collect()
}

/// The handler as the proxy performs it. `None` for what does not go over the network, or to another host, or to a
/// port that has no number, or to the proxy already. Of hooks the kubelet performs those over HTTP alone.
fn local(handler: &Value, ports: &[(String, u64)], hook: bool) -> Option<Value> {
    let number = |kind: &Value| {
        let port = kind.pointer("/port")?;
        let named = || ports.iter().find(|(name, _)| Some(name.as_str()) == port.as_str()).map(|(_, number)| *number);
        // A number may be written as a string.
        let number = port.as_u64().or_else(named).or_else(|| port.as_str()?.parse().ok());
        number.filter(|number| (1..=65535).contains(number))
    };
    let timeout = handler.pointer("/timeoutSeconds").and_then(Value::as_u64).unwrap_or(1);
    let mut local = if let Some(http) = handler.get("httpGet").filter(|http| http.is_object()) {
        let rewritten = http.get("port").and_then(Value::as_u64) == Some(STATUS_PORT.into())
            && pod::text(http, "/path").is_some_and(|path| path.starts_with(PREFIX));
        if rewritten || pod::text(http, "/host").is_some_and(|host| !host.is_empty()) {
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
    } else if hook {
        return None;
    } else if let Some(tcp) = handler.get("tcpSocket").filter(|tcp| tcp.is_object()) {
        if pod::text(tcp, "/host").is_some_and(|host| !host.is_empty()) {
            return None;
        }
        json!({"tcpSocket": {"port": number(tcp)?}})
    } else {
        let grpc = handler.get("grpc").filter(|grpc| grpc.is_object())?;
        json!({"grpc": {"port": number(grpc)?, "service": pod::text(grpc, "/service").unwrap_or_default()}})
    };
    if hook {
        local["hook"] = json!(true);
    } else {
        local["timeoutSeconds"] = json!(timeout);
    }
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
