//! Certificates: the authority that signs, the service proxies ask, and the control plane's own certificate.
//!
//! An identity comes from the authenticated caller alone, never from a request. Rank 4: knows nothing of the mesh.

/// The signer, its published roots and their rotation.
mod authority;

/// What is trusted while one given authority takes the place of another.
mod overlap;

/// Keys in a Secret of the cluster.
mod secret;

/// The signing service.
mod service;

/// The certificate the control plane serves with.
mod serving;

pub(crate) use authority::{Authority, Step};
pub(crate) use secret::SecretStore;
pub(crate) use service::Ca;
pub(crate) use serving::Serving;
