//! The connection to the control plane: its name resolved, TLS with the control plane's proven identity, the workload's
//! token. Discovery and certificate requests both use it; what they say over it is theirs.

/// Where the control plane is.
mod resolve;

#[cfg(test)]
pub(crate) mod scripted;

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tulle_identity::svid::TrustBundle;
use tulle_identity::tls::control_plane_client;

use crate::config::bootstrap::ControlPlane;
use resolve::Resolver;

/// Longest time from the lookup of the name to a working channel.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time for one address, so that one dead replica does not use up the whole timeout.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(3);

/// A silent connection is probed this often, and given up when the probe is not answered in time: a control plane
/// that vanished without a FIN is noticed within their sum.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Largest trust bundle and token files that are read.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A channel to the control plane, and the credential for calls on it. Dropping it closes the connection.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    /// The channel.
    pub(crate) channel: Channel,
    token: MetadataValue<Ascii>,
}

impl Connection {
    /// A call that carries the workload's token.
    pub(crate) fn authorized<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.metadata_mut().insert("authorization", self.token.clone());
        request
    }
}

/// Why there is no connection. All are worth another try: files and names may yet appear.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// A file could not be read.
    #[error("cannot read {what} {path}: {source}")]
    File {
        /// What the file holds.
        what: &'static str,
        /// Where it is.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The trust bundle is unusable.
    #[error("trust bundle {0} is unusable: {1}")]
    Bundle(PathBuf, String),
    /// The token is not printable text.
    #[error("token file {0} holds no token")]
    Token(PathBuf),
    /// The address is no host and port.
    #[error("`{0}` is no host with a port")]
    Address(String),
    /// Lookup, TCP, TLS or HTTP/2.
    #[error("cannot connect to {address}: {reason}")]
    Transport {
        /// The address as configured.
        address: String,
        /// Every cause, outermost first.
        reason: String,
    },
    /// It took too long.
    #[error("cannot connect to {0} within {CONNECT_TIMEOUT:?}")]
    Timeout(String),
}

/// Connects anew. Files are read each time, so that a rotated token or trust bundle is taken up.
///
/// # Errors
/// See [`ConnectError`].
pub(crate) async fn connect(settings: &ControlPlane) -> Result<Connection, ConnectError> {
    let address = || settings.address.clone();
    let pem = read("trust bundle", &settings.trust_bundle)?;
    let unusable = |error: String| ConnectError::Bundle(settings.trust_bundle.clone(), error);
    let bundle = TrustBundle::from_pem(&pem).map_err(|error| unusable(error.to_string()))?;
    let config = control_plane_client(&bundle, &settings.server_id).map_err(|error| unusable(error.to_string()))?;
    let token = token(&settings.token)?;
    let (host, port) = split(&settings.address).ok_or_else(|| ConnectError::Address(address()))?;
    let connector = Connector { host: host.into(), port, tls: TlsConnector::from(config), resolver: Resolver::new() };
    let endpoint = Endpoint::from_shared(format!("http://{}", settings.address))
        .and_then(|endpoint| Ok(endpoint.origin(origin(&settings.address)?)))
        .map_err(|_| ConnectError::Address(address()))?
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    let channel = tokio::time::timeout(CONNECT_TIMEOUT, endpoint.connect_with_connector(connector)).await;
    match channel {
        Ok(Ok(channel)) => Ok(Connection { channel, token }),
        Ok(Err(error)) => Err(ConnectError::Transport { address: address(), reason: causes(&error) }),
        Err(_elapsed) => Err(ConnectError::Timeout(address())),
    }
}

/// A message and what caused it, outermost first.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// What requests name as their authority: the channel is TLS, though tonic does not do it.
fn origin(address: &str) -> Result<Uri, tonic::transport::Error> {
    Endpoint::from_shared(format!("https://{address}")).map(|endpoint| endpoint.uri().clone())
}

fn split(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Some((host, port.parse().ok()?))
}

/// Reads a small file. Blocks for as long as a read of a mounted secret does, beside the path.
fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, ConnectError> {
    let failed = |source| ConnectError::File { what, path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, MAX_FILE_BYTES), &mut bytes).map_err(failed)?;
    Ok(bytes)
}

fn token(path: &Path) -> Result<MetadataValue<Ascii>, ConnectError> {
    let bad = || ConnectError::Token(path.to_owned());
    let text = String::from_utf8(read("token", path)?).map_err(|_| bad())?;
    let text = text.trim();
    if text.is_empty() {
        return Err(bad());
    }
    let mut value: MetadataValue<Ascii> = format!("Bearer {text}").parse().map_err(|_| bad())?;
    value.set_sensitive(true);
    Ok(value)
}

/// Dials for tonic: resolves at each attempt, tries the addresses in random order, then TLS.
#[derive(Clone)]
struct Connector {
    host: Arc<str>,
    port: u16,
    tls: TlsConnector,
    resolver: Resolver,
}

impl Connector {
    async fn dial(self) -> io::Result<TokioIo<TlsStream<TcpStream>>> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{} has no address", self.host));
        for address in self.resolver.lookup(&self.host, self.port).await? {
            match tokio::time::timeout(ADDRESS_TIMEOUT, self.dial_address(address)).await {
                Ok(Ok(stream)) => return Ok(TokioIo::new(stream)),
                Ok(Err(error)) => last = io::Error::new(error.kind(), format!("{address}: {error}")),
                Err(_elapsed) => last = io::Error::new(io::ErrorKind::TimedOut, format!("{address}: no answer")),
            }
        }
        Err(last)
    }

    async fn dial_address(&self, address: std::net::SocketAddr) -> io::Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        // Only for SNI: who the server is, its SPIFFE id decides.
        let name = ServerName::try_from(self.host.to_string()).unwrap_or_else(|_| ServerName::from(address.ip()));
        self.tls.connect(name, tcp).await
    }
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        Box::pin(self.clone().dial())
    }
}
