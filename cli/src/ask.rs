//! One request to an admin port, and its whole reply. HTTP/1.0, which every server of ours answers and then closes.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Longest time for the whole exchange; admin ports are on this machine.
const DEADLINE: Duration = Duration::from_secs(5);

/// Longest reply in bytes; the configuration of ten thousand endpoints is below it.
const MAX_REPLY: u64 = 64 * 1024 * 1024;

/// A reply.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// GET; the body of a reply with status 200.
///
/// # Errors
/// When nobody answers within 5 s, or with another status.
pub(crate) async fn get(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let reply = ask(address, "GET", path).await?;
    if reply.status != 200 {
        bail!("{address}{path} answers {}: {}", reply.status, reply.body.trim_end());
    }
    Ok(reply.body)
}

/// Any method; any status.
///
/// # Errors
/// When nobody answers within 5 s, or not in HTTP.
pub(crate) async fn ask(address: SocketAddr, method: &str, path: &str) -> anyhow::Result<Reply> {
    let bytes = tokio::time::timeout(DEADLINE, exchange(address, method, path))
        .await
        .with_context(|| format!("{address} does not answer"))?
        .with_context(|| format!("{address} cannot be asked"))?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").with_context(|| format!("{address} does not speak HTTP"))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok(Reply { status: status.with_context(|| format!("{address} sends no status"))?, body: body.to_owned() })
}

async fn exchange(address: SocketAddr, method: &str, path: &str) -> std::io::Result<Vec<u8>> {
    let mut socket = TcpStream::connect(address).await?;
    // The admin ports answer to this name only, lest a web page reach them under another one.
    let command = if method == "GET" { "" } else { "tulle-admin: 1\r\n" };
    let request = format!("{method} {path} HTTP/1.0\r\nhost: localhost\r\n{command}\r\n");
    socket.write_all(request.as_bytes()).await?;
    let mut reply = Vec::new();
    socket.take(MAX_REPLY).read_to_end(&mut reply).await?;
    Ok(reply)
}
