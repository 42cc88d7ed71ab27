//! Addresses to their owners, in shards, so that one change copies one shard and shares the others.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::mesh::AddressOwner;

/// With 100 000 addresses a shard holds about 400.
const SHARDS: usize = 256;

/// A persistent map from address to owner.
#[derive(Clone)]
pub(crate) struct Addresses {
    shards: Vec<Arc<BTreeMap<IpAddr, AddressEntry>>>,
}

/// The owner of an address, and since which version of the mesh.
#[derive(Clone, Debug)]
pub(crate) struct AddressEntry {
    pub(crate) owner: AddressOwner,
    pub(crate) since: u64,
    /// A meshed workload claims it with the same right.
    pub(crate) contested: bool,
}

impl Default for Addresses {
    fn default() -> Self {
        Self { shards: vec![Arc::default(); SHARDS] }
    }
}

impl Addresses {
    pub(crate) fn get(&self, address: IpAddr) -> Option<&AddressEntry> {
        self.shards.get(shard(address))?.get(&address)
    }

    /// Sets or clears the owner of an address.
    pub(super) fn set(&mut self, address: IpAddr, entry: Option<AddressEntry>) {
        let Some(shard) = self.shards.get_mut(shard(address)) else {
            return;
        };
        let shard = Arc::make_mut(shard);
        match entry {
            Some(entry) => shard.insert(address, entry),
            None => shard.remove(&address),
        };
    }
}

fn shard(address: IpAddr) -> usize {
    let low = match address {
        IpAddr::V4(v4) => v4.octets()[3],
        IpAddr::V6(v6) => v6.octets()[15],
    };
    usize::from(low)
}
