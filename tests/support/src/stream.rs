//! One type for the peers' connections, with and without TLS.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// A TCP connection, plain or inside TLS.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    Server(Box<tokio_rustls::server::TlsStream<TcpStream>>),
    Client(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

impl Stream {
    /// The accepting side.
    pub(crate) async fn accept(tcp: TcpStream, tls: Option<&Arc<rustls::ServerConfig>>) -> io::Result<Self> {
        match tls {
            None => Ok(Self::Plain(tcp)),
            Some(config) => {
                let stream = TlsAcceptor::from(Arc::clone(config)).accept(tcp).await?;
                Ok(Self::Server(Box::new(stream)))
            }
        }
    }

    /// The connecting side; `name` is the SNI.
    pub(crate) async fn connect(tcp: TcpStream, config: Arc<rustls::ClientConfig>, name: &str) -> io::Result<Self> {
        let name = rustls_pki_types::ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let stream = TlsConnector::from(config).connect(name, tcp).await?;
        Ok(Self::Client(Box::new(stream)))
    }

    /// The socket under it.
    pub(crate) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Server(tls) => tls.get_ref().0,
            Self::Client(tls) => tls.get_ref().0,
        }
    }

    /// Certificates the peer presented, leaf first; empty without TLS or without a client certificate.
    pub(crate) fn peer_certificates(&self) -> Vec<rustls_pki_types::CertificateDer<'static>> {
        let certificates = match self {
            Self::Plain(_) => None,
            Self::Server(tls) => tls.get_ref().1.peer_certificates(),
            Self::Client(tls) => tls.get_ref().1.peer_certificates(),
        };
        certificates.unwrap_or_default().to_vec()
    }

    /// The protocol agreed by ALPN.
    pub(crate) fn alpn(&self) -> Option<Vec<u8>> {
        match self {
            Self::Plain(_) => None,
            Self::Server(tls) => tls.get_ref().1.alpn_protocol().map(<[u8]>::to_vec),
            Self::Client(tls) => tls.get_ref().1.alpn_protocol().map(<[u8]>::to_vec),
        }
    }

    /// Makes dropping this connection send a reset instead of an orderly close.
    pub(crate) fn reset_on_drop(&self) {
        let socket = socket2::SockRef::from(self.tcp());
        socket.set_linger(Some(std::time::Duration::ZERO)).expect("linger of an open socket");
    }
}

macro_rules! each {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Self::Plain($stream) => $call,
            Self::Server($stream) => $call,
            Self::Client($stream) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
