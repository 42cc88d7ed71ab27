//! The dialling side: one expected peer per configuration, and a bounded cache of configurations.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, Tls12Resumption};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tulle_proto::names::{ALPN_MESH, ALPN_MESH_H1, ALPN_MESH_H2};

use super::verify::PeerVerifier;
use super::{Alpn, TlsError};
use crate::spiffe::SpiffeId;
use crate::svid::TrustBundle;

/// Client configurations of one identity, by expected peer and ALPN.
pub(super) struct ClientConfigs {
    verifier: Arc<PeerVerifier>,
    /// Complete but for the expected peer and ALPN.
    template: ClientConfig,
    made: RwLock<HashMap<SpiffeId, Arc<PerPeer>>>,
}

/// The three configurations for one expected peer.
///
/// One bounded store holds the sessions of all peers (rustls reserves a store's tables in full, too much for each of
/// hundreds of peers). rustls resumes a session only for the verifier and the client certificate it was made with:
/// these three share theirs, and nobody else has them, so a session of one expected peer never serves for another.
struct PerPeer {
    h2: Arc<ClientConfig>,
    h1: Arc<ClientConfig>,
    opaque: Arc<ClientConfig>,
}

impl ClientConfigs {
    pub(super) fn new(
        certified: Arc<CertifiedKey>,
        verifier: Arc<PeerVerifier>,
        provider: Arc<CryptoProvider>,
        sessions: usize,
    ) -> Result<Self, TlsError> {
        let mut template = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            // No roots: until a peer is named, nobody is accepted.
            .with_root_certificates(RootCertStore::empty())
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        template.resumption = match sessions {
            0 => Resumption::disabled(),
            count => Resumption::in_memory_sessions(count).tls12_resumption(Tls12Resumption::Disabled),
        };
        // The proxy opens and seals records itself.
        template.enable_secret_extraction = true;
        Ok(Self { verifier, template, made: RwLock::new(HashMap::new()) })
    }

    pub(super) fn get(&self, expected: &SpiffeId, alpn: Alpn) -> Arc<ClientConfig> {
        // A poisoned lock is harmless: an entry is complete before it is inserted.
        if let Some(peer) = self.made.read().unwrap_or_else(PoisonError::into_inner).get(expected) {
            return peer.config(alpn);
        }
        let mut made = self.made.write().unwrap_or_else(PoisonError::into_inner);
        if made.len() >= MAX_PEERS
            && let Some(victim) = made.keys().next().cloned()
        {
            made.remove(&victim);
        }
        let peer = made.entry(expected.clone()).or_insert_with(|| Arc::new(self.make(expected)));
        peer.config(alpn)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.made.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn make(&self, expected: &SpiffeId) -> PerPeer {
        let mut base = self.template.clone();
        base.dangerous().set_certificate_verifier(Arc::new(Expected {
            id: expected.clone(),
            verifier: Arc::clone(&self.verifier),
        }));
        let with = |tokens: &[&[u8]]| {
            let mut config = base.clone();
            config.alpn_protocols = tokens.iter().map(|token| token.to_vec()).collect();
            Arc::new(config)
        };
        PerPeer {
            h2: with(&[ALPN_MESH_H2, ALPN_MESH, b"h2"]),
            h1: with(&[ALPN_MESH_H1, ALPN_MESH, b"http/1.1"]),
            opaque: with(&[ALPN_MESH]),
        }
    }
}

impl PerPeer {
    fn config(&self, alpn: Alpn) -> Arc<ClientConfig> {
        Arc::clone(match alpn {
            Alpn::H2 => &self.h2,
            Alpn::H1 => &self.h1,
            Alpn::Opaque => &self.opaque,
        })
    }
}

impl fmt::Debug for ClientConfigs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientConfigs")
    }
}

/// For dialling the control plane.
pub(super) fn control_plane(
    bundle: &TrustBundle,
    expected: &SpiffeId,
    provider: Arc<CryptoProvider>,
) -> Result<ClientConfig, TlsError> {
    let verifier = Arc::new(PeerVerifier::new(bundle, expected.trust_domain()));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Expected { id: expected.clone(), verifier }))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Accepts one workload.
#[derive(Debug)]
struct Expected {
    id: SpiffeId,
    verifier: Arc<PeerVerifier>,
}

impl ServerCertVerifier for Expected {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verifier.verify_server(&self.id, leaf, rest, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, self.verifier.algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, self.verifier.algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.algorithms().supported_schemes()
    }
}

/// A sidecar dials tens of services, a gateway hundreds. Past it an arbitrary one goes and is made again when needed.
pub(super) const MAX_PEERS: usize = 4096;
