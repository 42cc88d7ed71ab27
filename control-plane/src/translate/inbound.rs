//! The listener a proxy receives captured traffic with: for each port of the application, what is accepted and how it
//! is spoken.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tulle_proto::envoy::config::core::v3::{Metadata, TransportSocket, transport_socket};
use tulle_proto::envoy::config::listener::v3::{Filter, FilterChain, FilterChainMatch, Listener};
use tulle_proto::envoy::config::route::v3::RouteConfiguration;
use tulle_proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager as hcm;
use tulle_proto::envoy::extensions::transport_sockets::tls::v3::{
    CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, common_tls_context as tls,
};
use tulle_proto::names::{
    ALPN_MESH, ALPN_MESH_H1, ALPN_MESH_H2, CLIENT_CERTIFICATE, META_NAMESPACE, META_SERVICE, TRUST_BUNDLE,
    local_cluster,
};

use super::input::Input;
use super::listener::{PROTOCOL, manager, tcp_proxy_filter};
use super::route::{plain_route, virtual_host};
use super::wire;
use crate::model::policy::Mtls;
use crate::model::{Key, Port, Protocol};
use crate::registry::InboundView;

/// Port of captured inbound traffic.
const INBOUND_PORT: u16 = 15006;

/// The inbound listener of an owner's instances.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct InboundInput {
    name: Arc<str>,
    namespace: Arc<str>,
    ports: Vec<InboundPort>,
    mtls: Mtls,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct InboundPort {
    port: Port,
    protocol: Protocol,
    mtls: Mtls,
    service: Arc<str>,
}

pub(super) fn input(name: Arc<str>, owner: &Key, view: &InboundView) -> Input {
    let port = |(port, view): (&Port, &crate::registry::InboundPort)| InboundPort {
        port: *port,
        protocol: view.protocol,
        mtls: view.mtls,
        service: view.service.as_ref().map_or_else(|| "".into(), |key| key.name.clone()),
    };
    Input::Inbound(InboundInput {
        name,
        namespace: owner.namespace.clone(),
        ports: view.ports.iter().map(port).collect(),
        mtls: view.mtls,
    })
}

impl InboundInput {
    pub(super) fn build(&self) -> Listener {
        let undeclared = wire::metadata([
            (PROTOCOL, Protocol::Auto.name()),
            ("mtls", self.mtls.name()),
            (META_NAMESPACE, &*self.namespace),
        ]);
        Listener {
            name: self.name.to_string(),
            address: Some(wire::address(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), INBOUND_PORT))),
            filter_chains: self.ports.iter().flat_map(|port| self.chains(port)).collect(),
            default_filter_chain: Some(FilterChain {
                name: "default".to_owned(),
                metadata: Some(undeclared),
                ..FilterChain::default()
            }),
            ..Listener::default()
        }
    }

    /// The chains of one port: mesh TLS, plain, or both.
    fn chains(&self, port: &InboundPort) -> impl Iterator<Item = FilterChain> + use<> {
        let number = port.port.number();
        let common =
            FilterChain { filters: vec![filter(port)], metadata: Some(self.metadata(port)), ..FilterChain::default() };
        let mtls = (port.mtls != Mtls::Disable).then(|| FilterChain {
            name: format!("{number}/mtls"),
            filter_chain_match: Some(FilterChainMatch {
                destination_port: Some(wire::number(number.into())),
                transport_protocol: "tls".to_owned(),
                application_protocols: alpn(&[ALPN_MESH_H2, ALPN_MESH_H1, ALPN_MESH]),
                ..FilterChainMatch::default()
            }),
            transport_socket: Some(mesh_tls()),
            ..common.clone()
        });
        let plain = (port.mtls != Mtls::Strict).then(|| FilterChain {
            name: format!("{number}/plain"),
            filter_chain_match: Some(FilterChainMatch {
                destination_port: Some(wire::number(number.into())),
                transport_protocol: "raw_buffer".to_owned(),
                ..FilterChainMatch::default()
            }),
            ..common
        });
        mtls.into_iter().chain(plain)
    }

    fn metadata(&self, port: &InboundPort) -> Metadata {
        wire::metadata([
            (PROTOCOL, port.protocol.name()),
            (META_SERVICE, &*port.service),
            (META_NAMESPACE, &*self.namespace),
        ])
    }
}

/// What relays a connection to the application.
fn filter(port: &InboundPort) -> Filter {
    let cluster = local_cluster(port.port.number());
    if !port.protocol.is_http() {
        return tcp_proxy_filter(&cluster, &cluster, None);
    }
    let routes = RouteConfiguration {
        name: cluster.clone(),
        virtual_hosts: vec![virtual_host(&cluster, vec!["*".to_owned()], plain_route(&cluster))],
        ..RouteConfiguration::default()
    };
    let manager = manager(&cluster, port.protocol, hcm::RouteSpecifier::RouteConfig(routes));
    wire::filter("envoy.filters.network.http_connection_manager", &manager)
}

/// Mutual TLS with the workload's own certificate, and any identity of the mesh.
fn mesh_tls() -> TransportSocket {
    let secret = |name: &str| SdsSecretConfig { name: name.to_owned(), sds_config: None };
    let common = CommonTlsContext {
        alpn_protocols: alpn(&[ALPN_MESH_H2, ALPN_MESH_H1, ALPN_MESH]),
        tls_certificate_sds_secret_configs: vec![secret(CLIENT_CERTIFICATE)],
        validation_context_type: Some(tls::ValidationContextType::ValidationContextSdsSecretConfig(SdsSecretConfig {
            sds_config: Some(wire::ads()),
            ..secret(TRUST_BUNDLE)
        })),
        ..CommonTlsContext::default()
    };
    let context = DownstreamTlsContext {
        common_tls_context: Some(common),
        require_client_certificate: Some(wire::flag(true)),
        ..DownstreamTlsContext::default()
    };
    tls_socket(&context)
}

pub(super) fn tls_socket<M: prost::Name>(context: &M) -> TransportSocket {
    TransportSocket {
        name: "envoy.transport_sockets.tls".to_owned(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(wire::any(context))),
    }
}

/// ALPN tokens as Envoy writes them.
pub(super) fn alpn(tokens: &[&[u8]]) -> Vec<String> {
    tokens.iter().map(|token| String::from_utf8_lossy(token).into_owned()).collect()
}
