//! Opens TCP connections to endpoints: socket options, the connect timeout, and what a failure means.

/// The proxy's own listeners and addresses.
pub mod own;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::net::{TcpSocket, TcpStream};

use crate::base::addr::Upstream;
use crate::base::failure::{Failure, Reason};

/// Options of the sockets we dial with.
#[derive(Clone, Copy, Debug, Default)]
pub struct SocketOptions {
    /// `SO_MARK`, by which redirect rules let our own traffic pass. Needs `CAP_NET_ADMIN`.
    pub mark: Option<u32>,
    /// Probes on connections where nothing moves; none by default.
    pub keepalive: Option<Keepalive>,
}

/// TCP keep-alive probes. A peer that vanished is noticed after `idle + interval * count`.
#[derive(Clone, Copy, Debug)]
pub struct Keepalive {
    /// Quiet time before the first probe; whole seconds.
    pub idle: Duration,
    /// Time between probes; whole seconds.
    pub interval: Duration,
    /// Unanswered probes before the connection is dead.
    pub count: u32,
}

/// Quiet time of a connection before the kernel asks whether its peer is there.
const QUIET: Duration = Duration::from_secs(60);

/// Time between two such probes.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);

/// Unanswered probes that end a connection.
const PROBES: u32 = 3;

/// For connections that may carry nothing for long: a peer that vanished is noticed after 90 s.
pub(crate) const KEEPALIVE: Keepalive = Keepalive { idle: QUIET, interval: PROBE_INTERVAL, count: PROBES };

impl From<Keepalive> for TcpKeepalive {
    fn from(keepalive: Keepalive) -> Self {
        let Keepalive { idle, interval, count } = keepalive;
        Self::new().with_time(idle).with_interval(interval).with_retries(count)
    }
}

/// Connects to `to` within `timeout`. The socket has `TCP_NODELAY`: what we write is always worth sending at once.
///
/// Dropped before its end it closes the socket; the endpoint may have seen a connection without a byte.
///
/// # Errors
/// `ConnectTimeout`, `ConnectRefused` or `ConnectFailed` (also when the socket cannot be made or set up, or when no
/// local port is left). Nothing reached the application: all of them are safe to retry.
pub async fn dial(to: Upstream, timeout: Duration, options: &SocketOptions) -> Result<TcpStream, Failure> {
    let to = SocketAddr::new(to.ip(), to.port());
    let socket = socket(to, options).map_err(|error| Failure::safe(Reason::ConnectFailed).because(error))?;
    match tokio::time::timeout(timeout, socket.connect(to)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(Failure::safe(reason(&error)).because(error)),
        Err(_) => Err(Failure::safe(Reason::ConnectTimeout)),
    }
}

fn socket(to: SocketAddr, options: &SocketOptions) -> io::Result<TcpSocket> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if let Some(mark) = options.mark {
        socket.set_mark(mark)?;
    }
    if let Some(keepalive) = options.keepalive {
        socket.set_tcp_keepalive(&keepalive.into())?;
    }
    Ok(TcpSocket::from_std_stream(socket.into()))
}

fn reason(error: &io::Error) -> Reason {
    #[expect(clippy::wildcard_enum_match_arm, reason = "every other kind is one to us, also kinds yet to be added")]
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Reason::ConnectRefused,
        // The kernel's own limit on SYN retries.
        io::ErrorKind::TimedOut => Reason::ConnectTimeout,
        _ => Reason::ConnectFailed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::failure::Retry;
    use tokio::net::TcpListener;

    const TIMEOUT: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn connects_with_its_options() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mapped = format!("[::ffff:127.0.0.1]:{}", listener.local_addr().unwrap().port());
        let keepalive = Keepalive { idle: Duration::from_secs(60), interval: Duration::from_secs(10), count: 3 };
        let options = SocketOptions { mark: None, keepalive: Some(keepalive) };
        let stream = dial(Upstream(mapped.parse().unwrap()), TIMEOUT, &options).await.unwrap();
        assert!(stream.nodelay().unwrap());
        assert!(socket2::SockRef::from(&stream).keepalive().unwrap());
        assert!(stream.peer_addr().unwrap().is_ipv4());
    }

    #[tokio::test]
    async fn refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let failure = dial(Upstream(address), TIMEOUT, &SocketOptions::default()).await.unwrap_err();
        assert_eq!((failure.reason, failure.retry), (Reason::ConnectRefused, Retry::Safe));
        assert!(failure.source.is_some());
    }

    #[tokio::test]
    async fn an_address_that_cannot_be_dialled() {
        // The broadcast address: the kernel refuses to connect a TCP socket to it.
        let address = "255.255.255.255:1".parse().unwrap();
        let failure = dial(Upstream(address), TIMEOUT, &SocketOptions::default()).await.unwrap_err();
        assert_eq!((failure.reason, failure.retry), (Reason::ConnectFailed, Retry::Safe));
    }

    #[tokio::test]
    async fn times_out_when_nobody_answers() {
        // A listener whose backlog is full answers no SYN: as dead a host as a test without a network can have.
        let listener = TcpSocket::new_v4().unwrap();
        listener.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = listener.listen(0).unwrap();
        let address = Upstream(listener.local_addr().unwrap());
        let mut held = Vec::new();
        let failure = loop {
            match dial(address, Duration::from_millis(100), &SocketOptions::default()).await {
                Ok(stream) => held.push(stream),
                Err(failure) => break failure,
            }
            assert!(held.len() < 100, "the backlog never fills");
        };
        assert_eq!((failure.reason, failure.retry), (Reason::ConnectTimeout, Retry::Safe));
    }

    #[test]
    fn reasons() {
        assert_eq!(reason(&io::ErrorKind::TimedOut.into()), Reason::ConnectTimeout);
        assert_eq!(reason(&io::ErrorKind::HostUnreachable.into()), Reason::ConnectFailed);
        assert_eq!(reason(&io::ErrorKind::AddrNotAvailable.into()), Reason::ConnectFailed);
    }
}
