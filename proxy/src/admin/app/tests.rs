//! Applications of all kinds, at the wire.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::config::bootstrap::Check;

/// An application that answers every connection with `reply`, or never when there is none.
async fn application(reply: Option<&'static [u8]>) -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    #[expect(clippy::disallowed_methods, reason = "the other side of a test")]
    let task = tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((mut socket, _)) = listener.accept().await {
            if let Some(reply) = reply {
                let mut request = [0; 1024];
                let _ = socket.read(&mut request).await;
                let _ = socket.write_all(reply).await;
            } else {
                kept.push(socket);
            }
        }
    });
    (port, task)
}

/// Longer than any machine takes for what is to succeed.
const LONG: Duration = Duration::from_secs(60);

async fn ask(check: Check, port: u16, timeout: Duration) -> (u16, String) {
    let probe = Probe { check, port, timeout };
    let application = Application { probes: [("/p".to_owned(), probe)].into(), ..Application::default() };
    assert!(application.probe("/other").await.is_none());
    let reply = application.probe("/p").await.unwrap();
    (reply.status.as_u16(), reply.body)
}

fn http() -> Check {
    Check::Http { tls: false, path: "/live".parse().unwrap(), headers: Vec::new() }
}

#[tokio::test]
async fn an_http_probe_has_the_applications_status() {
    for (reply, status) in [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".as_slice(), 200),
        (b"HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n", 200),
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", 404),
        (b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n", 500),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort", 200),
        (b"nonsense\r\n\r\n", 503),
        (b"", 503),
    ] {
        let (port, _task) = application(Some(reply)).await;
        let (got, body) = ask(http(), port, LONG).await;
        assert_eq!(got, status, "{body} for {}", String::from_utf8_lossy(reply));
    }
}

#[tokio::test]
async fn an_application_that_says_nothing_fails_in_its_time() {
    let (port, _task) = application(None).await;
    let grpc = || Check::Grpc { service: String::new() };
    let tls = Check::Http { tls: true, path: "/".parse().unwrap(), headers: Vec::new() };
    for check in [http(), grpc(), tls] {
        let (status, body) = ask(check, port, Duration::from_millis(100)).await;
        assert_eq!(status, 504, "{body}");
    }
    assert_eq!(ask(Check::Tcp, port, LONG).await.0, 200);
}

#[tokio::test]
async fn an_application_that_is_not_there_fails() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    for check in [http(), Check::Tcp, Check::Grpc { service: "s".to_owned() }] {
        let (status, body) = ask(check, port, LONG).await;
        assert_eq!(status, 503);
        assert!(body.contains("refused"), "{body}");
    }
}

#[tokio::test]
async fn metrics_are_merged_and_never_fail() {
    let ours = "# HELP process_open_fds Fds.\n# TYPE process_open_fds gauge\nprocess_open_fds 1\ntulle_ready 1\n";
    let good = b"HTTP/1.1 200 OK\r\n\r\n# TYPE process_open_fds gauge\nprocess_open_fds 2\nshop_orders 3\n# EOF\n";
    let bad: [&'static [u8]; 3] = [
        b"HTTP/1.1 500 No\r\n\r\nx 1\n",
        b"HTTP/1.1 200 OK\r\n\r\n\xff\xfe",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx 1",
    ];
    let merged = async |reply| {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serve = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _ = socket.read(&mut request).await;
            socket.write_all(reply).await.unwrap();
        };
        let wanted = Scrape { port, path: "/metrics".parse().unwrap() };
        let application = Application { scrape: Some(wanted), ..Application::default() };
        tokio::join!(application.merge(ours.to_owned()), serve).0
    };
    let both = merged(good).await;
    assert!(
        both.ends_with("tulle_app_scrape_up 1\n# TYPE process_open_fds gauge\nprocess_open_fds 2\nshop_orders 3\n"),
        "{both}"
    );
    assert!(
        both.contains("tulle_ready 1\n") && !both.contains("process_open_fds 1") && !both.contains("EOF"),
        "{both}"
    );
    for reply in bad {
        let alone = merged(reply).await;
        assert!(alone.starts_with(ours) && alone.ends_with("tulle_app_scrape_up 0\n"), "{alone}");
    }
    assert_eq!(Application::default().merge(ours.to_owned()).await, ours);
}
