//! X.509-SVIDs: a certificate that carries one identity, its key, and the roots that vouch for others.
//!
//! The rules are those of the X509-SVID standard, sections 2, 4 and 5.2. All values are immutable; a rotation makes new
//! ones. Private keys are wiped when dropped and never printed.

#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::cast_possible_truncation,
        clippy::unreachable
    )
)]

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, TrustAnchor};
use rustls::sign::CertifiedKey;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

use crate::spiffe::{SpiffeError, SpiffeId};

/// What a process is and whom it trusts, at one moment.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Who we are.
    pub svid: Arc<Svid>,
    /// Whose certificates we accept.
    pub bundle: Arc<TrustBundle>,
}

/// A certificate chain with its private key.
pub struct Svid {
    id: SpiffeId,
    chain: Vec<CertificateDer<'static>>,
    key: Zeroizing<Vec<u8>>,
    not_before: SystemTime,
    not_after: SystemTime,
}

/// The root certificates of the mesh: one, or two while the root rotates; at most 64.
#[derive(Clone, PartialEq, Eq)]
pub struct TrustBundle {
    roots: Vec<CertificateDer<'static>>,
    authorities: Vec<Authority>,
    hash: u64,
}

/// A root, by its subject and key: equal in every bundle that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AuthorityId(u64);

/// What certificates name a root by.
#[derive(Clone, PartialEq, Eq)]
struct Authority {
    id: AuthorityId,
    subject: Box<[u8]>,
    /// Subject key identifier; empty when the root has none.
    key: Box<[u8]>,
}

impl Authority {
    fn of(root: &CertificateDer<'_>) -> Result<Self, SvidError> {
        let cert = parse(root)?;
        let key = cert.iter_extensions().find_map(|extension| {
            if let ParsedExtension::SubjectKeyIdentifier(key) = extension.parsed_extension() {
                Some(key.0.into())
            } else {
                None
            }
        });
        let id = AuthorityId(rapidhash::v3::rapidhash_v3(root));
        Ok(Self { id, subject: cert.subject().as_raw().into(), key: key.unwrap_or_default() })
    }
}

/// Why a certificate, a chain, a key or a bundle is not acceptable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SvidError {
    /// Not a certificate, or not the PEM of one.
    #[error("malformed certificate: {0}")]
    Malformed(&'static str),
    /// More certificates than [`MAX_CERTIFICATES`] or more bytes than 1 MiB.
    #[error("too many certificates, or too large")]
    TooLarge,
    /// The certificate names no URI, or more than one.
    #[error("certificate has {0} URI names instead of one")]
    UriNames(usize),
    /// Its URI is not a SPIFFE id.
    #[error("certificate names no workload: {0}")]
    Id(#[from] SpiffeError),
    /// A certificate authority's certificate used as a workload's.
    #[error("certificate is a certificate authority's")]
    Authority,
    /// Its key usage is absent, lacks digitalSignature, or allows signing certificates.
    #[error("certificate's key usage is not that of a workload")]
    KeyUsage,
    /// Its extended key usage is not both clientAuth and serverAuth.
    #[error("certificate's extended key usage is not clientAuth and serverAuth")]
    ExtendedKeyUsage,
    /// The private key is not PKCS#8, of an unsupported kind, or of another certificate.
    #[error("private key does not fit the certificate")]
    Key,
    /// A certificate of a bundle is not a certificate authority's.
    #[error("bundle has a certificate that is no certificate authority's")]
    NotAuthority,
    /// A bundle without certificates.
    #[error("bundle has no certificates")]
    Empty,
}

impl Svid {
    /// A chain, leaf first and without its root, and the leaf's private key in PKCS#8 DER.
    ///
    /// # Errors
    /// The leaf's ([`verify_leaf`]), or [`SvidError::Key`] when the key is not the leaf's. Validity in time and the
    /// chain's signatures are the verifier's business, not checked here.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: Zeroizing<Vec<u8>>) -> Result<Self, SvidError> {
        let leaf = chain.first().ok_or(SvidError::Empty)?;
        let (id, not_before, not_after) = read_leaf(leaf)?;
        let svid = Self { id, not_before, not_after, chain, key };
        svid.certified_key()?;
        Ok(svid)
    }

    /// As [`Svid::new`], from PEM: certificates leaf first, and a `PRIVATE KEY` section.
    ///
    /// # Errors
    /// As [`Svid::new`], and [`SvidError::Malformed`] or [`SvidError::TooLarge`] for the PEM.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, SvidError> {
        let key = PrivatePkcs8KeyDer::from_pem_slice(key).map_err(|_| SvidError::Key)?;
        Self::new(certificates(chain)?, Zeroizing::new(key.secret_pkcs8_der().to_vec()))
    }

    /// Whose it is.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// Certificates to present, leaf first, without the root.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The private key, PKCS#8 DER. Do not copy it into memory that is not wiped.
    pub fn key_der(&self) -> &[u8] {
        &self.key
    }

    /// Serial number of the leaf, in hexadecimal with colons.
    pub fn serial(&self) -> String {
        self.chain.first().and_then(|leaf| parse(leaf).ok()).map(|leaf| leaf.raw_serial_as_string()).unwrap_or_default()
    }

    /// First second of validity.
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// Last second of validity.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// The chain and key as rustls wants them.
    pub(crate) fn certified_key(&self) -> Result<Arc<CertifiedKey>, SvidError> {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.to_vec()));
        let certified =
            CertifiedKey::from_der(self.chain.clone(), key, &default_provider()).map_err(|_| SvidError::Key)?;
        Ok(Arc::new(certified))
    }
}

impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Svid")
            .field("id", &self.id)
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

impl TrustBundle {
    /// The roots in a PEM text. Doubles are dropped; the order does not matter.
    ///
    /// # Errors
    /// [`SvidError::Empty`], [`SvidError::TooLarge`], [`SvidError::Malformed`], or [`SvidError::NotAuthority`] when one
    /// of them could not sign certificates.
    pub fn from_pem(text: &[u8]) -> Result<Self, SvidError> {
        Self::from_roots(certificates(text)?)
    }

    /// As [`TrustBundle::from_pem`], from DER.
    ///
    /// # Errors
    /// As [`TrustBundle::from_pem`].
    pub fn from_roots(mut roots: Vec<CertificateDer<'static>>) -> Result<Self, SvidError> {
        if roots.is_empty() {
            return Err(SvidError::Empty);
        }
        if roots.len() > MAX_CERTIFICATES {
            return Err(SvidError::TooLarge);
        }
        for root in &roots {
            check_authority(root)?;
        }
        roots.sort_unstable_by(|a, b| a.as_ref().cmp(b.as_ref()));
        roots.dedup();
        let hash = rapidhash::v3::rapidhash_v3(&roots.iter().map(AsRef::<[u8]>::as_ref).collect::<Vec<_>>().concat());
        let authorities = roots.iter().map(Authority::of).collect::<Result<_, _>>()?;
        Ok(Self { roots, authorities, hash })
    }

    /// The roots as PEM, one after the other.
    pub fn pem(&self) -> String {
        self.roots.iter().map(|root| certificate_pem(root)).collect()
    }

    /// A hash of the set of roots: equal sets have equal hashes, in every process of one version.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The roots, DER; never empty.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// Whether this root is among them.
    pub fn has(&self, authority: AuthorityId) -> bool {
        self.authorities.iter().any(|known| known.id == authority)
    }

    /// The root that `cert` names as its issuer; none when it names none of them, or when two roots go by that name and
    /// the certificate does not say by which key it was signed. Signatures are not checked.
    pub(crate) fn authority_of(&self, cert: &X509Certificate<'_>) -> Option<AuthorityId> {
        let key = cert.iter_extensions().find_map(|extension| {
            if let ParsedExtension::AuthorityKeyIdentifier(key) = extension.parsed_extension() {
                key.key_identifier.as_ref().map(|key| key.0)
            } else {
                None
            }
        });
        let signed = |known: &&Authority| {
            *known.subject == *cert.issuer().as_raw()
                && key.is_none_or(|key| known.key.is_empty() || *known.key == *key)
        };
        let mut found = self.authorities.iter().filter(signed);
        let first = found.next()?;
        found.next().is_none().then_some(first.id)
    }

    /// The roots as webpki wants them.
    pub(crate) fn anchors(&self) -> Vec<TrustAnchor<'static>> {
        let anchor = |root| webpki::anchor_from_trusted_cert(root).ok().map(|anchor| anchor.to_owned());
        self.roots.iter().filter_map(anchor).collect()
    }
}

impl fmt::Debug for TrustBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrustBundle({} roots, {:016x})", self.roots.len(), self.hash)
    }
}

/// The identity in a workload's certificate, when the certificate keeps every rule of X509-SVID for a leaf: exactly one
/// URI name and that a SPIFFE id with a path, no certificate authority, key usage with digitalSignature and without
/// keyCertSign and cRLSign, extended key usage with both clientAuth and serverAuth.
///
/// Signatures and validity in time are not checked here: [`crate::tls::verify`] does the whole.
///
/// # Errors
/// The rule that is broken; always the peer's (or its issuer's) fault.
pub fn verify_leaf(leaf: &CertificateDer<'_>) -> Result<SpiffeId, SvidError> {
    read_leaf(leaf).map(|(id, _, _)| id)
}

/// [`verify_leaf`], and the first and last second of validity.
pub(crate) fn read_leaf(leaf: &CertificateDer<'_>) -> Result<(SpiffeId, SystemTime, SystemTime), SvidError> {
    let cert = parse(leaf)?;
    let malformed = |_| SvidError::Malformed("extension");
    if cert.basic_constraints().map_err(malformed)?.is_some_and(|ext| ext.value.ca) {
        return Err(SvidError::Authority);
    }
    let usage = cert.key_usage().map_err(malformed)?.ok_or(SvidError::KeyUsage)?.value;
    if usage.key_cert_sign() || usage.crl_sign() || !usage.digital_signature() {
        return Err(SvidError::KeyUsage);
    }
    // The standard lets the extension be absent; every issuer in use sets it, so absence is refused with the rest.
    let extended = cert.extended_key_usage().map_err(malformed)?.ok_or(SvidError::ExtendedKeyUsage)?.value;
    if !(extended.client_auth && extended.server_auth) {
        return Err(SvidError::ExtendedKeyUsage);
    }
    let id = uri_name(&cert)?;
    let validity = cert.validity();
    Ok((id, system_time(validity.not_before.timestamp())?, system_time(validity.not_after.timestamp())?))
}

/// The certificates of a PEM text, in order; other sections are skipped. At most 1 MiB, [`MAX_CERTIFICATES`] of them.
pub(crate) fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, SvidError> {
    if text.len() > MAX_PEM_BYTES {
        return Err(SvidError::TooLarge);
    }
    let mut found = Vec::new();
    for cert in CertificateDer::pem_slice_iter(text) {
        if found.len() == MAX_CERTIFICATES {
            return Err(SvidError::TooLarge);
        }
        found.push(cert.map_err(|_: pem::Error| SvidError::Malformed("PEM"))?);
    }
    Ok(found)
}

/// One certificate as PEM.
pub(crate) fn certificate_pem(cert: &CertificateDer<'_>) -> String {
    let config = ::pem::EncodeConfig::new().set_line_ending(::pem::LineEnding::LF);
    ::pem::encode_config(&::pem::Pem::new(CERTIFICATE_LABEL, cert.as_ref()), config)
}

/// Parses a certificate that has no bytes after it.
pub(crate) fn parse<'a>(cert: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, SvidError> {
    match X509Certificate::from_der(cert) {
        Ok(([], cert)) => Ok(cert),
        Ok(_) => Err(SvidError::Malformed("trailing bytes")),
        Err(_) => Err(SvidError::Malformed("DER")),
    }
}

/// A certificate's time (seconds since the epoch) as the system's.
pub(crate) fn system_time(seconds: i64) -> Result<SystemTime, SvidError> {
    let since = u64::try_from(seconds).map_err(|_| SvidError::Malformed("validity before 1970"))?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(since)).ok_or(SvidError::Malformed("validity"))
}

fn uri_name(cert: &X509Certificate<'_>) -> Result<SpiffeId, SvidError> {
    let names = cert.subject_alternative_name().map_err(|_| SvidError::Malformed("extension"))?;
    let names = names.map_or(&[][..], |ext| &ext.value.general_names);
    if names.iter().any(|name| matches!(name, GeneralName::Invalid(..))) {
        return Err(SvidError::Malformed("subject alternative name"));
    }
    let mut uris = names.iter().filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None });
    match (uris.next(), uris.count()) {
        (Some(uri), 0) => Ok(SpiffeId::parse(uri)?),
        (None, _) => Err(SvidError::UriNames(0)),
        (Some(_), more) => Err(SvidError::UriNames(more.saturating_add(1))),
    }
}

fn check_authority(root: &CertificateDer<'_>) -> Result<(), SvidError> {
    let cert = parse(root)?;
    let malformed = |_| SvidError::Malformed("extension");
    let is_ca = cert.basic_constraints().map_err(malformed)?.is_some_and(|ext| ext.value.ca);
    let may_sign = cert.key_usage().map_err(malformed)?.is_none_or(|ext| ext.value.key_cert_sign());
    if !is_ca || !may_sign {
        return Err(SvidError::NotAuthority);
    }
    webpki::anchor_from_trusted_cert(root).map_err(|_| SvidError::Malformed("root"))?;
    Ok(())
}

/// More than any chain or bundle in use; bounds the work a peer or a file can ask for.
pub const MAX_CERTIFICATES: usize = 64;
const MAX_PEM_BYTES: usize = 1 << 20;
const CERTIFICATE_LABEL: &str = "CERTIFICATE";

#[cfg(test)]
mod tests {
    use rcgen::KeyPair;

    use super::*;
    use crate::testing::{Leaf, Rogue};

    #[test]
    fn a_bundle_is_a_set() {
        let (a, b) = (Rogue::new().root(), Rogue::new().root());
        let one = TrustBundle::from_roots(vec![a.clone(), b.clone(), a.clone()]).unwrap();
        let two = TrustBundle::from_roots(vec![b.clone(), a.clone()]).unwrap();
        assert_eq!((one.hash(), one.roots().len()), (two.hash(), 2));
        assert_eq!(TrustBundle::from_pem(one.pem().as_bytes()).unwrap(), one);
        assert_ne!(one.hash(), TrustBundle::from_roots(vec![a]).unwrap().hash());
        assert_eq!(one.anchors().len(), 2);
    }

    #[test]
    fn bundles_hold_authorities_only() {
        let rogue = Rogue::new();
        let leaf = rogue.issue(&Leaf::of(&["spiffe://td/a"]));
        assert_eq!(TrustBundle::from_roots(vec![rogue.root(), leaf]), Err(SvidError::NotAuthority));
        assert_eq!(TrustBundle::from_roots(Vec::new()), Err(SvidError::Empty));
        assert_eq!(TrustBundle::from_pem(b""), Err(SvidError::Empty));
        assert_eq!(TrustBundle::from_pem(b"no PEM at all"), Err(SvidError::Empty));
        let broken = b"-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----\n";
        assert_eq!(TrustBundle::from_pem(broken), Err(SvidError::Malformed("PEM")));
        assert_eq!(TrustBundle::from_pem(&vec![b'\n'; MAX_PEM_BYTES + 1]), Err(SvidError::TooLarge));
        let many = rogue.bundle().pem().repeat(MAX_CERTIFICATES + 1);
        assert_eq!(TrustBundle::from_pem(many.as_bytes()), Err(SvidError::TooLarge));
        let mut trailing = rogue.root().to_vec();
        trailing.push(0);
        let trailing = TrustBundle::from_roots(vec![trailing.into()]);
        assert_eq!(trailing, Err(SvidError::Malformed("trailing bytes")));
    }

    #[test]
    fn certificate_and_key_belong_together() {
        let rogue = Rogue::new();
        let identity = rogue.identity(&Leaf::of(&["spiffe://td/a"]));
        let chain: String = identity.svid.chain().iter().map(|cert| certificate_pem(cert)).collect();
        let key = ::pem::encode(&::pem::Pem::new("PRIVATE KEY", identity.svid.key_der()));
        let read = Svid::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
        assert_eq!((read.id(), read.not_after()), (identity.svid.id(), identity.svid.not_after()));
        let other = KeyPair::generate().unwrap().serialize_pem();
        assert_eq!(Svid::from_pem(chain.as_bytes(), other.as_bytes()).unwrap_err(), SvidError::Key);
        assert_eq!(Svid::from_pem(chain.as_bytes(), b"").unwrap_err(), SvidError::Key);
        assert_eq!(Svid::from_pem(b"", key.as_bytes()).unwrap_err(), SvidError::Empty);
    }
}
