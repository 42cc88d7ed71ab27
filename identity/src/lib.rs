//! Who is who in the mesh: what the control plane and the proxy must agree on.
//!
//! Identities are SPIFFE ids in X.509 certificates. A proxy makes its key ([`csr::PendingKey`]), the control plane
//! signs ([`sign::Signer`]) for a caller it knows by a workload token ([`token`]), and both ends of a connection are
//! configured by [`tls::MeshTls`]. Nothing here dials, listens or logs; only [`sign`] and [`token`] touch files.
//! Errors are typed per module; bytes from a peer never panic.

/// SPIFFE ids and trust domains.
pub mod spiffe;

/// Certificates that carry an identity, and the roots that vouch for them.
pub mod svid;

/// Certificate signing requests, from both ends.
pub mod csr;

/// Issuing certificates: the built-in certificate authority.
pub mod sign;

/// Workload tokens: how a workload proves itself before it has a certificate.
pub mod token;

/// ServiceAccount tokens of a cluster, as far as they can be read without its keys.
pub mod account;

/// The keys a cluster signs ServiceAccount tokens with.
pub mod jwks;

/// rustls configurations for the mesh.
pub mod tls;

/// Files that hold secrets.
pub mod store;

#[cfg(test)]
mod testing;
