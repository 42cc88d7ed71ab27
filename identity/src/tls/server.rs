//! The accepting side: asks for a client certificate (mesh) or for none (control plane).
//!
//! Stateless tickets only, so that one key serves every thread of the process.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ProducesTickets};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme, TicketRotator};
use tulle_proto::names::{ALPN_MESH, ALPN_MESH_H1, ALPN_MESH_H2};

use super::TlsError;
use super::verify::{PeerVerifier, Role};

/// For connections of the mesh.
pub(super) fn mesh(
    certified: &Arc<CertifiedKey>,
    verifier: Arc<PeerVerifier>,
    provider: Arc<CryptoProvider>,
    ticket_lifetime: Duration,
) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(AnyWorkload(verifier)))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(certified))));
    config.alpn_protocols = [ALPN_MESH_H2, ALPN_MESH_H1, ALPN_MESH, b"h2", b"http/1.1"].map(<[u8]>::to_vec).to_vec();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    let seconds = u32::try_from(ticket_lifetime.as_secs()).unwrap_or(u32::MAX).max(1);
    config.ticketer = Arc::new(TicketRotator::new(seconds, new_ticketer)?);
    // The proxy opens and seals records itself.
    config.enable_secret_extraction = true;
    // A pool dials an endpoint again long before it has used up more than one.
    config.send_tls13_tickets = 1;
    Ok(config)
}

/// For the control plane's listener.
pub(super) fn control_plane(
    certified: Arc<CertifiedKey>,
    provider: Arc<CryptoProvider>,
) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![b"h2".to_vec()];
    // Streams last for hours; a ticket would be stale by the next.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Any workload of the trust domain may connect; what it may do is policy, decided later.
#[derive(Debug)]
struct AnyWorkload(Arc<PeerVerifier>);

impl ClientCertVerifier for AnyWorkload {
    /// None: every peer has one certificate, and the list would cost bytes in each handshake.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.0.verify_at(Role::Client, leaf, rest, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, self.0.algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, self.0.algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.algorithms().supported_schemes()
    }
}

/// aws-lc's ticketer behind a box. Its own key lives for hours, longer than the rotator around it lets it.
#[derive(Debug)]
struct Ticketer(Arc<dyn ProducesTickets>);

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        self.0.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.0.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.0.encrypt(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.0.decrypt(cipher)
    }
}

fn new_ticketer() -> Result<Box<dyn ProducesTickets>, rustls::crypto::GetRandomFailed> {
    let ticketer = aws_lc_rs::Ticketer::new().map_err(|_| rustls::crypto::GetRandomFailed)?;
    Ok(Box::new(Ticketer(ticketer)))
}
