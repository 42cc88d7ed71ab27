//! Clusters and endpoints as text, one endpoint a line, for eyes and `grep`.

use std::fmt::Write;

use super::metrics::health_name;
use crate::config::Snapshot;

/// All clusters, in the order of their names.
pub(super) fn text(snapshot: &Snapshot) -> String {
    let mut clusters: Vec<_> = snapshot.clusters.iter().collect();
    clusters.sort_by(|a, b| a.name.cmp(&b.name));
    let mut out = String::new();
    for cluster in clusters {
        if cluster.endpoints.list.is_empty() {
            line(&mut out, format_args!("{} no endpoints", cluster.name));
        }
        for endpoint in &cluster.endpoints.list {
            let (address, weight, priority) = (endpoint.address, endpoint.weight, endpoint.priority);
            let identity = endpoint.identity.as_ref().map_or("-", |id| id.as_str());
            let (name, health) = (&cluster.name, health_name(endpoint.health));
            let (namespace, workload) = (or_dash(&endpoint.namespace), or_dash(&endpoint.workload));
            let zone = or_dash(&endpoint.zone);
            line(
                &mut out,
                format_args!(
                    "{name} {address} {health} weight={weight} priority={priority} identity={identity} \
                     workload={namespace}/{workload} zone={zone}"
                ),
            );
        }
    }
    out
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{text}");
}
