//! What is known of the mesh's DNS names. Beside the path: published by discovery, read by the DNS server, both on the
//! control thread, so that an address that moves costs no worker a new view.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Every name that was asked for and has an answer, in lower case without a final dot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// By name.
    pub known: HashMap<Arc<str>, KnownName>,
}

/// What is known of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KnownName {
    /// Its addresses, in order; of both families, either, or none.
    Addresses(Arc<[IpAddr]>),
    /// The mesh has no such name.
    Absent,
}
