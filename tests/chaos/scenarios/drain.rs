//! SIGTERM while a long reply is under way: it is whole, others are told to go, and the process ends in good order right
//! after it.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tulle_testing::client::raw;
use tulle_testing::control::Service;
use tulle_testing::upstream::{Reply, Upstream};

use super::load::Load;
use super::{Outcome, Scale, mesh};

/// Through the pair; the server's sidecar ends.
pub(crate) async fn run(scale: Scale) -> Outcome {
    let time = scale.pick(Duration::from_secs(2), Duration::from_secs(20));
    let limit = time * 2 + Duration::from_secs(20);
    let control = mesh::control().await;
    let app = Upstream::http1(move |request| match request.path() {
        "/long" => Reply::head(200, &[("content-length", "10")]).write("early").pause(time).write("later"),
        _ => Reply::ok("hello"),
    })
    .await;
    let replica = || {
        mesh::server(&control, &[(8080, "http", app.addr())])
            .arg("--drain-min", "1s")
            .arg("--drain-deadline", "60s")
            .start()
    };
    let (ends, stays) = (replica().await, replica().await);
    mesh::publish(&control, Service::http(&mesh::name("app")), &[&ends], 8080);
    let sidecar = mesh::client(&control, &["app"]).await;
    let addr = sidecar.outbound(&mesh::name("app"));
    let load = Load::default();
    let mut slow = TcpStream::connect(addr).await.expect("a sidecar");
    slow.write_all(&raw::request("GET", "/long", "app.shop", &[], &[])).await.expect("an open connection");
    let mut reply = Vec::new();
    while !reply.ends_with(b"early") {
        assert!(slow.read_buf(&mut reply).await.is_ok_and(|count| count > 0), "the reply does not begin");
    }
    let mut end = (None, Duration::ZERO);
    let happen = async {
        mesh::publish(&control, Service::http(&mesh::name("app")), &[&stays], 8080);
        let since = Instant::now();
        let (whole, status) = tokio::join!(
            async {
                let mut rest = [0; 5];
                let read = tokio::time::timeout(limit, slow.read_exact(&mut rest)).await;
                (matches!(read, Ok(Ok(_))) && rest == *b"later", since.elapsed())
            },
            ends.terminate_within(limit)
        );
        end = (status.code(), since.elapsed().saturating_sub(whole.1));
        load.one(async { if whole.0 { Ok(()) } else { Err("the reply under way was cut".to_owned()) } }).await;
        load.finish();
    };
    tokio::join!(happen, load.http1(addr, "app.shop", Duration::from_millis(5)));
    let (code, after) = end;
    let note = format!("a reply of {} s is whole; exit {code:?} {} ms after it", time.as_secs(), after.as_millis());
    let mut outcome = load.into_outcome(note);
    outcome.check(code == Some(0), || format!("exit code {code:?}"));
    outcome
}
