//! Our records against those of rustls, in both roles.

use std::io::{ErrorKind, IoSlice};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::HandshakeKind;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use tulle_identity::csr::{self, PendingKey};
use tulle_identity::sign::{BuiltInCa, Signer};
use tulle_identity::spiffe::{SpiffeId, TrustDomain};
use tulle_identity::svid::Identity;
use tulle_identity::tls::{Alpn, MeshTls, TlsOptions};

use super::handshake;
use crate::conn::{Io, Socket};

const PATIENCE: Duration = Duration::from_secs(30);

struct Mesh {
    ca: BuiltInCa,
    _dir: tempfile::TempDir,
}

impl Mesh {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { ca: BuiltInCa::open(&dir.path().join("state"), &domain()).unwrap(), _dir: dir }
    }

    fn keys(&self, name: &str) -> MeshTls {
        let (key, now) = (PendingKey::generate().unwrap(), SystemTime::now());
        let csr = csr::parse(&key.csr_pem(&id(name)).unwrap()).unwrap();
        let chain = self.ca.sign(&csr, &id(name), &[], Duration::from_secs(3600), now).unwrap();
        let (svid, bundle) = key.into_svid(&chain, now).unwrap();
        let identity = Identity { svid: Arc::new(svid), bundle: Arc::new(bundle) };
        MeshTls::new(&identity, &TlsOptions::default()).unwrap()
    }

    /// We accept, rustls dials.
    async fn accepted(&self) -> (Io, client::TlsStream<TcpStream>) {
        let (near, far) = sockets().await;
        let (ours, theirs) = (self.keys("api"), self.keys("web"));
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let connector = TlsConnector::from(theirs.client(&id("api"), Alpn::H1));
        let accept = handshake::accept(&ours, Socket::new(near, Vec::new()), PATIENCE);
        let (accepted, theirs) = tokio::join!(accept, connector.connect(name, far));
        let accepted = accepted.unwrap();
        assert_eq!(accepted.peer, id("web"));
        assert_eq!(accepted.inside, handshake::Inside::Http1);
        (accepted.io, theirs.unwrap())
    }

    /// We dial with `ours`, rustls accepts with `theirs`.
    async fn dialled(&self, ours: &MeshTls, theirs: &MeshTls) -> (Io, server::TlsStream<TcpStream>) {
        let (near, far) = sockets().await;
        let address = near.peer_addr().unwrap().ip();
        let socket = Socket::new(near, Vec::new());
        let acceptor = TlsAcceptor::from(theirs.server());
        let api = id("api");
        let connect = handshake::connect(ours, socket, address, &api, Alpn::H2, PATIENCE);
        let (io, theirs) = tokio::join!(connect, acceptor.accept(far));
        (io.unwrap().0, theirs.unwrap())
    }
}

fn domain() -> TrustDomain {
    TrustDomain::parse("cluster.local").unwrap()
}

fn id(name: &str) -> SpiffeId {
    SpiffeId::workload(&domain(), "shop", name).unwrap()
}

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (far, near) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (near.unwrap().0, far.unwrap())
}

fn bytes(count: u32) -> Vec<u8> {
    (0..count).map(|i| (i % 251) as u8).collect()
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) {
    stream.write_all(bytes).await.unwrap();
    stream.flush().await.unwrap();
}

async fn receive(stream: &mut (impl AsyncRead + Unpin), count: usize) -> Vec<u8> {
    let mut got = vec![0; count];
    stream.read_exact(&mut got).await.unwrap();
    got
}

/// Bulk both ways at once, then an end both ways.
async fn talk(ours: Io, theirs: impl AsyncRead + AsyncWrite + Unpin) {
    let sent = bytes(3_000_000);
    let (mut our_reads, mut our_writes) = tokio::io::split(ours);
    let (mut their_reads, mut their_writes) = tokio::io::split(theirs);
    let ((), (), up, down) = tokio::join!(
        send(&mut our_writes, &sent),
        send(&mut their_writes, &sent),
        receive(&mut their_reads, sent.len()),
        receive(&mut our_reads, sent.len()),
    );
    assert!(up == sent && down == sent);
    our_writes.shutdown().await.unwrap();
    their_writes.shutdown().await.unwrap();
    let (mut up, mut down) = (Vec::new(), Vec::new());
    our_reads.read_to_end(&mut down).await.unwrap();
    their_reads.read_to_end(&mut up).await.unwrap();
    assert!(up.is_empty() && down.is_empty());
}

#[tokio::test]
async fn bytes_cross_in_both_roles() {
    let mesh = Mesh::new();
    let (ours, theirs) = mesh.accepted().await;
    talk(ours, theirs).await;
    let (ours, theirs) = mesh.dialled(&mesh.keys("web"), &mesh.keys("api")).await;
    talk(ours, theirs).await;
}

#[tokio::test]
async fn a_peer_may_change_keys_and_ask_for_ours_to_change() {
    let mesh = Mesh::new();
    let (mut ours, mut theirs) = mesh.accepted().await;
    for round in 0..100u32 {
        let sent = bytes(round * 100 + 1);
        theirs.get_mut().1.refresh_traffic_keys().unwrap();
        send(&mut theirs, &sent).await;
        assert!(receive(&mut ours, sent.len()).await == sent);
        send(&mut ours, &sent).await;
        assert!(receive(&mut theirs, sent.len()).await == sent);
    }
    talk(ours, theirs).await;
}

#[tokio::test]
async fn key_updates_without_end_are_not_followed() {
    let (mut ours, mut theirs) = Mesh::new().accepted().await;
    for _ in 0..40 {
        theirs.get_mut().1.refresh_traffic_keys().unwrap();
    }
    theirs.flush().await.unwrap();
    assert_eq!(ours.read_u8().await.unwrap_err().kind(), ErrorKind::InvalidData);
}

#[tokio::test]
async fn an_end_is_told_from_a_cut() {
    let mesh = Mesh::new();
    let (mut ours, mut theirs) = mesh.accepted().await;
    theirs.shutdown().await.unwrap();
    assert_eq!(ours.read_to_end(&mut Vec::new()).await.unwrap(), 0);
    // The other direction is still open.
    send(&mut ours, b"late").await;
    assert_eq!(receive(&mut theirs, 4).await, b"late");
    let (mut ours, theirs) = mesh.accepted().await;
    let (mut wire, _) = theirs.into_inner();
    wire.shutdown().await.unwrap();
    assert_eq!(ours.read_to_end(&mut Vec::new()).await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn records_that_the_peer_did_not_make_end_the_connection() {
    let mesh = Mesh::new();
    let forged: [&[u8]; 5] = [
        // Of its form, but of nobody's key.
        &[
            23, 3, 3, 0, 32, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24,
            25, 26, 27, 28, 29, 30, 31,
        ],
        // Too short for a tag.
        &[23, 3, 3, 0, 3, 1, 2, 3],
        // Longer than any record.
        &[23, 3, 3, 0x41, 1, 0],
        // An alert, and a change of cipher, in the open.
        &[21, 3, 3, 0, 2, 1, 0],
        &[20, 3, 3, 0, 1, 1],
    ];
    for record in forged {
        let (mut ours, theirs) = mesh.accepted().await;
        let (mut wire, mut theirs) = theirs.into_inner();
        wire.write_all(record).await.unwrap();
        assert_eq!(ours.read_u8().await.unwrap_err().kind(), ErrorKind::InvalidData, "{record:?}");
        assert_eq!(ours.read_u8().await.unwrap_err().kind(), ErrorKind::InvalidData, "{record:?}");
        assert_eq!(ours.write(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe, "{record:?}");
        // It was told why, behind the tickets.
        let told = loop {
            let mut told = Vec::new();
            assert!(wire.read_buf(&mut told).await.unwrap() > 0, "{record:?}");
            theirs.read_tls(&mut told.as_slice()).unwrap();
            if let Err(error) = theirs.process_new_packets() {
                break error;
            }
        };
        assert!(matches!(told, rustls::Error::AlertReceived(_)), "{told}");
    }
}

#[tokio::test]
async fn pieces_of_any_size_are_one_stream() {
    let (mut ours, mut theirs) = Mesh::new().accepted().await;
    let sent = bytes(90_000);
    let cuts = [0, 9, 9, 16_393, 16_394, 50_000, 89_999, 90_000];
    let pieces: Vec<_> = cuts.windows(2).map(|cut| IoSlice::new(sent.get(cut[0]..cut[1]).unwrap())).collect();
    let written = ours.write_vectored(&pieces).await.unwrap();
    assert_eq!(written, 4 * 16_384);
    ours.flush().await.unwrap();
    assert!(receive(&mut theirs, written).await == sent[..written]);
}

#[tokio::test]
async fn what_is_peeked_is_read_again() {
    let (mut ours, mut theirs) = Mesh::new().accepted().await;
    let peeking = async {
        let Io::Tls(stream) = &mut ours else { unreachable!("it was accepted over TLS") };
        assert_eq!(stream.peek().await.unwrap(), b"hello");
    };
    tokio::join!(peeking, send(&mut theirs, b"hello"));
    assert_eq!(receive(&mut ours, 5).await, b"hello");
    theirs.shutdown().await.unwrap();
    let Io::Tls(stream) = &mut ours else { unreachable!("it was accepted over TLS") };
    assert_eq!(stream.peek().await.unwrap(), b"");
}

#[tokio::test]
async fn a_ticket_resumes() {
    let mesh = Mesh::new();
    let (web, api) = (mesh.keys("web"), mesh.keys("api"));
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let (mut ours, mut theirs) = mesh.dialled(&web, &api).await;
        send(&mut theirs, b"x").await;
        assert_eq!(receive(&mut ours, 1).await, b"x");
        kinds.push(theirs.get_ref().1.handshake_kind().unwrap());
    }
    assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Resumed]);
}

#[tokio::test]
async fn the_peer_of_a_failed_handshake_is_told() {
    let (mesh, other) = (Mesh::new(), Mesh::new());
    let (near, far) = sockets().await;
    let (ours, theirs) = (mesh.keys("api"), other.keys("web"));
    let accept = handshake::accept(&ours, Socket::new(near, Vec::new()), PATIENCE);
    let connector = TlsConnector::from(theirs.client(&id("api"), Alpn::H1));
    let (accepted, refused) = tokio::join!(accept, connector.connect(ServerName::try_from("127.0.0.1").unwrap(), far));
    assert!(accepted.is_err() && refused.is_err());
    let (near, far) = sockets().await;
    let socket = Socket::new(near, Vec::new());
    let address = "127.0.0.1".parse().unwrap();
    let (theirs, api) = (other.keys("api"), id("api"));
    let acceptor = TlsAcceptor::from(theirs.server());
    let connect = handshake::connect(&ours, socket, address, &api, Alpn::H1, PATIENCE);
    let (refused, accepted) = tokio::join!(connect, acceptor.accept(far));
    assert!(refused.is_err());
    let told = accepted.unwrap_err().to_string();
    assert!(told.contains("alert"), "{told}");
}
