//! Where a captured connection was going before it was redirected to us.

use std::io;
use std::net::IpAddr;

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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

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
    fn a_configured_destination_is_always_the_same() {
        let fixed = Fixed(OrigDst("10.0.0.1:80".parse().unwrap()));
        assert_eq!(fixed.0.port(), 80);
    }
}
