//! For how long what a peer of mesh TLS has proved holds: a connection lives no longer.

use std::sync::Arc;
use std::time::SystemTime;

use tulle_identity::svid::{AuthorityId, TrustBundle};
use tulle_identity::tls::Proof;

use super::failure::Reason;

/// What bounds a connection of mesh TLS.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    /// Last second of the certificates.
    until: SystemTime,
    /// The root that vouches for the peer; none when that is not known for sure.
    authority: Option<AuthorityId>,
    /// Hash of the roots at the handshake.
    bundle: u64,
}

/// What a worker knows now.
#[derive(Clone, Debug)]
pub(crate) struct Trust {
    /// The wall clock. Certificates are about that: it may be set, and machines may sleep.
    pub(crate) now: SystemTime,
    /// The roots in force; none while there is no identity.
    pub(crate) bundle: Option<Arc<TrustBundle>>,
}

impl Standing {
    /// Of a connection that ends at `until`, whichever roots are in force.
    #[cfg(test)]
    pub(crate) const fn until(until: SystemTime) -> Self {
        Self { until, authority: None, bundle: 0 }
    }

    /// Of a connection with a peer that proved `proof` under `bundle`.
    pub(crate) fn new(proof: &Proof, bundle: &TrustBundle) -> Self {
        Self { until: proof.until, authority: proof.authority, bundle: bundle.hash() }
    }

    /// The same, bounded by the end of our own certificate, too.
    pub(crate) fn within(self, own: SystemTime) -> Self {
        Self { until: self.until.min(own), ..self }
    }

    /// Whether the certificates end before `time`.
    pub(crate) fn ends_before(&self, time: SystemTime) -> bool {
        self.until < time
    }

    /// Why the connection may not go on; none: it may.
    pub(crate) fn refusal(&self, trust: &Trust) -> Option<Reason> {
        if self.until < trust.now {
            return Some(Reason::CertExpired);
        }
        let bundle = trust.bundle.as_ref().filter(|bundle| bundle.hash() != self.bundle)?;
        // Of a root that is not known for sure it cannot be said that it is still there.
        let vouched = self.authority.is_some_and(|authority| bundle.has(authority));
        (!vouched).then_some(Reason::AuthnFailed)
    }
}
