//! Clusters: how connections to a service port are made, shared and limited.

use std::sync::Arc;
use std::time::Duration;

use tulle_proto::envoy::config::cluster::v3::circuit_breakers::{Thresholds, thresholds};
use tulle_proto::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, CommonLbConfig, DiscoveryType, EdsClusterConfig, LbPolicy, TransportSocketMatch,
};
use tulle_proto::envoy::config::cluster::v3::{CircuitBreakers, Cluster, OutlierDetection};
use tulle_proto::envoy::config::core::v3::{
    Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions as CommonHttpOptions,
};
use tulle_proto::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, SdsSecretConfig, SubjectAltNameMatcher, TlsParameters,
    UpstreamTlsContext, common_tls_context as tls, subject_alt_name_matcher, tls_parameters,
};
use tulle_proto::envoy::extensions::upstreams::http::v3::{
    HttpProtocolOptions, http_protocol_options as options, http_protocol_options::explicit_http_config,
};
use tulle_proto::envoy::r#type::matcher::v3::{StringMatcher, string_matcher};
use tulle_proto::envoy::r#type::v3::Percent;
use tulle_proto::names::{ALPN_MESH, ALPN_MESH_H2, CLIENT_CERTIFICATE, META_NAMESPACE, META_SERVICE, TRUST_BUNDLE};

use super::inbound::{alpn, tls_socket};
use super::input::{Naming, Subject};
use super::listener::PROTOCOL;
use super::scope::ClientKind;
use super::wire;
use crate::model::policy::{LoadBalancer, Outlier, RetryBudget};
use crate::model::{Port, Protocol};

/// What Envoy matches between an endpoint and a transport socket.
pub(super) const TLS_MODE: (&str, &str) = ("tlsMode", "mtls");

/// Key of HTTP options in a cluster.
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// A cluster for one kind of client.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ClusterInput {
    name: Arc<str>,
    service: Arc<str>,
    namespace: Arc<str>,
    port: Port,
    protocol: Protocol,
    load_balancer: LoadBalancer,
    connect_timeout: Duration,
    idle_timeout: Option<Duration>,
    max_connections: u32,
    max_pending: u32,
    max_requests: u32,
    retry_budget: RetryBudget,
    outlier: Option<Outlier>,
    /// Identities a peer may have; only for Envoy, which has them here rather than with the endpoint.
    identities: Vec<Arc<str>>,
    /// Envoy sends requests to unhealthy endpoints when fewer than half are healthy, unless it is told not to.
    without_panic: bool,
}

pub(super) fn input(client: ClientKind, naming: &Naming, name: Arc<str>, subject: &Subject) -> ClusterInput {
    let policy = &subject.policy;
    let accounts = subject.accounts.iter().filter(|_| client == ClientKind::Envoy);
    ClusterInput {
        name,
        service: subject.service.as_ref().map_or_else(|| "".into(), |key| key.name.clone()),
        namespace: subject.namespace.clone(),
        port: subject.port,
        protocol: subject.protocol,
        load_balancer: match client {
            // The one policy every gRPC library has.
            ClientKind::Grpc => LoadBalancer::RoundRobin,
            ClientKind::Tulle | ClientKind::Envoy => policy.load_balancer(),
        },
        connect_timeout: policy.connect_timeout(),
        idle_timeout: policy.idle_timeout,
        max_connections: policy.max_connections(),
        max_pending: policy.max_pending(),
        max_requests: policy.max_requests(),
        retry_budget: policy.retry_budget(),
        // gRPC libraries know other kinds of it only.
        outlier: policy.outlier().filter(|_| client != ClientKind::Grpc),
        identities: accounts.filter_map(|account| naming.identity(account)).collect(),
        without_panic: client == ClientKind::Envoy,
    }
}

impl ClusterInput {
    pub(super) fn build(&self) -> Cluster {
        let lb_policy = match self.load_balancer {
            LoadBalancer::LeastRequest => LbPolicy::LeastRequest,
            LoadBalancer::RoundRobin => LbPolicy::RoundRobin,
            LoadBalancer::Random => LbPolicy::Random,
        };
        let port = self.port.to_string();
        Cluster {
            name: self.name.to_string(),
            cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
            eds_cluster_config: Some(EdsClusterConfig {
                eds_config: Some(wire::ads()),
                service_name: self.name.to_string(),
            }),
            connect_timeout: Some(wire::duration(self.connect_timeout)),
            lb_policy: lb_policy.into(),
            common_lb_config: self.without_panic.then(|| CommonLbConfig {
                healthy_panic_threshold: Some(Percent { value: 0.0 }),
                ..CommonLbConfig::default()
            }),
            circuit_breakers: Some(self.circuit_breakers()),
            outlier_detection: self.outlier.map(outlier_detection),
            typed_extension_protocol_options: self.http_options().into_iter().collect(),
            transport_socket_matches: self.transport_sockets(),
            metadata: Some(wire::metadata([
                (META_SERVICE, &*self.service),
                (META_NAMESPACE, &*self.namespace),
                ("port", &*port),
                (PROTOCOL, self.protocol.name()),
            ])),
            ..Cluster::default()
        }
    }

    fn circuit_breakers(&self) -> CircuitBreakers {
        let thresholds = Thresholds {
            max_connections: Some(wire::number(self.max_connections)),
            max_pending_requests: Some(wire::number(self.max_pending)),
            max_requests: Some(wire::number(self.max_requests)),
            retry_budget: Some(thresholds::RetryBudget {
                budget_percent: Some(Percent { value: self.retry_budget.percent.into() }),
                min_retry_concurrency: Some(wire::number(self.retry_budget.min)),
                ..thresholds::RetryBudget::default()
            }),
            ..Thresholds::default()
        };
        CircuitBreakers { thresholds: vec![thresholds], ..CircuitBreakers::default() }
    }

    fn http_options(&self) -> Option<(String, tulle_proto::google::protobuf::Any)> {
        let upstream = match self.protocol {
            // Nothing to say but the idle timeout, which Tulle applies to opaque connections as well.
            Protocol::Tls | Protocol::Tcp if self.idle_timeout.is_none() => return None,
            Protocol::Http2 | Protocol::Grpc => {
                let http2 = explicit_http_config::ProtocolConfig::Http2ProtocolOptions(Http2ProtocolOptions::default());
                options::UpstreamProtocolOptions::ExplicitHttpConfig(options::ExplicitHttpConfig {
                    protocol_config: Some(http2),
                })
            }
            Protocol::Http | Protocol::Auto | Protocol::Tls | Protocol::Tcp => {
                options::UpstreamProtocolOptions::UseDownstreamProtocolConfig(options::UseDownstreamHttpConfig {
                    http_protocol_options: Some(Http1ProtocolOptions::default()),
                    http2_protocol_options: Some(Http2ProtocolOptions::default()),
                    http3_protocol_options: None,
                })
            }
        };
        let common = self.idle_timeout.map(|timeout| CommonHttpOptions {
            idle_timeout: Some(wire::duration(timeout)),
            ..CommonHttpOptions::default()
        });
        let message = HttpProtocolOptions {
            upstream_protocol_options: Some(upstream),
            common_http_protocol_options: common,
            ..Default::default()
        };
        Some((HTTP_OPTIONS.to_owned(), wire::any(&message)))
    }

    /// Mutual TLS to endpoints that say they are meshed. Without an identity to expect there is no match at all: an
    /// empty list would accept anybody.
    fn transport_sockets(&self) -> Vec<TransportSocketMatch> {
        if self.identities.is_empty() {
            return Vec::new();
        }
        // One token says 'mesh' for every protocol; HTTP/2 is named where it is certain.
        let token = match self.protocol {
            Protocol::Http2 | Protocol::Grpc => ALPN_MESH_H2,
            Protocol::Http | Protocol::Auto | Protocol::Tls | Protocol::Tcp => ALPN_MESH,
        };
        let version = i32::from(tls_parameters::TlsProtocol::TlSv13);
        let secret = |name: &str| SdsSecretConfig { name: name.to_owned(), sds_config: None };
        let validation = tls::CombinedCertificateValidationContext {
            default_validation_context: Some(CertificateValidationContext {
                match_typed_subject_alt_names: self.identities.iter().map(|id| exactly(id)).collect(),
                ..CertificateValidationContext::default()
            }),
            validation_context_sds_secret_config: Some(SdsSecretConfig {
                sds_config: Some(wire::ads()),
                ..secret(TRUST_BUNDLE)
            }),
            ..Default::default()
        };
        let context = UpstreamTlsContext {
            common_tls_context: Some(CommonTlsContext {
                tls_params: Some(TlsParameters {
                    tls_minimum_protocol_version: version,
                    tls_maximum_protocol_version: version,
                    ..TlsParameters::default()
                }),
                alpn_protocols: alpn(&[token]),
                // A static secret of Envoy's bootstrap: private keys are never sent.
                tls_certificate_sds_secret_configs: vec![secret(CLIENT_CERTIFICATE)],
                validation_context_type: Some(tls::ValidationContextType::CombinedValidationContext(validation)),
                ..CommonTlsContext::default()
            }),
            ..UpstreamTlsContext::default()
        };
        vec![TransportSocketMatch {
            name: "mtls".to_owned(),
            r#match: Some(wire::fields([TLS_MODE])),
            transport_socket: Some(tls_socket(&context)),
        }]
    }
}

/// Consecutive failures alone: what Envoy watches beside them by default is switched off.
fn outlier_detection(outlier: Outlier) -> OutlierDetection {
    let enforced = |count: u32| Some(wire::number(if count > 0 { 100 } else { 0 }));
    let count = |count: u32| (count > 0).then(|| wire::number(count));
    OutlierDetection {
        consecutive_5xx: count(outlier.consecutive_5xx),
        enforcing_consecutive_5xx: enforced(outlier.consecutive_5xx),
        consecutive_gateway_failure: count(outlier.consecutive_gateway),
        enforcing_consecutive_gateway_failure: enforced(outlier.consecutive_gateway),
        enforcing_success_rate: Some(wire::number(0)),
        interval: Some(wire::duration(outlier.interval)),
        base_ejection_time: Some(wire::duration(outlier.base)),
        max_ejection_time: Some(wire::duration(outlier.longest)),
        max_ejection_percent: Some(wire::number(outlier.max_ejected)),
        ..OutlierDetection::default()
    }
}

fn exactly(identity: &str) -> SubjectAltNameMatcher {
    SubjectAltNameMatcher {
        san_type: subject_alt_name_matcher::SanType::Uri.into(),
        matcher: Some(StringMatcher {
            match_pattern: Some(string_matcher::MatchPattern::Exact(identity.to_owned())),
            ..StringMatcher::default()
        }),
        ..SubjectAltNameMatcher::default()
    }
}
