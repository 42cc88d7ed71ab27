//! Frames (RFC 9113 sections 4.1 and 6): their heads and what is in them, without any state.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use std::ops::Range;

/// What a client says first (section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of a frame's head.
pub(super) const HEAD: usize = 9;
/// Largest window (section 6.9.1).
pub(super) const MAX_WINDOW: i64 = 0x7fff_ffff;
/// Window of a connection, and of a stream unless its settings say otherwise (section 6.9.2).
pub(super) const DEFAULT_WINDOW: u32 = 65_535;
/// Smallest bound of a payload (section 4.2).
pub(super) const DEFAULT_FRAME: usize = 16_384;

/// Types of frames.
pub(super) mod kind {
    pub(in super::super) const DATA: u8 = 0;
    pub(in super::super) const HEADERS: u8 = 1;
    pub(in super::super) const PRIORITY: u8 = 2;
    pub(in super::super) const RST_STREAM: u8 = 3;
    pub(in super::super) const SETTINGS: u8 = 4;
    pub(in super::super) const PUSH_PROMISE: u8 = 5;
    pub(in super::super) const PING: u8 = 6;
    pub(in super::super) const GOAWAY: u8 = 7;
    pub(in super::super) const WINDOW_UPDATE: u8 = 8;
    pub(in super::super) const CONTINUATION: u8 = 9;
}

/// Flags of frames; ACK and END_STREAM are the same bit.
pub(super) mod flag {
    pub(in super::super) const ACK: u8 = 1;
    pub(in super::super) const END_STREAM: u8 = 1;
    pub(in super::super) const END_HEADERS: u8 = 4;
    pub(in super::super) const PADDED: u8 = 8;
    pub(in super::super) const PRIORITY: u8 = 0x20;
}

/// Names of settings (section 6.5.2).
pub(super) mod setting {
    pub(in super::super) const HEADER_TABLE_SIZE: u16 = 1;
    pub(in super::super) const ENABLE_PUSH: u16 = 2;
    pub(in super::super) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(in super::super) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(in super::super) const MAX_FRAME_SIZE: u16 = 5;
    pub(in super::super) const MAX_HEADER_LIST_SIZE: u16 = 6;
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl Head {
    /// The head at the beginning of `bytes`; none when it is not there as a whole.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let [a, b, c, kind, flags, stream @ ..] = bytes.first_chunk::<HEAD>()?;
        let length = usize::try_from(u32::from_be_bytes([0, *a, *b, *c])).ok()?;
        Some(Self { length, kind: *kind, flags: *flags, stream: u32::from_be_bytes(*stream) & 0x7fff_ffff })
    }

    pub(super) const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The head as it is sent.
    pub(super) fn bytes(&self) -> [u8; HEAD] {
        let [_, a, b, c] = u32::try_from(self.length).unwrap_or(u32::MAX).to_be_bytes();
        let [d, e, f, g] = self.stream.to_be_bytes();
        [a, b, c, self.kind, self.flags, d, e, f, g]
    }

    /// Appends a whole frame.
    pub(super) fn write(kind: u8, flags: u8, stream: u32, payload: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&Self { length: payload.len(), kind, flags, stream }.bytes());
        out.extend_from_slice(payload);
    }

    /// Where in the payload of DATA or HEADERS the bytes are that are no padding; none when the padding is too long
    /// (sections 6.1 and 6.2).
    pub(super) fn unpadded(&self, payload: &[u8]) -> Option<Range<usize>> {
        if !self.has(flag::PADDED) {
            return Some(0..payload.len());
        }
        let padding = usize::from(*payload.first()?);
        let end = payload.len().checked_sub(padding)?;
        (end >= 1).then_some(1..end)
    }
}

/// A number of four bytes; none when there are not so many, or more.
pub(super) fn number(payload: &[u8]) -> Option<u32> {
    payload.try_into().ok().map(u32::from_be_bytes)
}

/// The settings of a payload whose length is a multiple of six.
pub(super) fn settings(payload: &[u8]) -> impl Iterator<Item = (u16, u32)> {
    let (settings, _) = payload.as_chunks::<6>();
    settings.iter().map(|[a, b, c, d, e, f]| (u16::from_be_bytes([*a, *b]), u32::from_be_bytes([*c, *d, *e, *f])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_come_back() {
        let head = Head { length: 70_000, kind: kind::HEADERS, flags: flag::PADDED, stream: 0x7fff_ffff };
        assert_eq!(Head::read(&head.bytes()), Some(head));
        assert_eq!(Head::read(&head.bytes()[..8]), None);
        assert_eq!(
            Head::read(&[0, 0, 1, 0, 0, 0xff, 0xff, 0xff, 0xff]).unwrap().stream,
            0x7fff_ffff,
            "one bit is nothing"
        );
    }

    #[test]
    fn padding() {
        let padded = Head { length: 0, kind: kind::DATA, flags: flag::PADDED, stream: 1 };
        assert_eq!(padded.unpadded(&[2, 9, 0, 0]), Some(1..2));
        assert_eq!(padded.unpadded(&[3, 0, 0, 0]), Some(1..1));
        assert_eq!(padded.unpadded(&[4, 0, 0, 0]), None);
        assert_eq!(padded.unpadded(&[]), None);
        let plain = Head { flags: 0, ..padded };
        assert_eq!(plain.unpadded(&[4, 0]), Some(0..2));
    }

    #[test]
    fn lists_of_settings() {
        assert_eq!(settings(&[0, 4, 0, 1, 0, 0, 9, 9, 0, 0, 0, 1]).collect::<Vec<_>>(), [(4, 65_536), (0x909, 1)]);
        assert_eq!((number(&[0, 0, 1, 0]), number(&[1])), (Some(256), None));
    }
}
