//! Who calls: a bearer token of a gRPC call becomes a SPIFFE id, or a refusal that says what was wrong.
//!
//! Nothing else identifies a caller: not its address, not what it claims in a message. A token is one the control plane
//! issued, or, in a cluster, one of a pod's ServiceAccount, which the cluster is asked about.

/// Tokens of ServiceAccounts: the cluster is asked.
mod review;

/// What the cluster answered lately.
mod recent;

use std::sync::Arc;
use std::time::SystemTime;

use tonic::Status;
use tonic::metadata::MetadataMap;
use tulle_identity::account;
use tulle_identity::spiffe::{SpiffeId, TrustDomain};
use tulle_identity::token::{TokenError, TokenVerifier};

use crate::model::Key;

pub(crate) use review::Reviewer;

/// Verifies the callers of one listener.
#[derive(Clone)]
pub(crate) struct Callers {
    verifier: Arc<TokenVerifier>,
    /// Asks the cluster, where there is one.
    reviewer: Option<Arc<Reviewer>>,
    trust_domain: TrustDomain,
    anonymous: bool,
}

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) id: SpiffeId,
    /// The pod its token is of, in a cluster.
    pub(crate) pod: Option<Key>,
    /// When the proof of it ends: nothing is served to the caller beyond.
    pub(crate) expires: SystemTime,
}

impl Callers {
    /// Callers must have a token of `trust_domain`, or one `reviewer` vouches for.
    pub(crate) fn new(
        verifier: Arc<TokenVerifier>,
        reviewer: Option<Arc<Reviewer>>,
        trust_domain: TrustDomain,
    ) -> Self {
        Self { verifier, reviewer, trust_domain, anonymous: false }
    }

    /// The same, but callers without a token may read. For listeners on loopback only.
    pub(crate) fn or_anonymous(&self) -> Self {
        Self { anonymous: true, ..self.clone() }
    }

    /// The caller of a read; `None` is an anonymous one where those are allowed.
    ///
    /// # Errors
    /// As [`Self::authenticated`]; a token that is present must be valid everywhere.
    pub(crate) async fn reader(&self, metadata: &MetadataMap) -> Result<Option<Caller>, Status> {
        if self.anonymous && !metadata.contains_key("authorization") {
            return Ok(None);
        }
        self.authenticated(metadata).await.map(Some)
    }

    /// The caller of anything else.
    ///
    /// # Errors
    /// `Unauthenticated` when there is no valid token, `Unavailable` when the cluster cannot be asked about it.
    pub(crate) async fn authenticated(&self, metadata: &MetadataMap) -> Result<Caller, Status> {
        let token = bearer(metadata)?;
        match self.verifier.verify(token, SystemTime::now()) {
            Ok(claims) if claims.id.trust_domain() != self.trust_domain => Err(Status::unauthenticated(format!(
                "the workload token is of {}, this is trust domain {}",
                claims.id, self.trust_domain
            ))),
            Ok(claims) => Ok(Caller { id: claims.id, pod: None, expires: claims.expires }),
            Err(error) => self.reviewed(token, &error).await,
        }
    }

    /// The caller of a token that is not ours.
    async fn reviewed(&self, token: &str, error: &TokenError) -> Result<Caller, Status> {
        let refused = || Status::unauthenticated(format!("the workload token is not valid: {error}"));
        // Whatever is ours, or no token at all, is nothing to ask the cluster about.
        let foreign = matches!(error, TokenError::Signature | TokenError::Audience | TokenError::Malformed);
        let reviewer = self.reviewer.as_ref().filter(|_| foreign).ok_or_else(refused)?;
        let claimed = account::claimed(token).ok_or_else(refused)?;
        let pod = reviewer.review(token, &claimed).await?;
        let id = SpiffeId::workload(&self.trust_domain, &pod.key.namespace, &pod.service_account)
            .map_err(|error| Status::unauthenticated(format!("no identity can be made of the token: {error}")))?;
        Ok(Caller { id, pod: Some(pod.key), expires: claimed.expires })
    }
}

/// The bearer token of a call.
fn bearer(metadata: &MetadataMap) -> Result<&str, Status> {
    let mut values = metadata.get_all("authorization").iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(Status::unauthenticated("exactly one authorization: Bearer TOKEN is needed"));
    };
    let token = value.to_str().ok().and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    token.ok_or_else(|| Status::unauthenticated("the authorization is not of the form Bearer TOKEN"))
}
