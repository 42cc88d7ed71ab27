//! DNS by redirect rules: a pod that knows no name finds services through its proxy, while its nameservers are dead.

use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::{Value, json};
use tulle_testing::netns::{self, Finished, Pod};

use crate::mesh::{Mesh, PAGE, SERVICE_V4, SERVICE_V6, curl};

const TOOLS: [&str; 6] = ["nft", "iptables-restore", "curl", "nginx", "getent", "env"];

/// What the kubelet writes; nobody is at these addresses.
const RESOLV_CONF: &str = "search shop.svc.cluster.local svc.cluster.local cluster.local\n\
                           nameserver 10.96.0.10\nnameserver fd96::10\noptions ndots:5\n";

/// Addresses of a name, as the C library of an application finds them; `options` as in resolv.conf.
fn addresses(pod: &Pod, database: &str, name: &str, options: &str) -> anyhow::Result<Finished> {
    pod.output("env", &[&format!("RES_OPTIONS={options}"), "getent", database, name])
}

fn services_without_nameservers(mode: &str) -> anyhow::Result<()> {
    if !netns::available(&TOOLS)? {
        return Ok(());
    }
    let mesh = Mesh::start_with(mode, "strict", Some(RESOLV_CONF))?;
    let client = &mesh.client;
    for name in ["web.shop.svc.cluster.local", "web", "web.shop", "web.shop.svc"] {
        // Over UDP, over TCP, and with EDNS.
        for options in ["attempts:2", "use-vc", "edns0"] {
            let found = addresses(client, "ahostsv4", name, options)?;
            ensure!(found.success && found.stdout.contains(SERVICE_V4), "{mode}: {name} {options}: {found:?}");
            let found = addresses(client, "ahostsv6", name, options)?;
            ensure!(found.success && found.stdout.contains(SERVICE_V6), "{mode}: {name} {options}: {found:?}");
        }
        let page = curl(client, &[&format!("http://{name}/")])?;
        ensure!(page.contains(PAGE), "{mode}: {name}: {page}");
    }
    // An error, not silence: the C library gives up in the time it takes for one unanswered question at most.
    let begun = Instant::now();
    let unknown = addresses(client, "ahosts", "www.example.com", "timeout:30")?;
    ensure!(!unknown.success && begun.elapsed() < Duration::from_secs(30), "{mode}: {unknown:?}");
    let dump = curl(client, &["http://127.0.0.1:15000/dns"])?;
    ensure!(dump.contains(&format!("web.shop.svc.cluster.local {SERVICE_V4} {SERVICE_V6}")), "{mode}: {dump}");
    let dump: Value = serde_json::from_str(&curl(client, &["http://127.0.0.1:15000/dns_dump"])?)?;
    let addresses = &dump["names"]["web.shop.svc.cluster.local"];
    ensure!(*addresses == json!([SERVICE_V4, SERVICE_V6]), "{mode}: {dump}");
    let metrics = curl(client, &["http://127.0.0.1:15020/metrics"])?;
    let count = |result: &str| {
        let line = format!("tulle_dns_requests_total{{result=\"{result}\"}} ");
        metrics.lines().find_map(|metric| metric.strip_prefix(&line)?.parse::<u64>().ok()).unwrap_or(0)
    };
    ensure!(count("mesh") > 0 && count("failed") > 0, "{mode}: {metrics}");
    Ok(())
}

#[test]
fn captured_by_nftables_services_are_found_while_nameservers_are_dead() -> anyhow::Result<()> {
    services_without_nameservers("nft")
}

#[test]
fn captured_by_iptables_services_are_found_while_nameservers_are_dead() -> anyhow::Result<()> {
    services_without_nameservers("iptables")
}
