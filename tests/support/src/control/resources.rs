//! Resources in the shape the control plane gives them to Tulle's proxies, for tests that need no control plane.

use std::collections::HashMap;

use envoy::config::cluster::v3::{self as cds, cluster};
use envoy::config::core::v3 as core;
use envoy::config::endpoint::v3 as eds;
use envoy::config::listener::v3 as lds;
use envoy::config::route::v3 as rds;
use envoy::extensions::filters::http::router::v3::Router;
use envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager as manager;
use envoy::extensions::filters::network::tcp_proxy::v3 as tcp;
use envoy::extensions::transport_sockets::tls::v3 as tls;
use google::protobuf::value::Kind;
use google::protobuf::{BoolValue, Struct, UInt32Value, Value};
use prost::Name;
use tulle_proto::{envoy, google, names};

/// A port of a service, as `name.namespace.svc.cluster.local:port`.
#[derive(Debug, Clone)]
pub struct Service {
    name: String,
    protocol: &'static str,
    endpoints: Vec<Endpoint>,
    addresses: Vec<String>,
    connect_timeout: std::time::Duration,
    retry: Option<rds::RetryPolicy>,
    policy: cluster::LbPolicy,
    outlier: Option<cds::OutlierDetection>,
    limits: Option<cds::circuit_breakers::Thresholds>,
}

/// One endpoint of a service.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Its address.
    pub address: std::net::SocketAddr,
    /// SPIFFE id it must present; none: it is dialled in plain.
    pub identity: Option<String>,
    /// Priority: 0 is used first.
    pub priority: u32,
    /// Zone, if any.
    pub zone: String,
    /// Share of the traffic among endpoints of one priority.
    pub weight: u32,
    /// Health as discovery tells it.
    pub health: core::HealthStatus,
}

impl Endpoint {
    /// A healthy plain endpoint of the first priority.
    pub fn at(address: std::net::SocketAddr) -> Self {
        let health = core::HealthStatus::Healthy;
        Self { address, identity: None, priority: 0, zone: String::new(), weight: 1, health }
    }
}

impl Service {
    /// A port whose protocol is declared as HTTP.
    pub fn http(name: &str) -> Self {
        Self::new(name, "http")
    }

    /// A port of HTTP/2 with prior knowledge.
    pub fn http2(name: &str) -> Self {
        Self::new(name, "http2")
    }

    /// A port of gRPC.
    pub fn grpc(name: &str) -> Self {
        Self::new(name, "grpc")
    }

    /// A port of opaque bytes.
    pub fn tcp(name: &str) -> Self {
        Self::new(name, "tcp")
    }

    /// A port that says nothing of its protocol.
    pub fn auto(name: &str) -> Self {
        Self::new(name, "auto")
    }

    fn new(name: &str, protocol: &'static str) -> Self {
        Self {
            name: name.to_owned(),
            protocol,
            endpoints: Vec::new(),
            addresses: Vec::new(),
            connect_timeout: std::time::Duration::from_secs(10),
            retry: None,
            policy: cluster::LbPolicy::LeastRequest,
            outlier: None,
            limits: None,
        }
    }

    /// Adds a healthy endpoint of the first priority; with an identity, mesh TLS is used.
    pub fn endpoint(self, address: &str, identity: Option<&str>) -> Self {
        let address = address.parse().unwrap_or_else(|_| panic!("{address:?} is no address with a port"));
        self.with(Endpoint { identity: identity.map(str::to_owned), ..Endpoint::at(address) })
    }

    /// Adds any endpoint.
    pub fn with(mut self, endpoint: Endpoint) -> Self {
        self.endpoints.push(endpoint);
        self
    }

    /// Makes the service known by `ip:port` too.
    pub fn address(mut self, address: &str) -> Self {
        self.addresses.push(address.to_owned());
        self
    }

    /// Sets the connect timeout; 10 s otherwise.
    pub fn connect_timeout(mut self, timeout: std::time::Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets the retry policy: `retry_on` in Envoy's words, and how many.
    pub fn retry(mut self, retry_on: &str, count: u32) -> Self {
        let num_retries = Some(UInt32Value { value: count });
        self.retry = Some(rds::RetryPolicy { retry_on: retry_on.to_owned(), num_retries, ..Default::default() });
        self
    }

    /// Sets the balancing policy; least request otherwise.
    pub fn balance(mut self, policy: cluster::LbPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Leaves endpoints alone for `time` that failed `consecutive` times in a row, half of them at once at most.
    pub fn outlier(mut self, consecutive: u32, time: std::time::Duration) -> Self {
        let number = |value: u32| Some(UInt32Value { value });
        let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        self.outlier = Some(cds::OutlierDetection {
            consecutive_5xx: number(consecutive),
            base_ejection_time: Some(google::protobuf::Duration { seconds, nanos: 0 }),
            max_ejection_percent: number(50),
            ..Default::default()
        });
        self
    }

    /// Sets the circuit breakers: connections, requests that wait for one, requests in flight.
    pub fn limits(mut self, connections: u32, pending: u32, requests: u32) -> Self {
        let number = |value: u32| Some(UInt32Value { value });
        self.limits = Some(cds::circuit_breakers::Thresholds {
            max_connections: number(connections),
            max_pending_requests: number(pending),
            max_requests: number(requests),
            ..Default::default()
        });
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Addresses it is known by.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Name of the service and its namespace, from the full name.
    fn labels(&self) -> (&str, &str) {
        let mut parts = self.name.split('.');
        (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
    }

    fn metadata(&self) -> Option<core::Metadata> {
        let (service, namespace) = self.labels();
        metadata(&[(names::META_SERVICE, service), (names::META_NAMESPACE, namespace), ("protocol", self.protocol)])
    }

    /// Its Listener.
    pub fn listener(&self) -> lds::Listener {
        let address = self.addresses.first().and_then(|a| a.parse().ok()).map(socket_address);
        let http = (self.protocol != "tcp").then(|| {
            let routes = hcm::Rds { config_source: ads(), route_config_name: self.name.clone() };
            let specifier = manager::RouteSpecifier::Rds(routes);
            lds::ApiListener { api_listener: Some(pack(&connection_manager(self.protocol, specifier))) }
        });
        let opaque = ["tcp", "auto"].contains(&self.protocol);
        lds::Listener {
            name: self.name.clone(),
            address,
            api_listener: http,
            filter_chains: opaque.then(|| chain_of(tcp_filter(&self.name))).into_iter().collect(),
            metadata: self.metadata(),
            ..Default::default()
        }
    }

    /// Its RouteConfiguration: everything to the cluster of the same name.
    pub fn routes(&self) -> rds::RouteConfiguration {
        routes_to(&self.name, &self.name, self.retry.clone())
    }

    /// Its Cluster.
    pub fn cluster(&self) -> cds::Cluster {
        let timeout = google::protobuf::Duration {
            seconds: i64::try_from(self.connect_timeout.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(self.connect_timeout.subsec_nanos()).unwrap_or(0),
        };
        cds::Cluster {
            name: self.name.clone(),
            cluster_discovery_type: Some(cluster::ClusterDiscoveryType::Type(cluster::DiscoveryType::Eds.into())),
            eds_cluster_config: Some(cluster::EdsClusterConfig { eds_config: ads(), service_name: self.name.clone() }),
            connect_timeout: Some(timeout),
            lb_policy: self.policy.into(),
            outlier_detection: self.outlier.clone(),
            circuit_breakers: self
                .limits
                .map(|limits| cds::CircuitBreakers { thresholds: vec![limits], ..Default::default() }),
            metadata: self.metadata(),
            typed_extension_protocol_options: HashMap::from([(HTTP_OPTIONS.to_owned(), self.http_options())]),
            ..Default::default()
        }
    }

    fn http_options(&self) -> google::protobuf::Any {
        use envoy::extensions::upstreams::http::v3::http_protocol_options as options;
        let upstream = if ["http2", "grpc"].contains(&self.protocol) {
            let http2 = options::explicit_http_config::ProtocolConfig::Http2ProtocolOptions(Default::default());
            let explicit = options::ExplicitHttpConfig { protocol_config: Some(http2) };
            options::UpstreamProtocolOptions::ExplicitHttpConfig(explicit)
        } else {
            options::UpstreamProtocolOptions::UseDownstreamProtocolConfig(Default::default())
        };
        pack(&envoy::extensions::upstreams::http::v3::HttpProtocolOptions {
            upstream_protocol_options: Some(upstream),
            ..Default::default()
        })
    }

    /// Its ClusterLoadAssignment.
    pub fn endpoints(&self) -> eds::ClusterLoadAssignment {
        let namespace = self.labels().1;
        let localities = self.endpoints.iter().map(|endpoint| eds::LocalityLbEndpoints {
            locality: Some(core::Locality { zone: endpoint.zone.clone(), ..Default::default() }),
            lb_endpoints: vec![lb_endpoint(endpoint, namespace)],
            load_balancing_weight: Some(UInt32Value { value: endpoint.weight }),
            priority: endpoint.priority,
            ..Default::default()
        });
        let mut merged: Vec<eds::LocalityLbEndpoints> = Vec::new();
        for next in localities {
            // A zone is listed once in each priority.
            match merged.iter_mut().find(|seen| seen.locality == next.locality && seen.priority == next.priority) {
                Some(seen) => seen.lb_endpoints.extend(next.lb_endpoints),
                None => merged.push(next),
            }
        }
        eds::ClusterLoadAssignment { cluster_name: self.name.clone(), endpoints: merged, ..Default::default() }
    }
}

/// Key of a cluster's HTTP options.
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

fn lb_endpoint(endpoint: &Endpoint, namespace: &str) -> eds::LbEndpoint {
    let address = Some(socket_address(endpoint.address));
    let host = eds::lb_endpoint::HostIdentifier::Endpoint(eds::Endpoint { address, ..Default::default() });
    let identity = endpoint.identity.as_deref().map(|id| (names::META_IDENTITY, id));
    let fields: Vec<_> = identity.into_iter().chain([(names::META_NAMESPACE, namespace)]).collect();
    eds::LbEndpoint {
        health_status: endpoint.health.into(),
        metadata: metadata(&fields),
        load_balancing_weight: Some(UInt32Value { value: endpoint.weight }),
        host_identifier: Some(host),
    }
}

/// Who may connect to a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mtls {
    /// Mesh TLS only.
    Strict,
    /// Mesh TLS and plain.
    Permissive,
    /// Plain only.
    Disable,
}

impl Mtls {
    const fn name(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Permissive => "permissive",
            Self::Disable => "disable",
        }
    }
}

/// The listener a workload's proxy receives with.
#[derive(Debug, Clone)]
pub struct Inbound {
    namespace: String,
    workload: String,
    ports: Vec<(u16, &'static str, Mtls)>,
    undeclared: Mtls,
    service: String,
}

impl Inbound {
    /// No declared ports; undeclared ones are permissive.
    pub fn new(namespace: &str, workload: &str) -> Self {
        let (namespace, workload) = (namespace.to_owned(), workload.to_owned());
        let service = workload.clone();
        Self { namespace, workload, ports: Vec::new(), undeclared: Mtls::Permissive, service }
    }

    /// Declares an application port; `protocol` is one of `http`, `http2`, `grpc`, `tcp`, `tls`, `auto`.
    pub fn port(mut self, port: u16, protocol: &'static str, mtls: Mtls) -> Self {
        self.ports.push((port, protocol, mtls));
        self
    }

    /// The Service that its ports belong to; by default it is named as the workload.
    pub fn service(mut self, name: &str) -> Self {
        name.clone_into(&mut self.service);
        self
    }

    /// Who may connect to ports that are not declared.
    pub fn undeclared(mut self, mtls: Mtls) -> Self {
        self.undeclared = mtls;
        self
    }

    /// Name of the Listener.
    pub fn name(&self) -> String {
        names::inbound_listener(&self.namespace, &self.workload)
    }

    /// The Listener.
    pub fn listener(&self) -> lds::Listener {
        let chains = self.ports.iter().flat_map(|(port, protocol, mtls)| {
            let tls = (*mtls != Mtls::Disable).then(|| self.chain(*port, protocol, true));
            let plain = (*mtls != Mtls::Strict).then(|| self.chain(*port, protocol, false));
            tls.into_iter().chain(plain)
        });
        let default = lds::FilterChain {
            name: "undeclared".to_owned(),
            filters: vec![tcp_filter("undeclared")],
            metadata: metadata(&[("protocol", "auto"), ("mtls", self.undeclared.name())]),
            ..Default::default()
        };
        lds::Listener {
            name: self.name(),
            address: Some(socket_address(std::net::SocketAddr::from(([0, 0, 0, 0], 15006)))),
            filter_chains: chains.collect(),
            default_filter_chain: Some(default),
            ..Default::default()
        }
    }

    fn chain(&self, port: u16, protocol: &'static str, mesh: bool) -> lds::FilterChain {
        let local = names::local_cluster(port);
        let filter = if ["tcp", "tls"].contains(&protocol) {
            tcp_filter(&local)
        } else {
            let routes = manager::RouteSpecifier::RouteConfig(routes_to(&local, &local, None));
            filter("http", &connection_manager(protocol, routes))
        };
        let tokens = [names::ALPN_MESH_H2, names::ALPN_MESH_H1, names::ALPN_MESH];
        let condition = lds::FilterChainMatch {
            destination_port: Some(UInt32Value { value: port.into() }),
            transport_protocol: if mesh { "tls" } else { "raw_buffer" }.to_owned(),
            application_protocols: tokens.iter().filter(|_| mesh).map(|t| String::from_utf8_lossy(t).into()).collect(),
            ..Default::default()
        };
        let context = tls::DownstreamTlsContext {
            require_client_certificate: Some(BoolValue { value: true }),
            ..Default::default()
        };
        let socket = core::TransportSocket {
            name: "tls".to_owned(),
            config_type: Some(core::transport_socket::ConfigType::TypedConfig(pack(&context))),
        };
        lds::FilterChain {
            name: format!("{port}/{}", if mesh { "mtls" } else { "plain" }),
            filter_chain_match: Some(condition),
            transport_socket: mesh.then_some(socket),
            metadata: metadata(&[
                ("protocol", protocol),
                (names::META_SERVICE, &self.service),
                (names::META_NAMESPACE, &self.namespace),
            ]),
            ..chain_of(filter)
        }
    }
}

/// The trust bundle as a Secret.
pub fn trust_bundle(pem: &str) -> tls::Secret {
    let inline = core::data_source::Specifier::InlineBytes(pem.as_bytes().to_vec());
    let trusted_ca = Some(core::DataSource { specifier: Some(inline), ..Default::default() });
    let context = tls::CertificateValidationContext { trusted_ca, ..Default::default() };
    tls::Secret { name: names::TRUST_BUNDLE.to_owned(), r#type: Some(tls::secret::Type::ValidationContext(context)) }
}

/// Tulle's metadata with these texts.
pub fn metadata(fields: &[(&str, &str)]) -> Option<core::Metadata> {
    let value = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
    let fields = fields.iter().map(|(key, text)| ((*key).to_owned(), value(text))).collect();
    let filter_metadata = HashMap::from([(names::METADATA.to_owned(), Struct { fields })]);
    Some(core::Metadata { filter_metadata, ..Default::default() })
}

/// An address as Envoy's API writes it.
pub fn socket_address(address: std::net::SocketAddr) -> core::Address {
    let socket = core::SocketAddress {
        address: address.ip().to_string(),
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(address.port().into())),
        ..Default::default()
    };
    core::Address { address: Some(core::address::Address::SocketAddress(socket)) }
}

/// Packs `message` under its name.
pub fn pack<M: Name>(message: &M) -> google::protobuf::Any {
    google::protobuf::Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

fn ads() -> Option<core::ConfigSource> {
    let source = core::config_source::ConfigSourceSpecifier::Ads(core::AggregatedConfigSource::default());
    let version = core::ApiVersion::V3.into();
    Some(core::ConfigSource {
        config_source_specifier: Some(source),
        resource_api_version: version,
        ..Default::default()
    })
}

fn connection_manager(protocol: &str, routes: manager::RouteSpecifier) -> hcm::HttpConnectionManager {
    let http2 = ["http2", "grpc"].contains(&protocol);
    let codec = if http2 { manager::CodecType::Http2 } else { manager::CodecType::Auto };
    let router = hcm::HttpFilter {
        name: "router".to_owned(),
        config_type: Some(hcm::http_filter::ConfigType::TypedConfig(pack(&Router::default()))),
        ..Default::default()
    };
    hcm::HttpConnectionManager {
        codec_type: codec.into(),
        stat_prefix: "test".to_owned(),
        http_filters: vec![router],
        route_specifier: Some(routes),
        ..Default::default()
    }
}

fn routes_to(name: &str, cluster: &str, retry_policy: Option<rds::RetryPolicy>) -> rds::RouteConfiguration {
    let action = rds::RouteAction {
        cluster_specifier: Some(rds::route_action::ClusterSpecifier::Cluster(cluster.to_owned())),
        timeout: Some(google::protobuf::Duration::default()),
        retry_policy,
        ..Default::default()
    };
    let all = rds::route_match::PathSpecifier::Prefix("/".to_owned());
    let route = rds::Route {
        r#match: Some(rds::RouteMatch { path_specifier: Some(all), ..Default::default() }),
        action: Some(rds::route::Action::Route(action)),
        ..Default::default()
    };
    let host = rds::VirtualHost {
        name: name.to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![route],
        ..Default::default()
    };
    rds::RouteConfiguration { name: name.to_owned(), virtual_hosts: vec![host], ..Default::default() }
}

fn tcp_filter(cluster: &str) -> lds::Filter {
    let specifier = tcp::tcp_proxy::ClusterSpecifier::Cluster(cluster.to_owned());
    let proxy =
        tcp::TcpProxy { stat_prefix: "test".to_owned(), cluster_specifier: Some(specifier), ..Default::default() };
    filter("tcp", &proxy)
}

fn filter<M: Name>(name: &str, config: &M) -> lds::Filter {
    let config_type = Some(lds::filter::ConfigType::TypedConfig(pack(config)));
    lds::Filter { name: name.to_owned(), config_type }
}

fn chain_of(filter: lds::Filter) -> lds::FilterChain {
    lds::FilterChain { filters: vec![filter], ..Default::default() }
}
