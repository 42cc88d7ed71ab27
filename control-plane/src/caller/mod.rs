//! Who calls: a bearer token of a gRPC call becomes a SPIFFE id, or a refusal that says what was wrong.
//!
//! Nothing else identifies a caller: not its address, not what it claims in a message. A token is one the control plane
//! issued, or, in a cluster, one of a pod's ServiceAccount, which the cluster is asked about.

/// Tokens of ServiceAccounts: the cluster is asked.
mod review;

/// What the cluster answered lately.
mod recent;

/// The keys of the cluster.
mod keys;

/// Whose turn it is to ask the cluster.
mod turns;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use tonic::metadata::MetadataMap;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Extensions, Status};
use tulle_identity::account;
use tulle_identity::spiffe::{SpiffeId, TrustDomain};
use tulle_identity::token::{TokenError, TokenVerifier};

use crate::model::Key;
use crate::quota::Who;

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

impl Caller {
    /// For whom its quota counts.
    pub(crate) const fn who(&self) -> Who<'_> {
        (&self.id, self.pod.as_ref())
    }
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
    pub(crate) async fn reader(&self, head: Head<'_>) -> Result<Option<Caller>, Status> {
        if self.anonymous && !head.metadata.contains_key("authorization") {
            return Ok(None);
        }
        self.authenticated(head).await.map(Some)
    }

    /// The caller of anything else.
    ///
    /// # Errors
    /// `Unauthenticated` when there is no valid token, `Unavailable` when the cluster cannot be asked about it.
    pub(crate) async fn authenticated(&self, head: Head<'_>) -> Result<Caller, Status> {
        let token = bearer(head.metadata)?;
        match self.verifier.verify(token, SystemTime::now()) {
            Ok(claims) if claims.id.trust_domain() != self.trust_domain => Err(Status::unauthenticated(format!(
                "the workload token is of {}, this is trust domain {}",
                claims.id, self.trust_domain
            ))),
            Ok(claims) => Ok(Caller { id: claims.id, pod: None, expires: claims.expires }),
            Err(error) => self.reviewed(token, &error, source(head.extensions)).await,
        }
    }

    /// The caller of a token that is not ours.
    async fn reviewed(&self, token: &str, error: &TokenError, source: IpAddr) -> Result<Caller, Status> {
        let refused = || Status::unauthenticated(format!("the workload token is not valid: {error}"));
        // Whatever is ours, or no token at all, is nothing to ask the cluster about.
        let foreign = matches!(error, TokenError::Signature | TokenError::Audience | TokenError::Malformed);
        let reviewer = self.reviewer.as_ref().filter(|_| foreign).ok_or_else(refused)?;
        let claimed = account::claimed(token).ok_or_else(refused)?;
        let pod = reviewer.review(token, &claimed, source).await?;
        let id = SpiffeId::workload(&self.trust_domain, &pod.key.namespace, &pod.service_account)
            .map_err(|error| Status::unauthenticated(format!("no identity can be made of the token: {error}")))?;
        Ok(Caller { id, pod: Some(pod.key), expires: claimed.expires })
    }
}

/// The head of a call.
#[derive(Clone, Copy)]
pub(crate) struct Head<'a> {
    metadata: &'a MetadataMap,
    extensions: &'a Extensions,
}

impl<'a> Head<'a> {
    pub(crate) fn of<T>(request: &'a tonic::Request<T>) -> Self {
        Self { metadata: request.metadata(), extensions: request.extensions() }
    }
}

/// The peer of a connection with TLS. It identifies nobody: callers of one address share their turns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// Where a call comes from, as far as it is known.
fn source(extensions: &Extensions) -> IpAddr {
    let plain = || extensions.get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
    let peer = extensions.get::<Peer>().map(|peer| peer.0).or_else(plain);
    peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip())
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
