//! How streams and connections end (RFC 9113 sections 5.4 and 7).

use std::fmt;
use std::io;

use crate::codec::body::BodyError;

/// The code of an RST_STREAM or GOAWAY.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct ResetCode(pub(super) u32);

impl ResetCode {
    /// Nothing is wrong.
    pub(super) const NONE: Self = Self(0);
    /// The request breaks the rules.
    pub(crate) const PROTOCOL: Self = Self(1);
    /// The stream failed here.
    pub(crate) const INTERNAL: Self = Self(2);
    /// More was sent than the window allows.
    pub(super) const FLOW_CONTROL: Self = Self(3);
    /// A frame for a stream that has ended.
    pub(super) const STREAM_CLOSED: Self = Self(5);
    /// A frame of a wrong size.
    pub(super) const FRAME_SIZE: Self = Self(6);
    /// The request was not looked at.
    pub(crate) const REFUSED: Self = Self(7);
    /// The sender does not want the stream any more.
    pub(crate) const CANCEL: Self = Self(8);
    /// The compression of heads is out of step.
    pub(super) const COMPRESSION: Self = Self(9);
    /// Too much of what costs its sender nothing.
    pub(super) const CALM: Self = Self(11);
}

impl ResetCode {
    /// Whether nothing is wrong.
    pub(crate) const fn is_none(self) -> bool {
        self.0 == Self::NONE.0
    }
}

impl fmt::Display for ResetCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 14] = [
            "NO_ERROR",
            "PROTOCOL_ERROR",
            "INTERNAL_ERROR",
            "FLOW_CONTROL_ERROR",
            "SETTINGS_TIMEOUT",
            "STREAM_CLOSED",
            "FRAME_SIZE_ERROR",
            "REFUSED_STREAM",
            "CANCEL",
            "COMPRESSION_ERROR",
            "CONNECT_ERROR",
            "ENHANCE_YOUR_CALM",
            "INADEQUATE_SECURITY",
            "HTTP_1_1_REQUIRED",
        ];
        match usize::try_from(self.0).ok().and_then(|code| NAMES.get(code)) {
            Some(name) => f.write_str(name),
            None => write!(f, "code {}", self.0),
        }
    }
}

impl fmt::Debug for ResetCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A connection or stream failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum H2Error {
    /// The connection was lost.
    #[error("connection lost: {0}")]
    Lost(io::ErrorKind),
    /// The connection ended before any byte of the request was sent.
    #[error("the connection ended before the request")]
    Unsent,
    /// The request's head is larger than the peer takes (`SETTINGS_MAX_HEADER_LIST_SIZE`). Nothing was sent.
    #[error("the head is larger than the peer takes")]
    TooLarge,
    /// The connection, or what is beyond the last stream of a GOAWAY, was ended by the peer.
    #[error("the peer ends the connection: {0}")]
    Told(ResetCode),
    /// We ended the connection.
    #[error("connection ended here: {0}")]
    Ended(ResetCode),
    /// The peer reset the stream.
    #[error("stream reset by the peer: {0}")]
    Reset(ResetCode),
    /// We reset the stream.
    #[error("stream reset here: {0}")]
    Given(ResetCode),
}

/// Why a downstream's connection failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It was lost.
    Lost,
    /// The peer breaks the rules.
    Rules,
    /// The peer keeps to the rules, but sends too much of what costs it nothing.
    Flood,
}

impl H2Error {
    /// The peer says it has not looked at the request: REFUSED_STREAM, or a stream above the last of its GOAWAY.
    pub(crate) fn is_refused(&self) -> bool {
        matches!(self, Self::Told(_)) || *self == Self::Reset(ResetCode::REFUSED)
    }

    /// The code of a stream reset by the peer.
    pub(crate) const fn reset(&self) -> Option<ResetCode> {
        match self {
            Self::Reset(code) => Some(*code),
            Self::Lost(_) | Self::Unsent | Self::TooLarge | Self::Told(_) | Self::Ended(_) | Self::Given(_) => None,
        }
    }

    /// Whose doing the end of a connection is.
    pub(crate) fn fault(&self) -> Fault {
        match self {
            Self::Lost(_) | Self::Unsent | Self::TooLarge | Self::Told(_) | Self::Reset(_) => Fault::Lost,
            Self::Ended(ResetCode::CALM) => Fault::Flood,
            Self::Ended(_) | Self::Given(_) => Fault::Rules,
        }
    }
}

impl From<io::Error> for H2Error {
    fn from(error: io::Error) -> Self {
        Self::Lost(error.kind())
    }
}

impl From<H2Error> for BodyError {
    fn from(error: H2Error) -> Self {
        match error {
            H2Error::Reset(code) => Self::Reset(code),
            H2Error::Given(_) => Self::Rules(None),
            H2Error::Lost(kind) => Self::Io(kind.into()),
            H2Error::Unsent | H2Error::TooLarge | H2Error::Told(_) | H2Error::Ended(_) => Self::Closed,
        }
    }
}
