//! Bounds: no descriptors left, and a reader that is slower than its writer.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tulle_testing::client::Raw;
use tulle_testing::control::Service;
use tulle_testing::sidecar::Sidecar;
use tulle_testing::upstream::{Reply, Upstream};

use super::load::Load;
use super::races::until;
use super::{Outcome, Scale, mesh};

/// Memory a stream of any size may take, in bytes (RB-14), beside what a proxy grows by for other reasons.
const STREAM_BYTES: u64 = 8 << 20;

fn pid(sidecar: &Sidecar) -> Pid {
    Pid::from_raw(sidecar.process().pid().cast_signed()).expect("a process")
}

fn status(sidecar: &Sidecar, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", sidecar.process().pid())).expect("a process");
    let line = text.lines().find_map(|line| line.strip_prefix(field)).expect("a field of status");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

fn cpu(sidecar: &Sidecar) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", sidecar.process().pid())).expect("a process");
    let times = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok());
    Duration::from_nanos(times.filter_map(|text| text.split(' ').next()?.parse::<u64>().ok()).sum())
}

/// 256 descriptors and 400 connections: those that are open work, the loop that accepts neither ends nor spins, and
/// when there are descriptors again, so is everything else.
pub(crate) async fn descriptors(scale: Scale) -> Outcome {
    let held = scale.pick(Duration::from_secs(2), Duration::from_secs(10));
    let control = mesh::control().await;
    let app = Upstream::http1(|_| Reply::ok("hello")).await;
    control.publish(&Service::http(&mesh::name("app")).endpoint(&app.addr().to_string(), None));
    let sidecar = mesh::client(&control, &["app"]).await;
    let few = Rlimit { current: Some(256), maximum: Some(256) };
    prlimit(Some(pid(&sidecar)), Resource::Nofile, few).expect("a limit that is lower");
    let (addr, load) = (sidecar.outbound(&mesh::name("app")), Load::default());
    let (mut used, started) = (Duration::ZERO, Instant::now());
    let happen = async {
        until(|| load.made() >= 20).await;
        let mut crowd = Vec::new();
        for _ in 0..400 {
            // Those that nobody accepts wait in the kernel.
            crowd.push(TcpStream::connect(addr).await);
        }
        let (before, since) = (cpu(&sidecar), Instant::now());
        until(|| since.elapsed() >= held).await;
        used = cpu(&sidecar).saturating_sub(before);
        drop(crowd);
        load.finish();
    };
    let kept = load.http1(addr, "app.shop", Duration::from_millis(5));
    tokio::join!(happen, kept);
    let freed = Instant::now();
    let after = Load::default();
    after
        .one(async {
            let reply = Raw::connect(addr).await.exchange("GET", "/", "app.shop").await;
            if reply.status == 200 { Ok(()) } else { Err(format!("a new connection afterwards: {reply:?}")) }
        })
        .await;
    let (took, share) = (freed.elapsed(), used.as_secs_f64() / held.as_secs_f64());
    let errors = mesh::metric(&sidecar, "tulle_accept_errors_total").await;
    let mut outcome = load.into_outcome(format!(
        "{errors} errors of accept at {:.0} % of a core; served {} ms after descriptors were there again",
        share * 100.0,
        took.as_millis()
    ));
    outcome.wrong.extend(after.into_outcome("").wrong);
    outcome.check(errors > 0.0, || "descriptors did not run out".to_owned());
    // Spinning would take all of it; half leaves room for the requests of a slow machine.
    outcome.check(share < 0.5, || format!("{:.0} % of a core in {:?}", share * 100.0, started.elapsed()));
    outcome
}

/// A writer as fast as it can, a reader that stops every mebibyte, through the pair: both memories stay.
pub(crate) async fn slow_reader(scale: Scale) -> Outcome {
    let bytes: usize = scale.pick(32 << 20, 1 << 30);
    let control = mesh::control().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let ports = [(9000, "tcp", listener.local_addr().expect("bound"))];
    let server = mesh::server(&control, &ports).start().await;
    mesh::publish(&control, Service::tcp(&mesh::name("bulk")), &[&server], 9000);
    let sidecar = mesh::client(&control, &["bulk"]).await;
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        let (mut tcp, _) = listener.accept().await?;
        let block = vec![7; 64 << 10];
        for _ in 0..bytes / block.len() {
            tcp.write_all(&block).await?;
        }
        tcp.shutdown().await
    });
    // Warm: what every first connection costs is not the stream's.
    let mut tcp = TcpStream::connect(sidecar.outbound(&mesh::name("bulk"))).await.expect("a sidecar");
    let mut block = vec![0; 1 << 20];
    tcp.read_exact(&mut block).await.expect("the first mebibyte");
    let before = [status(&server, "VmRSS:"), status(&sidecar, "VmRSS:")];
    let mut most = before;
    let mut read = block.len();
    while let Ok(count) = tcp.read(&mut block).await {
        if count == 0 {
            break;
        }
        read += count;
        if (read >> 20) != ((read - count) >> 20) {
            most = [most[0].max(status(&server, "VmRSS:")), most[1].max(status(&sidecar, "VmRSS:"))];
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    let grown = [most[0].saturating_sub(before[0]), most[1].saturating_sub(before[1])];
    let note = format!("{} MiB; the proxies grew by {} and {} KiB", bytes >> 20, grown[0] >> 10, grown[1] >> 10);
    let mut outcome = Outcome { requests: 1, wrong: Vec::new(), note };
    outcome.check(read == bytes, || format!("{read} of {bytes} bytes came"));
    outcome.check(grown.iter().all(|grown| *grown <= STREAM_BYTES), || format!("memory grew by {grown:?} bytes"));
    outcome
}
