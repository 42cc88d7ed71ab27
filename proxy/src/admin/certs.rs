//! The certificate in use: whose, which, until when. Never its key.

use serde::Serialize;
use tulle_identity::tls::MeshTls;

use crate::telemetry::rfc3339::Millis;

/// What is shown; nothing but `identity: null` before the first certificate.
#[derive(Debug, Serialize)]
pub(super) struct View {
    identity: Option<Certificate>,
}

#[derive(Debug, Serialize)]
struct Certificate {
    spiffe_id: String,
    serial: String,
    not_before: String,
    not_after: String,
    chain_length: usize,
    roots: usize,
    bundle_hash: String,
}

/// The view of the identity in use.
pub(super) fn view(keys: Option<&MeshTls>) -> View {
    let certificate = |keys: &MeshTls| {
        let (svid, bundle) = (&keys.identity().svid, &keys.identity().bundle);
        Certificate {
            spiffe_id: svid.id().to_string(),
            serial: svid.serial(),
            not_before: Millis(svid.not_before()).to_string(),
            not_after: Millis(svid.not_after()).to_string(),
            chain_length: svid.chain().len(),
            roots: bundle.roots().len(),
            bundle_hash: format!("{:016x}", bundle.hash()),
        }
    };
    View { identity: keys.map(certificate) }
}
