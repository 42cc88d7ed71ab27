//! The address ranges of the mesh.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use tulle_proto::own::{AddressRange, AddressRanges};

/// The ranges as a resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct RangesInput {
    pub(super) name: Arc<str>,
    pub(super) ranges: Arc<[IpNet]>,
}

impl RangesInput {
    pub(super) fn build(&self) -> AddressRanges {
        let range = |range: &IpNet| AddressRange {
            address: match range.network() {
                IpAddr::V4(v4) => v4.octets().to_vec().into(),
                IpAddr::V6(v6) => v6.octets().to_vec().into(),
            },
            prefix_length: range.prefix_len().into(),
        };
        AddressRanges { name: self.name.to_string(), ranges: self.ranges.iter().map(range).collect() }
    }
}
