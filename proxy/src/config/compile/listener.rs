//! Listener -> what an outbound name or address leads to. The workload's own listener is compiled in `inbound`.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::unreachable
)]

use std::net::SocketAddr;
use std::sync::Arc;

use tulle_proto::envoy::config::listener::v3 as lds;
use tulle_proto::envoy::config::listener::v3::filter::ConfigType;
use tulle_proto::envoy::extensions::filters::http::router::v3::Router;
use tulle_proto::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use tulle_proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use tulle_proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::CodecType;
use tulle_proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use tulle_proto::envoy::extensions::filters::network::http_connection_manager::v3::http_filter;
use tulle_proto::envoy::extensions::filters::network::tcp_proxy::v3 as tcp;
use tulle_proto::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;

use super::fields;
use super::ids::Ids;
use super::route::{self, RoutesSpec};
use crate::base::protocol::Protocol;
use crate::config::ClusterId;
use crate::config::reject::{Fault, Within};

/// An outbound listener.
#[derive(Debug)]
pub(super) struct ListenerSpec {
    /// What it speaks.
    pub(super) protocol: Protocol,
    /// Address of the service, when it has one.
    pub(super) address: Option<SocketAddr>,
    /// Routes of HTTP requests; none when the protocol is opaque.
    pub(super) routes: Option<RouteSource>,
    /// Cluster of opaque connections.
    pub(super) opaque: Option<ClusterId>,
}

/// Where a listener's routes are.
#[derive(Debug)]
pub(super) enum RouteSource {
    /// In the RouteConfiguration of this name.
    Named(Arc<str>),
    /// In the listener itself.
    Inline(RoutesSpec),
}

/// Compiles an outbound listener.
///
/// # Errors
/// When it leads nowhere, or a field asks for something that would have to be ignored.
pub(super) fn compile(listener: &lds::Listener, ids: &mut Ids) -> Result<ListenerSpec, Fault> {
    fields::unset("default_filter_chain", listener.default_filter_chain.is_some())?;
    let address = fields::socket(listener.address.as_ref())
        .within("address")?
        .filter(|address| address.port() != 0 && !address.ip().is_unspecified());
    let http = match &listener.api_listener {
        Some(api) => {
            Some(http(&fields::unpack(api.api_listener.as_ref(), "api_listener")?, ids).within("api_listener")?)
        }
        None => None,
    };
    let opaque = match listener.filter_chains.as_slice() {
        [] => None,
        [chain] => {
            fields::unset("filter_chains[0].transport_socket", chain.transport_socket.is_some())?;
            Some(ids.number(&opaque_cluster(chain).within("filter_chains[0]")?))
        }
        [_, _, ..] => return Err(Fault::new("filter_chains", "holds more than one chain")),
    };
    let declared = declared(listener.metadata.as_ref())?;
    let protocol = match (&http, opaque) {
        (Some(_), Some(_)) => Protocol::Auto,
        (Some((_, codec)), None) => match declared {
            Some(Protocol::Grpc) => Protocol::Grpc,
            _ => *codec,
        },
        (None, Some(_)) => match declared {
            Some(Protocol::Tls) => Protocol::Tls,
            _ => Protocol::Tcp,
        },
        (None, None) => return Err(Fault::new("", "has neither api_listener nor filter_chains")),
    };
    Ok(ListenerSpec { protocol, address, routes: http.map(|(routes, _)| routes), opaque })
}

/// The protocol that Tulle's metadata declares.
pub(super) fn declared(
    metadata: Option<&tulle_proto::envoy::config::core::v3::Metadata>,
) -> Result<Option<Protocol>, Fault> {
    let Some(name) = fields::text(metadata, "protocol")? else { return Ok(None) };
    let protocol = Protocol::from_name(name);
    Ok(Some(protocol.ok_or_else(|| Fault::new("metadata[tulle.io].protocol", "is not a known protocol"))?))
}

/// Routes and codec of an HTTP connection manager.
pub(super) fn http(manager: &HttpConnectionManager, ids: &mut Ids) -> Result<(RouteSource, Protocol), Fault> {
    let codec = match CodecType::try_from(manager.codec_type) {
        Ok(CodecType::Auto | CodecType::Http1) => Protocol::Http,
        Ok(CodecType::Http2) => Protocol::Http2,
        Ok(CodecType::Http3) | Err(_) => return Err(Fault::unsupported("codec_type")),
    };
    for (index, filter) in manager.http_filters.iter().enumerate() {
        router_only(filter).within_item("http_filters", index)?;
    }
    let routes = match &manager.route_specifier {
        Some(RouteSpecifier::Rds(rds)) if !rds.route_config_name.is_empty() => {
            RouteSource::Named(rds.route_config_name.as_str().into())
        }
        Some(RouteSpecifier::RouteConfig(config)) => {
            RouteSource::Inline(route::compile(config, ids).within("route_config")?)
        }
        Some(RouteSpecifier::Rds(_)) | None => return Err(Fault::missing("rds.route_config_name")),
        Some(RouteSpecifier::ScopedRoutes(_)) => return Err(Fault::unsupported("scoped_routes")),
    };
    Ok((routes, codec))
}

/// Only the router is understood; a filter that is not optional may be there to protect something.
fn router_only(filter: &hcm::HttpFilter) -> Result<(), Fault> {
    let is_router = match &filter.config_type {
        Some(http_filter::ConfigType::TypedConfig(any)) => fields::is::<Router>(any),
        Some(http_filter::ConfigType::ConfigDiscovery(_)) | None => false,
    };
    fields::unset("typed_config", !is_router && !filter.is_optional)
}

/// The one filter of a chain, which must have one.
pub(super) fn only_filter(chain: &lds::FilterChain) -> Result<&tulle_proto::google::protobuf::Any, Fault> {
    let [filter] = chain.filters.as_slice() else {
        return Err(Fault::new("filters", "does not hold exactly one filter"));
    };
    match &filter.config_type {
        Some(ConfigType::TypedConfig(any)) => Ok(any),
        Some(ConfigType::ConfigDiscovery(_)) => Err(Fault::unsupported("filters[0].config_discovery")),
        None => Err(Fault::missing("filters[0].typed_config")),
    }
}

/// The cluster of a chain that relays opaque bytes.
pub(super) fn opaque_cluster(chain: &lds::FilterChain) -> Result<String, Fault> {
    let proxy: TcpProxy = fields::unpack(Some(only_filter(chain)?), "filters[0].typed_config")?;
    match proxy.cluster_specifier {
        Some(tcp::tcp_proxy::ClusterSpecifier::Cluster(name)) if !name.is_empty() => Ok(name),
        Some(tcp::tcp_proxy::ClusterSpecifier::WeightedClusters(_)) => {
            Err(Fault::unsupported("filters[0].weighted_clusters"))
        }
        Some(tcp::tcp_proxy::ClusterSpecifier::Cluster(_)) | None => Err(Fault::missing("filters[0].cluster")),
    }
}
