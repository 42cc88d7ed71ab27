//! AddressRanges -> [`Ranges`].
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::unreachable
)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use tulle_proto::own::{AddressRange, AddressRanges};

use crate::config::ranges::Ranges;
use crate::config::reject::{Fault, Within};

/// Most ranges that are taken; the control plane joins them long before.
const MAX_RANGES: usize = 1024;

/// Compiles the ranges of the mesh.
///
/// # Errors
/// When an address is neither 4 nor 16 bytes long or longer than its prefix, a prefix is too long, or there are too
/// many ranges.
pub(super) fn compile(message: &AddressRanges) -> Result<Ranges, Fault> {
    if message.ranges.len() > MAX_RANGES {
        return Err(Fault::new("ranges", format!("has more than {MAX_RANGES} entries")));
    }
    let list = message.ranges.iter().enumerate().map(|(index, range)| one(range).within_item("ranges", index));
    Ok(Ranges { list: list.collect::<Result<_, _>>()? })
}

fn one(range: &AddressRange) -> Result<IpNet, Fault> {
    let address = match (<[u8; 4]>::try_from(&*range.address), <[u8; 16]>::try_from(&*range.address)) {
        (Ok(v4), _) => IpAddr::V4(Ipv4Addr::from(v4)),
        (_, Ok(v6)) => IpAddr::V6(Ipv6Addr::from(v6)),
        (Err(_), Err(_)) => return Err(Fault::new("address", "is neither 4 nor 16 bytes long")),
    };
    let prefix = u8::try_from(range.prefix_length).ok().and_then(|length| IpNet::new(address, length).ok());
    let net = prefix.ok_or_else(|| Fault::new("prefix_length", "is longer than the address"))?;
    if net.network() != address {
        return Err(Fault::new("address", "has bits behind its prefix"));
    }
    Ok(net)
}
