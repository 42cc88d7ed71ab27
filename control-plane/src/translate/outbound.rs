//! What Envoy needs beside clusters: one HTTP listener with routes for every service, and a listener for each address
//! of an opaque service.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tulle_proto::envoy::config::listener::v3::{FilterChain, Listener};
use tulle_proto::envoy::config::route::v3::RouteConfiguration;
use tulle_proto::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, Rds, http_connection_manager as hcm,
};

use super::input::{Input, Naming};
use super::listener::{manager, tcp_proxy_filter};
use super::route::{ActionInput, action, service_host};
use super::rules::{self, RulesInput};
use super::scope::{ClientKind, Scope};
use super::wire;
use crate::model::Protocol;
use crate::registry::{Mesh, OUTBOUND, PortView, ServiceView};

/// Where Envoy listens for outbound HTTP unless its node says otherwise.
const OUTBOUND_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15001);

/// The HTTP listener.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct HttpListenerInput {
    address: SocketAddr,
}

/// The listener of one address of an opaque service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct TcpListenerInput {
    address: SocketAddr,
    cluster: Arc<str>,
    idle_timeout: Option<Duration>,
}

/// The routes of every HTTP service port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct RoutesInput {
    hosts: Vec<HostInput>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct HostInput {
    domains: Vec<String>,
    name: Arc<str>,
    action: ActionInput,
    rules: Option<RulesInput>,
}

/// Every listener of an Envoy, with its name.
pub(super) fn listeners<'a>(
    mesh: &'a Mesh,
    scope: &Scope,
    naming: &'a Naming,
) -> impl Iterator<Item = (Arc<str>, Input)> + 'a {
    let ports = mesh.services().flat_map(|view| view.ports.iter().map(move |port| (view, port)));
    let opaque = ports.filter(|(_, port)| !port.protocol.is_http()).flat_map(move |(view, port)| {
        view.service.cluster_ips.iter().map(move |ip| {
            let address = SocketAddr::new(*ip, port.port.number());
            (address.to_string().into(), tcp_listener(view, port, address, naming))
        })
    });
    std::iter::once((OUTBOUND.into(), http_listener(scope))).chain(opaque)
}

pub(super) fn http_listener(scope: &Scope) -> Input {
    Input::OutboundHttp(HttpListenerInput { address: scope.outbound_address.unwrap_or(OUTBOUND_ADDRESS) })
}

pub(super) fn tcp_listener(view: &ServiceView, port: &PortView, address: SocketAddr, naming: &Naming) -> Input {
    Input::OutboundTcp(TcpListenerInput {
        address,
        cluster: naming.port(&view.service.key, port.port),
        idle_timeout: view.policy.idle_timeout,
    })
}

pub(super) fn routes(mesh: &Mesh, scope: &Scope, naming: &Naming) -> Input {
    let mut taken = BTreeSet::new();
    let hosts = mesh.services().flat_map(|view| {
        let mut ports: Vec<_> = view.ports.iter().filter(|port| port.protocol.is_http()).collect();
        ports.sort_by_key(|port| port.port);
        ports.into_iter().enumerate().map(move |(rank, port)| (view, port, rank == 0))
    });
    let host = |(view, port, lowest): (&Arc<ServiceView>, &PortView, bool)| HostInput {
        // Envoy refuses the whole when a domain stands twice; only a service called like another's alias can do that.
        domains: domains(view, port, lowest, (naming, &scope.namespace))
            .into_iter()
            .filter(|d| taken.insert(d.clone()))
            .collect(),
        name: naming.port(&view.service.key, port.port),
        action: action(ClientKind::Envoy, naming.port(&view.service.key, port.port), &view.policy),
        rules: rules::input(scope, naming, port),
    };
    let hosts = hosts.map(host).filter(|host| !host.domains.is_empty()).collect();
    Input::Routes(RoutesInput { hosts })
}

/// What a request to a port may have for its authority. Names without a port go to the lowest HTTP port; the name alone
/// means a service of the client's own namespace.
fn domains(view: &ServiceView, port: &PortView, lowest: bool, (naming, own): (&Naming, &str)) -> Vec<String> {
    let key = &view.service.key;
    let mut names = vec![
        naming.host(key),
        format!("{}.{}.svc", key.name, key.namespace),
        format!("{}.{}", key.name, key.namespace),
    ];
    if *key.namespace == *own {
        names.push(key.name.to_string());
    }
    let mut domains: Vec<_> = names.iter().map(|name| format!("{name}:{}", port.port)).collect();
    let addresses = view.service.cluster_ips.iter();
    domains.extend(addresses.map(|ip| SocketAddr::new(*ip, port.port.number()).to_string()));
    if lowest {
        domains.extend(names);
        domains.extend(view.service.cluster_ips.iter().map(|ip| match ip {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        }));
    }
    domains
}

impl HttpListenerInput {
    pub(super) fn build(&self) -> Listener {
        let routes =
            hcm::RouteSpecifier::Rds(Rds { config_source: Some(wire::ads()), route_config_name: OUTBOUND.to_owned() });
        // A dot only marks a host as fully qualified, and no domain has one.
        let manager =
            HttpConnectionManager { strip_trailing_host_dot: true, ..manager(OUTBOUND, Protocol::Http, routes) };
        Listener {
            name: OUTBOUND.to_owned(),
            address: Some(wire::address(self.address)),
            filter_chains: vec![FilterChain {
                filters: vec![wire::filter("envoy.filters.network.http_connection_manager", &manager)],
                ..FilterChain::default()
            }],
            ..Listener::default()
        }
    }
}

impl TcpListenerInput {
    pub(super) fn build(&self) -> Listener {
        Listener {
            name: self.address.to_string(),
            address: Some(wire::address(self.address)),
            bind_to_port: Some(wire::flag(false)),
            filter_chains: vec![FilterChain {
                filters: vec![tcp_proxy_filter(&self.cluster, &self.cluster, self.idle_timeout)],
                ..FilterChain::default()
            }],
            ..Listener::default()
        }
    }
}

impl RoutesInput {
    pub(super) fn build(&self) -> RouteConfiguration {
        let host = |host: &HostInput| service_host(&host.name, host.domains.clone(), &host.action, host.rules.as_ref());
        RouteConfiguration {
            name: OUTBOUND.to_owned(),
            virtual_hosts: self.hosts.iter().map(host).collect(),
            ..RouteConfiguration::default()
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An input that differs by port alone.
    pub(in super::super) fn listener(port: u16) -> Input {
        let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        Input::OutboundTcp(TcpListenerInput { address, cluster: "cluster".into(), idle_timeout: None })
    }
}
