//! Waiting for the proxy of this pod: what `--wait-ready` does, in a lifecycle hook before the application starts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Pause between two questions.
const PAUSE: Duration = Duration::from_millis(100);

/// Longest time for one answer.
const ANSWER: Duration = Duration::from_secs(2);

/// Most bytes of an answer.
const LARGEST: u64 = 4096;

/// Asks the status listener until it says that it is ready.
///
/// # Errors
/// What it said last, when it did not in `within`.
pub(crate) fn until_ready(status: SocketAddr, within: Duration) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut said = String::from("it was not asked");
        let asking = async {
            loop {
                match tokio::time::timeout(ANSWER, ask(here(status))).await {
                    Ok(Ok(())) => return,
                    Ok(Err(error)) => said = format!("{error:#}"),
                    Err(_) => "it does not answer".clone_into(&mut said),
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        if tokio::time::timeout(within, asking).await.is_err() {
            bail!("the proxy is not ready after {within:?}: {said}");
        }
        Ok(())
    })
}

/// The address as this machine reaches it.
fn here(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, address.port())
}

async fn ask(address: SocketAddr) -> anyhow::Result<()> {
    let mut socket = TcpStream::connect(address).await.with_context(|| address.to_string())?;
    socket.write_all(b"GET /healthz/ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
    let mut reply = String::new();
    socket.take(LARGEST).read_to_string(&mut reply).await?;
    if !reply.starts_with("HTTP/1.1 200 ") {
        let body = reply.split_once("\r\n\r\n").map_or(reply.as_str(), |(_, body)| body);
        bail!("{}", body.trim().replace('\n', ", "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn it_waits_for_the_word() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let proxy = std::thread::spawn(move || {
            for reply in ["HTTP/1.1 503 x\r\n\r\nnot ready\nwaiting\n", "HTTP/1.1 200 OK\r\n\r\nready\n"] {
                let (mut socket, _) = listener.accept().unwrap();
                let _ = socket.read(&mut [0; 1024]).unwrap();
                socket.write_all(reply.as_bytes()).unwrap();
            }
        });
        until_ready(SocketAddr::from(([0, 0, 0, 0], address.port())), Duration::from_secs(60)).unwrap();
        proxy.join().unwrap();
        let error = until_ready(address, Duration::from_millis(250)).unwrap_err().to_string();
        assert!(error.contains("not ready after 250ms") && error.contains("refused"), "{error}");
    }
}
