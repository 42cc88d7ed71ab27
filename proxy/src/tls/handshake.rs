//! Mesh TLS handshakes in both directions, and what their failures mean.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tulle_identity::spiffe::SpiffeId;
use tulle_identity::tls::verify::{self, VerifyError};
use tulle_identity::tls::{self, Alpn, MeshTls};
use tulle_proto::names;

use crate::base::failure::{Failure, Reason};
use crate::conn::{Io, Socket};

/// What the peers agreed to speak inside mesh TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inside {
    /// HTTP/2.
    Http2,
    /// HTTP/1.1.
    Http1,
    /// Not said: opaque, or to be found out.
    Unsaid,
}

/// A mesh connection that was accepted.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// The stream.
    pub(crate) io: Io,
    /// Who is at the other end.
    pub(crate) peer: SpiffeId,
    /// What they will speak.
    pub(crate) inside: Inside,
}

/// Receives a mesh connection: the peer must present a valid certificate.
///
/// # Errors
/// `TlsHandshake`, `CertExpired` or `IdentityMismatch`; the connection is then of no more use.
pub(crate) async fn accept(keys: &MeshTls, socket: Socket, timeout: Duration) -> Result<Accepted, Failure> {
    let handshake = TlsAcceptor::from(keys.server()).accept(socket);
    let stream = match tokio::time::timeout(timeout, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(Failure::new(reason(&error)).because(error)),
        Err(_) => return Err(Failure::new(Reason::TlsHandshake).because("handshake timeout")),
    };
    let session = stream.get_ref().1;
    let Some(peer) = tls::peer_id(session.peer_certificates()) else {
        return Err(Failure::new(Reason::CertExpired));
    };
    let inside = match session.alpn_protocol() {
        Some(names::ALPN_MESH_H2 | b"h2") => Inside::Http2,
        Some(names::ALPN_MESH_H1 | b"http/1.1") => Inside::Http1,
        _ => Inside::Unsaid,
    };
    Ok(Accepted { io: Io::Server(Box::new(stream)), peer, inside })
}

/// Dials a mesh peer over `socket`: it must be `expected`. Nothing of a request was sent when this fails.
///
/// # Errors
/// `TlsHandshake`, `CertExpired`, `IdentityMismatch` or `ConnectTimeout`, all safe to retry elsewhere.
pub(crate) async fn connect(
    keys: &MeshTls,
    socket: Socket,
    address: IpAddr,
    expected: &SpiffeId,
    alpn: Alpn,
    timeout: Duration,
) -> Result<Io, Failure> {
    let name = ServerName::IpAddress(address.into());
    let handshake = TlsConnector::from(Arc::clone(&keys.client(expected, alpn))).connect(name, socket);
    match tokio::time::timeout(timeout, handshake).await {
        Ok(Ok(stream)) => Ok(Io::Client(Box::new(stream))),
        Ok(Err(error)) => Err(Failure::safe(reason(&error)).because(error)),
        Err(_) => Err(Failure::safe(Reason::ConnectTimeout).because("handshake timeout")),
    }
}

fn reason(error: &io::Error) -> Reason {
    match verify::refusal(error) {
        Some(VerifyError::Unexpected { .. }) => Reason::IdentityMismatch,
        Some(VerifyError::Expired) => Reason::CertExpired,
        Some(_) | None => Reason::TlsHandshake,
    }
}
