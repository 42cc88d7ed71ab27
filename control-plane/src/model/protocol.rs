//! Application protocols, and how a port's protocol is told from what people write.

use std::fmt;

use super::name::Port;

/// What is spoken at a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// HTTP, version 1.1 or 2 as the client pleases.
    Http,
    /// HTTP/2 only.
    Http2,
    /// gRPC, which is HTTP/2 only.
    Grpc,
    /// TLS that the application itself ends: opaque here.
    Tls,
    /// Opaque bytes.
    Tcp,
    /// Not declared: the proxy looks at the first bytes, and falls back to opaque.
    Auto,
}

/// Ports of protocols whose server speaks first, so that looking for the client's first bytes would wait in vain:
/// SMTP, submission, MySQL, MySQL group replication, PostgreSQL, Redis, Elasticsearch transport, memcached.
const SERVER_FIRST: [u16; 8] = [25, 587, 3306, 4444, 5432, 6379, 9300, 11211];

impl Protocol {
    /// The names users write, in the order messages list them.
    pub const NAMES: &'static str = "http, http2, grpc, tls, tcp, auto";

    /// Its name, as users write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::Tls => "tls",
            Self::Tcp => "tcp",
            Self::Auto => "auto",
        }
    }

    /// The protocol with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Http, Self::Http2, Self::Grpc, Self::Tls, Self::Tcp, Self::Auto].into_iter().find(|p| p.name() == name)
    }

    /// What `appProtocol` or, without one, the port's name says. A name counts up to its first `-`, as in `http-admin`.
    /// Source: Kubernetes KEP-3726 for the `kubernetes.io/` names, IANA service names for the rest.
    pub fn declared(app_protocol: Option<&str>, port_name: &str) -> Option<Self> {
        match app_protocol {
            Some(name) => Self::well_known(&name.to_ascii_lowercase()),
            None => Self::well_known(port_name).or_else(|| Self::well_known(port_name.split('-').next()?)),
        }
    }

    fn well_known(name: &str) -> Option<Self> {
        Some(match name {
            // gRPC-Web comes over HTTP/1.1 as well.
            "http" | "http1" | "ws" | "kubernetes.io/ws" | "grpc-web" => Self::Http,
            "http2" | "h2c" | "kubernetes.io/h2c" => Self::Http2,
            "grpc" => Self::Grpc,
            "https" | "tls" | "wss" | "grpcs" | "kubernetes.io/wss" => Self::Tls,
            "tcp" | "mongo" | "mysql" | "redis" | "postgres" | "postgresql" | "linkerd.io/opaque"
            | "linkerd.io/tcp" => Self::Tcp,
            _ => return None,
        })
    }

    /// The protocol of a port nobody declared.
    pub fn undeclared(port: Port) -> Self {
        if SERVER_FIRST.contains(&port.number()) { Self::Tcp } else { Self::Auto }
    }

    /// Whether requests are routed one by one; false for opaque bytes.
    pub const fn is_http(self) -> bool {
        match self {
            Self::Http | Self::Http2 | Self::Grpc | Self::Auto => true,
            Self::Tls | Self::Tcp => false,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared() {
        assert_eq!(Protocol::declared(None, "http-admin"), Some(Protocol::Http));
        assert_eq!(Protocol::declared(None, "web"), None);
        assert_eq!(Protocol::declared(Some("kubernetes.io/h2c"), "tcp"), Some(Protocol::Http2));
        assert_eq!(Protocol::declared(Some("HTTPS"), ""), Some(Protocol::Tls));
        // appProtocol speaks even when we do not know the word: the name must not contradict it.
        assert_eq!(Protocol::declared(Some("example.com/own"), "http"), None);
    }

    #[test]
    fn undeclared() {
        assert_eq!(Protocol::undeclared(Port::new(3306).unwrap()), Protocol::Tcp);
        assert_eq!(Protocol::undeclared(Port::new(80).unwrap()), Protocol::Auto);
    }
}
