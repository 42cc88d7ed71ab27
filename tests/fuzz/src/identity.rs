//! Names and certificates.

use rustls::pki_types::CertificateDer;
use tulle_identity::spiffe::{SpiffeId, TrustDomain};
use tulle_identity::svid::{TrustBundle, verify_leaf};
use tulle_identity::{account, csr};

/// A SPIFFE id: one that is accepted is made of its parts, and of nothing else.
pub fn spiffe(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(domain) = TrustDomain::parse(text) {
        assert!(SpiffeId::parse(&format!("spiffe://{domain}/a")).is_ok(), "an id in {domain}");
    }
    let parts = text.split_once(' ').unwrap_or((text, "default"));
    let local = TrustDomain::parse("td");
    if let Ok(Ok(id)) = local.map(|local| SpiffeId::workload(&local, parts.0, parts.1)) {
        assert_eq!((id.namespace(), id.service_account()), (Some(parts.0), Some(parts.1)), "of {id}");
    }
    let Ok(id) = SpiffeId::parse(text) else { return };
    assert_eq!(id.as_str(), text, "nothing is normalised");
    assert_eq!(format!("spiffe://{}/{}", id.trust_domain(), id.path()), text, "its parts");
    assert!(id.is_in(&id.trust_domain()), "its own trust domain");
    assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":/._-".contains(&byte)), "{text:?}");
    assert!(!id.path().split('/').any(|part| matches!(part, "" | "." | "..")), "{text:?}");
}

/// A certificate in DER, a request or certificates in PEM, a token: read or refused.
pub fn certificate(bytes: &[u8]) {
    if let Ok(id) = verify_leaf(&CertificateDer::from(bytes)) {
        assert!(SpiffeId::parse(id.as_str()).is_ok(), "{id}");
    }
    let _ = TrustBundle::from_pem(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = csr::parse(text);
        let _ = account::claimed(text);
    }
}
