//! The handshake of a TLS 1.3 connection, made by rustls; what comes out of it is a stream whose records are ours.

use std::io;
use std::ops::Deref;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedConnectionCommon, UnbufferedStatus};
use rustls::{Error, ExtractedSecrets};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::conn::{Received, Session, Socket, Tls};

/// Received at a time, and the room to begin with: most handshakes fit.
const READ_BYTES: usize = 4 * 1024;

/// More than a handshake's messages may be together: rustls takes none above 64 KiB.
const MAX_BYTES: usize = 128 * 1024;

/// Either side of a handshake.
pub(super) trait Side: Deref<Target = UnbufferedConnectionCommon<Self::Data>> {
    /// What rustls tells the sides apart by.
    type Data;

    /// Takes what arrived a step further.
    fn step<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;

    /// The keys, once the handshake is over.
    fn keys(self) -> Result<(ExtractedSecrets, Session), Error>;
}

impl Side for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn step<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn keys(self) -> Result<(ExtractedSecrets, Session), Error> {
        self.dangerous_into_kernel_connection().map(|(secrets, session)| (secrets, Session::Client(session)))
    }
}

impl Side for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn step<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn keys(self) -> Result<(ExtractedSecrets, Session), Error> {
        self.dangerous_into_kernel_connection().map(|(secrets, session)| (secrets, Session::Server(session)))
    }
}

/// A handshake that is over.
pub(super) struct Shaken<S> {
    side: S,
    socket: Socket,
    part: Vec<u8>,
    plain: Vec<u8>,
    /// The peer ended its direction behind the handshake already.
    ended: bool,
}

impl<S: Side> Shaken<S> {
    /// What was agreed on.
    pub(super) const fn side(&self) -> &S {
        &self.side
    }

    /// The connection.
    pub(super) fn into_stream(self) -> io::Result<Tls> {
        let (secrets, session) = self.side.keys().map_err(invalid)?;
        Tls::new(self.socket, session, secrets, self.part, Received { plain: self.plain, ended: self.ended })
            .map_err(invalid)
    }
}

/// What is to be done next.
enum Next {
    Step,
    Send,
    Read,
    Fail,
    Done,
}

/// Makes the handshake. When it fails the peer is told why.
///
/// # Errors
/// Those of the socket; `InvalidData` around what rustls says.
pub(super) async fn shake<S: Side>(mut side: S, mut socket: Socket) -> io::Result<Shaken<S>> {
    let (mut incoming, mut outgoing, mut plain) = (Vec::new(), Vec::new(), Vec::new());
    let (mut failed, mut ended) = (None, false);
    loop {
        let handshaking = side.is_handshaking();
        let UnbufferedStatus { discard, state, .. } = side.step(&mut incoming);
        let next = match state {
            Ok(ConnectionState::EncodeTlsData(data)) => {
                encode(data, &mut outgoing)?;
                Next::Step
            }
            // The alert comes next.
            Err(error) if failed.is_none() => {
                failed = Some(error);
                Next::Step
            }
            _ if failed.is_some() => Next::Fail,
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                Next::Send
            }
            // Complete records behind the handshake are opened here; an incomplete one is the stream's.
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(record) = traffic.next_record() {
                    plain.extend_from_slice(record.map_err(invalid)?.payload);
                }
                Next::Step
            }
            // A short message and its end may come behind the handshake at once.
            Ok(ConnectionState::PeerClosed) if !ended => {
                ended = true;
                Next::Step
            }
            Ok(ConnectionState::WriteTraffic(_)) if !handshaking => Next::Done,
            Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => Next::Read,
            Ok(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) => return Err(invalid(error)),
        };
        incoming.drain(..discard);
        match next {
            Next::Step => {}
            Next::Send => {
                socket.write_all(&outgoing).await?;
                outgoing.clear();
            }
            Next::Fail => {
                // Whoever fails may be gone, and then does not want to hear it.
                let _ = socket.write_all(&outgoing).await;
                return Err(failed.map_or_else(|| io::ErrorKind::InvalidData.into(), invalid));
            }
            Next::Read => {
                if incoming.len() >= MAX_BYTES {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                incoming.reserve(READ_BYTES);
                if socket.read_buf(&mut incoming).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            Next::Done => {
                // A connection that waits shall not hold the room of its handshake.
                incoming.shrink_to_fit();
                return Ok(Shaken { side, socket, part: incoming, plain, ended });
            }
        }
    }
}

/// Appends what rustls has to say to `outgoing`.
fn encode<Data>(mut data: EncodeTlsData<'_, Data>, outgoing: &mut Vec<u8>) -> io::Result<()> {
    let start = outgoing.len();
    let mut room = READ_BYTES;
    loop {
        outgoing.resize(start + room, 0);
        match data.encode(outgoing.get_mut(start..).unwrap_or_default()) {
            Ok(written) => {
                outgoing.truncate(start + written);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(needed)) => room = needed.required_size,
            Err(error @ EncodeError::AlreadyEncoded) => return Err(invalid(error)),
        }
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
