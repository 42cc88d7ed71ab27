//! network -> app: the whole path of a connection to the workload.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;

use tokio::net::TcpStream;
use tulle_identity::spiffe::SpiffeId;

use crate::base::addr::Downstream;
use crate::base::failure::{Failure, Reason};
use crate::base::protocol::Protocol;
use crate::config::listener::{InboundPort, MtlsMode};
use crate::conn::{Io, Socket};
use crate::detect::{self, Cause, Spoken};
use crate::drain::Guard;
use crate::http::{self, Place, Version};
use crate::lifetime::Lifetime;
use crate::orig_dst;
use crate::relay;
use crate::tcp::{self, Opaque};
use crate::telemetry::events::Detected;
use crate::telemetry::labels::{Direction, Party};
use crate::tls::handshake::{self, Inside};
use crate::worker::{HANDSHAKE_TIMEOUT, Worker};

/// Where the connections of a listener go.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Route {
    /// Captured: to the port each was going to.
    Captured,
    /// To the application at this address, by the rules of this port.
    Application {
        /// Where the application listens.
        app: SocketAddr,
        /// The port peers know it by.
        port: u16,
    },
}

/// A connection whose sender is known, as far as it can be.
struct Received {
    io: Io,
    peer: Option<SpiffeId>,
    /// How long it may live. Listed by its worker, so that it ends with what its peer has proved, and with the policy that
    /// let it in.
    life: Rc<Lifetime>,
    speaks: Speaks,
    /// A peer that has come this far has a request for us: it counts as work while we shut down. Passed on without a
    /// gap, in which the process might end.
    arriving: Guard,
}

/// What a sender speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaks {
    /// HTTP.
    Http(Version),
    /// Bytes that are relayed as they are.
    Opaque,
    /// As [`Speaks::Opaque`], though a lenient server may take them for HTTP.
    HttpLike,
    /// Nothing that could be told in time, or nothing the sender's proxy said, on a port where it may be HTTP.
    Undecided,
}

/// Serves one inbound connection, from accepted socket to closed relay.
///
/// # Errors
/// Why it was given up before anything was relayed, or why an opaque relay broke.
pub(crate) async fn serve(cx: Rc<Worker>, tcp: TcpStream, from: Downstream, route: Route) -> Result<(), Failure> {
    let (app, number) = match route {
        Route::Application { app, port } => (app, port),
        Route::Captured => {
            let to = original(&cx, &tcp)?;
            (to, to.port())
        }
    };
    let rules = Box::pin(cx.inbound_port(number)).await;
    // Without any configuration nothing says who may come in.
    let Some(rules) = rules else {
        relay::abort(&tcp);
        return Err(Reason::NoConfig.into());
    };
    let Received { mut io, peer, life, speaks, arriving } = Box::pin(receive(&cx, tcp, &rules, (app, number))).await?;
    let source = party(peer.as_ref());
    let tls = peer.is_some();
    let version = if let Speaks::Http(version) = speaks {
        version
    } else {
        let opaque = Opaque {
            source: source.clone(),
            direction: Direction::Inbound,
            downstream: from,
            tls,
            http_like: speaks == Speaks::HttpLike,
            cluster: cx.local(app, &rules),
            life: Some(Rc::clone(&life)),
            worker: Rc::clone(&cx),
        };
        let Some((given, version)) = Box::pin(detected(opaque, io, speaks)).await? else { return Ok(()) };
        io = given;
        version
    };
    let known = RefCell::new((cx.view(), cx.local(app, &rules)));
    let connection = http::Connection {
        direction: Direction::Inbound,
        downstream: from,
        peer_header: peer_header(&cx, peer.as_ref()),
        source,
        tls,
        place: Place::Local { port: number, known },
        series: RefCell::default(),
        arriving: RefCell::new(Some(arriving)),
        life: Some(Rc::clone(&life)),
        worker: cx,
    };
    let mut served = pin!(http::serve(connection, io, version));
    let cut = poll_fn(|cx| life.poll_held(served.as_mut(), cx)).await.err();
    cut.map_or(Ok(()), |reason| {
        Err(Failure::new(reason).because("requests under way were cut: the connection had ended"))
    })
}

/// A connection that is HTTP after all; none: it was opaque, and is over.
async fn detected(opaque: Opaque, io: Io, speaks: Speaks) -> Result<Option<(Io, Version)>, Failure> {
    if speaks != Speaks::Undecided {
        return tcp::serve(opaque, io).await.map(|()| None);
    }
    let decided = tcp::undecided(opaque, io).await?;
    Ok(decided.map(|(io, spoken)| (io, if spoken == Spoken::Http2 { Version::Http2 } else { Version::Http1 })))
}

/// Where a captured connection was going; refused when that is ourselves, or another host: who routes packets for others
/// through this pod does not get its identity for them.
fn original(cx: &Worker, tcp: &TcpStream) -> Result<SocketAddr, Failure> {
    let to = orig_dst::original_destination(tcp).map_err(|e| Failure::new(Reason::DownstreamClosed).because(e))?;
    let to = to.canonical();
    if cx.own_sockets.listens_at(to) {
        relay::abort(tcp);
        return Err(Reason::Loop.into());
    }
    if !cx.own_sockets.has(to) {
        relay::abort(tcp);
        return Err(Failure::new(Reason::UnknownDestination).because(format!("{to} is no address of this pod")));
    }
    Ok(to)
}

/// Finds out who sends and what is spoken, by the rules of the port.
async fn receive(
    cx: &Rc<Worker>,
    mut tcp: TcpStream,
    rules: &InboundPort,
    (app, port): (SocketAddr, u16),
) -> Result<Received, Failure> {
    let opaque =
        rules.protocol.is_opaque() || (rules.protocol == Protocol::Auto && cx.settings.opaque_ports.contains(&port));
    let protocol = if opaque && rules.protocol == Protocol::Auto { Protocol::Tcp } else { rules.protocol };
    if rules.mtls == MtlsMode::Disable && opaque {
        let io = Io::Plain(Socket::new(tcp, Vec::new()));
        let (life, arriving) = (cx.list(None, port), cx.drain.guard());
        return Ok(Received { io, peer: None, life, speaks: Speaks::Opaque, arriving });
    }
    // Where no mesh client is expected, a client whose server spoke first the last time is not waited for.
    if rules.mtls == MtlsMode::Disable && protocol == Protocol::Auto && cx.local(app, rules).server_first.get() {
        let io = Io::Plain(Socket::new(tcp, Vec::new()));
        let (life, arriving) = (cx.list(None, port), cx.drain.guard());
        return Ok(Received { io, peer: None, life, speaks: Speaks::Undecided, arriving });
    }
    let mut prefix = Vec::new();
    // A mesh client speaks at once. A client in plain of a server that speaks first does not: then it is opaque.
    let patience = cx.patience(opaque || rules.protocol == Protocol::Auto);
    let sniffed = detect::sniff(&mut tcp, &mut prefix, patience).await;
    let sniffed = sniffed.map_err(|error| Failure::new(Reason::DownstreamClosed).because(error))?;
    let mesh = matches!(&sniffed.spoken, Spoken::Tls(hello) if hello.mesh) && rules.mtls != MtlsMode::Disable;
    if mesh {
        cx.telemetry.events().protocol_detected(Detected::MeshTls);
        return secure(cx, Socket::new(tcp, prefix), protocol, port).await;
    }
    if sniffed.cause == Cause::Timeout && !prefix.is_empty() && rules.mtls == MtlsMode::Strict {
        relay::abort(&tcp);
        return Err(Reason::HeaderTimeout.into());
    }
    if rules.mtls == MtlsMode::Strict {
        // An application would see a broken connection, not a polite end.
        relay::abort(&tcp);
        return Err(Failure::new(Reason::AuthnFailed).because(format!("port {port} requires mutual TLS")));
    }
    if prefix.is_empty() && declares_http(protocol) {
        // As opaque bytes its requests would come past every rule for requests.
        return Err(Reason::IdleTimeout.into());
    }
    let speaks = match version_of(&sniffed.spoken, protocol) {
        Some(version) => Speaks::Http(version),
        None if protocol == Protocol::Auto && sniffed.cause == Cause::Timeout => Speaks::Undecided,
        None if sniffed.spoken == Spoken::HttpLike && protocol == Protocol::Auto => Speaks::HttpLike,
        None => Speaks::Opaque,
    };
    let (io, arriving) = (Io::Plain(Socket::new(tcp, prefix)), cx.drain.guard());
    Ok(Received { io, peer: None, life: cx.list(None, port), speaks, arriving })
}

/// Whether whatever comes is HTTP, and is to be treated as such.
fn declares_http(protocol: Protocol) -> bool {
    !protocol.is_opaque() && protocol != Protocol::Auto
}

fn version_of(spoken: &Spoken, protocol: Protocol) -> Option<Version> {
    if protocol.is_opaque() {
        return None;
    }
    match spoken {
        Spoken::Http1 => Some(Version::Http1),
        Spoken::Http2 => Some(Version::Http2),
        // The application's own TLS passes through, whatever was declared.
        Spoken::Tls(_) => None,
        // Declared HTTP, yet it is not: HTTP/1 says so in its own words.
        Spoken::Opaque | Spoken::HttpLike => declares_http(protocol).then_some(Version::Http1),
    }
}

/// Mutual TLS with a peer of the mesh, and what is spoken inside.
async fn secure(cx: &Rc<Worker>, socket: Socket, protocol: Protocol, port: u16) -> Result<Received, Failure> {
    let Some(keys) = cx.keys() else {
        return Err(Failure::new(Reason::CertExpired).because("this proxy has no certificate"));
    };
    // After the handshake a peer sends its request at once, and would not know whether it was served: none is begun
    // that the end of the process would cut.
    let Some(arriving) = cx.drain.arrive() else {
        relay::abort(socket.tcp());
        return Err(Reason::Draining.into());
    };
    let accepted = handshake::accept(&keys, socket, HANDSHAKE_TIMEOUT).await;
    cx.telemetry.events().tls_handshake(Direction::Inbound, accepted.as_ref().err().map(|failure| failure.reason));
    let handshake::Accepted { mut io, peer, standing, inside } = accepted?;
    let life = cx.list(Some(standing), port);
    let speaks = match inside {
        _ if protocol.is_opaque() => Speaks::Opaque,
        Inside::Http2 => Speaks::Http(Version::Http2),
        Inside::Http1 => Speaks::Http(Version::Http1),
        // Its proxy has waited for its first bytes already.
        Inside::Unsaid if protocol == Protocol::Auto => Speaks::Undecided,
        Inside::Unsaid => spoken_inside(cx, &mut io, protocol).await?.map_or(Speaks::Opaque, Speaks::Http),
    };
    Ok(Received { io, peer: Some(peer), life, speaks, arriving })
}

/// What a sender speaks that did not say so, to a port where HTTP is declared: calling its requests opaque must not bring
/// them past the rules for requests. The application's own TLS passes through. Consumes nothing.
async fn spoken_inside(cx: &Worker, io: &mut Io, protocol: Protocol) -> Result<Option<Version>, Failure> {
    let Io::Tls(stream) = io else { return Ok(None) };
    match tokio::time::timeout(cx.settings.limits.downstream_idle, stream.peek()).await {
        Ok(Ok([])) => Err(Reason::DownstreamClosed.into()),
        Ok(Ok(bytes)) => Ok(match detect::classify(bytes) {
            Some(spoken) => version_of(&spoken, protocol),
            None if bytes.first() == Some(&detect::TLS_HANDSHAKE) => None,
            None if bytes.starts_with(b"PRI ") => Some(Version::Http2),
            // It begins like a request: it is held to that.
            None => Some(Version::Http1),
        }),
        Ok(Err(error)) => Err(Failure::new(Reason::DownstreamClosed).because(error)),
        Err(_) => Err(Reason::IdleTimeout.into()),
    }
}

/// What the application is told of the peer, in the form it knows from other meshes. Without a verified peer it is
/// told nothing, and what the sender claimed is dropped all the same.
fn peer_header(cx: &Worker, peer: Option<&SpiffeId>) -> Option<Box<str>> {
    peer.map(|peer| format!("By={};URI={peer}", cx.own.identity).into())
}

fn party(peer: Option<&SpiffeId>) -> Party {
    match peer {
        Some(peer) => Party {
            workload: "".into(),
            namespace: peer.namespace().unwrap_or_default().into(),
            identity: peer.as_str().into(),
        },
        None => Party::default(),
    }
}
