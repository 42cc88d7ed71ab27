//! A TLS 1.3 connection after its handshake, as a stream. Records are opened and sealed in buffers of this thread, so that
//! one that waits holds its keys and nothing else; what rustls would do besides is done here: alerts, key updates, tickets.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{ConnectionTrafficSecrets, ExtractedSecrets};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Socket;
use super::record::{Key, Kind, OVERHEAD, PAYLOAD, Record, TlsError};

/// Records read from the socket, or sealed for it, at a time.
const RECORDS: usize = 4;

/// Room for [`RECORDS`], and for the start of another.
const INCOMING_BYTES: usize = (RECORDS + 2) * (PAYLOAD + OVERHEAD);

/// Key updates of a peer that sends nothing between them; more are an attack on our time.
const KEY_UPDATES: u8 = 32;

/// The alert by which a peer proxy reports that none of the bytes it received was delivered to its application. RFC 8446
/// gives the number no meaning, and section 6.2 has other peers take it for an error, as they take a reset.
const NOT_DELIVERED: u8 = 224;

const CLOSE_NOTIFY: u8 = 0;

const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;

thread_local! {
    /// Where records are opened. Nothing in it is of use between two polls.
    static INCOMING: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// Where records are sealed.
    static OUTGOING: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What rustls keeps of the handshake, for later keys and tickets.
pub(crate) enum Session {
    /// We dialled.
    Client(KernelConnection<ClientConnectionData>),
    /// We accepted.
    Server(KernelConnection<ServerConnectionData>),
}

/// What came behind a handshake and was opened with it.
pub(crate) struct Received {
    /// Payload.
    pub(crate) plain: Vec<u8>,
    /// The peer's direction has ended.
    pub(crate) ended: bool,
}

/// A connection.
pub(crate) struct Tls {
    socket: Socket,
    session: Session,
    reading: Key,
    writing: Key,
    /// The start of a record whose rest has not arrived.
    part: Vec<u8>,
    /// Payload from `plain_at` on, for which its reader had no room.
    plain: Vec<u8>,
    plain_at: usize,
    /// Sealed records from `sealed_at` on, which the socket did not take yet.
    sealed: Vec<u8>,
    sealed_at: usize,
    key_updates: u8,
    /// The peer wants our next record to have a new key.
    owes_key_update: bool,
    read: Reading,
    said_goodbye: bool,
}

/// How the peer's direction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Open,
    /// The peer said close_notify.
    Ended,
    Broken(TlsError),
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("socket", &self.socket).field("read", &self.read).finish_non_exhaustive()
    }
}

impl Tls {
    /// A connection whose handshake is over. `part` is what arrived behind it, still sealed; `received` what was opened.
    pub(crate) fn new(
        socket: Socket,
        session: Session,
        secrets: ExtractedSecrets,
        part: Vec<u8>,
        received: Received,
    ) -> Result<Self, TlsError> {
        let Received { plain, ended } = received;
        let key = |(sequence, secrets): (u64, ConnectionTrafficSecrets)| Key::new(sequence, secrets);
        let (reading, writing) = (key(secrets.rx)?, key(secrets.tx)?);
        Ok(Self {
            socket,
            session,
            reading,
            writing,
            part,
            plain,
            plain_at: 0,
            sealed: Vec::new(),
            sealed_at: 0,
            key_updates: 0,
            owes_key_update: false,
            read: if ended { Reading::Ended } else { Reading::Open },
            said_goodbye: false,
        })
    }

    /// The socket underneath.
    pub(crate) const fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Payload that is there, without taking it; waits for some. Nothing is the end. Cancel safe.
    pub(crate) async fn peek(&mut self) -> io::Result<&[u8]> {
        self.peek_beyond(0).await
    }

    /// As [`Tls::peek`], for a reader that has looked at the first `seen` bytes; no more than these is the end.
    pub(crate) async fn peek_beyond(&mut self, seen: usize) -> io::Result<&[u8]> {
        std::future::poll_fn(|cx| match self.read {
            _ if self.waiting().len() > seen => Poll::Ready(Ok(())),
            Reading::Open => self.poll_open(cx, &mut ReadBuf::new(&mut [])),
            Reading::Ended => Poll::Ready(Ok(())),
            Reading::Broken(error) => Poll::Ready(Err(broken(error))),
        })
        .await?;
        Ok(self.waiting())
    }

    /// Drops the next `count` bytes, which were looked at.
    pub(crate) fn skip(&mut self, count: usize) {
        self.plain_at = self.plain_at.saturating_add(count);
        if self.waiting().is_empty() {
            (self.plain, self.plain_at) = (Vec::new(), 0);
        }
    }

    /// Tells the peer that nothing of what it sent was delivered, and ends our direction.
    ///
    /// # Errors
    /// The socket does not take it: the peer has gone.
    pub(crate) async fn report_not_delivered(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_goodbye(cx, [2, NOT_DELIVERED])).await
    }

    fn waiting(&self) -> &[u8] {
        self.plain.get(self.plain_at..).unwrap_or_default()
    }

    /// Opens what is in `bytes`, gives its payload to `room` and keeps the rest; the number of bytes it used.
    fn open(&mut self, bytes: &mut [u8], room: &mut ReadBuf<'_>) -> Result<usize, TlsError> {
        let mut used = 0usize;
        while self.read == Reading::Open {
            let Some(rest) = bytes.get_mut(used..) else { break };
            let Some(Record { kind, payload, length }) = self.reading.open(rest)? else { break };
            used = used.saturating_add(length);
            match kind {
                Kind::Data => {
                    self.key_updates = 0;
                    let (now, later) = payload.split_at(payload.len().min(room.remaining()));
                    room.put_slice(now);
                    self.plain.extend_from_slice(later);
                }
                Kind::Handshake => self.messages(payload)?,
                Kind::Alert => match payload {
                    [_, CLOSE_NOTIFY] => self.read = Reading::Ended,
                    // user_canceled: a close_notify follows (RFC 8446 section 6.1).
                    [_, 90] => {}
                    [_, code] => return Err(TlsError::Alerted(*code)),
                    _ => return Err(TlsError::Decode),
                },
            }
        }
        Ok(used)
    }

    /// Messages after the handshake. They are small: one that does not end with its record is not taken.
    fn messages(&mut self, mut bytes: &[u8]) -> Result<(), TlsError> {
        while let Some((&[kind, a, b, c], rest)) = bytes.split_first_chunk::<4>() {
            let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).map_err(|_| TlsError::Decode)?;
            let (body, rest) = rest.split_at_checked(length).ok_or(TlsError::Decode)?;
            match (kind, &mut self.session) {
                (NEW_SESSION_TICKET, Session::Client(session)) => {
                    session.handle_new_session_ticket(body).map_err(|_| TlsError::Decode)?;
                }
                // The new key begins with the next record (RFC 8446 section 5.1).
                (KEY_UPDATE, _) if rest.is_empty() => self.key_update(body)?,
                _ => return Err(TlsError::UnexpectedMessage),
            }
            bytes = rest;
        }
        if bytes.is_empty() { Ok(()) } else { Err(TlsError::Decode) }
    }

    fn key_update(&mut self, body: &[u8]) -> Result<(), TlsError> {
        self.key_updates = self.key_updates.saturating_add(1);
        if self.key_updates > KEY_UPDATES {
            return Err(TlsError::UnexpectedMessage);
        }
        let (sequence, secrets) = match &mut self.session {
            Session::Client(session) => session.update_rx_secret(),
            Session::Server(session) => session.update_rx_secret(),
        }
        .map_err(|_| TlsError::Internal)?;
        self.reading = Key::new(sequence, secrets)?;
        // Ours follows when there is something to send under it, once for any number of theirs (RFC 8446 section 4.6.3).
        match body {
            [0] => Ok(()),
            [1] => {
                self.owes_key_update = true;
                Ok(())
            }
            _ => Err(TlsError::Decode),
        }
    }

    /// Says in `out` that the next record has another key.
    fn update_own_key(&mut self, out: &mut Vec<u8>) -> Result<(), TlsError> {
        self.writing.seal(Kind::Handshake, [[KEY_UPDATE, 0, 0, 1, 0].as_slice()].into_iter(), out)?;
        let (sequence, secrets) = match &mut self.session {
            Session::Client(session) => session.update_tx_secret(),
            Session::Server(session) => session.update_tx_secret(),
        }
        .map_err(|_| TlsError::Internal)?;
        self.writing = Key::new(sequence, secrets)?;
        self.owes_key_update = false;
        Ok(())
    }

    /// Reads until there is more payload, the end, or nothing more for now. With `room` to be called only when no payload
    /// waits.
    fn poll_open(&mut self, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        INCOMING.with_borrow_mut(|raw| {
            raw.resize(INCOMING_BYTES, 0);
            self.poll_open_in(cx, room, raw)
        })
    }

    fn poll_open_in(&mut self, cx: &mut Context<'_>, room: &mut ReadBuf<'_>, raw: &mut [u8]) -> Poll<io::Result<()>> {
        let (before, waited) = (room.filled().len(), self.waiting().len());
        loop {
            let had = self.part.len();
            let (start, space) = raw.split_at_mut_checked(had).ok_or_else(|| broken(TlsError::Internal))?;
            start.copy_from_slice(&self.part);
            // Not more than the reader takes, but a whole record: what it does not take must be kept.
            let most = room.remaining().clamp(PAYLOAD, RECORDS * PAYLOAD).saturating_add(RECORDS * OVERHEAD);
            let mut space = ReadBuf::new(space.get_mut(..most).unwrap_or_default());
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut space))?;
            let read = space.filled().len();
            if read == 0 {
                // An end without close_notify may be anybody's.
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            let raw = raw.get_mut(..had.saturating_add(read)).unwrap_or_default();
            match self.open(raw, room) {
                Ok(used) => self.keep_part(raw.get(used..).unwrap_or_default()),
                Err(error) => {
                    self.read = Reading::Broken(error);
                    self.complain(cx, error);
                }
            }
            if room.filled().len() > before || self.waiting().len() > waited {
                return Poll::Ready(Ok(()));
            }
            match self.read {
                Reading::Open => {}
                Reading::Ended => return Poll::Ready(Ok(())),
                Reading::Broken(error) => return Poll::Ready(Err(broken(error))),
            }
        }
    }

    fn keep_part(&mut self, rest: &[u8]) {
        self.part.clear();
        if rest.is_empty() {
            self.part = Vec::new();
        } else {
            self.part.extend_from_slice(rest);
        }
    }

    /// Tells the peer why we do not go on, if the socket takes it.
    fn complain(&mut self, cx: &mut Context<'_>, error: TlsError) {
        let Some(code) = error.alert() else { return };
        let mut sealed = std::mem::take(&mut self.sealed);
        let said = self.writing.seal(Kind::Alert, [[2, code].as_slice()].into_iter(), &mut sealed);
        self.sealed = sealed;
        self.said_goodbye = true;
        if said.is_ok() {
            let _ = self.poll_sealed(cx);
        }
    }

    /// Ends our direction with `alert` as its last record.
    fn poll_goodbye(&mut self, cx: &mut Context<'_>, alert: [u8; 2]) -> Poll<io::Result<()>> {
        if !self.said_goodbye {
            let mut sealed = std::mem::take(&mut self.sealed);
            let said = self.writing.seal(Kind::Alert, [alert.as_slice()].into_iter(), &mut sealed);
            self.sealed = sealed;
            said.map_err(broken)?;
            self.said_goodbye = true;
        }
        ready!(self.poll_sealed(cx))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    /// Gives the socket what it did not take before; ready when it has taken all.
    fn poll_sealed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.sealed.get(self.sealed_at..).filter(|rest| !rest.is_empty()) {
            let written = ready!(Pin::new(&mut self.socket).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sealed_at = self.sealed_at.saturating_add(written);
        }
        (self.sealed, self.sealed_at) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }

    /// Seals as much of `pieces` as goes into `out`; the number of bytes.
    fn seal(&mut self, pieces: &[IoSlice<'_>], out: &mut Vec<u8>) -> Result<usize, TlsError> {
        let total = pieces.iter().map(|piece| piece.len()).fold(0usize, usize::saturating_add).min(RECORDS * PAYLOAD);
        let mut done = 0usize;
        while done < total {
            if self.owes_key_update || self.writing.is_spent() {
                self.update_own_key(out)?;
            }
            let end = total.min(done.saturating_add(PAYLOAD));
            self.writing.seal(Kind::Data, between(pieces, done, end), out)?;
            done = end;
        }
        Ok(total)
    }
}

/// Bytes `start..end` of `pieces`, as if they were one.
fn between<'p>(pieces: &'p [IoSlice<'_>], start: usize, end: usize) -> impl Iterator<Item = &'p [u8]> {
    let mut at = 0usize;
    pieces.iter().filter_map(move |piece| {
        let here = at;
        at = at.saturating_add(piece.len());
        let (from, to) = (start.saturating_sub(here), end.saturating_sub(here).min(piece.len()));
        piece.get(from..to).filter(|part| !part.is_empty())
    })
}

/// Whether an error of a connection is its peer's report that nothing was delivered.
pub(crate) fn is_not_delivered(error: &io::Error) -> bool {
    let error = error.get_ref().and_then(|error| error.downcast_ref::<TlsError>());
    error == Some(&TlsError::Alerted(NOT_DELIVERED))
}

fn broken(error: TlsError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl AsyncRead for Tls {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let waiting = this.waiting();
        if !waiting.is_empty() {
            let taken = waiting.len().min(room.remaining());
            room.put_slice(waiting.get(..taken).unwrap_or_default());
            this.plain_at = this.plain_at.saturating_add(taken);
            if this.waiting().is_empty() {
                (this.plain, this.plain_at) = (Vec::new(), 0);
            }
            return Poll::Ready(Ok(()));
        }
        match this.read {
            Reading::Open if room.remaining() > 0 => this.poll_open(cx, room),
            Reading::Open | Reading::Ended => Poll::Ready(Ok(())),
            Reading::Broken(error) => Poll::Ready(Err(broken(error))),
        }
    }
}

impl AsyncWrite for Tls {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_sealed(cx))?;
        if this.said_goodbye {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        OUTGOING.with_borrow_mut(|out| {
            out.clear();
            let taken = this.seal(pieces, out).map_err(broken)?;
            let mut written = 0usize;
            while let Some(rest) = out.get(written..).filter(|rest| !rest.is_empty()) {
                match Pin::new(&mut this.socket).poll_write(cx, rest) {
                    Poll::Ready(Ok(n)) if n > 0 => written = written.saturating_add(n),
                    Poll::Ready(Ok(_)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Err(error)) if written == 0 => return Poll::Ready(Err(error)),
                    Poll::Ready(Err(_)) | Poll::Pending => {
                        // Of what is sealed in one piece a part may have left: it counts as written, and a flush waits
                        // for the rest, or says why it cannot leave.
                        this.sealed = rest.to_vec();
                        break;
                    }
                }
            }
            Poll::Ready(Ok(taken))
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_sealed(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_goodbye(cx, [1, CLOSE_NOTIFY])
    }
}
