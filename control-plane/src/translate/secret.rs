//! The trust bundle as a secret. Private keys are never secrets here: each workload makes its own.

use tulle_identity::svid::TrustBundle;
use tulle_proto::envoy::config::core::v3::{DataSource, data_source};
use tulle_proto::envoy::extensions::transport_sockets::tls::v3::{CertificateValidationContext, Secret, secret};
use tulle_proto::{Any, names};

use super::Resource;

/// The secret `ROOTCA`: every root of `bundle`, as PEM.
pub fn secret(bundle: &TrustBundle) -> Resource {
    let roots = DataSource {
        specifier: Some(data_source::Specifier::InlineBytes(bundle.pem().into_bytes())),
        ..DataSource::default()
    };
    let context = CertificateValidationContext { trusted_ca: Some(roots), ..CertificateValidationContext::default() };
    let secret =
        Secret { name: names::TRUST_BUNDLE.to_owned(), r#type: Some(secret::Type::ValidationContext(context)) };
    Resource {
        name: names::TRUST_BUNDLE.into(),
        version: format!("{:016x}", bundle.hash()).into(),
        body: Any::pack(&secret),
    }
}
