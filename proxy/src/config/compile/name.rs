//! Name -> the addresses to answer with, and all of them -> what is published.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::unreachable
)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use tulle_proto::own::Name;

use super::Store;
use crate::config::names::{KnownName, Names};
use crate::config::reject::{Fault, Within};

/// Most addresses of one name that are taken: beyond it an answer would not fit the largest DNS message.
const MAX_ADDRESSES: usize = 2000;

impl Store {
    /// What is known of DNS names, with `absent` ones marked as such; none when nothing changed since the last time.
    pub fn names<'a>(&mut self, absent: impl Iterator<Item = &'a Arc<str>>) -> Option<Names> {
        let absent = absent.map(|name| (Arc::clone(name), KnownName::Absent));
        let there = |(name, addresses): (&Arc<str>, &Arc<[IpAddr]>)| {
            (Arc::clone(name), KnownName::Addresses(Arc::clone(addresses)))
        };
        let names = Names { known: absent.chain(self.names.iter().map(there)).collect() };
        if names == self.last_names {
            return None;
        }
        self.last_names = names.clone();
        Some(names)
    }
}

/// Compiles the addresses of a name.
///
/// # Errors
/// When one is neither 4 nor 16 bytes long, or there are too many.
pub(super) fn compile(name: &Name) -> Result<Arc<[IpAddr]>, Fault> {
    if name.addresses.len() > MAX_ADDRESSES {
        return Err(Fault::new("addresses", format!("has more than {MAX_ADDRESSES} entries")));
    }
    let address = |(index, bytes): (usize, &bytes::Bytes)| match (
        <[u8; 4]>::try_from(&**bytes),
        <[u8; 16]>::try_from(&**bytes),
    ) {
        (Ok(v4), _) => Ok(IpAddr::V4(Ipv4Addr::from(v4))),
        (_, Ok(v6)) => Ok(IpAddr::V6(Ipv6Addr::from(v6))),
        (Err(_), Err(_)) => Err(Fault::new("", "is neither 4 nor 16 bytes long")).within_item("addresses", index),
    };
    name.addresses.iter().enumerate().map(address).collect()
}
