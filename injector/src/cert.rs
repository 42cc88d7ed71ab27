//! The serving certificate: made, read, judged, turned into a TLS configuration. Pure but for randomness; where it is
//! kept is `cluster`'s business.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;

/// Life of a certificate and of the authority made for it.
const LIFE: Duration = Duration::from_secs(90 * 86_400);

/// It is replaced when less than this is left.
const RENEW: Duration = Duration::from_secs(30 * 86_400);

/// Clocks of other machines may be behind by this.
const SKEW: Duration = Duration::from_secs(300);

/// A certificate with its key, and the authorities that callers shall trust. All PEM.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Material {
    /// Authorities: that of this certificate first, then those of the ones before.
    pub(crate) authorities: String,
    pub(crate) chain: String,
    pub(crate) key: String,
}

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Material").finish_non_exhaustive()
    }
}

/// Why a certificate cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertError {
    /// No randomness, or a name that is none.
    #[error("no certificate can be made: {0}")]
    Make(#[from] rcgen::Error),
    /// Not PEM of the kind it should be.
    #[error("{0} is not the PEM it should be")]
    Pem(&'static str),
    /// Key and certificate do not fit.
    #[error("it cannot be served: {0}")]
    Tls(#[from] rustls::Error),
    /// Its validity cannot be read.
    #[error("the certificate's validity cannot be read")]
    Validity,
}

impl Material {
    /// A new certificate for `names`, of a new authority whose key is forgotten. Those that trusted `before` will for
    /// a while trust both.
    pub(crate) fn make(names: &[String], before: Option<&Self>, now: SystemTime) -> Result<Self, CertError> {
        let dates = |params: &mut CertificateParams| {
            params.not_before = (now - SKEW).into();
            params.not_after = (now + LIFE).into();
        };
        let named = |name: &str| {
            let mut distinguished = DistinguishedName::new();
            distinguished.push(DnType::CommonName, name);
            distinguished
        };
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name = named("tulle-injector authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        dates(&mut params);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = named("tulle-injector");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        dates(&mut params);
        let key = KeyPair::generate()?;
        let chain = params.signed_by(&key, &authority)?.pem();
        let mut authorities = authority.pem();
        // The one before is enough: a certificate lives longer than a rotation takes.
        authorities.extend(before.and_then(|before| first_pem(&before.authorities)));
        Ok(Self { authorities, chain, key: key.serialize_pem() })
    }

    /// What is served with it: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1.
    pub(crate) fn serving(&self) -> Result<Arc<ServerConfig>, CertError> {
        let chain = CertificateDer::pem_slice_iter(self.chain.as_bytes()).collect::<Result<Vec<_>, _>>();
        let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or(CertError::Pem("tls.crt"))?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).map_err(|_| CertError::Pem("tls.key"))?;
        let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// When it ends.
    pub(crate) fn expiry(&self) -> Result<SystemTime, CertError> {
        let der = CertificateDer::from_pem_slice(self.chain.as_bytes()).map_err(|_| CertError::Pem("tls.crt"))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).map_err(|_| CertError::Validity)?;
        let end = u64::try_from(parsed.validity().not_after.timestamp()).map_err(|_| CertError::Validity)?;
        Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(end))
    }

    /// Whether it is to be replaced: it ends soon, has not begun because the clock was set back, or was not made for all
    /// of `names`.
    pub(crate) fn is_due(&self, names: &[String], now: SystemTime) -> bool {
        let fresh = self.expiry().is_ok_and(|expiry| expiry > now + RENEW && expiry <= now + LIFE + 12 * SKEW);
        let named = || {
            let der = CertificateDer::from_pem_slice(self.chain.as_bytes()).ok()?;
            let (_, parsed) = x509_parser::parse_x509_certificate(&der).ok()?;
            let alternatives = parsed.subject_alternative_name().ok()??;
            let has = |name: &String| {
                let named = |general: &GeneralName<'_>| matches!(general, GeneralName::DNSName(dns) if dns == name);
                alternatives.value.general_names.iter().any(named)
            };
            Some(names.iter().all(has))
        };
        !fresh || named() != Some(true)
    }
}

/// The first block of some PEM, whole.
fn first_pem(pem: &str) -> Option<String> {
    let end = "-----END CERTIFICATE-----";
    pem.find(end).and_then(|at| pem.get(..at)).map(|block| format!("{block}{end}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_certificate_is_good_and_the_authority_before_stays_trusted() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let names = ["tulle-injector.tulle-system.svc".to_owned()];
        let now = SystemTime::now();
        let first = Material::make(&names, None, now).unwrap();
        assert!(first.serving().is_ok() && !first.is_due(&names, now));
        assert!(first.is_due(&["other.svc".to_owned()], now), "made for another name");
        assert!(first.is_due(&names, now + LIFE - RENEW), "ends soon");
        let day = Duration::from_secs(86_400);
        assert!(!first.is_due(&names, now - SKEW) && first.is_due(&names, now - day), "hostile_05: set back by a day");
        let second = Material::make(&names, Some(&first), now).unwrap();
        let third = Material::make(&names, Some(&second), now).unwrap();
        let count = |material: &Material| material.authorities.matches("BEGIN").count();
        assert_eq!((count(&first), count(&second), count(&third)), (1, 2, 2));
        assert!(second.authorities.ends_with(&first.authorities));
        assert!(!third.authorities.contains(&first.authorities));
    }

    #[test]
    fn what_cannot_be_served_says_why() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let now = SystemTime::now();
        let good = Material::make(&["a.svc".to_owned()], None, now).unwrap();
        let other = Material::make(&["a.svc".to_owned()], None, now).unwrap();
        let broken = Material { chain: "x".to_owned(), ..good.clone() };
        assert!(matches!(broken.serving(), Err(CertError::Pem("tls.crt"))) && broken.is_due(&[], now));
        let broken = Material { key: other.key, ..good };
        assert!(matches!(broken.serving(), Err(CertError::Tls(_))));
    }
}
