//! The record layer of TLS 1.3 (RFC 8446 section 5), in place and without memory of its own. The keys come from a
//! handshake that rustls made; what the records mean is `tls`'s.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::unreachable
)]

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use rustls::ConnectionTrafficSecrets;

/// Most bytes of payload in a record.
pub(super) const PAYLOAD: usize = 16 * 1024;

/// A record's first bytes: type, version, length.
pub(super) const HEADER: usize = 5;

/// What a record adds to its payload at least: header, type, tag.
pub(super) const OVERHEAD: usize = HEADER + 1 + TAG;

const TAG: usize = 16;

/// The longest body a record may announce (section 5.2).
const MAX_BODY: usize = PAYLOAD + 256;

/// Records under one key: well below the 2^24.5 that AES-GCM is good for (section 5.5).
const RECORDS_PER_KEY: u64 = 1 << 23;

/// What a record carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Alert,
    Handshake,
    Data,
}

impl Kind {
    const fn byte(self) -> u8 {
        match self {
            Self::Alert => 21,
            Self::Handshake => 22,
            Self::Data => 23,
        }
    }
}

/// Why a record cannot be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TlsError {
    /// A type of record or message that has no place here.
    #[error("unexpected message")]
    UnexpectedMessage,
    /// The record was not made with the peer's key.
    #[error("a record failed authentication")]
    BadRecord,
    /// The record is longer than any may be.
    #[error("record too long")]
    RecordOverflow,
    /// A message does not parse.
    #[error("malformed message")]
    Decode,
    /// We have no key, or none any more.
    #[error("no key")]
    Internal,
    /// The peer ended the connection with this alert.
    #[error("the peer sent alert {0}")]
    Alerted(u8),
}

impl TlsError {
    /// The code of the alert that tells the peer (RFC 8446 section 6.2); an alert is not answered.
    pub(super) const fn alert(self) -> Option<u8> {
        match self {
            Self::UnexpectedMessage => Some(10),
            Self::BadRecord => Some(20),
            Self::RecordOverflow => Some(22),
            Self::Decode => Some(50),
            Self::Internal => Some(80),
            Self::Alerted(_) => None,
        }
    }
}

/// A record that was opened.
pub(super) struct Record<'b> {
    pub(super) kind: Kind,
    pub(super) payload: &'b [u8],
    /// Bytes it took on the wire.
    pub(super) length: usize,
}

/// One direction's key.
pub(super) struct Key {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

impl Key {
    /// The key of `secrets`, for the record with this number first.
    pub(super) fn new(sequence: u64, secrets: ConnectionTrafficSecrets) -> Result<Self, TlsError> {
        let (algorithm, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(TlsError::Internal),
        };
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| TlsError::Internal)?;
        let iv = iv.as_ref().try_into().map_err(|_| TlsError::Internal)?;
        Ok(Self { key: LessSafeKey::new(key), iv, sequence })
    }

    /// Whether the key has served long enough.
    pub(super) const fn is_spent(&self) -> bool {
        self.sequence >= RECORDS_PER_KEY
    }

    /// The nonce of the next record (section 5.3). No number is used twice: at the last one the connection ends.
    fn nonce(&mut self) -> Result<Nonce, TlsError> {
        let mut nonce = self.iv;
        for (byte, number) in nonce.iter_mut().skip(4).zip(self.sequence.to_be_bytes()) {
            *byte ^= number;
        }
        self.sequence = self.sequence.checked_add(1).ok_or(TlsError::Internal)?;
        Ok(Nonce::assume_unique_for_key(nonce))
    }

    /// Appends one record with `payload`, at most [`PAYLOAD`] bytes in any pieces, to `out`.
    pub(super) fn seal<'p>(
        &mut self,
        kind: Kind,
        payload: impl Iterator<Item = &'p [u8]>,
        out: &mut Vec<u8>,
    ) -> Result<(), TlsError> {
        let start = out.len();
        out.extend_from_slice(&[0; HEADER]);
        for piece in payload {
            out.extend_from_slice(piece);
        }
        out.push(kind.byte());
        let (_, record) = out.split_at_mut_checked(start).ok_or(TlsError::Internal)?;
        let (head, body) = record.split_at_mut_checked(HEADER).ok_or(TlsError::Internal)?;
        let length = u16::try_from(body.len().saturating_add(TAG)).map_err(|_| TlsError::Internal)?;
        let [high, low] = length.to_be_bytes();
        let header = [Kind::Data.byte(), 3, 3, high, low];
        head.copy_from_slice(&header);
        let nonce = self.nonce()?;
        let tag = self.key.seal_in_place_separate_tag(nonce, Aad::from(header), body);
        out.extend_from_slice(tag.map_err(|_| TlsError::Internal)?.as_ref());
        Ok(())
    }

    /// Opens the record at the start of `bytes`, in place. `None`: it is not all there yet.
    pub(super) fn open<'b>(&mut self, bytes: &'b mut [u8]) -> Result<Option<Record<'b>>, TlsError> {
        let Some((&mut header, rest)) = bytes.split_first_chunk_mut::<HEADER>() else { return Ok(None) };
        let [kind, _, _, high, low] = header;
        // After the handshake every record is protected.
        if kind != Kind::Data.byte() {
            return Err(TlsError::UnexpectedMessage);
        }
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length > MAX_BODY {
            return Err(TlsError::RecordOverflow);
        }
        let Some(body) = rest.get_mut(..length) else { return Ok(None) };
        let nonce = self.nonce()?;
        let plain = self.key.open_in_place(nonce, Aad::from(header), body).map_err(|_| TlsError::BadRecord)?;
        // The type is the last byte that is not padding (section 5.4).
        let end = plain.iter().rposition(|byte| *byte != 0).ok_or(TlsError::UnexpectedMessage)?;
        let (payload, padded) = plain.split_at_checked(end).ok_or(TlsError::Internal)?;
        if payload.len() > PAYLOAD {
            return Err(TlsError::RecordOverflow);
        }
        let kind =
            [Kind::Alert, Kind::Handshake, Kind::Data].into_iter().find(|kind| padded.first() == Some(&kind.byte()));
        let kind = kind.ok_or(TlsError::UnexpectedMessage)?;
        Ok(Some(Record { kind, payload, length: length.saturating_add(HEADER) }))
    }
}
