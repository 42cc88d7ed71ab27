//! Addresses that must not be mistaken for one another.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct $name(pub SocketAddr);

        impl $name {
            /// The IP address; a v4-mapped v6 address is given as v4.
            pub fn ip(self) -> IpAddr {
                self.0.ip().to_canonical()
            }

            /// The port.
            pub const fn port(self) -> u16 {
                self.0.port()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                SocketAddr::new(self.ip(), self.port()).fmt(f)
            }
        }
    };
}

address! {
    /// Who connected to us.
    Downstream
}

address! {
    /// Where the downstream meant to go, before any redirection.
    OrigDst
}

address! {
    /// Where we connect to.
    Upstream
}

impl OrigDst {
    /// The address with a v4-mapped v6 address turned into v4, as configuration spells it.
    pub fn canonical(self) -> SocketAddr {
        SocketAddr::new(self.ip(), self.port())
    }
}
