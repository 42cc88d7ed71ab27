//! Half-close, resets, idle time, counts and backpressure, over duplex streams and real sockets.

use std::cell::Cell;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::TcpListener;

use super::*;

#[derive(Default)]
struct Tally {
    sent: Cell<u64>,
    received: Cell<u64>,
}

impl Counts for Tally {
    fn sent(&self, bytes: u64) {
        self.sent.set(self.sent.get() + bytes);
    }
    fn received(&self, bytes: u64) {
        self.received.set(self.received.get() + bytes);
    }
}

impl Stream for DuplexStream {
    fn plain(&self) -> Option<&TcpStream> {
        None
    }
}

const NEVER: Duration = Duration::MAX;

/// Client and server, and our ends of their streams.
fn peers(size: usize) -> (DuplexStream, DuplexStream, DuplexStream, DuplexStream) {
    let (client, downstream) = duplex(size);
    let (server, upstream) = duplex(size);
    (client, downstream, upstream, server)
}

async fn read_all(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.map(|_| bytes)
}

#[tokio::test]
async fn the_end_of_one_direction_leaves_the_other_open() {
    let (mut client, mut downstream, mut upstream, mut server) = peers(64);
    let tally = Tally::default();
    let talk = async {
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(read_all(&mut server).await.unwrap(), b"question");
        server.write_all(b"the answer").await.unwrap();
        server.shutdown().await.unwrap();
        assert_eq!(read_all(&mut client).await.unwrap(), b"the answer");
    };
    let (result, ()) = tokio::join!(copy_both(&mut downstream, &mut upstream, NEVER, &tally), talk);
    result.unwrap();
    assert_eq!((tally.sent.get(), tally.received.get()), (8, 10));
}

#[tokio::test]
async fn counts_as_bytes_move() {
    let (mut client, mut downstream, mut upstream, mut server) = peers(64);
    let tally = Tally::default();
    let mut relay = pin!(copy_both(&mut downstream, &mut upstream, NEVER, &tally));
    client.write_all(b"abc").await.unwrap();
    assert!(futures_util::poll!(relay.as_mut()).is_pending());
    assert_eq!(tally.sent.get(), 3);
    server.write_all(b"defg").await.unwrap();
    assert!(futures_util::poll!(relay.as_mut()).is_pending());
    assert_eq!(tally.received.get(), 4);
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) {
    stream.write_all(bytes).await.unwrap();
    stream.shutdown().await.unwrap();
}

/// Sends `count` bytes both ways at once and looks that they arrive.
async fn bulk(ends: (impl Stream, impl Stream), mut ours: (impl Stream, impl Stream), count: u32) {
    let bytes: Vec<u8> = (0..count).map(|i| (i % 251) as u8).collect();
    let tally = Tally::default();
    let (mut client_reads, mut client_writes) = tokio::io::split(ends.0);
    let (mut server_reads, mut server_writes) = tokio::io::split(ends.1);
    let (result, (), (), up, down) = tokio::join!(
        copy_both(&mut ours.0, &mut ours.1, NEVER, &tally),
        send(&mut client_writes, &bytes),
        send(&mut server_writes, &bytes),
        read_all(&mut server_reads),
        read_all(&mut client_reads),
    );
    result.unwrap();
    assert!(up.unwrap() == bytes && down.unwrap() == bytes);
    assert_eq!((tally.sent.get(), tally.received.get()), (count.into(), count.into()));
}

#[tokio::test]
async fn bulk_arrives_whole_both_ways() {
    let (client, downstream, upstream, server) = peers(100_000);
    bulk((client, server), (downstream, upstream), 3_000_000).await;
}

#[tokio::test]
async fn bulk_between_sockets_arrives_whole() {
    let (client, downstream) = connection().await;
    let (server, upstream) = connection().await;
    bulk((client, server), (downstream, upstream), 8_000_000).await;
}

#[tokio::test]
async fn a_reset_amid_bulk_is_passed_on() {
    let (mut client, downstream) = connection().await;
    let (mut server, upstream) = connection().await;
    let talk = async {
        let (bytes, mut read) = (vec![7; 1_000_000], vec![0; 5_000_000]);
        let write = async { while client.write_all(&bytes).await.is_ok() {} };
        let read = async {
            server.read_exact(&mut read).await.unwrap();
            reset(server);
        };
        tokio::join!(write, read);
    };
    let (reason, ()) = tokio::join!(relay_and_abort(downstream, upstream), talk);
    assert_eq!(reason, Reason::UpstreamReset);
}

#[tokio::test]
async fn a_slow_reader_holds_the_writer_back() {
    let (mut client, mut downstream, mut upstream, _server) = peers(1000);
    let tally = Tally::default();
    let mut relay = pin!(copy_both(&mut downstream, &mut upstream, NEVER, &tally));
    let bytes = vec![0; 1_000_000];
    let mut write = pin!(client.write_all(&bytes));
    for _ in 0..1000 {
        assert!(futures_util::poll!(relay.as_mut()).is_pending());
        assert!(futures_util::poll!(write.as_mut()).is_pending());
    }
    assert_eq!(tally.sent.get(), 1000);
}

#[tokio::test(start_paused = true)]
async fn ends_when_nothing_moves() {
    let (mut client, mut downstream, mut upstream, mut server) = peers(64);
    let began = Instant::now();
    let tally = Tally::default();
    let talk = async {
        for _ in 0..5 {
            tokio::time::advance(Duration::from_secs(6)).await;
            client.write_all(b"x").await.unwrap();
            server.read_u8().await.unwrap();
        }
        began.elapsed()
    };
    let idle = Duration::from_secs(8);
    let (result, last) = tokio::join!(copy_both(&mut downstream, &mut upstream, idle, &tally), talk);
    assert_eq!(result.unwrap_err().reason, Reason::IdleTimeout);
    let quiet = began.elapsed() - last;
    assert!(quiet >= idle && quiet <= idle * 5 / 4, "{quiet:?}");
}

#[tokio::test(start_paused = true)]
async fn waits_for_ever_if_told_to() {
    let (_client, mut downstream, mut upstream, _server) = peers(64);
    let tally = Tally::default();
    let relay = copy_both(&mut downstream, &mut upstream, NEVER, &tally);
    assert!(tokio::time::timeout(Duration::from_secs(86_400 * 365), relay).await.is_err());
}

/// Two ends of one TCP connection.
async fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (far, near) = tokio::join!(TcpStream::connect(address), listener.accept());
    (far.unwrap(), near.unwrap().0)
}

/// Relays until one of the ends is reset, passes the reset on as callers do, and says why it ended.
async fn relay_and_abort(mut downstream: TcpStream, mut upstream: TcpStream) -> Reason {
    let failure = copy_both(&mut downstream, &mut upstream, NEVER, &Tally::default()).await.unwrap_err();
    abort(&downstream);
    abort(&upstream);
    failure.reason
}

fn reset(socket: TcpStream) {
    abort(&socket);
    drop(socket);
}

#[tokio::test]
async fn a_reset_of_the_upstream_resets_the_downstream() {
    let (mut client, downstream) = connection().await;
    let (server, upstream) = connection().await;
    reset(server);
    assert_eq!(relay_and_abort(downstream, upstream).await, Reason::UpstreamReset);
    assert_eq!(read_all(&mut client).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_reset_of_the_downstream_resets_the_upstream() {
    let (client, downstream) = connection().await;
    let (mut server, upstream) = connection().await;
    reset(client);
    assert_eq!(relay_and_abort(downstream, upstream).await, Reason::DownstreamClosed);
    assert_eq!(read_all(&mut server).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_reset_after_the_end_of_the_other_direction_is_passed_on() {
    let (mut client, downstream) = connection().await;
    let (mut server, upstream) = connection().await;
    let talk = async {
        client.shutdown().await.unwrap();
        assert_eq!(read_all(&mut server).await.unwrap(), b"");
        reset(server);
    };
    let (reason, ()) = tokio::join!(relay_and_abort(downstream, upstream), talk);
    assert_eq!(reason, Reason::UpstreamReset);
    assert_eq!(read_all(&mut client).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn the_future_of_an_idle_connection_is_small() {
    let (_client, mut downstream) = connection().await;
    let (_server, mut upstream) = connection().await;
    let tally = Tally::default();
    let relay = copy_both(&mut downstream, &mut upstream, NEVER, &tally);
    assert!(size_of_val(&relay) <= 640, "{} bytes", size_of_val(&relay));
}
