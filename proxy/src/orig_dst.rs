//! Where a captured connection was going before it was redirected to us, and whether that is ourselves.

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::SockRef;
use tokio::net::TcpStream;

use crate::base::addr::OrigDst;

/// Who knows where a connection was going.
pub trait OrigDstSource {
    /// The destination the downstream dialled.
    ///
    /// # Errors
    /// The socket is no longer connected.
    fn of(&self, socket: &TcpStream) -> io::Result<OrigDst>;
}

/// The kernel's connection tracking (REDIRECT), or the socket's own address (TPROXY).
#[derive(Clone, Copy, Debug, Default)]
pub struct Kernel;

impl OrigDstSource for Kernel {
    fn of(&self, socket: &TcpStream) -> io::Result<OrigDst> {
        original_destination(socket)
    }
}

/// Always the same destination: for listeners whose destination is configured, and for tests without redirection.
#[derive(Clone, Copy, Debug)]
pub struct Fixed(pub OrigDst);

impl OrigDstSource for Fixed {
    fn of(&self, _: &TcpStream) -> io::Result<OrigDst> {
        Ok(self.0)
    }
}

/// The destination before redirection. A connection that was not redirected, or by TPROXY, has its local address as
/// destination: the kernel then has no record of another one.
///
/// # Errors
/// The socket is no longer connected.
pub fn original_destination(socket: &TcpStream) -> io::Result<OrigDst> {
    let local = socket.local_addr()?;
    let kernel = SockRef::from(socket);
    // A v4 connection on a dual-stack socket is tracked as v4.
    let tracked = match local.ip().to_canonical() {
        IpAddr::V4(_) => kernel.original_dst_v4(),
        IpAddr::V6(_) => kernel.original_dst_v6(),
    };
    Ok(OrigDst(tracked.ok().and_then(|address| address.as_socket()).unwrap_or(local)))
}

/// Whether a connection to `destination` would come back to one of our own `listeners`: its port is one of theirs, and
/// its address is the listener's, or any address of this network namespace when the listener takes all. `own` holds
/// the pod's addresses.
pub fn is_self(destination: OrigDst, listeners: &[SocketAddr], own: &[IpAddr]) -> bool {
    let ip = destination.ip();
    let local = ip.is_loopback() || ip.is_unspecified() || own.iter().any(|own| own.to_canonical() == ip);
    listeners.iter().any(|listener| {
        let at = listener.ip().to_canonical();
        listener.port() == destination.port() && (at == ip || (at.is_unspecified() && local))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    async fn accepted(listen: &str, dial: &str) -> (SocketAddr, OrigDst) {
        let listener = TcpListener::bind(listen).await.unwrap();
        let target = SocketAddr::new(dial.parse().unwrap(), listener.local_addr().unwrap().port());
        let (_client, server) = tokio::join!(TcpStream::connect(target), listener.accept());
        (target, Kernel.of(&server.unwrap().0).unwrap())
    }

    #[tokio::test]
    async fn without_redirection_it_is_the_local_address() {
        let (target, destination) = accepted("127.0.0.1:0", "127.0.0.1").await;
        assert_eq!(destination, OrigDst(target));
        let (target, destination) = accepted("0.0.0.0:0", "127.0.0.7").await;
        assert_eq!(destination, OrigDst(target));
    }

    #[test]
    fn recognises_itself() {
        let listeners: Vec<SocketAddr> = vec!["[::]:15001".parse().unwrap(), "127.0.0.1:8080".parse().unwrap()];
        let own: Vec<IpAddr> = vec!["10.1.0.5".parse().unwrap(), "fd00::5".parse().unwrap()];
        let is = |to: &str| is_self(OrigDst(to.parse().unwrap()), &listeners, &own);
        for to in ["10.1.0.5:15001", "127.0.0.9:15001", "[::1]:15001", "[fd00::5]:15001", "[::ffff:10.1.0.5]:15001"] {
            assert!(is(to), "{to}");
        }
        assert!(is("127.0.0.1:8080"));
        for to in ["10.1.0.6:15001", "10.1.0.5:15002", "127.0.0.2:8080", "10.1.0.5:8080"] {
            assert!(!is(to), "{to}");
        }
        let fixed = Fixed(OrigDst("10.0.0.1:80".parse().unwrap()));
        assert_eq!(fixed.0.port(), 80);
    }
}
