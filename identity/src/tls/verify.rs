//! Who is at the other end: pure checks of a peer's certificates, for both directions.
//!
//! A peer is accepted when its chain leads to a root of the bundle, is valid at this very second, keeps the rules of
//! X509-SVID, belongs to our trust domain and, where we dialled, is the workload we meant to reach. Host names play no
//! part. There is no tolerance in the check: the authority back-dates certificates instead ([`crate::sign`]).

#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::cast_possible_truncation,
        clippy::unreachable
    )
)]

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use rustls::{CertificateError, Error as TlsError, OtherError};
use webpki::{EndEntityCert, KeyUsage};

use crate::spiffe::{SpiffeId, TrustDomain};
use crate::svid::{self, MAX_CERTIFICATES, SvidError, TrustBundle};

/// Which end the certificate belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It dialled us.
    Client,
    /// We dialled it.
    Server,
}

/// Checks peers against one bundle and one trust domain. Parsed once per bundle; pure.
#[derive(Debug)]
pub struct PeerVerifier {
    anchors: Vec<TrustAnchor<'static>>,
    domain: TrustDomain,
    algorithms: WebPkiSupportedAlgorithms,
}

/// Why a peer is refused. Always the peer's side: its certificate, or its being someone else.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// No certificate at all, or more than 64.
    #[error("peer presented no certificate, or too many")]
    Count,
    /// Past its last second.
    #[error("peer's certificate has expired")]
    Expired,
    /// Before its first second.
    #[error("peer's certificate is not valid yet")]
    NotYetValid,
    /// Does not lead to a root of the bundle.
    #[error("peer's certificate is of an unknown authority")]
    UnknownIssuer,
    /// Broken in another way: signature, path length, key usage of an intermediate.
    #[error("peer's certificate chain: {0}")]
    Chain(webpki::Error),
    /// Not a workload's certificate.
    #[error("peer's {0}")]
    Leaf(#[from] SvidError),
    /// A workload of another trust domain.
    #[error("peer {presented} is not of trust domain {ours}")]
    TrustDomain {
        /// Who it is.
        presented: SpiffeId,
        /// Ours.
        ours: TrustDomain,
    },
    /// Another workload than the one dialled.
    #[error("peer is {presented}, expected {expected}")]
    Unexpected {
        /// Who it is.
        presented: SpiffeId,
        /// Whom we meant to reach.
        expected: SpiffeId,
    },
}

impl PeerVerifier {
    /// A verifier that accepts workloads of `domain` vouched for by `bundle`.
    pub fn new(bundle: &TrustBundle, domain: TrustDomain) -> Self {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        Self { anchors: bundle.anchors(), domain, algorithms }
    }

    /// Who presents `chain` (leaf first), if it may be believed at `now`.
    ///
    /// # Errors
    /// The first check that fails. Signatures are checked before anything the certificate says is looked at.
    pub fn verify(&self, role: Role, chain: &[CertificateDer<'_>], now: SystemTime) -> Result<SpiffeId, VerifyError> {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let (leaf, rest) = chain.split_first().ok_or(VerifyError::Count)?;
        self.verify_at(role, leaf, rest, UnixTime::since_unix_epoch(now))
    }

    /// [`PeerVerifier::verify`] with the leaf apart, as rustls hands it over.
    pub(crate) fn verify_at(
        &self,
        role: Role,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<SpiffeId, VerifyError> {
        if rest.len() >= MAX_CERTIFICATES {
            return Err(VerifyError::Count);
        }
        let usage = match role {
            Role::Client => KeyUsage::client_auth(),
            Role::Server => KeyUsage::server_auth(),
        };
        EndEntityCert::try_from(leaf)
            .and_then(|cert| {
                cert.verify_for_usage(self.algorithms.all, &self.anchors, rest, now, usage, None, None).map(|_| ())
            })
            .map_err(VerifyError::from)?;
        let presented = svid::verify_leaf(leaf)?;
        if !presented.is_in(&self.domain) {
            return Err(VerifyError::TrustDomain { presented, ours: self.domain.clone() });
        }
        Ok(presented)
    }

    /// [`PeerVerifier::verify_at`] for a server that must be `expected`.
    pub(crate) fn verify_server(
        &self,
        expected: &SpiffeId,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), VerifyError> {
        let presented = self.verify_at(Role::Server, leaf, rest, now)?;
        if presented != *expected {
            return Err(VerifyError::Unexpected { presented, expected: expected.clone() });
        }
        Ok(())
    }

    /// Signature algorithms, for the handshake itself.
    pub(crate) fn algorithms(&self) -> &WebPkiSupportedAlgorithms {
        &self.algorithms
    }
}

impl From<webpki::Error> for VerifyError {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "a foreign enum that grows; the rest has no name of its own here"
    )]
    fn from(error: webpki::Error) -> Self {
        match error {
            webpki::Error::CertExpired { .. } => Self::Expired,
            webpki::Error::CertNotValidYet { .. } => Self::NotYetValid,
            webpki::Error::UnknownIssuer => Self::UnknownIssuer,
            webpki::Error::CaUsedAsEndEntity => Self::Leaf(SvidError::Authority),
            webpki::Error::RequiredEkuNotFoundContext(_) => Self::Leaf(SvidError::ExtendedKeyUsage),
            other => Self::Chain(other),
        }
    }
}

impl From<VerifyError> for TlsError {
    /// Kept whole, so that [`refusal`] finds it again; the alert on the wire is `certificate_unknown`, which tells a
    /// stranger nothing.
    fn from(error: VerifyError) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
    }
}

/// Why our own side refused the peer's certificate, when that is what broke the handshake. Finds it in a rustls error
/// and in the `io::Error` tokio-rustls wraps that in.
pub fn refusal<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a VerifyError> {
    let inner = match error.downcast_ref::<io::Error>() {
        Some(wrapped) => wrapped.get_ref()?.downcast_ref::<TlsError>(),
        None => error.downcast_ref::<TlsError>(),
    };
    let Some(TlsError::InvalidCertificate(CertificateError::Other(OtherError(reason)))) = inner else { return None };
    reason.downcast_ref()
}
