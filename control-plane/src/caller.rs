//! Who calls: a bearer token of a gRPC call becomes a SPIFFE id, or a refusal that says what was wrong.
//!
//! Nothing else identifies a caller: not its address, not what it claims in a message.

use std::sync::Arc;
use std::time::SystemTime;

use tonic::Status;
use tonic::metadata::MetadataMap;
use tulle_identity::spiffe::{SpiffeId, TrustDomain};
use tulle_identity::token::TokenVerifier;

/// Verifies the callers of one listener.
#[derive(Clone)]
pub(crate) struct Callers {
    verifier: Arc<TokenVerifier>,
    trust_domain: TrustDomain,
    anonymous: bool,
}

impl Callers {
    /// Callers must have a token of `trust_domain`.
    pub(crate) fn new(verifier: Arc<TokenVerifier>, trust_domain: TrustDomain) -> Self {
        Self { verifier, trust_domain, anonymous: false }
    }

    /// The same, but callers without a token may read. For listeners on loopback only.
    pub(crate) fn or_anonymous(&self) -> Self {
        Self { anonymous: true, ..self.clone() }
    }

    /// The caller of a read; `None` is an anonymous one where those are allowed.
    ///
    /// # Errors
    /// `Unauthenticated` when there is no valid token; a token that is present must be valid everywhere.
    pub(crate) fn reader(&self, metadata: &MetadataMap) -> Result<Option<SpiffeId>, Status> {
        if self.anonymous && !metadata.contains_key("authorization") {
            return Ok(None);
        }
        self.authenticated(metadata).map(Some)
    }

    /// The caller of anything else.
    ///
    /// # Errors
    /// `Unauthenticated` when there is no valid token.
    pub(crate) fn authenticated(&self, metadata: &MetadataMap) -> Result<SpiffeId, Status> {
        let mut values = metadata.get_all("authorization").iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(Status::unauthenticated("exactly one authorization: Bearer TOKEN is needed"));
        };
        let token = value.to_str().ok().and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        let Some(token) = token else {
            return Err(Status::unauthenticated("the authorization is not of the form Bearer TOKEN"));
        };
        let claims = self
            .verifier
            .verify(token, SystemTime::now())
            .map_err(|error| Status::unauthenticated(format!("the workload token is not valid: {error}")))?;
        if claims.id.trust_domain() != self.trust_domain {
            return Err(Status::unauthenticated(format!(
                "the workload token is of {}, this is trust domain {}",
                claims.id, self.trust_domain
            )));
        }
        Ok(claims.id)
    }
}
