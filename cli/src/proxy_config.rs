//! `tulle proxy-config`: what a running proxy knows, read from its admin port.
//!
//! As JSON it shows the proxy's own words; as tables it reads leniently, so that a proxy of another version can be
//! looked at too.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::ValueEnum as _;
use serde_json::{Map, Value, json};

use crate::args::{Output, ProxyConfigArgs, Section};
use crate::ask;
use crate::port_forward;
use crate::render::{self, Table};

/// The sections of [`Section::All`].
const ALL: [Section; 6] =
    [Section::Listeners, Section::Routes, Section::Clusters, Section::Endpoints, Section::Dns, Section::Certs];

/// Where a proxy on this machine answers, unless it is told otherwise.
const LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15000);

/// Runs the subcommand.
///
/// # Errors
/// When the proxy does not answer, or not as a proxy of ours.
pub(crate) fn run(args: &ProxyConfigArgs) -> anyhow::Result<ExitCode> {
    let (section, pod) = match understood(args) {
        Ok(understood) => understood,
        Err(reason) => {
            render::complain(&reason);
            return Ok(ExitCode::from(2));
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    let pages = runtime.block_on(read(args, pod))?;
    let one = [section];
    let sections: &[Section] = if section == Section::All { &ALL } else { &one };
    match args.output {
        Output::Json => {
            let parts: Map<_, _> =
                sections.iter().map(|section| part(*section, &pages)).map(|(k, v)| (k.to_owned(), v)).collect();
            render::lines([render::json(&Value::Object(parts))])?;
        }
        Output::Table => {
            let tables: Vec<_> = sections.iter().map(|section| table(*section, &pages).lines()).collect();
            render::lines(tables.join(&String::new()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The section and the pod that the words of the command line name.
fn understood(args: &ProxyConfigArgs) -> Result<(Section, Option<&str>), String> {
    let section = |word: &String| Section::from_str(word, false).ok();
    let (section, pod) = match &args.words[..] {
        [] => (Section::All, None),
        [one] => section(one).map_or((Section::All, Some(one)), |section| (section, None)),
        [one, pod, ..] => {
            let Some(section) = section(one) else { return Err(format!("there is no section {one}: see --help")) };
            (section, Some(pod))
        }
    };
    match (pod, &args.namespace, args.admin) {
        (Some(pod), _, Some(admin)) => Err(format!("either the pod {pod} or the address {admin}, not both")),
        (None, Some(namespace), _) => Err(format!("which pod of {namespace}? tulle proxy-config -n {namespace} POD")),
        (pod, _, _) => Ok((section, pod.map(String::as_str))),
    }
}

async fn read(args: &ProxyConfigArgs, pod: Option<&str>) -> anyhow::Result<Pages> {
    if let Some(pod) = pod {
        let forward = port_forward::open(args.namespace.as_deref(), pod).await?;
        render::tell(&format!("pod {}: only destinations that it has used are listed", forward.pod));
        return Pages::read(forward.address)
            .await
            .with_context(|| format!("reading the configuration of {}", forward.pod));
    }
    let admin = args.admin.unwrap_or(LOCAL);
    Pages::read(admin)
        .await
        .with_context(|| format!("Nothing answers at {admin}. For a pod: tulle proxy-config -n NS POD"))
}

/// What the proxy shows.
struct Pages {
    config: Value,
    certs: Value,
    /// Null where the proxy does not answer DNS questions.
    dns: Value,
}

impl Pages {
    async fn read(admin: SocketAddr) -> anyhow::Result<Self> {
        let json = |path: &str, text: &str| {
            serde_json::from_str::<Value>(text).with_context(|| format!("{admin}{path} is not JSON"))
        };
        let page = async |path| json(path, &ask::get(admin, path).await?);
        let dns = ask::ask(admin, "GET", "/dns_dump").await?;
        let dns = if dns.status == 200 { json("/dns_dump", &dns.body)? } else { Value::Null };
        Ok(Self { config: page("/config_dump").await?, certs: page("/certs").await?, dns })
    }
}

/// A section as JSON, under its name.
fn part(section: Section, pages: &Pages) -> (&'static str, Value) {
    let config = &pages.config;
    match section {
        Section::Listeners => {
            let of = |key: &str| config.get(key).cloned().unwrap_or_default();
            ("listeners", json!({"by_name": of("by_name"), "by_address": of("by_address"), "inbound": of("inbound")}))
        }
        Section::Routes => {
            let routes =
                entries(config, "by_name").filter_map(|(name, l)| Some((name.clone(), l.get("routes")?.clone())));
            ("routes", Value::Object(routes.collect()))
        }
        Section::Clusters | Section::Endpoints => {
            let endpoints = section == Section::Endpoints;
            let clusters = entries(config, "clusters").map(|(name, cluster)| {
                let mut cluster = cluster.clone();
                let list = cluster.as_object_mut().and_then(|fields| fields.remove("endpoints"));
                (name.clone(), if endpoints { list.unwrap_or_default() } else { cluster })
            });
            (if endpoints { "endpoints" } else { "clusters" }, Value::Object(clusters.collect()))
        }
        Section::Certs => ("certs", pages.certs.clone()),
        Section::Dns => ("dns", pages.dns.clone()),
        Section::All => ("config", config.clone()),
    }
}

/// A section for people.
fn table(section: Section, pages: &Pages) -> Table {
    let config = &pages.config;
    match section {
        Section::Listeners | Section::All => listeners(config),
        Section::Routes => routes(config),
        Section::Clusters => clusters(config),
        Section::Endpoints => endpoints(config),
        Section::Certs => certificate(&pages.certs),
        Section::Dns => names(&pages.dns),
    }
}

fn listeners(config: &Value) -> Table {
    let generation = text(config, "generation");
    let mut table = Table::new(&["listener", "direction", "protocol", "mtls", "service"])
        .titled(format!("Configuration {generation}"));
    let inbound = config.get("inbound").unwrap_or(&Value::Null);
    let ports = entries(inbound, "ports").map(|(port, rules)| (port.clone(), rules));
    let others = inbound.get("default").map(|rules| ("other ports".to_owned(), rules));
    for (port, rules) in ports.chain(others) {
        let service = match (text(rules, "service"), text(rules, "namespace")) {
            (service, _) if service.is_empty() => service,
            (service, namespace) => format!("{service}.{namespace}"),
        };
        table.row([port, "inbound".to_owned(), text(rules, "protocol"), text(rules, "mtls"), service]);
    }
    for (name, listener) in entries(config, "by_name") {
        let (protocol, service) = match listener.as_str() {
            Some(absent) => (absent.to_owned(), String::new()),
            None => (text(listener, "protocol"), text(listener, "name")),
        };
        table.row([name.clone(), "outbound".to_owned(), protocol, String::new(), service]);
    }
    table
}

fn routes(config: &Value) -> Table {
    let mut table = Table::new(&["listener", "route", "match", "to", "timeout", "retry on", "retries"]);
    for (name, listener) in entries(config, "by_name") {
        let hosts = listener.get("routes").map(|routes| items(routes, "hosts")).unwrap_or_default();
        for route in hosts.iter().flat_map(|host| items(host, "routes")) {
            let retry = route.get("retry").unwrap_or(&Value::Null);
            let statuses = items(retry, "statuses").iter().map(|range| compact(range).replace(',', "-"));
            let on: Vec<_> = items(retry, "on").iter().map(compact).chain(statuses).collect();
            table.row([
                name.clone(),
                text(route, "name"),
                text(route, "path"),
                text(route, "action"),
                route.get("timeout_seconds").map_or_else(|| "none".to_owned(), |seconds| format!("{seconds} s")),
                on.join(","),
                text(retry, "limit"),
            ]);
        }
    }
    table
}

fn clusters(config: &Value) -> Table {
    let mut table = Table::new(&["cluster", "protocol", "http", "balancer", "connect", "endpoints", "healthy"]);
    for (name, cluster) in entries(config, "clusters") {
        let endpoints = items(cluster, "endpoints");
        let healthy = endpoints.iter().filter(|endpoint| text(endpoint, "health") == "healthy").count();
        table.row([
            name.clone(),
            text(cluster, "protocol"),
            text(cluster, "http"),
            text(cluster, "balancer"),
            format!("{} s", text(cluster, "connect_timeout_seconds")),
            endpoints.len().to_string(),
            healthy.to_string(),
        ]);
    }
    table
}

fn endpoints(config: &Value) -> Table {
    let mut table = Table::new(&["cluster", "address", "health", "priority", "weight", "zone", "workload", "identity"]);
    for (name, cluster) in entries(config, "clusters") {
        for endpoint in items(cluster, "endpoints") {
            let fields = ["address", "health", "priority", "weight", "zone", "workload", "identity"];
            table.row(std::iter::once(name.clone()).chain(fields.map(|field| text(endpoint, field))));
        }
    }
    table
}

fn certificate(certs: &Value) -> Table {
    let mut table = Table::new(&["identity", "serial", "valid from", "until", "roots", "bundle"]);
    if let Some(identity) = certs.get("identity").filter(|identity| !identity.is_null()) {
        let fields = ["spiffe_id", "serial", "not_before", "not_after", "roots", "bundle_hash"];
        table.row(fields.map(|field| text(identity, field)));
    }
    table
}

/// What DNS answers for names of the mesh; everything else is the nameservers' to answer.
fn names(dns: &Value) -> Table {
    let mut table = Table::new(&["name", "addresses"]);
    if dns.is_null() {
        return table.titled("DNS is not captured here: tulle.io/dns-capture, --dns-capture".to_owned());
    }
    for (name, addresses) in entries(dns, "names") {
        let addresses = if addresses == &json!([]) { "none".to_owned() } else { compact(addresses) };
        table.row([name.clone(), addresses]);
    }
    table
}

/// The entries of the object at `key`.
fn entries<'v>(value: &'v Value, key: &str) -> impl Iterator<Item = (&'v String, &'v Value)> {
    value.get(key).and_then(Value::as_object).into_iter().flatten()
}

/// The items of the array at `key`.
fn items<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The value at `key` for people; empty when there is none.
fn text(value: &Value, key: &str) -> String {
    value.get(key).map(compact).unwrap_or_default()
}

/// Texts without quotes, objects as `key value`, lists with commas.
fn compact(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(compact).collect::<Vec<_>>().join(","),
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| format!("{name} {}", compact(value));
            fields.iter().map(field).collect::<Vec<_>>().join(" ")
        }
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Value {
        json!({
            "generation": 7,
            "by_name": {
                "reviews.shop.svc.cluster.local:80": {
                    "name": "reviews.shop.svc.cluster.local:80",
                    "protocol": "http",
                    "routes": {"name": "r", "hosts": [{"name": "h", "domains": ["*"], "routes": [{
                        "name": "all",
                        "path": {"prefix": "/"},
                        "action": {"cluster": "reviews"},
                        "timeout_seconds": 1.5,
                        "retry": {"on": ["connect-failure"], "statuses": [[502, 504]], "limit": 2}
                    }]}]}
                },
                "gone.shop.svc.cluster.local:80": "absent"
            },
            "clusters": {"reviews": {
                "protocol": "http", "http": "as_downstream", "balancer": "random", "connect_timeout_seconds": 10.0,
                "endpoints": [{"address": "10.0.0.1:8080", "health": "healthy", "weight": 1, "priority": 0,
                    "identity": null, "workload": "reviews", "namespace": "shop", "zone": ""}]
            }},
            "inbound": {
                "ports": {"8080": {"protocol": "http", "mtls": "strict", "service": "web", "namespace": "shop"}},
                "default": {"protocol": "auto", "mtls": "permissive", "service": "", "namespace": ""}
            }
        })
    }

    fn pages() -> Pages {
        let names = json!({"a.shop.svc.cluster.local": ["10.96.0.1", "fd00::1"], "b": [], "c": "absent"});
        Pages { config: config(), certs: json!({"identity": null}), dns: json!({"names": names}) }
    }

    fn row(section: Section, starts: &str) -> Vec<String> {
        let lines = table(section, &pages()).lines();
        let line = lines.iter().find(|line| line.starts_with(starts)).unwrap_or_else(|| panic!("{lines:?}"));
        line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect()
    }

    #[test]
    fn tables_show_what_matters() {
        assert_eq!(row(Section::Listeners, "8080"), ["8080", "inbound", "http", "strict", "web.shop"]);
        assert_eq!(row(Section::Listeners, "gone")[2], "absent");
        let route = row(Section::Routes, "reviews");
        assert_eq!(route[1..], ["all", "prefix /", "cluster reviews", "1.5 s", "connect-failure,502-504", "2"]);
        assert_eq!(row(Section::Clusters, "reviews")[5..], ["1", "1"]);
        assert_eq!(row(Section::Endpoints, "reviews")[5..], ["-", "reviews", "-"]);
        assert_eq!(row(Section::Dns, "a.shop")[1..], ["10.96.0.1,fd00::1"]);
        assert_eq!((&*row(Section::Dns, "b")[1], &*row(Section::Dns, "c")[1]), ("none", "absent"));
    }

    #[test]
    fn unknown_shapes_are_shown_as_far_as_they_go() {
        let strange = json!({"clusters": [1], "by_name": 3});
        let pages = Pages { config: strange, certs: json!([]), dns: json!({"names": 1}) };
        for section in ALL {
            assert!(!table(section, &pages).lines().is_empty());
        }
    }

    #[test]
    fn json_is_cut_by_section() {
        let (name, endpoints) = part(Section::Endpoints, &pages());
        assert_eq!((name, endpoints["reviews"][0]["address"].as_str()), ("endpoints", Some("10.0.0.1:8080")));
        let (_, clusters) = part(Section::Clusters, &pages());
        assert_eq!(clusters["reviews"].get("endpoints"), None);
    }
}
