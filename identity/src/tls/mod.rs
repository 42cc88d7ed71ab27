//! rustls configurations for the mesh: TLS 1.3, both ends named, nothing negotiable but the protocol inside.
//!
//! A [`MeshTls`](crate::tls::MeshTls) belongs to one identity (certificate and bundle) and is replaced when that
//! rotates; sessions never outlive it, because the ticket keys and the session store are its own. Share one per
//! process: with one per thread, a ticket would be worthless on every other thread.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, ServerConfig};

use crate::spiffe::SpiffeId;
use crate::svid::{Identity, SvidError, TrustBundle};

/// Deciding who the peer is.
pub mod verify;

/// What a peer has proved, and for how long.
mod proof;

mod client;
mod server;

pub use proof::{Proof, proof};

use client::ClientConfigs;
use verify::PeerVerifier;

/// Everything needed to serve and dial as one identity. Cheap to clone.
#[derive(Clone)]
pub struct MeshTls {
    id: SpiffeId,
    identity: Identity,
    server: Arc<ServerConfig>,
    clients: Arc<ClientConfigs>,
}

/// What may be chosen about mesh TLS; the defaults suit sidecars.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsOptions {
    /// Order of key exchanges we propose; both are always available.
    pub key_exchange: KeyExchange,
    /// Client sessions kept for resumption, for all peers together; eight at most per address. Past it those of the
    /// address dialled first go. 0 turns resumption off.
    pub sessions: usize,
    /// How long a server's ticket key encrypts; it decrypts for as long again. At least a second.
    pub ticket_lifetime: Duration,
}

/// Which key exchange is proposed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyExchange {
    /// X25519, then X25519MLKEM768: 1.2 kB less in each direction of a handshake, and less CPU. Between
    /// sidecars of one cluster this is the better trade.
    ClassicFirst,
    /// X25519MLKEM768, then X25519: safe against somebody who records today and decrypts with a quantum computer.
    HybridFirst,
}

/// What will be spoken inside mesh TLS; decides the ALPN tokens a client offers (decision D9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Alpn {
    /// HTTP/2: `istio-h2`, `istio`, `h2`.
    H2,
    /// HTTP/1.1: `istio-http/1.1`, `istio`, `http/1.1`.
    H1,
    /// Any bytes: `istio`.
    Opaque,
}

/// Why a configuration cannot be made. Our own side's fault in every case.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// Our certificate and key are unusable.
    #[error(transparent)]
    Svid(#[from] SvidError),
    /// rustls refuses the combination, or the system has no randomness to give.
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
}

impl Default for TlsOptions {
    fn default() -> Self {
        Self { key_exchange: KeyExchange::ClassicFirst, sessions: 1024, ticket_lifetime: Duration::from_secs(30 * 60) }
    }
}

impl MeshTls {
    /// Prepares everything for `identity`: loads the key, parses the roots, makes fresh ticket keys.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn new(identity: &Identity, options: &TlsOptions) -> Result<Self, TlsError> {
        let id = identity.svid.id().clone();
        let certified = identity.svid.certified_key()?;
        let verifier = Arc::new(PeerVerifier::new(&identity.bundle, id.trust_domain()));
        let provider = Arc::new(provider(options.key_exchange));
        let server = server::mesh(&certified, Arc::clone(&verifier), Arc::clone(&provider), options.ticket_lifetime)?;
        let clients = ClientConfigs::new(certified, verifier, provider, options.sessions)?;
        Ok(Self { id, identity: identity.clone(), server: Arc::new(server), clients: Arc::new(clients) })
    }

    /// Who we are.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// The certificate and the roots it was made of, to be shown; the key is in there too and is not.
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// For accepting mesh connections: a client certificate is required, and offered ALPN tokens are chosen from, in
    /// this order, `istio-h2`, `istio-http/1.1`, `istio`, `h2`, `http/1.1`.
    ///
    /// One ticket is sent per handshake. Resumed connections carry the peer's certificates from the first handshake;
    /// ask [`proof`](fn@proof), which also refuses one that has expired since.
    pub fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    /// For dialling the workload `expected`: a server that is anybody else breaks the handshake
    /// ([`verify::VerifyError::Unexpected`], found with [`verify::refusal`]).
    ///
    /// The server name given to rustls plays no part in that, but sessions are kept by it: give the endpoint's address
    /// (`ServerName::IpAddress`), for which no SNI is sent and a ticket goes back to the process that made it.
    /// Cached: the same arguments give the same `Arc`, for up to 4096 ids at a time.
    pub fn client(&self, expected: &SpiffeId, alpn: Alpn) -> Arc<ClientConfig> {
        self.clients.get(expected, alpn)
    }
}

impl fmt::Debug for MeshTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshTls").field("id", &self.id).finish_non_exhaustive()
    }
}

/// For a proxy that dials the control plane: no client certificate (a token says who calls), ALPN `h2`, TLS 1.3, the
/// hybrid key exchange first. The server must be `expected`, of any trust domain that is `expected`'s.
///
/// # Errors
/// [`TlsError`].
pub fn control_plane_client(bundle: &TrustBundle, expected: &SpiffeId) -> Result<Arc<ClientConfig>, TlsError> {
    client::control_plane(bundle, expected, Arc::new(provider(KeyExchange::HybridFirst))).map(Arc::new)
}

/// For the control plane's own listener: no client certificate is asked for, ALPN `h2`, TLS 1.3, or 1.2 for clients
/// such as Envoy whose default ends there.
///
/// # Errors
/// [`TlsError`].
pub fn control_plane_server(identity: &Identity) -> Result<Arc<ServerConfig>, TlsError> {
    let certified = identity.svid.certified_key()?;
    server::control_plane(certified, Arc::new(provider(KeyExchange::HybridFirst))).map(Arc::new)
}

fn provider(order: KeyExchange) -> CryptoProvider {
    let mut groups = vec![aws_lc_rs::kx_group::X25519, aws_lc_rs::kx_group::X25519MLKEM768];
    if order == KeyExchange::HybridFirst {
        groups.reverse();
    }
    // For clients that know neither, such as those confined to FIPS curves.
    groups.push(aws_lc_rs::kx_group::SECP256R1);
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = groups;
    // AES-128-GCM first: the cheapest on machines with AES instructions, and as safe as the P-256 and X25519 around it.
    let cheapest = rustls::CipherSuite::TLS13_AES_128_GCM_SHA256;
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != cheapest);
    provider
}

#[cfg(test)]
mod tests;
