//! Issuing certificates. [`Signer`](crate::sign::Signer) is the seam; [`BuiltInCa`](crate::sign::BuiltInCa) is the
//! authority Tulle brings along.
//!
//! The signer trusts its caller with the identity: it must come from an authenticated credential, never from the
//! request. Signing is CPU work of well below a millisecond and does no IO.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType, SerialNumber,
};
use time::OffsetDateTime;

use crate::csr::CheckedCsr;
use crate::spiffe::{SpiffeId, TrustDomain};
use crate::store::{Files, Store, StoreError};
use crate::svid::{SvidError, TrustBundle, certificate_pem};

mod state;

use state::{CaState, Given, StateDir};

/// Issues workload certificates.
pub trait Signer: Send + Sync {
    /// A certificate for the key of `csr` and the identity `id`: PEM texts, leaf first, then intermediates, the roots
    /// last (one text, which holds several roots while the root rotates).
    ///
    /// `ttl` is brought within the signer's limits, zero means the signer's default, and the certificate never
    /// outlives its issuer. `dns_names` (at most 16; addresses are accepted too) are for servers that foreign clients
    /// dial by name, such as the control plane itself.
    ///
    /// # Errors
    /// [`SignError`]; [`SignError::Names`] and [`SignError::TrustDomain`] are the caller's fault, the others ours.
    fn sign(
        &self,
        csr: &CheckedCsr,
        id: &SpiffeId,
        dns_names: &[String],
        ttl: Duration,
        now: SystemTime,
    ) -> Result<Vec<String>, SignError>;

    /// The roots everybody should trust now.
    fn bundle(&self) -> Arc<TrustBundle>;
}

/// The built-in certificate authority: an ECDSA P-256 root that signs leaves directly, kept in a state directory, or
/// an authority read from files. Share it by `Arc`; every method takes `&self`.
pub struct BuiltInCa {
    domain: TrustDomain,
    limits: Limits,
    /// `None` for an authority read from files.
    dir: Option<StateDir>,
    /// Replaced whole by a rotation.
    state: RwLock<Arc<CaState>>,
}

/// Bounds on the life of certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Shorter wishes are lengthened to this.
    pub min_ttl: Duration,
    /// Longer wishes are shortened to this.
    pub max_ttl: Duration,
    /// For callers without a wish.
    pub default_ttl: Duration,
}

/// How far the root's rotation is. In the state directory, so that a restart resumes there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rotation {
    /// One root.
    Steady,
    /// The bundle holds the old and the new root; the old one signs.
    Published,
    /// The bundle holds both; the new one signs.
    Activated,
}

/// Why there is no certificate, or no authority.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// The state directory or a given file.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The state directory or a given file holds something else than it should.
    #[error("{what} is not usable: {why}")]
    Corrupt {
        /// Which file.
        what: String,
        /// Why.
        why: String,
    },
    /// The authority is for another trust domain.
    #[error("the certificate authority is of trust domain {ours}, not {asked}")]
    TrustDomain {
        /// The authority's.
        ours: TrustDomain,
        /// The one asked for.
        asked: TrustDomain,
    },
    /// More than 16 DNS names, or one that is none.
    #[error("DNS names: more than {MAX_DNS_NAMES}, or malformed")]
    Names,
    /// The issuing certificate has expired or is not valid yet: nothing it signs would be accepted.
    #[error("the issuing certificate is not valid now")]
    IssuerNotValid,
    /// A rotation step that does not follow from the one before; retrying is useless.
    #[error("cannot {step} while the root's rotation is {phase:?}")]
    Step {
        /// What was asked for.
        step: &'static str,
        /// Where the rotation is.
        phase: Rotation,
    },
    /// Authorities read from files are rotated by whoever writes the files.
    #[error("the certificate authority was read from files and is rotated there")]
    GivenFiles,
    /// No randomness, or rcgen refuses.
    #[error("cannot issue: {0}")]
    Issue(#[from] rcgen::Error),
    /// A certificate we made ourselves or were given breaks a rule.
    #[error(transparent)]
    Svid(#[from] SvidError),
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            min_ttl: Duration::from_secs(60),
            max_ttl: Duration::from_secs(90 * 24 * 3600),
            default_ttl: Duration::from_secs(24 * 3600),
        }
    }
}

impl BuiltInCa {
    /// Opens the authority in `dir`, making directory (0700), root and key (0600) on first start. Of several processes
    /// that start at once on one directory, all get the same root.
    ///
    /// # Errors
    /// [`SignError::Store`], in particular when others may read the directory or a key; [`SignError::Corrupt`];
    /// [`SignError::TrustDomain`] when the directory belongs to another trust domain.
    pub fn open(dir: &Path, domain: &TrustDomain) -> Result<Self, SignError> {
        let (dir, state) = StateDir::open(Store::open(dir)?, domain, SystemTime::now())?;
        Ok(Self::with(domain, Some(dir), state))
    }

    /// The authority whose files are kept by the caller, who stores [`Self::files`] whenever a step has changed them;
    /// of several that make a root at once, the caller decides whose is kept. Without files, root and key are made.
    ///
    /// # Errors
    /// [`SignError::Corrupt`]; [`SignError::TrustDomain`] when the files belong to another trust domain.
    pub fn from_kept(files: Files, domain: &TrustDomain) -> Result<Self, SignError> {
        let (dir, state) = StateDir::open(Store::memory(files), domain, SystemTime::now())?;
        Ok(Self::with(domain, Some(dir), state))
    }

    /// The files to keep, of an authority [`Self::from_kept`].
    pub fn files(&self) -> Option<Files> {
        self.dir.as_ref()?.files()
    }

    /// An authority made elsewhere: PEM files with its certificate (followed by intermediates, if it is no root), its
    /// PKCS#8 key, and the roots when the first file does not end in one. The files' modes are their owner's business
    /// (Kubernetes mounts secrets group-readable).
    ///
    /// # Errors
    /// [`SignError::Store`] and [`SignError::Corrupt`].
    pub fn from_files(
        certificate: &Path,
        key: &Path,
        roots: Option<&Path>,
        domain: &TrustDomain,
    ) -> Result<Self, SignError> {
        Ok(Self::with(domain, None, CaState::from_files(certificate, key, roots)?))
    }

    /// As [`Self::from_files`], of the content of the files.
    ///
    /// # Errors
    /// [`SignError::Corrupt`].
    pub fn from_pem(
        certificate: &[u8],
        key: &[u8],
        roots: Option<&[u8]>,
        domain: &TrustDomain,
    ) -> Result<Self, SignError> {
        let given = |name, pem| Given { name, pem };
        let state = CaState::given(
            given("tls.crt", certificate),
            given("tls.key", key),
            roots.map(|pem| given("ca.crt", pem)),
        )?;
        Ok(Self::with(domain, None, state))
    }

    /// The same authority with other limits.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// How far the root's rotation is.
    pub fn rotation(&self) -> Rotation {
        self.state().phase
    }

    /// First step of a rotation: makes a new root and returns the bundle of both, for every proxy to trust. The old
    /// root still signs. Go on when every proxy has the bundle.
    ///
    /// # Errors
    /// [`SignError::Step`] unless steady, [`SignError::GivenFiles`], [`SignError::Store`]; nothing has changed then.
    pub fn begin_rotation(&self, now: SystemTime) -> Result<Arc<TrustBundle>, SignError> {
        self.step(|dir, state| dir.begin(&self.domain, state, now))
    }

    /// Second step: the new root signs from now on. Both are still trusted. Go on when every certificate of the old
    /// root has been renewed: after the longest life of a certificate at the latest.
    ///
    /// # Errors
    /// As [`BuiltInCa::begin_rotation`], unless published.
    pub fn activate(&self) -> Result<Arc<TrustBundle>, SignError> {
        self.step(StateDir::activate)
    }

    /// Third step: forgets the old root and its key, and returns the bundle of the new one.
    ///
    /// # Errors
    /// As [`BuiltInCa::begin_rotation`], unless activated.
    pub fn finish(&self) -> Result<Arc<TrustBundle>, SignError> {
        self.step(StateDir::finish)
    }

    fn with(domain: &TrustDomain, dir: Option<StateDir>, state: CaState) -> Self {
        Self { domain: domain.clone(), limits: Limits::default(), dir, state: RwLock::new(Arc::new(state)) }
    }

    fn state(&self) -> Arc<CaState> {
        // A poisoned lock is harmless: the value is replaced whole.
        Arc::clone(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn step(
        &self,
        step: impl FnOnce(&StateDir, &CaState) -> Result<CaState, SignError>,
    ) -> Result<Arc<TrustBundle>, SignError> {
        let dir = self.dir.as_ref().ok_or(SignError::GivenFiles)?;
        // Held over the file writes: two steps at once would write over each other's.
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        *state = Arc::new(step(dir, &state)?);
        Ok(Arc::clone(&state.bundle))
    }
}

impl Signer for BuiltInCa {
    fn sign(
        &self,
        csr: &CheckedCsr,
        id: &SpiffeId,
        dns_names: &[String],
        ttl: Duration,
        now: SystemTime,
    ) -> Result<Vec<String>, SignError> {
        if !id.is_in(&self.domain) {
            return Err(SignError::TrustDomain { ours: self.domain.clone(), asked: id.trust_domain() });
        }
        let state = self.state();
        let ttl = if ttl.is_zero() { self.limits.default_ttl } else { ttl };
        let ttl = ttl.min(self.limits.max_ttl).max(self.limits.min_ttl);
        let not_after = (now + ttl).min(state.issuer.not_after);
        if not_after <= now || now < state.issuer.not_before {
            return Err(SignError::IssuerNotValid);
        }
        let mut params = CertificateParams::default();
        params.not_before = OffsetDateTime::from((now - BACK_DATED).max(state.issuer.not_before));
        params.not_after = OffsetDateTime::from(not_after);
        params.serial_number = Some(serial()?);
        // An empty subject, as X509-SVID suggests; rcgen then marks the alternative names critical (RFC 5280 4.2.1.6).
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = names(id, dns_names)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(csr.key(), &state.issuer.issuer)?;
        let mut answer = vec![certificate_pem(leaf.der())];
        answer.extend(state.issuer.intermediates.iter().map(|cert| certificate_pem(cert)));
        answer.push(state.bundle.pem());
        Ok(answer)
    }

    fn bundle(&self) -> Arc<TrustBundle> {
        Arc::clone(&self.state().bundle)
    }
}

impl fmt::Debug for BuiltInCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("BuiltInCa")
            .field("domain", &self.domain)
            .field("bundle", &state.bundle)
            .field("rotation", &state.phase)
            .finish_non_exhaustive()
    }
}

/// A random serial number: 127 bits, because the top bit would make it negative (RFC 5280 4.1.2.2).
fn serial() -> Result<SerialNumber, SignError> {
    let mut bytes = [0u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| rcgen::Error::RingUnspecified)?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn names(id: &SpiffeId, dns_names: &[String]) -> Result<Vec<SanType>, SignError> {
    if dns_names.len() > MAX_DNS_NAMES {
        return Err(SignError::Names);
    }
    let mut names = vec![SanType::URI(id.as_str().try_into()?)];
    for name in dns_names {
        names.push(match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => {
                rustls::pki_types::DnsName::try_from(name.as_str()).map_err(|_| SignError::Names)?;
                SanType::DnsName(name.as_str().try_into()?)
            }
        });
    }
    Ok(names)
}

/// The tolerance for clocks that run behind ours. Verifiers have none of their own (`security.md` ID-03 asks for 20 s).
const BACK_DATED: Duration = Duration::from_secs(60);
const MAX_DNS_NAMES: usize = 16;

#[cfg(test)]
mod tests;
