//! Secret -> trust bundle. No other secret is ever taken from the control plane: a private key never travels (D8).

use std::sync::Arc;

use tulle_identity::svid::TrustBundle;
use tulle_proto::envoy::config::core::v3::data_source::Specifier;
use tulle_proto::envoy::extensions::transport_sockets::tls::v3 as sds;

use crate::config::reject::Fault;

/// Compiles a trust bundle.
///
/// # Errors
/// When the secret is no validation context with inline PEM certificates.
pub(super) fn compile(secret: &sds::Secret) -> Result<Arc<TrustBundle>, Fault> {
    let Some(sds::secret::Type::ValidationContext(context)) = &secret.r#type else {
        return Err(Fault::new("", "is no validation context"));
    };
    let source = context.trusted_ca.as_ref().and_then(|ca| ca.specifier.as_ref());
    let pem = match source {
        Some(Specifier::InlineBytes(bytes)) => bytes.as_slice(),
        Some(Specifier::InlineString(text)) => text.as_bytes(),
        Some(Specifier::Filename(_) | Specifier::EnvironmentVariable(_)) | None => {
            return Err(Fault::new("validation_context.trusted_ca", "has no inline bytes"));
        }
    };
    TrustBundle::from_pem(pem)
        .map(Arc::new)
        .map_err(|error| Fault::new("validation_context.trusted_ca", format!("is no trust bundle: {error}")))
}
