//! Application protocols, as declared by configuration.

use std::fmt;

/// What a port speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Not declared: detected on each connection.
    Auto,
    /// HTTP/1.1; HTTP/2 with prior knowledge is understood as well.
    Http,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// gRPC, which is HTTP/2 whose status is read from the trailers.
    Grpc,
    /// Opaque bytes.
    Tcp,
    /// The application's own TLS, passed through.
    Tls,
}

impl Protocol {
    /// The name in configuration, logs and labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Http => "http",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }

    /// The protocol a configured name stands for.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Auto, Self::Http, Self::Http2, Self::Grpc, Self::Tcp, Self::Tls].into_iter().find(|p| p.as_str() == name)
    }

    /// Whether bytes are relayed without being understood.
    pub const fn is_opaque(self) -> bool {
        matches!(self, Self::Tcp | Self::Tls)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Bytes of a message's head at most, whatever the settings: its parts are kept as 16-bit offsets.
pub const MAX_HEAD_BYTES: usize = 65_535;

/// Fields of a message's head at most, whatever the settings: they are parsed on the stack.
pub const MAX_HEAD_FIELDS: usize = 128;
