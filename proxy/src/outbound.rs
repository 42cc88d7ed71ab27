//! app -> network: the whole path of a connection that the workload opened.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use tokio::net::TcpStream;

use crate::base::addr::{Downstream, OrigDst};
use crate::base::failure::{Failure, Reason};
use crate::base::protocol::Protocol;
use crate::config::Known;
use crate::config::bootstrap::Unknown;
use crate::config::demand::DemandKey;
use crate::config::listener::Outbound;
use crate::conn::{Io, Socket};
use crate::detect::{self, Cause, Spoken};
use crate::http::{self, Place, Version};
use crate::orig_dst;
use crate::relay;
use crate::tcp::{self, Opaque};
use crate::telemetry::events::Detected;
use crate::telemetry::labels::Direction;
use crate::view::ClusterState;
use crate::worker::Worker;

/// Where the connections of a listener go.
#[derive(Clone, Debug)]
pub(crate) enum Route {
    /// Captured: to where each was going.
    Captured,
    /// To this service.
    Service(Arc<str>),
    /// To the service that each request names.
    Authority,
}

/// Serves one outbound connection, from accepted socket to closed relay.
///
/// # Errors
/// Why it was given up before anything was relayed, or why an opaque relay broke.
pub(crate) async fn serve(cx: Rc<Worker>, tcp: TcpStream, from: Downstream, route: Route) -> Result<(), Failure> {
    let key = match route {
        Route::Authority => return Box::pin(by_authority(cx, tcp, from)).await,
        Route::Service(name) => DemandKey::Name(name),
        Route::Captured => {
            let to = original(&cx, &tcp)?;
            DemandKey::Addr(to.canonical())
        }
    };
    let (view, known) = cx.resolve(&key).await;
    let service = match known {
        Some(Known::Service(service)) => service,
        Some(Known::Absent) => return Box::pin(unknown(cx, tcp, from, &key)).await,
        None => return Box::pin(unanswered(cx, tcp, from, &key)).await,
    };
    let hint = tcp_hint(&cx, &key, &service);
    let cluster = service.opaque.and_then(|id| view.cluster(id)).map(Rc::clone);
    let Some((io, version)) = Box::pin(detected(&cx, hint, cluster, tcp, from)).await? else { return Ok(()) };
    let place = Place::Service { key, known: RefCell::new((view, service)) };
    http_on(cx, io, from, place, version).await;
    Ok(())
}

/// A connection that is HTTP; none: it was opaque, and is over.
async fn detected(
    cx: &Rc<Worker>,
    hint: Protocol,
    cluster: Option<Rc<ClusterState>>,
    tcp: TcpStream,
    from: Downstream,
) -> Result<Option<(Io, Version)>, Failure> {
    let mut prefix = Vec::new();
    // A client whose server spoke first the last time is not waited for.
    let server_first = hint == Protocol::Auto && cluster.as_ref().is_some_and(|cluster| cluster.server_first.get());
    let (tcp, speaks) =
        if server_first { (tcp, Speaks::Undecided) } else { speaks(cx, hint, tcp, &mut prefix).await? };
    let io = Io::Plain(Socket::new(tcp, prefix));
    if let Speaks::Http(version) = speaks {
        return Ok(Some((io, version)));
    }
    let Some(cluster) = cluster else {
        relay::abort(io.tcp());
        return Err(Reason::NoRoute.into());
    };
    let opaque = opaque(cx, from, cluster);
    if speaks == Speaks::Opaque {
        return Box::pin(tcp::serve(opaque, io)).await.map(|()| None);
    }
    let decided = Box::pin(tcp::undecided(opaque, io)).await?;
    Ok(decided.map(|(io, spoken)| (io, if spoken == Spoken::Http2 { Version::Http2 } else { Version::Http1 })))
}

fn opaque(cx: &Rc<Worker>, from: Downstream, cluster: Rc<ClusterState>) -> Opaque {
    Opaque {
        source: cx.own.clone(),
        direction: Direction::Outbound,
        downstream: from,
        tls: false,
        http_like: false,
        cluster,
        life: None,
        worker: Rc::clone(cx),
    }
}

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaks {
    /// HTTP.
    Http(Version),
    /// Bytes that are relayed as they are.
    Opaque,
    /// Nothing that could be told in time, on a port where it may be HTTP.
    Undecided,
}

/// Where a captured connection was going; refused when that is ourselves.
fn original(cx: &Worker, tcp: &TcpStream) -> Result<OrigDst, Failure> {
    let to = orig_dst::original_destination(tcp).map_err(|e| Failure::new(Reason::DownstreamClosed).because(e))?;
    if cx.own_sockets.listens_at(to.canonical()) {
        return Err(Reason::Loop.into());
    }
    Ok(to)
}

/// The protocol to expect. Ports whose servers speak first are never sniffed unless declared.
fn tcp_hint(cx: &Worker, key: &DemandKey, service: &Outbound) -> Protocol {
    let port = match key {
        DemandKey::Addr(address) => Some(address.port()),
        DemandKey::Name(name) => name.rsplit_once(':').and_then(|(_, port)| port.parse().ok()),
        DemandKey::Host(_) => None,
    };
    let server_first = port.is_some_and(|port| cx.settings.opaque_ports.contains(&port));
    if service.protocol == Protocol::Auto && server_first { Protocol::Tcp } else { service.protocol }
}

/// Finds out what the client speaks. Bytes that were read are in `prefix`.
async fn speaks(
    cx: &Worker,
    hint: Protocol,
    mut tcp: TcpStream,
    prefix: &mut Vec<u8>,
) -> Result<(TcpStream, Speaks), Failure> {
    if hint.is_opaque() {
        return Ok((tcp, Speaks::Opaque));
    }
    // Of declared HTTP the client speaks first, whenever it likes.
    let auto = hint == Protocol::Auto;
    let sniffed = detect::sniff(&mut tcp, prefix, cx.patience(auto)).await;
    let sniffed = sniffed.map_err(|error| Failure::new(Reason::DownstreamClosed).because(error))?;
    let (speaks, detected) = match (&sniffed.spoken, sniffed.cause) {
        (Spoken::Http1, _) => (Speaks::Http(Version::Http1), Detected::Http1),
        (Spoken::Http2, _) => (Speaks::Http(Version::Http2), Detected::Http2),
        (Spoken::Tls(hello), _) if hello.mesh => (Speaks::Opaque, Detected::MeshTls),
        (Spoken::Tls(_), _) => (Speaks::Opaque, Detected::Tls),
        (Spoken::Opaque, Cause::Timeout) => (Speaks::Undecided, Detected::Timeout),
        (Spoken::Opaque | Spoken::HttpLike, _) => (Speaks::Opaque, Detected::Opaque),
    };
    cx.telemetry.events().protocol_detected(detected);
    match speaks {
        Speaks::Opaque | Speaks::Undecided if auto => Ok((tcp, speaks)),
        Speaks::Opaque | Speaks::Undecided if prefix.is_empty() => Err(Reason::DownstreamClosed.into()),
        // Declared HTTP, yet it is not: HTTP/1 says so in its own words.
        Speaks::Opaque | Speaks::Undecided => Ok((tcp, Speaks::Http(Version::Http1))),
        Speaks::Http(_) => Ok((tcp, speaks)),
    }
}

async fn http_on(cx: Rc<Worker>, io: Io, from: Downstream, place: Place, version: Version) {
    let connection = http::Connection {
        direction: Direction::Outbound,
        downstream: from,
        source: cx.own.clone(),
        peer_header: None,
        tls: false,
        place,
        series: RefCell::default(),
        arriving: RefCell::new(Some(cx.drain.guard())),
        life: None,
        worker: cx,
    };
    http::serve(connection, io, version).await;
}

async fn by_authority(cx: Rc<Worker>, tcp: TcpStream, from: Downstream) -> Result<(), Failure> {
    let mut prefix = Vec::new();
    let (tcp, speaks) = speaks(&cx, Protocol::Http, tcp, &mut prefix).await?;
    let version = if let Speaks::Http(version) = speaks { version } else { Version::Http1 };
    http_on(cx, Io::Plain(Socket::new(tcp, prefix)), from, Place::Authority, version).await;
    Ok(())
}

/// A destination about which the control plane has not answered. Silence is no licence to send in plain what may be meshed
/// (decision 011): an address of the mesh is refused, and so is every address until the first configuration has arrived.
async fn unanswered(cx: Rc<Worker>, tcp: TcpStream, from: Downstream, key: &DemandKey) -> Result<(), Failure> {
    let refused = match key {
        DemandKey::Addr(address) => cx.may_be_meshed(address.ip()),
        DemandKey::Name(_) | DemandKey::Host(_) => cx.untold(&cx.view()),
    };
    if refused {
        relay::abort(&tcp);
        let why = format!("{key} may be meshed, and the control plane has not said what it is");
        return Err(Failure::new(Reason::NoConfig).because(why));
    }
    unknown(cx, tcp, from, key).await
}

/// A destination that the mesh does not have: passed through untouched, or refused.
async fn unknown(cx: Rc<Worker>, tcp: TcpStream, from: Downstream, key: &DemandKey) -> Result<(), Failure> {
    let (DemandKey::Addr(address), Unknown::PassThrough) = (key, cx.settings.unknown) else {
        relay::abort(&tcp);
        return Err(Reason::UnknownDestination.into());
    };
    let opaque = opaque(&cx, from, cx.passthrough(*address));
    tcp::serve(opaque, Io::Plain(Socket::new(tcp, Vec::new()))).await
}
