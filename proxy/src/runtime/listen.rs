//! Binds every listening socket of every worker before the first connection is accepted, or says all that is wrong.
//!
//! Each worker has its own socket per address (`SO_REUSEPORT`), so the kernel spreads connections and no worker takes
//! from another. Closing one worker's socket resets the connections still queued on it, so sockets close last and the
//! number of workers never changes.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::num::NonZeroUsize;

use socket2::{Domain, Protocol, Socket, Type};

use crate::connect::KEEPALIVE;

/// Connections the kernel queues per socket until they are accepted; it takes no more than `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A bound and listening socket, without blocking.
#[derive(Debug)]
pub struct Bound<R> {
    /// What it is for.
    pub role: R,
    /// Its address, with the port the kernel chose when 0 was asked for.
    pub address: SocketAddr,
    /// The socket.
    pub socket: TcpListener,
}

/// What could not be bound, all of it.
#[derive(Debug)]
pub struct BindError {
    failed: Vec<(SocketAddr, io::Error)>,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot listen on ")?;
        for (at, (address, error)) in self.failed.iter().enumerate() {
            let separator = if at == 0 { "" } else { "; " };
            #[expect(clippy::wildcard_enum_match_arm, reason = "the kinds with advice are few")]
            let advice = match error.kind() {
                io::ErrorKind::AddrInUse => ": address in use (another proxy or program listens there)",
                io::ErrorKind::AddrNotAvailable => ": no interface has this address",
                io::ErrorKind::PermissionDenied => ": not permitted (ports below 1024 need CAP_NET_BIND_SERVICE)",
                _ => "",
            };
            write!(f, "{separator}{address}{advice}")?;
            if advice.is_empty() {
                write!(f, ": {error}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for BindError {}

/// Binds every address of `wanted` once for each worker; the result has one list per worker, in the order of `wanted`.
///
/// `[::]` takes IPv4 as well, unless `0.0.0.0` is wanted for the same port; on a host without IPv6 it is bound as
/// `0.0.0.0`. With port 0 the kernel chooses a port, the same for all workers.
///
/// # Errors
/// Every address that cannot be bound; nothing stays bound then. An address that another process listens on counts
/// as in use even if that process shares it.
pub fn bind_all<R: Clone>(wanted: &[(R, SocketAddr)], workers: NonZeroUsize) -> Result<Vec<Vec<Bound<R>>>, BindError> {
    let mut bound: Vec<Vec<Bound<R>>> = (0..workers.get()).map(|_| Vec::with_capacity(wanted.len())).collect();
    let mut failed = Vec::new();
    for (role, address) in wanted {
        let v4_any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
        let shared = address.port() != 0 && wanted.iter().any(|(_, other)| *other == v4_any);
        match bind_for_all(*address, shared, workers) {
            Ok(sockets) => {
                for (worker, (address, socket)) in bound.iter_mut().zip(sockets) {
                    worker.push(Bound { role: role.clone(), address, socket });
                }
            }
            Err(error) => failed.push((*address, error)),
        }
    }
    if failed.is_empty() { Ok(bound) } else { Err(BindError { failed }) }
}

fn bind_for_all(
    wanted: SocketAddr,
    v6_only: bool,
    workers: NonZeroUsize,
) -> io::Result<Vec<(SocketAddr, TcpListener)>> {
    let mut address = wanted;
    // Without SO_REUSEPORT first: with it, two proxies on one host would silently share their connections.
    let probe = match open(address, v6_only, false) {
        Err(error) if no_v6(&error) && wanted.ip() == IpAddr::from(std::net::Ipv6Addr::UNSPECIFIED) => {
            address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, wanted.port()));
            open(address, v6_only, false)
        }
        opened => opened,
    };
    if address.port() == 0 {
        address.set_port(local(&probe?)?.port());
    } else {
        drop(probe?);
    }
    let open_and_listen = |_| {
        let socket = open(address, v6_only, true)?;
        // Accepted connections inherit it: one whose peer has vanished is noticed.
        socket.set_tcp_keepalive(&KEEPALIVE.into())?;
        socket.listen(BACKLOG)?;
        Ok((local(&socket)?, socket.into()))
    };
    (0..workers.get()).map(open_and_listen).collect()
}

/// A socket bound to `address`.
fn open(address: SocketAddr, v6_only: bool, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(v6_only || !address.ip().is_unspecified())?;
    }
    // A restart must not wait for connections of the last run to leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn local(socket: &Socket) -> io::Result<SocketAddr> {
    socket.local_addr()?.as_socket().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

fn no_v6(error: &io::Error) -> bool {
    // Not compiled into the kernel, or switched off by sysctl.
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(EAFNOSUPPORT)
}

/// `errno` of a kernel without IPv6, on every architecture Tulle runs on.
const EAFNOSUPPORT: i32 = 97;

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn every_worker_has_a_socket_of_the_same_port() {
        let wanted = [("a", address("127.0.0.1:0")), ("b", address("127.0.0.2:0"))];
        let bound = bind_all(&wanted, TWO).unwrap();
        assert_eq!(bound.len(), 2);
        for at in 0..2 {
            assert_eq!(bound[0][at].role, wanted[at].0);
            assert_eq!(bound[0][at].address, bound[1][at].address);
            assert_ne!(bound[0][at].address.port(), 0);
            TcpStream::connect(bound[0][at].address).unwrap();
        }
    }

    #[test]
    fn everything_wrong_is_said_at_once() {
        let used = bind_all(&[((), address("127.0.0.1:0"))], TWO).unwrap();
        let used = used[0][0].address;
        let wanted = [used, address("192.0.2.1:9"), address("127.0.0.1:0")].map(|address| ((), address));
        let error = bind_all(&wanted, TWO).unwrap_err().to_string();
        assert!(error.contains(&format!("{used}: address in use")), "{error}");
        assert!(error.contains("192.0.2.1:9: no interface has this address"), "{error}");
        assert!(!error.contains("127.0.0.1:0"), "{error}");
    }

    #[test]
    fn any_v6_takes_v4_unless_v4_is_asked_for() {
        let both = bind_all(&[((), address("[::]:0"))], TWO).unwrap();
        let port = both[0][0].address.port();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        drop(both);
        let wanted = [("v6", address(&format!("[::]:{port}"))), ("v4", address(&format!("0.0.0.0:{port}")))];
        let bound = bind_all(&wanted, TWO);
        // A host without IPv6 has only one of the two.
        assert!(bound.is_ok() || no_v6_here());
    }

    fn no_v6_here() -> bool {
        TcpListener::bind("[::1]:0").is_err()
    }
}
