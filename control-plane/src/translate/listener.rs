//! Listeners of service ports: what a client does with a connection it opens to one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tulle_proto::envoy::config::listener::v3::{ApiListener, Filter, FilterChain, Listener};
use tulle_proto::envoy::extensions::filters::http::router::v3::Router;
use tulle_proto::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, Rds, http_connection_manager as hcm, http_filter,
};
use tulle_proto::envoy::extensions::filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy};
use tulle_proto::names::{META_NAMESPACE, META_SERVICE};

use super::input::Subject;
use super::wire;
use crate::model::Protocol;

/// Metadata key of a listener's or filter chain's protocol.
pub(super) const PROTOCOL: &str = "protocol";

/// A listener that tells a client how to reach one port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ListenerInput {
    name: Arc<str>,
    cluster: Arc<str>,
    service: Arc<str>,
    namespace: Arc<str>,
    protocol: Protocol,
    address: Option<SocketAddr>,
    idle_timeout: Option<Duration>,
}

pub(super) fn input(name: Arc<str>, subject: &Subject) -> ListenerInput {
    ListenerInput {
        name,
        cluster: subject.cluster.clone(),
        service: subject.service.as_ref().map_or_else(|| "".into(), |key| key.name.clone()),
        namespace: subject.namespace.clone(),
        protocol: subject.protocol,
        address: subject.address,
        idle_timeout: subject.policy.idle_timeout,
    }
}

impl ListenerInput {
    pub(super) fn build(&self) -> Listener {
        let routes = hcm::RouteSpecifier::Rds(Rds {
            config_source: Some(wire::ads()),
            route_config_name: self.cluster.to_string(),
        });
        let manager = || ApiListener { api_listener: Some(wire::any(&manager(&self.name, self.protocol, routes))) };
        let opaque = FilterChain {
            filters: vec![tcp_proxy_filter(&self.name, &self.cluster, self.idle_timeout)],
            ..FilterChain::default()
        };
        let (api_listener, filter_chains) = match self.protocol {
            Protocol::Http | Protocol::Http2 | Protocol::Grpc => (Some(manager()), Vec::new()),
            // What turns out not to be HTTP goes to the chain.
            Protocol::Auto => (Some(manager()), vec![opaque]),
            Protocol::Tls | Protocol::Tcp => (None, vec![opaque]),
        };
        Listener {
            name: self.name.to_string(),
            address: self.address.map(wire::address),
            api_listener,
            filter_chains,
            metadata: Some(wire::metadata([
                (META_SERVICE, &*self.service),
                (META_NAMESPACE, &*self.namespace),
                (PROTOCOL, self.protocol.name()),
            ])),
            ..Listener::default()
        }
    }
}

/// An HTTP connection manager without filters but the router.
pub(super) fn manager(stat: &str, protocol: Protocol, routes: hcm::RouteSpecifier) -> HttpConnectionManager {
    let codec = match protocol {
        Protocol::Http2 | Protocol::Grpc => hcm::CodecType::Http2,
        Protocol::Http | Protocol::Auto | Protocol::Tls | Protocol::Tcp => hcm::CodecType::Auto,
    };
    HttpConnectionManager {
        codec_type: codec.into(),
        stat_prefix: stat.to_owned(),
        route_specifier: Some(routes),
        http_filters: vec![HttpFilter {
            name: "envoy.filters.http.router".to_owned(),
            config_type: Some(http_filter::ConfigType::TypedConfig(wire::any(&Router::default()))),
            ..HttpFilter::default()
        }],
        upgrade_configs: vec![hcm::UpgradeConfig { upgrade_type: "websocket".to_owned(), ..Default::default() }],
        ..HttpConnectionManager::default()
    }
}

/// A filter that relays opaque bytes to `cluster`.
pub(super) fn tcp_proxy_filter(stat: &str, cluster: &str, idle_timeout: Option<Duration>) -> Filter {
    let proxy = TcpProxy {
        stat_prefix: stat.to_owned(),
        cluster_specifier: Some(tcp_proxy::ClusterSpecifier::Cluster(cluster.to_owned())),
        idle_timeout: idle_timeout.map(wire::duration),
        ..TcpProxy::default()
    };
    wire::filter("envoy.filters.network.tcp_proxy", &proxy)
}
