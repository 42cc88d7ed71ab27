//! The workload's own Listener -> [`Inbound`]: per port what it speaks and who may connect.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::unreachable
)]

use std::collections::HashMap;
use std::sync::Arc;

use tulle_proto::envoy::config::core::v3::transport_socket::ConfigType;
use tulle_proto::envoy::config::listener::v3 as lds;
use tulle_proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use tulle_proto::envoy::extensions::transport_sockets::tls::v3::DownstreamTlsContext;
use tulle_proto::names;

use super::fields;
use super::ids::Ids;
use super::listener::{self, RouteSource};
use crate::base::protocol::Protocol;
use crate::config::listener::{Inbound, InboundPort, MtlsMode};
use crate::config::reject::{Fault, Within};

/// What one or two chains say about a port.
#[derive(Debug, PartialEq)]
struct Rules {
    protocol: Protocol,
    service: Arc<str>,
    namespace: Arc<str>,
}

/// The chains of a port.
#[derive(Debug, Default)]
struct Chains {
    mtls: Option<Rules>,
    plain: Option<Rules>,
}

/// Compiles the workload's own listener.
///
/// # Errors
/// When a chain for mesh TLS would not require a client certificate, sends traffic anywhere but to the port it was
/// meant for, or chains contradict each other: nothing of it may widen who can connect.
pub(super) fn compile(listener: &lds::Listener) -> Result<Inbound, Fault> {
    let mut chains: HashMap<u16, Chains> = HashMap::new();
    for (index, chain) in listener.filter_chains.iter().enumerate() {
        add(chain, &mut chains).within_item("filter_chains", index)?;
    }
    let mut ports = HashMap::with_capacity(chains.len());
    for (port, chains) in chains {
        let field = || format!("filter_chains of port {port}");
        let (mtls, rules) = match (chains.mtls, chains.plain) {
            (Some(mtls), Some(plain)) if mtls == plain => (MtlsMode::Permissive, mtls),
            (Some(_), Some(_)) => return Err(Fault::new(field(), "contradict each other")),
            (Some(mtls), None) => (MtlsMode::Strict, mtls),
            (None, Some(plain)) => (MtlsMode::Disable, plain),
            (None, None) => return Err(Fault::missing(field())),
        };
        let Rules { protocol, service, namespace } = rules;
        ports.insert(port, Arc::new(InboundPort { protocol, mtls, service, namespace }));
    }
    let chain = listener.default_filter_chain.as_ref().ok_or_else(|| Fault::missing("default_filter_chain"))?;
    Ok(Inbound { ports, default: Arc::new(undeclared(chain).within("default_filter_chain")?) })
}

fn add(chain: &lds::FilterChain, chains: &mut HashMap<u16, Chains>) -> Result<(), Fault> {
    let condition = chain.filter_chain_match.as_ref().ok_or_else(|| Fault::missing("filter_chain_match"))?;
    fields::unset("filter_chain_match.server_names", !condition.server_names.is_empty())?;
    fields::unset("filter_chain_match.prefix_ranges", !condition.prefix_ranges.is_empty())?;
    fields::unset("filter_chain_match.source_prefix_ranges", !condition.source_prefix_ranges.is_empty())?;
    fields::unset("filter_chain_match.direct_source_prefix_ranges", !condition.direct_source_prefix_ranges.is_empty())?;
    fields::unset("filter_chain_match.source_ports", !condition.source_ports.is_empty())?;
    fields::unset("filter_chain_match.source_type", condition.source_type != 0)?;
    let port = condition.destination_port.as_ref().map_or(0, |port| port.value);
    let port = u16::try_from(port).ok().filter(|port| *port != 0);
    let port = port.ok_or_else(|| Fault::new("filter_chain_match.destination_port", "is not within 1..=65535"))?;
    let rules = rules(chain, port)?;
    let entry = chains.entry(port).or_default();
    let slot = match condition.transport_protocol.as_str() {
        "tls" => {
            mesh_tls(chain, &condition.application_protocols)?;
            &mut entry.mtls
        }
        "raw_buffer" => {
            fields::unset("transport_socket", chain.transport_socket.is_some())?;
            &mut entry.plain
        }
        _ => return Err(Fault::new("filter_chain_match.transport_protocol", "is neither `tls` nor `raw_buffer`")),
    };
    if slot.replace(rules).is_some() {
        return Err(Fault::new("filter_chain_match", format!("matches port {port} a second time")));
    }
    Ok(())
}

/// A chain for mesh TLS takes mesh tokens only and insists on a client certificate.
fn mesh_tls(chain: &lds::FilterChain, alpn: &[String]) -> Result<(), Fault> {
    let mesh = [names::ALPN_MESH_H2, names::ALPN_MESH_H1, names::ALPN_MESH];
    if alpn.is_empty() || alpn.iter().any(|token| !mesh.contains(&token.as_bytes())) {
        return Err(Fault::new("filter_chain_match.application_protocols", "are not the mesh's tokens"));
    }
    let socket = chain.transport_socket.as_ref().and_then(|socket| socket.config_type.as_ref());
    let Some(ConfigType::TypedConfig(any)) = socket else { return Err(Fault::missing("transport_socket")) };
    let context: DownstreamTlsContext = fields::unpack(Some(any), "transport_socket")?;
    if !context.require_client_certificate.is_some_and(|require| require.value) {
        return Err(Fault::new("transport_socket.require_client_certificate", "is not true"));
    }
    Ok(())
}

fn rules(chain: &lds::FilterChain, port: u16) -> Result<Rules, Fault> {
    let (cluster_ok, shape) = destination(chain, &names::local_cluster(port))?;
    if !cluster_ok {
        return Err(Fault::new("filters[0]", format!("leads elsewhere than to {}", names::local_cluster(port))));
    }
    let metadata = chain.metadata.as_ref();
    Ok(Rules {
        protocol: listener::declared(metadata)?.unwrap_or(shape),
        service: fields::label(metadata, names::META_SERVICE)?,
        namespace: fields::label(metadata, names::META_NAMESPACE)?,
    })
}

/// Whether a chain leads to `local` and nowhere else, and what its filter speaks.
fn destination(chain: &lds::FilterChain, local: &str) -> Result<(bool, Protocol), Fault> {
    let any = listener::only_filter(chain)?;
    if !fields::is::<HttpConnectionManager>(any) {
        return Ok((listener::opaque_cluster(chain)? == local, Protocol::Tcp));
    }
    let manager: HttpConnectionManager = fields::unpack(Some(any), "filters[0].typed_config")?;
    let mut named = Ids::default();
    let (routes, codec) = listener::http(&manager, &mut named).within("filters[0]")?;
    match routes {
        RouteSource::Inline(_) => Ok((named.slots().all(|name| name.is_none_or(|name| &**name == local)), codec)),
        RouteSource::Named(_) => Err(Fault::unsupported("filters[0].rds")),
    }
}

/// Ports that nothing declares: detected, under the mode that the chain's metadata names.
fn undeclared(chain: &lds::FilterChain) -> Result<InboundPort, Fault> {
    let metadata = chain.metadata.as_ref();
    let mtls = match fields::text(metadata, "mtls")? {
        Some("strict") => MtlsMode::Strict,
        Some("permissive") => MtlsMode::Permissive,
        Some("disable") => MtlsMode::Disable,
        Some(_) | None => {
            return Err(Fault::new("metadata[tulle.io].mtls", "is none of strict, permissive, disable"));
        }
    };
    Ok(InboundPort {
        protocol: listener::declared(metadata)?.unwrap_or(Protocol::Auto),
        mtls,
        service: fields::label(metadata, names::META_SERVICE)?,
        namespace: fields::label(metadata, names::META_NAMESPACE)?,
    })
}
