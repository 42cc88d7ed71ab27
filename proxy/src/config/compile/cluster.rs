//! Cluster -> [`Cluster`], still without its endpoints.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::unreachable
)]

use std::sync::Arc;
use std::time::Duration;

use tulle_proto::envoy::config::cluster::v3 as cds;
use tulle_proto::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType, LbPolicy};
use tulle_proto::envoy::extensions::upstreams::http::v3 as upstream;
use tulle_proto::envoy::extensions::upstreams::http::v3::http_protocol_options::UpstreamProtocolOptions;
use tulle_proto::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use tulle_proto::google::protobuf::UInt32Value;
use tulle_proto::names;

use super::endpoint::{self, Assignment};
use super::fields;
use crate::base::protocol::Protocol;
use crate::config::cluster::{Cluster, HttpVersion, Limits, Outlier, Policy, RetryBudget};
use crate::config::reject::{Fault, Within};

/// Key of the HTTP options in `typed_extension_protocol_options`.
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// Connect timeout of a cluster that names none; Envoy's default.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Idle timeout of a cluster that names none (vocabulary: `idle-timeout`).
const IDLE_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// Share of healthy endpoints below which a priority spills over (vocabulary: `failover-threshold`); 100/1.4, Envoy's
/// overprovisioning factor, rounded down.
const FAILOVER_THRESHOLD_PERCENT: u32 = 70;

/// A cluster, and where its endpoints are.
#[derive(Debug)]
pub(super) struct ClusterSpec {
    /// The cluster; of its endpoints it has only those that came with it.
    pub(super) cluster: Cluster,
    /// Name of the ClusterLoadAssignment; none when the endpoints came with the cluster.
    pub(super) assignment: Option<Arc<str>>,
}

/// A cluster that does not exist: it is known by name and has no endpoints.
pub(super) fn nonexistent(name: &Arc<str>) -> Cluster {
    Cluster {
        name: Arc::clone(name),
        service: "".into(),
        namespace: "".into(),
        protocol: Protocol::Auto,
        http: HttpVersion::AsDownstream,
        balancer: Policy::LeastRequest,
        connect_timeout: CONNECT_TIMEOUT,
        idle_timeout: IDLE_TIMEOUT,
        limits: Limits::default(),
        budget: RetryBudget::default(),
        failover_threshold_percent: FAILOVER_THRESHOLD_PERCENT,
        outlier: None,
        endpoints: Arc::default(),
    }
}

/// Compiles a cluster.
///
/// # Errors
/// When it says nothing about where its endpoints are, or a field asks for something that would have to be ignored:
/// above all a transport socket, for this proxy takes each endpoint's identity from the endpoint.
pub(super) fn compile(cluster: &cds::Cluster, loopback: bool) -> Result<ClusterSpec, Fault> {
    fields::unset("transport_socket", cluster.transport_socket.is_some())?;
    fields::unset("transport_socket_matches", !cluster.transport_socket_matches.is_empty())?;
    fields::unset("load_balancing_policy", cluster.load_balancing_policy.is_some())?;
    fields::unset("lb_subset_config", cluster.lb_subset_config.is_some())?;
    let (assignment, inline) = discovery(cluster, loopback)?;
    let metadata = cluster.metadata.as_ref();
    let protocol = match fields::text(metadata, "protocol")? {
        None => Protocol::Auto,
        Some(name) => {
            Protocol::from_name(name).ok_or_else(|| Fault::new("metadata[tulle.io].protocol", "is unknown"))?
        }
    };
    let (http, idle_timeout) = http_options(cluster)?;
    let (limits, budget) = breakers(cluster)?;
    let compiled = Cluster {
        name: cluster.name.as_str().into(),
        service: fields::label(metadata, names::META_SERVICE)?,
        namespace: fields::label(metadata, names::META_NAMESPACE)?,
        protocol,
        http,
        balancer: balancer(cluster)?,
        connect_timeout: fields::nonzero(cluster.connect_timeout.as_ref(), "connect_timeout")?
            .unwrap_or(CONNECT_TIMEOUT),
        idle_timeout: idle_timeout.unwrap_or(IDLE_TIMEOUT),
        limits,
        budget,
        failover_threshold_percent: inline.threshold_percent.unwrap_or(FAILOVER_THRESHOLD_PERCENT),
        outlier: outlier(cluster).within("outlier_detection")?,
        endpoints: inline.endpoints,
    };
    Ok(ClusterSpec { cluster: compiled, assignment })
}

fn discovery(cluster: &cds::Cluster, loopback: bool) -> Result<(Option<Arc<str>>, Assignment), Fault> {
    let Some(ClusterDiscoveryType::Type(number)) = cluster.cluster_discovery_type else {
        return Err(Fault::unsupported("cluster_type"));
    };
    match DiscoveryType::try_from(number) {
        Ok(DiscoveryType::Eds) => {
            let eds = cluster.eds_cluster_config.as_ref().ok_or_else(|| Fault::missing("eds_cluster_config"))?;
            let name = if eds.service_name.is_empty() { &cluster.name } else { &eds.service_name };
            Ok((Some(name.as_str().into()), Assignment::default()))
        }
        Ok(DiscoveryType::Static) => {
            let assignment = cluster.load_assignment.as_ref().ok_or_else(|| Fault::missing("load_assignment"))?;
            Ok((None, endpoint::compile(assignment, loopback).within("load_assignment")?))
        }
        Ok(DiscoveryType::StrictDns | DiscoveryType::LogicalDns | DiscoveryType::OriginalDst) | Err(_) => {
            Err(Fault::new("type", "is neither EDS nor STATIC"))
        }
    }
}

fn balancer(cluster: &cds::Cluster) -> Result<Policy, Fault> {
    match LbPolicy::try_from(cluster.lb_policy) {
        Ok(LbPolicy::RoundRobin) => Ok(Policy::RoundRobin),
        Ok(LbPolicy::LeastRequest) => Ok(Policy::LeastRequest),
        Ok(LbPolicy::Random) => Ok(Policy::Random),
        Ok(LbPolicy::RingHash | LbPolicy::Maglev | LbPolicy::ClusterProvided | LbPolicy::LoadBalancingPolicyConfig)
        | Err(_) => Err(Fault::new("lb_policy", "is none of ROUND_ROBIN, LEAST_REQUEST, RANDOM")),
    }
}

/// HTTP version and idle timeout. Without options: HTTP/1.1, as the API says.
fn http_options(cluster: &cds::Cluster) -> Result<(HttpVersion, Option<Duration>), Fault> {
    let Some(any) = cluster.typed_extension_protocol_options.get(HTTP_OPTIONS) else {
        return Ok((HttpVersion::Http1, None));
    };
    let field = "typed_extension_protocol_options";
    let options: upstream::HttpProtocolOptions = fields::unpack(Some(any), field)?;
    let version = match &options.upstream_protocol_options {
        Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(_)) => HttpVersion::AsDownstream,
        Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)) => match &explicit.protocol_config {
            Some(ProtocolConfig::HttpProtocolOptions(_)) => HttpVersion::Http1,
            Some(ProtocolConfig::Http2ProtocolOptions(_)) => HttpVersion::Http2,
            Some(ProtocolConfig::Http3ProtocolOptions(_)) | None => {
                return Err(Fault::unsupported("explicit_http_config")).within(field);
            }
        },
        Some(UpstreamProtocolOptions::AutoConfig(_)) | None => {
            return Err(Fault::unsupported("upstream_protocol_options")).within(field);
        }
    };
    let common = options.common_http_protocol_options.as_ref();
    let idle = fields::nonzero(common.and_then(|c| c.idle_timeout.as_ref()), "idle_timeout").within(field)?;
    Ok((version, idle))
}

/// Consecutive failures only; what is not named has Envoy's default. Success rates and failure percentages are not
/// watched: they need more requests than one worker sees of an endpoint.
fn outlier(cluster: &cds::Cluster) -> Result<Option<Outlier>, Fault> {
    let Some(wanted) = &cluster.outlier_detection else { return Ok(None) };
    let number = |value: &Option<UInt32Value>, default: u32| value.as_ref().map_or(default, |v| v.value);
    let count = |count, enforced| if enforced == 0 { 0 } else { count };
    let server_errors = count(number(&wanted.consecutive_5xx, 5), number(&wanted.enforcing_consecutive_5xx, 100));
    let gateway_errors =
        count(number(&wanted.consecutive_gateway_failure, 5), number(&wanted.enforcing_consecutive_gateway_failure, 0));
    let max_percent = number(&wanted.max_ejection_percent, 10);
    if max_percent > 100 {
        return Err(Fault::new("max_ejection_percent", "is above 100"));
    }
    let base =
        fields::nonzero(wanted.base_ejection_time.as_ref(), "base_ejection_time")?.unwrap_or(Duration::from_secs(30));
    let longest =
        fields::nonzero(wanted.max_ejection_time.as_ref(), "max_ejection_time")?.unwrap_or(Duration::from_secs(300));
    let settings = Outlier { server_errors, gateway_errors, base, longest: longest.max(base), max_percent };
    Ok((server_errors > 0 || gateway_errors > 0).then_some(settings))
}

/// Circuit breakers of the default priority; what they do not name has the default of [`Limits`].
fn breakers(cluster: &cds::Cluster) -> Result<(Limits, RetryBudget), Fault> {
    let (mut limits, mut budget) = (Limits::default(), RetryBudget::default());
    let thresholds = cluster.circuit_breakers.iter().flat_map(|b| &b.thresholds).find(|t| t.priority == 0);
    let Some(thresholds) = thresholds else { return Ok((limits, budget)) };
    let limit = |value: &Option<UInt32Value>, default: u32| value.as_ref().map_or(default, |v| v.value);
    limits.max_connections = limit(&thresholds.max_connections, limits.max_connections);
    limits.max_pending = limit(&thresholds.max_pending_requests, limits.max_pending);
    limits.max_requests = limit(&thresholds.max_requests, limits.max_requests);
    if let Some(wanted) = &thresholds.retry_budget {
        budget.percent = wanted.budget_percent.as_ref().map_or(budget.percent, |percent| percent.value);
        if !(0.0..=100.0).contains(&budget.percent) {
            return Err(Fault::new("circuit_breakers.retry_budget.budget_percent", "is not within 0..=100"));
        }
        budget.min_per_second = limit(&wanted.min_retry_concurrency, budget.min_per_second);
    }
    Ok((limits, budget))
}
