//! HTTP/2 as frames: a peer that sends exactly the frames it is given, for what no library would send.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;

use super::Raw;
use crate::wait;

/// Frame types (RFC 9113 section 6).
pub mod kind {
    /// DATA.
    pub const DATA: u8 = 0;
    /// HEADERS.
    pub const HEADERS: u8 = 1;
    /// PRIORITY.
    pub const PRIORITY: u8 = 2;
    /// RST_STREAM.
    pub const RST_STREAM: u8 = 3;
    /// SETTINGS.
    pub const SETTINGS: u8 = 4;
    /// PING.
    pub const PING: u8 = 6;
    /// GOAWAY.
    pub const GOAWAY: u8 = 7;
    /// WINDOW_UPDATE.
    pub const WINDOW_UPDATE: u8 = 8;
    /// CONTINUATION.
    pub const CONTINUATION: u8 = 9;
}

/// END_STREAM of DATA and HEADERS.
pub const END_STREAM: u8 = 1;
/// END_HEADERS of HEADERS and CONTINUATION.
pub const END_HEADERS: u8 = 4;
/// What a client says first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A received frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its type, see [`kind`].
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// The stream it is about; 0: the connection.
    pub stream: u32,
    /// The rest.
    pub payload: Bytes,
}

impl Frame {
    /// The four bytes of the payload at `at`: an error code, a last stream.
    pub fn number(&self, at: usize) -> u32 {
        let bytes = self.payload.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        u32::from_be_bytes(bytes.unwrap_or_default())
    }

    /// Whether it is the head of a reply with status 200: the first field of the static table at index 8.
    pub fn is_ok(&self) -> bool {
        self.kind == kind::HEADERS && self.payload.first() == Some(&0x88)
    }
}

/// A frame's bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header block without compression, in the order given.
pub fn block(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        literal(name, &mut block);
        literal(value, &mut block);
    }
    block
}

/// A string literal of HPACK without Huffman coding (RFC 7541 section 5.2).
pub fn literal(text: &[u8], to: &mut Vec<u8>) {
    if text.len() < 127 {
        to.push(u8::try_from(text.len()).expect("below 127"));
    } else {
        to.push(127);
        let mut rest = text.len() - 127;
        while rest >= 128 {
            to.push(u8::try_from(rest % 128).expect("below 128") | 128);
            rest /= 128;
        }
        to.push(u8::try_from(rest).expect("below 128"));
    }
    to.extend_from_slice(text);
}

/// The header block of `method path` at `a.test`.
pub fn request(method: &str, path: &str) -> Vec<u8> {
    let (method, path) = (method.as_bytes(), path.as_bytes());
    block(&[(b":method", method), (b":scheme", b"http"), (b":path", path), (b":authority", b"a.test")])
}

/// A connection of frames.
#[derive(Debug)]
pub struct Frames(Raw);

impl Frames {
    /// Says the preface and empty settings.
    pub async fn open(raw: Raw) -> Self {
        let mut frames = Self::silent(raw);
        frames.send([PREFACE, &frame(kind::SETTINGS, 0, 0, &[])].concat()).await;
        frames
    }

    /// The server's side: reads a client's preface and says empty settings.
    pub async fn accept(mut raw: Raw) -> Self {
        let preface = wait::within("a preface", raw.take(PREFACE.len())).await;
        assert_eq!(preface.as_deref(), Some(PREFACE));
        let mut frames = Self::silent(raw);
        frames.send(frame(kind::SETTINGS, 0, 0, &[])).await;
        frames
    }

    /// Says nothing.
    pub const fn silent(raw: Raw) -> Self {
        Self(raw)
    }

    /// Sends bytes as they are; what the peer does not take because it has closed is nobody's concern.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.0.try_send(bytes).await;
    }

    /// Sends until the peer takes no more for `patience`, or has closed. Returns whether it took everything.
    pub async fn push(&mut self, bytes: &[u8], patience: Duration) -> bool {
        for piece in bytes.chunks(16 * 1024) {
            let sent = tokio::time::timeout(patience, self.0.stream().write_all(piece)).await;
            if !matches!(sent, Ok(Ok(()))) {
                return false;
            }
        }
        true
    }

    /// The next frame; none when the peer has closed.
    pub async fn next(&mut self) -> Option<Frame> {
        let head = wait::within("a frame", self.0.take(9)).await?;
        let number = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let length = usize::try_from(number(0) >> 8).expect("24 bits");
        let payload = wait::within("the rest of a frame", self.0.take(length)).await?;
        Some(Frame { kind: head[3], flags: head[4], stream: number(5) & 0x7fff_ffff, payload: payload.into() })
    }

    /// A frame that is there already.
    pub async fn waiting(&mut self) -> Option<Frame> {
        if self.0.idle(Duration::from_millis(1)).await { None } else { self.next().await }
    }

    /// The next frame that `wanted` accepts; none when the peer has closed.
    pub async fn find(&mut self, wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if wanted(&frame) {
                return Some(frame);
            }
        }
    }

    /// Reads to the end of the connection: the GOAWAY that said why, if there was one.
    pub async fn farewell(&mut self) -> Option<Frame> {
        let mut last = None;
        while let Some(frame) = self.next().await {
            if frame.kind == kind::GOAWAY {
                last = Some(frame);
            }
        }
        last
    }
}
