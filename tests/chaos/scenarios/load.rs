//! Requests that go on while things happen; every one of them counts.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tulle_testing::client::{Http2Client, Raw, raw};

use super::Outcome;

/// No request may take longer.
const DEADLINE: Duration = Duration::from_secs(15);

/// Failures that are kept in words.
const KEPT: usize = 5;

/// Counts of a load; shared by its clients.
#[derive(Debug, Default)]
pub(crate) struct Load {
    made: AtomicUsize,
    failed: AtomicUsize,
    slowest: AtomicUsize,
    done: AtomicBool,
    words: Mutex<Vec<String>>,
}

impl Load {
    /// Requests made so far.
    pub(crate) fn made(&self) -> usize {
        self.made.load(Ordering::SeqCst)
    }

    /// Ends the clients after the request they are at.
    pub(crate) fn finish(&self) {
        self.done.store(true, Ordering::SeqCst);
    }

    pub(crate) fn done(&self) -> bool {
        self.done.load(Ordering::SeqCst)
    }

    /// Adds what was counted to `outcome`.
    pub(crate) fn into_outcome(self, note: impl Into<String>) -> Outcome {
        let failed = self.failed.into_inner();
        let mut wrong = self.words.into_inner().unwrap_or_default();
        wrong.resize(failed, "and another failed request".to_owned());
        let slowest = Duration::from_micros(self.slowest.into_inner() as u64);
        let note = format!("{}, slowest {} ms", note.into(), slowest.as_millis());
        Outcome { requests: self.made.into_inner(), wrong, note }
    }

    /// GETs on one connection for `host`, until it is finished; `pace` apart.
    pub(crate) async fn http1(&self, addr: SocketAddr, host: &str, pace: Duration) {
        let mut client: Option<Raw> = None;
        while !self.done() {
            self.one(exchange(&mut client, addr, host)).await;
            tokio::time::sleep(pace).await;
        }
    }

    /// gRPC calls, one at a time.
    pub(crate) async fn grpc(&self, addr: SocketAddr, authority: &str, pace: Duration) {
        let client = Http2Client::connect(addr).await;
        while !self.done() {
            self.one(async {
                let reply = client.grpc(authority, "/echo.Echo/Unary", b"ping").await.map_err(|e| e.to_string())?;
                if reply.grpc_status() == Some("0") { Ok(()) } else { Err(format!("{reply:?}")) }
            })
            .await;
            tokio::time::sleep(pace).await;
        }
    }

    /// A connection for each round: bytes out and back.
    pub(crate) async fn opaque(&self, addr: SocketAddr, pace: Duration) {
        while !self.done() {
            self.one(echo(addr)).await;
            tokio::time::sleep(pace).await;
        }
    }

    /// Counts one request.
    pub(crate) async fn one(&self, request: impl Future<Output = Result<(), String>>) {
        let started = Instant::now();
        let answer = tokio::time::timeout(DEADLINE, request).await.unwrap_or_else(|_| Err("no answer".to_owned()));
        self.made.fetch_add(1, Ordering::SeqCst);
        self.slowest.fetch_max(started.elapsed().as_micros() as usize, Ordering::SeqCst);
        if let Err(why) = answer {
            self.failed.fetch_add(1, Ordering::SeqCst);
            let mut words = self.words.lock().expect("nobody panics with it");
            if words.len() < KEPT {
                words.push(format!("request {}: {why}", self.made()));
            }
        }
    }
}

/// A GET on a connection that is kept.
async fn exchange(client: &mut Option<Raw>, addr: SocketAddr, host: &str) -> Result<(), String> {
    let mut raw = match client.take() {
        Some(raw) => raw,
        None => Raw::over(TcpStream::connect(addr).await.map_err(|error| error.to_string())?),
    };
    raw.try_send(raw::request("GET", "/", host, &[], &[])).await.map_err(|error| error.to_string())?;
    let reply = raw.try_response("GET").await.ok_or("closed without a reply")?;
    if reply.status != 200 || reply.cut {
        return Err(format!("{} {:?} {}", reply.status, reply.header("tulle-reason"), reply.text()));
    }
    if reply.header("connection") != Some("close") {
        *client = Some(raw);
    }
    Ok(())
}

async fn echo(addr: SocketAddr) -> Result<(), String> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let exchanged = async {
        let mut tcp = TcpStream::connect(addr).await?;
        tcp.write_all(b"ping").await?;
        let mut answer = [0; 4];
        tcp.read_exact(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    match exchanged.await {
        Ok(answer) if answer == *b"ping" => Ok(()),
        Ok(answer) => Err(format!("{answer:?}")),
        Err(error) => Err(error.to_string()),
    }
}
