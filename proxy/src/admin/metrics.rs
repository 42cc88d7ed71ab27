//! All metrics: those the workers count, and those of the control thread.

use std::time::{SystemTime, UNIX_EPOCH};

use super::AdminHandles;
use crate::config::Snapshot;
use crate::config::endpoint::Health;
use crate::config::status::Facts;
use crate::dns::counts::Outcome;
use crate::telemetry::exposition::{Exposition, Kind, Labels};

/// The whole text.
pub(super) fn render(handles: &AdminHandles) -> String {
    let mut out = Exposition::after(handles.telemetry.render());
    let snapshot = handles.snapshot.borrow().clone();
    config(&mut out, &snapshot);
    status(&mut out, &handles.status.facts(), handles.control.is_draining());
    if let Some(dns) = &handles.dns {
        out.family("tulle_dns_requests_total", Kind::Counter, "DNS questions by what became of them.");
        for outcome in Outcome::ALL {
            out.sample(&Labels::of(&[("result", outcome.as_str())]), dns.counts().of(outcome));
        }
    }
    let expiry = handles.keys.borrow().as_ref().map(|keys| keys.identity().svid.not_after());
    if let Some(expiry) = expiry {
        out.family("tulle_cert_expiry_timestamp_seconds", Kind::Gauge, "End of the certificate since the epoch.");
        out.sample(&Labels::default(), expiry.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs());
    }
    out.finish()
}

fn config(out: &mut Exposition, snapshot: &Snapshot) {
    let mut gauge = |name, help, value: usize| {
        out.family(name, Kind::Gauge, help);
        out.sample(&Labels::default(), value);
    };
    gauge("tulle_config_services", "Names known, the absent ones included.", snapshot.by_name.len());
    gauge("tulle_config_addresses", "Addresses known, the absent ones included.", snapshot.by_addr.len());
    gauge("tulle_config_clusters", "Clusters.", snapshot.clusters.len());
    out.family("tulle_endpoints", Kind::Gauge, "Endpoints of all clusters, by the control plane's word on them.");
    let endpoints = || snapshot.clusters.iter().flat_map(|cluster| &cluster.endpoints.list);
    for health in [Health::Healthy, Health::Draining, Health::Unhealthy] {
        let count = endpoints().filter(|endpoint| endpoint.health == health).count();
        out.sample(&Labels::of(&[("state", health_name(health))]), count);
    }
}

/// The label value, and the word in `/clusters` and `/config_dump`.
pub(super) const fn health_name(health: Health) -> &'static str {
    match health {
        Health::Healthy => "healthy",
        Health::Draining => "draining",
        Health::Unhealthy => "unhealthy",
    }
}

fn status(out: &mut Exposition, facts: &Facts, draining: bool) {
    let mut one = |name, kind, help, value: u64| {
        out.family(name, kind, help);
        out.sample(&Labels::default(), value);
    };
    let ready = facts.is_ready(SystemTime::now()) && !draining;
    one("tulle_ready", Kind::Gauge, "1 while the workload may receive traffic.", ready.into());
    one("tulle_draining", Kind::Gauge, "1 once draining has begun.", draining.into());
    one("tulle_xds_connected", Kind::Gauge, "1 while the discovery stream is up.", facts.connected.into());
    one("tulle_xds_streams_total", Kind::Counter, "Discovery streams that came up.", facts.streams);
    one("tulle_xds_accepted_total", Kind::Counter, "Discovery responses that were accepted.", facts.acks);
    one("tulle_xds_rejected_total", Kind::Counter, "Discovery responses refused, whole or in part.", facts.nacks);
    let help = "Destinations not asked for because there were too many.";
    one("tulle_xds_demands_refused_total", Kind::Counter, help, facts.demands_refused);
    let help = "Destinations and DNS names unsubscribed because nobody used them for 20 minutes.";
    one("tulle_xds_forgotten_total", Kind::Counter, help, facts.forgotten);
    let help = "1 while the configuration comes, in part at least, from the last-good file.";
    one("tulle_config_from_last_good", Kind::Gauge, help, facts.from_last_good.into());
    one("tulle_config_published_generation", Kind::Gauge, "Generation of the newest snapshot.", facts.generation);
}
