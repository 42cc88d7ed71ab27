//! Certificate signing requests: making one around a fresh key, and checking one from a stranger.
//!
//! A request only proves possession of a key. Whatever names or extensions it asks for are ignored: the signer writes
//! the identity of the authenticated caller (`security.md` CP-01, CP-05).

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
use std::time::SystemTime;

use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType, SubjectPublicKeyInfo};
use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use zeroize::{Zeroize, Zeroizing};

use crate::spiffe::SpiffeId;
use crate::svid::{self, Svid, SvidError, TrustBundle};
use crate::tls::verify::{PeerVerifier, Role, VerifyError};

/// A private key that waits for its certificate. Wiped when dropped; never leaves the process.
pub struct PendingKey {
    key: KeyPair,
}

/// A request that proved possession of a key of an acceptable kind.
#[derive(Debug, Clone)]
pub struct CheckedCsr {
    key: SubjectPublicKeyInfo,
}

/// Why a request, or the answer to one, is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CsrError {
    /// Longer than 16 KiB; the requester's fault.
    #[error("request is longer than {MAX_CSR_BYTES} bytes")]
    TooLarge,
    /// Not a PKCS#10 request in PEM; the requester's fault.
    #[error("malformed request")]
    Malformed,
    /// Neither ECDSA P-256 or P-384, nor Ed25519, nor RSA of 2048 to 8192 bits; the requester's fault.
    #[error("key is neither P-256, P-384, Ed25519 nor RSA of 2048 to 8192 bits")]
    Key,
    /// Not signed by its own key, or signed with SHA-1; the requester's fault.
    #[error("request is not signed by its own key")]
    Signature,
    /// Our own key or request could not be made.
    #[error("cannot make a key or request: {0}")]
    Make(#[from] rcgen::Error),
    /// The certificates the signer answered with are unusable.
    #[error("answer of the signer: {0}")]
    Answer(#[from] SvidError),
    /// The certificate does not chain to the roots it came with, or is not valid now.
    #[error("answer of the signer: {0}")]
    Chain(#[from] VerifyError),
}

impl PendingKey {
    /// Makes an ECDSA P-256 key: the cheapest handshakes (aws-lc signs P-256 several times faster than RSA).
    ///
    /// # Errors
    /// [`CsrError::Make`] when the system has no randomness to give.
    pub fn generate() -> Result<Self, CsrError> {
        Ok(Self { key: KeyPair::generate()? })
    }

    /// The request, as PEM, with `id` as its only name.
    ///
    /// # Errors
    /// [`CsrError::Make`].
    pub fn csr_pem(&self, id: &SpiffeId) -> Result<String, CsrError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(id.as_str().try_into()?)];
        Ok(params.serialize_request(&self.key)?.pem()?)
    }

    /// Puts the key together with the signer's answer: PEM texts, leaf first, then intermediates, the roots last (the
    /// last text may hold several while the root rotates).
    ///
    /// The certificate is checked as a peer would check it: for our key, a workload's, chained to those roots, valid at
    /// `now`. Whether its id is the one asked for, and whether the roots may be trusted, is for the caller to compare.
    ///
    /// # Errors
    /// [`CsrError::Answer`] or [`CsrError::Chain`], the signer's fault; retry with a new key.
    pub fn into_svid(self, chain_pem: &[String], now: SystemTime) -> Result<(Svid, TrustBundle), CsrError> {
        let (roots, chain) = chain_pem.split_last().ok_or(SvidError::Empty)?;
        let bundle = TrustBundle::from_pem(roots.as_bytes())?;
        let mut chain = svid::certificates(chain.concat().as_bytes())?;
        // Some signers repeat the root in the chain; peers have it already.
        chain.retain(|cert| !bundle.roots().contains(cert));
        let svid = Svid::new(chain, Zeroizing::new(self.key.serialized_der().to_vec()))?;
        PeerVerifier::new(&bundle, svid.id().trust_domain()).verify(Role::Client, svid.chain(), now)?;
        Ok((svid, bundle))
    }
}

impl Drop for PendingKey {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl fmt::Debug for PendingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PendingKey")
    }
}

impl CheckedCsr {
    /// The key to certify.
    pub(crate) fn key(&self) -> &SubjectPublicKeyInfo {
        &self.key
    }
}

/// Checks a request from a stranger: at most 16 KiB of PEM, an acceptable key, and a signature by that key.
///
/// # Errors
/// [`CsrError::TooLarge`], [`CsrError::Malformed`], [`CsrError::Key`] or [`CsrError::Signature`]; retrying the same
/// request is useless.
pub fn parse(pem: &str) -> Result<CheckedCsr, CsrError> {
    if pem.len() > MAX_CSR_BYTES {
        return Err(CsrError::TooLarge);
    }
    let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).map_err(|_| CsrError::Malformed)?;
    let Ok(([], request)) = X509CertificationRequest::from_der(&der) else { return Err(CsrError::Malformed) };
    let key = &request.certification_request_info.subject_pki;
    if let PublicKey::RSA(rsa) = key.parsed().map_err(|_| CsrError::Key)?
        && !RSA_BITS.contains(&rsa.key_size())
    {
        return Err(CsrError::Key);
    }
    // Before the signature: it names the kinds we accept, and nothing is computed over others.
    let checked = SubjectPublicKeyInfo::from_der(key.raw).map_err(|_| CsrError::Key)?;
    if !ACCEPTED.iter().any(|alg| *alg == rcgen::PublicKeyData::algorithm(&checked)) {
        return Err(CsrError::Key);
    }
    let algorithm = &request.signature_algorithm.algorithm;
    if *algorithm == OID_PKCS1_SHA1WITHRSA || *algorithm == OID_SHA1_WITH_RSA {
        return Err(CsrError::Signature);
    }
    request.verify_signature().map_err(|_| CsrError::Signature)?;
    Ok(CheckedCsr { key: checked })
}

/// Real requests have 300 to 1,800 bytes; ten thousand names do not fit.
const MAX_CSR_BYTES: usize = 16 << 10;
/// Below is broken, above is a way to burn the verifier's CPU.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// rcgen finds a key's algorithm by its object id; RSA keys come as the first RSA algorithm.
static ACCEPTED: [&rcgen::SignatureAlgorithm; 4] =
    [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519, &rcgen::PKCS_RSA_SHA256];

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use rcgen::{BasicConstraints, IsCa};

    use super::*;
    use crate::sign::Signer;
    use crate::testing::{ca, id};

    fn made(alg: &'static rcgen::SignatureAlgorithm, change: impl FnOnce(&mut CertificateParams)) -> String {
        let mut params = CertificateParams::default();
        change(&mut params);
        params.serialize_request(&KeyPair::generate_for(alg).unwrap()).unwrap().pem().unwrap()
    }

    fn names(count: usize) -> Vec<SanType> {
        (0..count).map(|n| SanType::DnsName(format!("n{n}.test").as_str().try_into().unwrap())).collect()
    }

    #[test]
    fn every_accepted_kind_of_key_gets_a_certificate() {
        let home = tempfile::tempdir().unwrap();
        let ca = ca(home.path());
        for alg in [
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
            &rcgen::PKCS_ED25519,
            &rcgen::PKCS_RSA_SHA256,
            &rcgen::PKCS_RSA_SHA512,
        ] {
            let csr = parse(&made(alg, |_| {})).unwrap();
            let hour = Duration::from_secs(3600);
            let chain = ca.sign(&csr, &id("web"), &[], hour, SystemTime::now()).unwrap();
            let leaf = svid::certificates(chain[0].as_bytes()).unwrap();
            assert_eq!(svid::verify_leaf(&leaf[0]), Ok(id("web")), "{alg:?}");
        }
    }

    #[test]
    fn cp05_weak_and_weird_keys_are_refused() {
        for (name, text) in [
            ("RSA of 1024 bits", include_str!("../testdata/rsa1024.csr")),
            ("secp256k1", include_str!("../testdata/secp256k1.csr")),
            ("P-521", &made(&rcgen::PKCS_ECDSA_P521_SHA512, |_| {})),
        ] {
            assert!(matches!(parse(text), Err(CsrError::Key)), "{name}: {:?}", parse(text));
        }
        let sha1 = include_str!("../testdata/sha1.csr");
        assert!(matches!(parse(sha1), Err(CsrError::Signature)), "{:?}", parse(sha1));
    }

    #[test]
    fn cp05_malformed_and_oversized_requests_are_refused() {
        let good = made(&rcgen::PKCS_ECDSA_P256_SHA256, |_| {});
        assert!(parse(&good).is_ok());
        for bad in ["", "no PEM", &good.replace("CERTIFICATE REQUEST", "CERTIFICATE"), &good[..good.len() / 2]] {
            assert!(matches!(parse(bad), Err(CsrError::Malformed)), "{bad}");
        }
        let padded = format!("{good}{}", " ".repeat(1 << 20));
        assert!(matches!(parse(&padded), Err(CsrError::TooLarge)));
        let many = made(&rcgen::PKCS_ECDSA_P256_SHA256, |p| p.subject_alt_names = names(10_000));
        assert!(matches!(parse(&many), Err(CsrError::TooLarge)));
    }

    #[test]
    fn cp05_another_keys_signature_is_refused() {
        let der = |pem: &str| CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec();
        let mut forged = der(&made(&rcgen::PKCS_ECDSA_P256_SHA256, |_| {}));
        let last = forged.len() - 1;
        forged[last] ^= 1;
        let forged = ::pem::encode(&::pem::Pem::new("CERTIFICATE REQUEST", forged));
        assert!(matches!(parse(&forged), Err(CsrError::Signature)));
    }

    #[test]
    fn cp05_wishes_are_ignored() {
        let home = tempfile::tempdir().unwrap();
        let ca = ca(home.path());
        let greedy = made(&rcgen::PKCS_ECDSA_P256_SHA256, |p| {
            p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            p.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
            p.subject_alt_names = names(20);
        });
        let csr = parse(&greedy).unwrap();
        let chain = ca.sign(&csr, &id("web"), &[], Duration::from_secs(60), SystemTime::now()).unwrap();
        let leaf = svid::certificates(chain[0].as_bytes()).unwrap();
        assert_eq!(svid::verify_leaf(&leaf[0]), Ok(id("web")));
        let leaf = svid::parse(&leaf[0]).unwrap();
        assert_eq!(leaf.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn damaged_requests_never_panic(at in 0usize..400, byte: u8, text: String) {
            let pem = PendingKey::generate().unwrap().csr_pem(&id("web")).unwrap();
            let mut der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec();
            if let Some(victim) = der.get_mut(at) {
                *victim ^= byte;
            }
            let _ = parse(&::pem::encode(&::pem::Pem::new("CERTIFICATE REQUEST", der)));
            let _ = parse(&text);
        }
    }
}
