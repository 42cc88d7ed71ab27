//! One delta stream to a control plane: TCP, TLS, HTTP/2 and gRPC's framing by hand, because thousands of them share
//! one machine with the control plane that is measured.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h2::{RecvStream, SendStream};
use prost::Message as _;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;
use tulle_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

use super::tally::Tally;

/// Longest time for a connection, as a proxy waits.
const CONNECT: Duration = Duration::from_secs(10);

/// Receive windows.
const WINDOW: u32 = 1 << 20;

/// Bytes of an HTTP/2 frame's head.
const FRAME_HEAD: usize = 9;

/// Where the control plane is.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) address: SocketAddr,
    pub(super) tls: Arc<rustls::ClientConfig>,
}

/// An open stream; dropping it closes its connection.
#[derive(Debug)]
pub(super) struct Link {
    requests: SendStream<Bytes>,
    responses: RecvStream,
    read: BytesMut,
    /// Bytes received since the last response.
    bytes: usize,
    _driver: Abort,
}

impl Link {
    /// Connects and opens a stream that begins with `first`.
    pub(super) async fn open(
        target: &Target,
        token: &str,
        first: &[DeltaDiscoveryRequest],
        tally: &Tally,
    ) -> anyhow::Result<Self> {
        tokio::time::timeout(CONNECT, Self::dial(target, token, first, tally)).await.context("no stream in time")?
    }

    #[expect(clippy::disallowed_methods, reason = "the connection's driver; aborted with the link")]
    async fn dial(
        target: &Target,
        token: &str,
        first: &[DeltaDiscoveryRequest],
        tally: &Tally,
    ) -> anyhow::Result<Self> {
        let tcp = TcpStream::connect(target.address).await?;
        tally.note_accepted();
        tcp.set_nodelay(true)?;
        let name = ServerName::from(target.address.ip());
        let tls = TlsConnector::from(Arc::clone(&target.tls)).connect(name, tcp).await?;
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW).enable_push(false);
        let (client, connection) = builder.handshake::<_, Bytes>(tls).await?;
        let driver = Abort(
            tokio::spawn(async move {
                // Its end shows in the stream.
                let _ = connection.await;
            })
            .abort_handle(),
        );
        let request = http::Request::post(format!(
            "https://{}/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
            target.address
        ))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", format!("Bearer {token}"))
        .body(())?;
        let (response, mut requests) = client.ready().await?.send_request(request, false)?;
        for request in first {
            requests.send_data(frame(request)?, false)?;
        }
        let response = response.await?;
        let refused = response.headers().get("grpc-status");
        ensure!(refused.is_none(), "refused: {:?}", response.headers());
        Ok(Self { requests, responses: response.into_body(), read: BytesMut::new(), bytes: 0, _driver: driver })
    }

    /// Queues a request.
    pub(super) fn send(&mut self, request: &DeltaDiscoveryRequest) -> anyhow::Result<()> {
        Ok(self.requests.send_data(frame(request)?, false)?)
    }

    /// The next response and the bytes it took; none at the end of the stream.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<(DeltaDiscoveryResponse, usize)>> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some((DeltaDiscoveryResponse::decode(message)?, std::mem::take(&mut self.bytes))));
            }
            let Some(data) = self.responses.data().await else { return Ok(None) };
            let data = data?;
            self.responses.flow_control().release_capacity(data.len())?;
            self.bytes += data.len() + FRAME_HEAD;
            self.read.extend_from_slice(&data);
        }
    }

    /// Takes a whole message out of what was read.
    fn take(&mut self) -> anyhow::Result<Option<Bytes>> {
        let Some((head, _)) = self.read.split_first_chunk::<5>() else { return Ok(None) };
        ensure!(head[0] == 0, "a compressed message was not asked for");
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if self.read.len() < 5 + length {
            return Ok(None);
        }
        self.read.advance(5);
        let message = self.read.split_to(length).freeze();
        if self.read.is_empty() {
            // Nothing is held while nothing comes.
            self.read = BytesMut::new();
        }
        Ok(Some(message))
    }
}

/// Ends a driver with its link.
#[derive(Debug)]
struct Abort(AbortHandle);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn frame(request: &DeltaDiscoveryRequest) -> anyhow::Result<Bytes> {
    let length = request.encoded_len();
    let mut bytes = BytesMut::with_capacity(5 + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length)?);
    request.encode(&mut bytes)?;
    Ok(bytes.freeze())
}
