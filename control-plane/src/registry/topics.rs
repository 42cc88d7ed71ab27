//! What names are about, as numbers: a published mesh says which topics it touched, and only the streams that asked
//! for a name of one of them look at it.
//!
//! A topic is taken from the name alone, so it stays the same whatever the mesh says of the name. Two that collide cost
//! a look in vain.

use std::net::{IpAddr, SocketAddr};

use tulle_proto::names::INBOUND_PREFIX;

use super::names::{OUTBOUND, POD_PREFIX};
use crate::model::Key;

/// More topics than this touched at once are told as everything.
const MAX_TOPICS: usize = 4096;

/// What a name is about: a service, an address, or the inbound side of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Topic(u64);

/// What a mesh touched, against the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Changes {
    /// Too much to tell.
    All,
    /// These, in order; never [`Topic::ALL`], which everything touches.
    Topics(Box<[Topic]>),
}

impl Topic {
    /// The set of everything.
    pub(crate) const ALL: Self = Self(0);

    /// What the resource `name` is about, whatever its type.
    pub(crate) fn of(name: &str) -> Self {
        if name == OUTBOUND || name == "*" {
            return Self::ALL;
        }
        if let Some((namespace, owner)) = name.strip_prefix(INBOUND_PREFIX).and_then(|rest| rest.split_once('/')) {
            return Self::new("inbound", namespace, owner);
        }
        if let Ok(address) = name.strip_prefix(POD_PREFIX).unwrap_or(name).parse::<SocketAddr>() {
            return Self::address(address.ip());
        }
        let mut labels = name.splitn(3, '.');
        match (labels.next(), labels.next()) {
            (Some(service), Some(namespace)) => Self::new("service", namespace, service),
            _ => Self::new("", "", name),
        }
    }

    pub(super) fn service(key: &Key) -> Self {
        Self::new("service", &key.namespace, &key.name)
    }

    pub(super) fn inbound(owner: &Key) -> Self {
        Self::new("inbound", &owner.namespace, &owner.name)
    }

    pub(super) fn address(address: IpAddr) -> Self {
        Self::new("address", "", &address.to_string())
    }

    fn new(kind: &str, namespace: &str, name: &str) -> Self {
        let hash = rapidhash::v3::rapidhash_v3(format!("{kind}/{namespace}/{name}").as_bytes());
        Self(hash.max(1))
    }
}

impl Changes {
    pub(super) fn of(mut topics: Vec<Topic>) -> Self {
        topics.sort_unstable();
        topics.dedup();
        if topics.len() > MAX_TOPICS { Self::All } else { Self::Topics(topics.into()) }
    }
}
