//! Vocabulary every other module may use: addresses, protocols, failures. Imports nothing of ours.

/// Which address is which.
pub mod addr;

/// What failed, whose fault it was, and what the other side is told.
pub mod failure;

/// Hosts, ports and the services they mean.
pub mod host;

/// Application protocols as declared or detected.
pub mod protocol;

/// For how long what a peer has proved holds.
pub(crate) mod standing;

/// Things of a thread that are used again.
pub(crate) mod spare;
