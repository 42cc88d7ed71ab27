//! TLS of the path, and the keys it uses.

/// The identity this process uses now.
pub mod keys;
