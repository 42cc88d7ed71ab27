//! A stand-in for proxy and application: tells each client where its connection arrived and where it was meant to go.

use std::io::Write as _;
use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;

use anyhow::Context as _;
use socket2::{Domain, SockRef, Socket, Type};

use super::namespace::Namespace;

/// A listener on one port of a namespace, both families. Every client reads `ORIGINAL via PORT`: the destination it
/// dialled as the kernel remembers it, and the port where it arrived. Stops when dropped.
#[derive(Debug)]
pub struct StandIn {
    listener: TcpListener,
    thread: Option<JoinHandle<()>>,
}

impl StandIn {
    /// Listens on `port` of all addresses in `namespace`.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn start(namespace: &Namespace, port: u16) -> anyhow::Result<Self> {
        let listener = namespace.enter(|| {
            let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
            socket.set_only_v6(false)?;
            socket.set_reuse_address(true)?;
            socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
            socket.listen(64).with_context(|| format!("listen on {port}"))?;
            Ok(TcpListener::from(socket))
        })?;
        let accepting = listener.try_clone()?;
        let thread = std::thread::spawn(move || {
            while let Ok((client, _)) = accepting.accept() {
                // A client that left has no use for the answer.
                let _ = answer(client, port);
            }
        });
        Ok(Self { listener, thread: Some(thread) })
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        // On Linux this wakes the thread that accepts.
        let _ = SockRef::from(&self.listener).shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(mut client: TcpStream, port: u16) -> anyhow::Result<()> {
    let local = client.local_addr()?;
    let socket = SockRef::from(&client);
    // Mapped addresses are IPv4 connections, and the kernel remembers them as such.
    let v4 = local.ip().to_canonical().is_ipv4();
    let original = if v4 { socket.original_dst_v4() } else { socket.original_dst_v6() };
    // Without rules in the namespace the kernel tracks nothing, and the local address is the destination.
    let original = original.ok().and_then(|address| address.as_socket()).unwrap_or(local);
    let original = SocketAddr::new(original.ip().to_canonical(), original.port());
    Ok(client.write_all(format!("{original} via {port}\n").as_bytes())?)
}
