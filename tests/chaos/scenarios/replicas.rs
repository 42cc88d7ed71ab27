//! Replicas that come and go under load: replaced in good order, and killed.

use std::time::{Duration, Instant};

use tulle_testing::control::{Control, Service};
use tulle_testing::sidecar::Sidecar;
use tulle_testing::upstream::{Http2Reply, Http2Upstream, Reply, Upstream};

use super::load::Load;
use super::races::{all, until};
use super::{Outcome, Scale, mesh};

fn publish(control: &Control, replicas: &[&Sidecar]) {
    mesh::publish(control, Service::http(&mesh::name("app")), replicas, 8080);
    mesh::publish(control, Service::grpc(&mesh::name("echo")), replicas, 8081);
}

/// Three replicas, replaced one by one. The control plane says so 0 to 2 s late, before or after a replica is gone.
pub(crate) async fn rolling(scale: Scale) -> Outcome {
    let (rounds, latest_ms, requests) = scale.pick((3, 200, 0), (20, 2_000, 100_000));
    let control = mesh::control().await;
    let http1 = Upstream::http1(|_| Reply::ok("hello")).await;
    let grpc = Http2Upstream::start(|_| Http2Reply::grpc(&[b"pong"], 0)).await;
    let ports = [(8080, "http", http1.addr()), (8081, "grpc", grpc.addr())];
    let drain = scale.pick("500ms", "3s");
    let replica = || mesh::server(&control, &ports).arg("--drain-min", drain).start();
    let mut replicas = vec![replica().await, replica().await, replica().await];
    publish(&control, &replicas.iter().collect::<Vec<_>>());
    let sidecar = mesh::client(&control, &["app", "echo"]).await;
    let load = Load::default();
    let mut unclean = 0;
    let roll = async {
        let mut dice = 7_usize;
        for round in 0..rounds {
            let old = replicas.remove(0);
            replicas.push(replica().await);
            dice = dice.wrapping_mul(2_654_435_761).wrapping_add(12_345);
            let late = Duration::from_millis((dice >> 8) as u64 % latest_ms);
            let shown: Vec<&Sidecar> = replicas.iter().collect();
            let told = async {
                tokio::time::sleep(late).await;
                publish(&control, &shown);
            };
            // Told while it drains, or after it has gone.
            let code = if round % 2 == 0 {
                tokio::join!(told, old.terminate()).1.code()
            } else {
                let code = old.terminate().await.code();
                told.await;
                code
            };
            unclean += usize::from(code != Some(0));
        }
        until(|| load.made() >= requests).await;
        load.finish();
    };
    let (app, echo) = (sidecar.outbound(&mesh::name("app")), sidecar.outbound(&mesh::name("echo")));
    let http1 = all((0..4).map(|_| load.http1(app, "app.shop", Duration::from_micros(500))).collect());
    let grpc = all((0..4).map(|_| load.grpc(echo, "echo.shop", Duration::from_micros(500))).collect());
    tokio::join!(roll, http1, grpc);
    let mut outcome =
        load.into_outcome(format!("{rounds} replicas replaced, endpoints told up to {latest_ms} ms late"));
    outcome.check(unclean == 0, || format!("{unclean} replicas did not exit with 0"));
    outcome
}

/// One of three is killed with requests under way. GETs may be sent again, when the user says so: none may fail.
pub(crate) async fn killed(scale: Scale) -> Outcome {
    let kills = scale.pick(2, 10);
    let control = mesh::control().await;
    let app = Upstream::http1(|_| Reply::default().pause(Duration::from_millis(2)).write(HELLO)).await;
    let replica = || mesh::server(&control, &[(8080, "http", app.addr())]).start();
    let mut replicas = vec![replica().await, replica().await, replica().await];
    let tell = |replicas: &[Sidecar]| {
        let service = Service::http(&mesh::name("app"));
        let add = |service: Service, replica: &Sidecar| {
            service.endpoint(&replica.inbound(8080).to_string(), Some(&mesh::id("app")))
        };
        control.publish(&replicas.iter().fold(service, add).retry(&format!("{},reset", mesh::SAFE), 3));
    };
    tell(&replicas);
    let sidecar = mesh::client(&control, &["app"]).await;
    let load = Load::default();
    let kill = async {
        for _ in 0..kills {
            let made = load.made();
            until(|| load.made() > made + 200).await;
            drop(replicas.remove(0));
            // Nobody tells the client for a while.
            let (dead, made) = (Instant::now(), load.made());
            until(|| load.made() > made + 200 && dead.elapsed() > Duration::from_millis(500)).await;
            replicas.push(replica().await);
            tell(&replicas);
        }
        load.finish();
    };
    let addr = sidecar.outbound(&mesh::name("app"));
    let lanes = all((0..8).map(|_| load.http1(addr, "app.shop", Duration::from_millis(8))).collect());
    tokio::join!(kill, lanes);
    load.into_outcome(format!("{kills} kills of one in three, retries of `reset` on"))
}

const HELLO: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
