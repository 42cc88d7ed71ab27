//! Resources for tests, in the shapes that the control plane sends.

use std::collections::HashMap;

use tulle_proto::Any;
use tulle_proto::envoy::config::cluster::v3 as cds;
use tulle_proto::envoy::config::core::v3 as core;
use tulle_proto::envoy::config::endpoint::v3 as eds;
use tulle_proto::envoy::config::listener::v3 as lds;
use tulle_proto::envoy::config::route::v3 as rds;
use tulle_proto::envoy::extensions::filters::http::router::v3::Router;
use tulle_proto::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use tulle_proto::envoy::extensions::filters::network::tcp_proxy::v3 as tcp;
use tulle_proto::envoy::extensions::transport_sockets::tls::v3 as tls;
use tulle_proto::envoy::extensions::upstreams::http::v3 as upstream;
use tulle_proto::google::protobuf as google;
use tulle_proto::names;

pub(crate) fn packed<M: prost::Name>(message: &M) -> google::Any {
    google::Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

pub(crate) fn any<M: prost::Name>(message: &M) -> Any {
    Any::pack(message)
}

pub(crate) fn metadata(entries: &[(&str, &str)]) -> Option<core::Metadata> {
    let value = |text: &str| google::Value { kind: Some(google::value::Kind::StringValue(text.into())) };
    let fields = entries.iter().map(|(key, text)| ((*key).to_owned(), value(text))).collect();
    let filter_metadata = HashMap::from([(names::METADATA.to_owned(), google::Struct { fields })]);
    Some(core::Metadata { filter_metadata, ..Default::default() })
}

pub(crate) fn address(text: &str) -> Option<core::Address> {
    let socket: std::net::SocketAddr = text.parse().unwrap();
    Some(core::Address {
        address: Some(core::address::Address::SocketAddress(core::SocketAddress {
            address: socket.ip().to_string(),
            port_specifier: Some(core::socket_address::PortSpecifier::PortValue(socket.port().into())),
            ..Default::default()
        })),
    })
}

pub(crate) fn manager(route: hcm::http_connection_manager::RouteSpecifier) -> hcm::HttpConnectionManager {
    hcm::HttpConnectionManager {
        http_filters: vec![hcm::HttpFilter {
            name: "router".into(),
            config_type: Some(hcm::http_filter::ConfigType::TypedConfig(packed(&Router::default()))),
            ..Default::default()
        }],
        route_specifier: Some(route),
        ..Default::default()
    }
}

pub(crate) fn by_name(routes: &str) -> hcm::http_connection_manager::RouteSpecifier {
    hcm::http_connection_manager::RouteSpecifier::Rds(hcm::Rds {
        route_config_name: routes.into(),
        ..Default::default()
    })
}

pub(crate) fn filter(config: google::Any) -> lds::Filter {
    lds::Filter { name: "filter".into(), config_type: Some(lds::filter::ConfigType::TypedConfig(config)) }
}

pub(crate) fn tcp_filter(cluster: &str) -> lds::Filter {
    filter(packed(&tcp::TcpProxy {
        cluster_specifier: Some(tcp::tcp_proxy::ClusterSpecifier::Cluster(cluster.into())),
        ..Default::default()
    }))
}

/// A listener called `name` whose routes and clusters are called `service`.
pub(crate) fn listener(name: &str, service: &str, protocol: &str) -> lds::Listener {
    let http = !matches!(protocol, "tcp" | "tls");
    let opaque = matches!(protocol, "tcp" | "tls" | "auto");
    let mut manager = manager(by_name(service));
    if matches!(protocol, "http2" | "grpc") {
        manager.codec_type = hcm::http_connection_manager::CodecType::Http2.into();
    }
    let chain = lds::FilterChain { filters: vec![tcp_filter(service)], ..Default::default() };
    lds::Listener {
        name: name.into(),
        metadata: metadata(&[("protocol", protocol), ("service", "reviews"), ("namespace", "shop")]),
        api_listener: http.then(|| lds::ApiListener { api_listener: Some(packed(&manager)) }),
        filter_chains: if opaque { vec![chain] } else { Vec::new() },
        ..Default::default()
    }
}

pub(crate) fn route_to(cluster: &str) -> rds::Route {
    rds::Route {
        r#match: Some(rds::RouteMatch {
            path_specifier: Some(rds::route_match::PathSpecifier::Prefix("/".into())),
            ..Default::default()
        }),
        action: Some(rds::route::Action::Route(rds::RouteAction {
            cluster_specifier: Some(rds::route_action::ClusterSpecifier::Cluster(cluster.into())),
            timeout: Some(google::Duration::default()),
            retry_policy: Some(rds::RetryPolicy {
                retry_on: "connect-failure,refused-stream,reset-before-request".into(),
                num_retries: Some(google::UInt32Value { value: 2 }),
                ..Default::default()
            }),
            ..Default::default()
        })),
        ..Default::default()
    }
}

pub(crate) fn routes(name: &str, routes: Vec<rds::Route>) -> rds::RouteConfiguration {
    let host = rds::VirtualHost { name: name.into(), domains: vec!["*".into()], routes, ..Default::default() };
    rds::RouteConfiguration { name: name.into(), virtual_hosts: vec![host], ..Default::default() }
}

pub(crate) fn cluster(name: &str) -> cds::Cluster {
    let options = upstream::HttpProtocolOptions {
        upstream_protocol_options: Some(
            upstream::http_protocol_options::UpstreamProtocolOptions::UseDownstreamProtocolConfig(Default::default()),
        ),
        ..Default::default()
    };
    let key = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    cds::Cluster {
        name: name.into(),
        cluster_discovery_type: Some(cds::cluster::ClusterDiscoveryType::Type(cds::cluster::DiscoveryType::Eds.into())),
        eds_cluster_config: Some(cds::cluster::EdsClusterConfig { service_name: name.into(), ..Default::default() }),
        metadata: metadata(&[("service", "reviews"), ("namespace", "shop"), ("protocol", "http")]),
        typed_extension_protocol_options: HashMap::from([(key.to_owned(), packed(&options))]),
        ..Default::default()
    }
}

pub(crate) fn lb_endpoint(at: &str) -> eds::LbEndpoint {
    eds::LbEndpoint {
        host_identifier: Some(eds::lb_endpoint::HostIdentifier::Endpoint(eds::Endpoint {
            address: address(at),
            ..Default::default()
        })),
        ..Default::default()
    }
}

pub(crate) fn endpoints(name: &str, addresses: &[&str]) -> eds::ClusterLoadAssignment {
    eds::ClusterLoadAssignment {
        cluster_name: name.into(),
        endpoints: vec![eds::LocalityLbEndpoints {
            lb_endpoints: addresses.iter().map(|at| lb_endpoint(at)).collect(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// A chain of the workload's own listener: mesh TLS or plain.
pub(crate) fn inbound_chain(port: u16, mtls: bool, protocol: &str) -> lds::FilterChain {
    let local = names::local_cluster(port);
    let inline = hcm::http_connection_manager::RouteSpecifier::RouteConfig(routes("inbound", vec![route_to(&local)]));
    let filter = if matches!(protocol, "tcp" | "tls") { tcp_filter(&local) } else { filter(packed(&manager(inline))) };
    let context = tls::DownstreamTlsContext {
        require_client_certificate: Some(google::BoolValue { value: true }),
        ..Default::default()
    };
    lds::FilterChain {
        name: format!("{port}/{}", if mtls { "mtls" } else { "plain" }),
        filter_chain_match: Some(lds::FilterChainMatch {
            destination_port: Some(google::UInt32Value { value: port.into() }),
            transport_protocol: if mtls { "tls" } else { "raw_buffer" }.into(),
            application_protocols: if mtls {
                vec!["istio-h2".into(), "istio-http/1.1".into(), "istio".into()]
            } else {
                Vec::new()
            },
            ..Default::default()
        }),
        transport_socket: mtls.then(|| core::TransportSocket {
            name: "tls".into(),
            config_type: Some(core::transport_socket::ConfigType::TypedConfig(packed(&context))),
        }),
        filters: vec![filter],
        metadata: metadata(&[("protocol", protocol), ("service", "reviews"), ("namespace", "shop")]),
        ..Default::default()
    }
}

pub(crate) fn inbound(name: &str, chains: Vec<lds::FilterChain>) -> lds::Listener {
    lds::Listener {
        name: name.into(),
        address: address("0.0.0.0:15006"),
        filter_chains: chains,
        default_filter_chain: Some(lds::FilterChain {
            metadata: metadata(&[("protocol", "auto"), ("mtls", "permissive")]),
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub(crate) fn bundle(pem: &str) -> tls::Secret {
    tls::Secret {
        name: names::TRUST_BUNDLE.into(),
        r#type: Some(tls::secret::Type::ValidationContext(tls::CertificateValidationContext {
            trusted_ca: Some(core::DataSource {
                specifier: Some(core::data_source::Specifier::InlineBytes(pem.as_bytes().to_vec())),
                ..Default::default()
            }),
            ..Default::default()
        })),
    }
}
