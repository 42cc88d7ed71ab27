//! Mesh TLS handshakes in both directions, and what their failures mean.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use tulle_identity::spiffe::SpiffeId;
use tulle_identity::svid::Identity;
use tulle_identity::tls::verify::{self, VerifyError};
use tulle_identity::tls::{self, Alpn, MeshTls};
use tulle_proto::names;

use super::shake::shake;
use crate::base::failure::{Failure, Reason};
use crate::base::standing::Standing;
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
    /// For how long that holds.
    pub(crate) standing: Standing,
    /// What they will speak.
    pub(crate) inside: Inside,
}

/// Receives a mesh connection: the peer must present a valid certificate.
///
/// # Errors
/// `TlsHandshake`, `CertExpired` or `IdentityMismatch`; the connection is then of no more use.
pub(crate) async fn accept(keys: &MeshTls, socket: Socket, timeout: Duration) -> Result<Accepted, Failure> {
    let broken = |error| Failure::new(Reason::TlsHandshake).because(error);
    let side = UnbufferedServerConnection::new(keys.server()).map_err(broken)?;
    let shaken = match tokio::time::timeout(timeout, shake(side, socket)).await {
        Ok(Ok(shaken)) => shaken,
        Ok(Err(error)) => return Err(Failure::new(reason(&error)).because(error)),
        Err(_) => return Err(Failure::new(Reason::TlsHandshake).because("handshake timeout")),
    };
    let session = shaken.side();
    let bundle = &keys.identity().bundle;
    let Some(proof) = tls::proof(session.peer_certificates(), bundle) else {
        return Err(Failure::new(Reason::CertExpired));
    };
    let standing = Standing::new(&proof, bundle);
    let inside = match session.alpn_protocol() {
        Some(names::ALPN_MESH_H2 | b"h2") => Inside::Http2,
        Some(names::ALPN_MESH_H1 | b"http/1.1") => Inside::Http1,
        _ => Inside::Unsaid,
    };
    let stream = shaken.into_stream().map_err(|error| Failure::new(Reason::TlsHandshake).because(error))?;
    Ok(Accepted { io: Io::Tls(Box::new(stream)), peer: proof.id, standing, inside })
}

/// Dials a mesh peer over `socket`: it must be `expected`. Returns for how long it proved that, too. Nothing of a request was sent when this fails.
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
) -> Result<(Io, Standing), Failure> {
    let name = ServerName::IpAddress(address.into());
    let broken = |error| Failure::safe(Reason::TlsHandshake).because(error);
    let side = UnbufferedClientConnection::new(keys.client(expected, alpn), name).map_err(broken)?;
    let shaken = tokio::time::timeout(timeout, shake(side, socket)).await;
    let shaken = match shaken {
        Ok(Ok(shaken)) => shaken,
        Ok(Err(error)) => return Err(Failure::safe(reason(&error)).because(error)),
        Err(_) => return Err(Failure::safe(Reason::ConnectTimeout).because("handshake timeout")),
    };
    let Identity { svid, bundle } = keys.identity();
    // A resumed session is not verified again.
    let proof = tls::proof(shaken.side().peer_certificates(), bundle);
    let proof = proof.ok_or_else(|| Failure::safe(Reason::CertExpired))?;
    let standing = Standing::new(&proof, bundle).within(svid.not_after());
    let stream = shaken.into_stream().map_err(|error| Failure::safe(reason(&error)).because(error))?;
    Ok((Io::Tls(Box::new(stream)), standing))
}

fn reason(error: &io::Error) -> Reason {
    match verify::refusal(error) {
        Some(VerifyError::Unexpected { .. }) => Reason::IdentityMismatch,
        Some(VerifyError::Expired) => Reason::CertExpired,
        Some(_) | None => Reason::TlsHandshake,
    }
}
