//! Certificates that Tulle's own authority would never issue, and TLS configurations that present them: for tests that
//! must be refused.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tulle_identity::tls::Alpn;

use crate::certs::Ca;

/// A certificate with its key.
#[derive(Debug, Clone)]
pub struct Forged(Arc<CertifiedKey>);

impl Forged {
    /// Signed by `ca`. It begins as the certificate of [`Ca::id`] of `web` in `shop`, good for a minute in both
    /// directions of time; `change` spoils it.
    pub fn leaf(ca: &Ca, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let (certificate, key) = authority(ca);
        let key_pair = KeyPair::from_pem(&key).expect("the authority's key");
        let issuer = Issuer::from_ca_cert_pem(&certificate, key_pair).expect("the authority's certificate");
        let key = KeyPair::generate().expect("a key");
        let leaf = params(ca, change).signed_by(&key, &issuer).expect("a certificate");
        Self::new(leaf.der().clone(), &key.serialize_pem())
    }

    /// Like [`Forged::leaf`], signed by nobody but itself.
    pub fn self_signed(ca: &Ca) -> Self {
        let key = KeyPair::generate().expect("a key");
        let leaf = params(ca, |_| ()).self_signed(&key).expect("a certificate");
        Self::new(leaf.der().clone(), &key.serialize_pem())
    }

    /// The certificate that `ca` signs with.
    pub fn authority(ca: &Ca) -> Self {
        let (certificate, key) = authority(ca);
        Self::new(CertificateDer::from_pem_slice(certificate.as_bytes()).expect("a certificate"), &key)
    }

    fn new(certificate: CertificateDer<'static>, key: &str) -> Self {
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).expect("a key that was just made");
        Self(Arc::new(CertifiedKey::new(vec![certificate], key)))
    }

    /// Mesh TLS that presents this to servers that are `to`, a namespace and a service account.
    pub fn client(&self, ca: &Ca, to: (&str, &str)) -> Arc<rustls::ClientConfig> {
        presenting(ca, to, Some(self.clone()))
    }

    /// Mesh TLS that presents this to clients.
    pub fn server(&self, ca: &Ca) -> Arc<rustls::ServerConfig> {
        let mut config = (*ca.server("shop", "web")).clone();
        config.cert_resolver = Arc::new(SingleCertAndKey::from(Arc::clone(&self.0)));
        Arc::new(config)
    }
}

/// Mesh TLS without a certificate, to servers that are `to`.
pub fn anonymous(ca: &Ca, to: (&str, &str)) -> Arc<rustls::ClientConfig> {
    presenting(ca, to, None)
}

fn presenting(ca: &Ca, to: (&str, &str), certificate: Option<Forged>) -> Arc<rustls::ClientConfig> {
    let mut config = (*ca.client(("shop", "web"), to, Alpn::H1)).clone();
    config.client_auth_cert_resolver = Arc::new(Presents(certificate));
    // A session of the real identity would be taken up again.
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// Presents one certificate, or none, whatever the server asks for.
#[derive(Debug)]
struct Presents(Option<Forged>);

impl ResolvesClientCert for Presents {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.as_ref().map(|forged| Arc::clone(&forged.0))
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}

fn params(ca: &Ca, change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    const MINUTE: Duration = Duration::from_secs(60);
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    params.not_before = (now - MINUTE).into();
    params.not_after = (now + MINUTE).into();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![uri(ca.id("shop", "web").as_str())];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    change(&mut params);
    params
}

/// A URI as an alternative name, well-formed or not.
pub fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().expect("ASCII"))
}

/// Certificate and key of `ca`'s first generation, each PEM.
fn authority(ca: &Ca) -> (String, String) {
    let both = std::fs::read_to_string(ca.state_dir().join("ca-1.pem")).expect("the authority's file");
    let at = both.find("-----BEGIN PRIVATE KEY").expect("a key behind the certificate");
    let (certificate, key) = both.split_at(at);
    (certificate.to_owned(), key.to_owned())
}
