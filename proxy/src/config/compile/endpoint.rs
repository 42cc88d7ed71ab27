//! ClusterLoadAssignment -> [`Endpoints`].
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::unreachable
)]

use std::collections::HashSet;
use std::sync::Arc;

use tulle_identity::spiffe::SpiffeId;
use tulle_proto::envoy::config::core::v3::HealthStatus;
use tulle_proto::envoy::config::endpoint::v3 as eds;
use tulle_proto::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use tulle_proto::names;

use super::fields;
use crate::config::endpoint::{Endpoint, Endpoints, Health};
use crate::config::reject::{Fault, Within};

/// Highest priority number; Envoy's limit.
const LOWEST_PRIORITY: u32 = 128;

/// Endpoints, and what their assignment says about spilling to the next priority.
#[derive(Clone, Debug, Default)]
pub(super) struct Assignment {
    /// The endpoints.
    pub(super) endpoints: Arc<Endpoints>,
    /// Share of healthy endpoints below which a priority spills over; none: the cluster's.
    pub(super) threshold_percent: Option<u32>,
}

/// Compiles an assignment. An address that is listed twice counts once, as the first entry says.
///
/// # Errors
/// When an address is not an IP address and port, or is one that no endpoint may have (loopback, unless `loopback`), an identity is not a SPIFFE id, or a field asks for something that
/// would have to be ignored. An endpoint is never dialled without TLS because its identity could not be read.
pub(super) fn compile(assignment: &eds::ClusterLoadAssignment, loopback: bool) -> Result<Assignment, Fault> {
    let drops = assignment.policy.as_ref().is_some_and(|policy| !policy.drop_overloads.is_empty());
    fields::unset("policy.drop_overloads", drops)?;
    let mut seen = HashSet::new();
    let mut list = Vec::new();
    for (index, group) in assignment.endpoints.iter().enumerate() {
        locality(group, loopback, &mut seen, &mut list).within_item("endpoints", index)?;
    }
    // Envoy states the threshold as a factor in percent: a priority is full as long as factor x healthy share >= 100.
    let factor = assignment.policy.as_ref().and_then(|policy| policy.overprovisioning_factor);
    let threshold = factor.map(|factor| f64::from(10_000u32) / f64::from(factor.value.max(1)));
    Ok(Assignment { endpoints: Arc::new(Endpoints { list }), threshold_percent: threshold.map(percent) })
}

/// A share, rounded, at most 100.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=100")]
const fn percent(share: f64) -> u32 {
    share.clamp(0.0, 100.0).round() as u32
}

fn locality(
    group: &eds::LocalityLbEndpoints,
    loopback: bool,
    seen: &mut HashSet<std::net::SocketAddr>,
    list: &mut Vec<Arc<Endpoint>>,
) -> Result<(), Fault> {
    fields::unset("lb_config", group.lb_config.is_some())?;
    if group.priority > LOWEST_PRIORITY {
        return Err(Fault::new("priority", "is above 128"));
    }
    let zone: Arc<str> = group.locality.as_ref().map_or("", |locality| locality.zone.as_str()).into();
    for (index, entry) in group.lb_endpoints.iter().enumerate() {
        let endpoint = endpoint(entry, group.priority, &zone)
            .and_then(|endpoint| fit(endpoint, loopback))
            .within_item("lb_endpoints", index)?;
        if seen.insert(endpoint.address) {
            list.push(Arc::new(endpoint));
        }
    }
    Ok(())
}

fn endpoint(entry: &eds::LbEndpoint, priority: u32, zone: &Arc<str>) -> Result<Endpoint, Fault> {
    let Some(HostIdentifier::Endpoint(host)) = &entry.host_identifier else {
        return Err(Fault::missing("endpoint"));
    };
    let address = fields::socket(host.address.as_ref())
        .within("endpoint.address")?
        .filter(|address| address.port() != 0 && !address.ip().is_unspecified())
        .ok_or_else(|| Fault::missing("endpoint.address"))?;
    let metadata = entry.metadata.as_ref();
    let identity = fields::text(metadata, names::META_IDENTITY)?.map(SpiffeId::parse).transpose().map_err(|error| {
        Fault::new(format!("metadata[{}].identity", names::METADATA), format!("is no SPIFFE id: {error}"))
    })?;
    Ok(Endpoint {
        address,
        health: health(entry.health_status)?,
        weight: entry.load_balancing_weight.as_ref().map_or(1, |weight| weight.value.max(1)),
        priority,
        identity,
        workload: fields::label(metadata, names::META_WORKLOAD)?,
        namespace: fields::label(metadata, names::META_NAMESPACE)?,
        zone: Arc::clone(zone),
    })
}

/// Refuses an endpoint at an address that leads back to the proxy or to nobody in particular.
fn fit(endpoint: Endpoint, loopback: bool) -> Result<Endpoint, Fault> {
    match tulle_proto::endpoint::unfit(endpoint.address.ip(), loopback) {
        Some(reason) => Err(Fault::new("endpoint.address", format!("{} {reason}", endpoint.address))),
        None => Ok(endpoint),
    }
}

fn health(status: i32) -> Result<Health, Fault> {
    match HealthStatus::try_from(status) {
        Ok(HealthStatus::Unknown | HealthStatus::Healthy) => Ok(Health::Healthy),
        // Degraded: used when there are not enough healthy ones, which is what Draining means to the balancer.
        Ok(HealthStatus::Draining | HealthStatus::Degraded) => Ok(Health::Draining),
        Ok(HealthStatus::Unhealthy | HealthStatus::Timeout) => Ok(Health::Unhealthy),
        Err(_) => Err(Fault::new("health_status", "is not a known status")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::compile::samples;

    #[test]
    fn hostile_06_endpoints_that_lead_back_to_the_caller_are_refused() {
        let refused = |address: &str, loopback| {
            compile(&samples::endpoints("a", &["10.0.0.1:80", address]), loopback).err().map(|fault| fault.to_string())
        };
        for address in
            ["169.254.169.254:80", "[::ffff:169.254.169.254]:80", "[fe80::1]:80", "224.0.0.1:80", "[ff02::1]:80"]
        {
            let path = "endpoints[0].lb_endpoints[1].endpoint.address";
            assert!(refused(address, true).is_some_and(|fault| fault.starts_with(path)), "{address}");
            assert!(refused(address, false).is_some(), "{address}");
        }
        for address in ["127.0.0.1:15000", "127.8.8.8:80", "[::1]:80", "[::ffff:127.0.0.1]:80"] {
            assert!(refused(address, false).is_some_and(|fault| fault.contains("loopback")), "{address}");
            assert_eq!(refused(address, true), None, "{address} on a machine that all share");
        }
        assert_eq!(refused("10.0.0.2:80", false), None);
    }
}
