//! What the DNS name of a service stands for: its cluster IPs, or, where it has none, its endpoints.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use tulle_proto::own::Name;

use crate::model::Health;
use crate::registry::ServiceView;

/// Most addresses of a name. More make an answer that no client reads; the first ones in order are kept, so that
/// a change elsewhere changes nothing here.
const MAX_ADDRESSES: usize = 1000;

/// The addresses of one service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct NameInput {
    name: Arc<str>,
    addresses: Vec<IpAddr>,
}

pub(super) fn input(name: Arc<str>, view: &ServiceView) -> NameInput {
    let own = &view.service.cluster_ips;
    let addresses = if own.is_empty() {
        // Kubernetes has only ready endpoints in DNS; that some publish theirs early is part of their health already.
        let ready = view.ports.iter().flat_map(|port| &*port.endpoints).filter(|e| e.health == Health::Ready);
        let sorted: BTreeSet<IpAddr> = ready.map(|endpoint| endpoint.address).collect();
        sorted.into_iter().take(MAX_ADDRESSES).collect()
    } else {
        own.clone()
    };
    NameInput { name, addresses }
}

impl NameInput {
    pub(super) fn build(&self) -> Name {
        let bytes = |address: &IpAddr| match address {
            IpAddr::V4(v4) => v4.octets().to_vec().into(),
            IpAddr::V6(v6) => v6.octets().to_vec().into(),
        };
        Name { name: self.name.to_string(), addresses: self.addresses.iter().map(bytes).collect() }
    }
}
