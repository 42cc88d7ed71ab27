//! Small servers in a namespace, one thread for each connection: applications that know nothing of the mesh.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::Context as _;
use socket2::{Domain, SockRef, Socket, Type};

use super::namespace::Namespace;

/// A listener on one port of a namespace, for both families. Stops accepting when dropped.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on `port` of all addresses in `namespace` and hands each connection to `serve`, whose error ends it.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn start(
        namespace: &Namespace,
        port: u16,
        serve: impl Fn(TcpStream) -> anyhow::Result<()> + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let listener = namespace.enter(|| {
            let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
            socket.set_only_v6(false)?;
            socket.set_reuse_address(true)?;
            socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
            socket.listen(64).with_context(|| format!("listen on {port}"))?;
            Ok(TcpListener::from(socket))
        })?;
        let accepting = listener.try_clone()?;
        let serve = Arc::new(serve);
        let thread = std::thread::spawn(move || {
            while let Ok((client, _)) = accepting.accept() {
                let serve = Arc::clone(&serve);
                // Ends with its connection, which a client that left has no use for.
                std::thread::spawn(move || drop(serve(client)));
            }
        });
        Ok(Self { listener, thread: Some(thread) })
    }

    /// A stand-in for proxy and application: every client reads `ORIGINAL via PORT`, the destination it dialled as the
    /// kernel remembers it, and the port where it arrived.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn stand_in(namespace: &Namespace, port: u16) -> anyhow::Result<Self> {
        Self::start(namespace, port, move |client| tell_destination(client, port))
    }

    /// A server that speaks first, as SMTP and MySQL do: sends `greeting` and a line feed, then answers every line with
    /// `ok ` and that line.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn greeter(namespace: &Namespace, port: u16, greeting: &str) -> anyhow::Result<Self> {
        let greeting = format!("{greeting}\n");
        Self::start(namespace, port, move |mut client| {
            client.write_all(greeting.as_bytes())?;
            for line in BufReader::new(client.try_clone()?).lines() {
                client.write_all(format!("ok {}\n", line?).as_bytes())?;
            }
            Ok(())
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // On Linux this wakes the thread that accepts.
        let _ = SockRef::from(&self.listener).shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn tell_destination(mut client: TcpStream, port: u16) -> anyhow::Result<()> {
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
