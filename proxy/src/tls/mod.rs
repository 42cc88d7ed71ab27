//! TLS of the path, and the keys it uses.

/// The identity this process uses now.
pub mod keys;

/// Handshakes in both directions, and what their failures mean.
pub(crate) mod handshake;

/// A handshake as rustls makes it.
mod shake;

#[cfg(test)]
mod tests;
