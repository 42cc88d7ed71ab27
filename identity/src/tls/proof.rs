//! What a peer has proved by its certificate, and for how long that holds: a connection must not outlive either its
//! certificate or the root that vouched for it.

#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::cast_possible_truncation,
        clippy::unreachable
    )
)]

use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;

use crate::spiffe::SpiffeId;
use crate::svid::{self, AuthorityId, TrustBundle};

/// Certificates between a leaf and its root that are followed; beyond them the root counts as not known.
const LONGEST_CHAIN: usize = 8;

/// What a peer has proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// Who it is.
    pub id: SpiffeId,
    /// Last second of its certificate, or of one between it and the root.
    pub until: SystemTime,
    /// The root that vouches for it; none when that cannot be told for sure.
    pub authority: Option<AuthorityId>,
}

/// What is proved on a connection whose handshake succeeded; `certs` are rustls' `peer_certificates()`, `bundle` is the one
/// that the handshake was made with. Signatures are not checked again.
///
/// `None`: no certificate was asked for, or it is not valid at this moment any more (a resumed session is not verified
/// again). Treat `None` on a mesh connection as a failed handshake.
pub fn proof(certs: Option<&[CertificateDer<'_>]>, bundle: &TrustBundle) -> Option<Proof> {
    proof_at(certs?, bundle, SystemTime::now())
}

pub(super) fn proof_at(certs: &[CertificateDer<'_>], bundle: &TrustBundle, now: SystemTime) -> Option<Proof> {
    let (leaf, rest) = certs.split_first()?;
    let (id, not_before, mut until) = svid::read_leaf(leaf).ok()?;
    if now < not_before || until < now {
        return None;
    }
    let mut current = svid::parse(leaf).ok()?;
    let mut authority = None;
    for _ in 0..LONGEST_CHAIN {
        authority = bundle.authority_of(&current);
        if authority.is_some() {
            break;
        }
        let Some(issuer) = sole_issuer(&current, rest) else { break };
        until = until.min(svid::system_time(issuer.validity().not_after.timestamp()).ok()?);
        current = issuer;
    }
    (now <= until).then_some(Proof { id, until, authority })
}

/// The certificate in `rest` that may have signed `cert`; none when there are several, for a peer can add what it likes.
fn sole_issuer<'c>(cert: &X509Certificate<'_>, rest: &'c [CertificateDer<'_>]) -> Option<X509Certificate<'c>> {
    let parsed = rest.iter().filter_map(|other| svid::parse(other).ok());
    let mut issuers = parsed.filter(|other| other.subject().as_raw() == cert.issuer().as_raw());
    let issuer = issuers.next()?;
    issuers.next().is_none().then_some(issuer)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing::{Leaf, Rogue};

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn hostile_13_a_proof_ends_with_its_certificate_and_names_its_root() {
        let (one, two) = (Rogue::new(), Rogue::new());
        let both = TrustBundle::from_roots(vec![one.root(), two.root()]).unwrap();
        let leaf = Leaf::of(&["spiffe://td/a"]);
        let identity = one.identity(&leaf.with(|params| params.use_authority_key_identifier_extension = true));
        let (certs, end) = (identity.svid.chain(), identity.svid.not_after());
        let proof = proof_at(certs, &both, end).unwrap();
        assert_eq!((&proof.id, proof.until), (identity.svid.id(), end));
        assert!(proof_at(certs, &both, end + SECOND).is_none());
        assert!(proof_at(certs, &both, identity.svid.not_before() - SECOND).is_none());
        assert!(super::proof(None, &both).is_none() && super::proof(Some(&[]), &both).is_none());

        let authority = proof.authority.expect("one of the roots");
        assert!(both.has(authority) && one.bundle().has(authority));
        assert!(!two.bundle().has(authority), "the root that vouched is gone");
        // Certificates that a peer adds lead nowhere else.
        let padded = [certs, &[two.root(), one.root()][..]].concat();
        assert_eq!(proof_at(&padded, &both, end).unwrap().authority, Some(authority));
        assert_eq!(proof_at(certs, &two.bundle(), end).unwrap().authority, None);
        // Two roots of one name, and a certificate that does not say by which key it was signed.
        let vague = one.identity(&Leaf::of(&["spiffe://td/a"]));
        let end = vague.svid.not_after();
        assert_eq!(proof_at(vague.svid.chain(), &both, end).unwrap().authority, None);
        assert_eq!(proof_at(vague.svid.chain(), &one.bundle(), end).unwrap().authority, Some(authority));
    }
}
