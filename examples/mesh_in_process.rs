//! A whole mesh in one process: a control plane, two sidecars and the applications beside them.
//!
//! `cargo run --example mesh_in_process` sends one request from a client through both sidecars, over mutual TLS, and
//! prints what the server was told of its caller. In production each part is a process of its own (`tulle demo`).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use tulle_identity::spiffe::{SpiffeId, TrustDomain};
use tulle_identity::token::TokenIssuer;
use tulle_proxy::app::{self, Running};
use tulle_proxy::config::bootstrap::Bootstrap;
use tulle_proxy::logging::LogFilter;
use tulle_proxy::runtime::shutdown::ProcessSignals;

const MANIFESTS: &str = "
apiVersion: v1
kind: Service
metadata: {name: greeter, namespace: demo}
spec: {selector: {app: greeter}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: tulle.io/v1alpha1
kind: Workload
metadata: {name: greeter-1, namespace: demo, labels: {app: greeter}}
spec: {addresses: [127.1.7.1], serviceAccount: greeter, workload: greeter}
---
apiVersion: tulle.io/v1alpha1
kind: Workload
metadata: {name: client-1, namespace: demo}
spec: {addresses: [127.1.7.2], serviceAccount: client, workload: client}
";

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let work = std::env::temp_dir().join(format!("tulle-example-{}", std::process::id()));
    std::fs::create_dir_all(work.join("config"))?;
    std::fs::write(work.join("config/mesh.yaml"), MANIFESTS)?;

    let domain = TrustDomain::parse("cluster.local")?;
    let mut settings = tulle_control_plane::settings::Settings::new(work.join("config"), work.join("state"), domain);
    settings.xds_address = "127.0.0.1:0".parse()?;
    settings.admin_address = "127.0.0.1:0".parse()?;
    let control_plane = tulle_control_plane::app::start(settings).await?;

    let greeter = application()?;
    let receive = format!("--inbound=127.1.7.1:8080={greeter}");
    let server = sidecar(&work, control_plane.xds_addr, "greeter", "127.1.7.1", &receive)?;
    let send = "--outbound=127.1.7.2:7080=greeter:80";
    let client = sidecar(&work, control_plane.xds_addr, "client", "127.1.7.2", send)?;
    // The control plane runs on this thread: waiting must not block it.
    #[expect(clippy::disallowed_methods, reason = "waiting for the sidecars would block the control plane")]
    let answer = tokio::task::spawn_blocking(move || {
        ready(server.status)?;
        ready(client.status)?;
        let answer = get("127.1.7.2:7080".parse()?, "/")?;
        for sidecar in [client, server] {
            sidecar.stop(true);
            sidecar.join()?;
        }
        anyhow::Ok(answer)
    });
    println!("{}", answer.await??);
    control_plane.shutdown().await;
    std::fs::remove_dir_all(work)?;
    Ok(())
}

/// A sidecar of `account` at `ip`, with one more flag.
fn sidecar(work: &Path, control_plane: SocketAddr, account: &str, ip: &str, flag: &str) -> anyhow::Result<Running> {
    let id = SpiffeId::workload(&TrustDomain::parse("cluster.local")?, "demo", account)?;
    let token = work.join(format!("{account}.token"));
    let issued = TokenIssuer::open(&work.join("state"))?.issue(&id, Duration::from_secs(3600), SystemTime::now())?;
    std::fs::write(&token, issued)?;
    let bundle = work.join("state/trust-bundle.pem");
    let bootstrap = Bootstrap::parse([
        "tulle-proxy".to_owned(),
        "--namespace=demo".to_owned(),
        format!("--workload={account}"),
        format!("--service-account={account}"),
        format!("--control-plane={control_plane}"),
        format!("--trust-bundle={}", bundle.display()),
        format!("--token={}", token.display()),
        format!("--admin={ip}:0"),
        format!("--status={ip}:0"),
        flag.to_owned(),
    ])?;
    app::start(bootstrap, LogFilter::default(), ProcessSignals::register)
}

/// The application: says who its sidecar says is calling.
fn application() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // One request is all this example sends; an error shows at the client.
            let _ = greet(stream);
        }
    });
    Ok(address)
}

fn greet(mut stream: TcpStream) -> std::io::Result<()> {
    let mut head = [0; 4096];
    let length = stream.read(&mut head)?;
    let head = String::from_utf8_lossy(&head[..length]);
    let caller = head.lines().find(|line| line.starts_with("x-forwarded-client-cert")).unwrap_or("nobody known");
    let body = format!("hello, {caller}");
    write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

fn get(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: greeter.demo\r\nconnection: close\r\n\r\n")?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    Ok(reply)
}

/// Waits until a sidecar has its configuration and certificate.
fn ready(status: SocketAddr) -> anyhow::Result<()> {
    for _ in 0..300 {
        if get(status, "/healthz/ready").is_ok_and(|reply| reply.starts_with("HTTP/1.1 200")) {
            return Ok(());
        }
        std::thread::park_timeout(Duration::from_millis(100));
    }
    Err(anyhow::anyhow!("not ready")).context(status.to_string())
}
