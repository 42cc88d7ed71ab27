//! Replicas are replaced one after the other under load: no request fails, whether the control plane says so before
//! or after a replica has gone.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tulle_testing::client::{Http2Client, Raw, raw};
use tulle_testing::control::{Control, Service};
use tulle_testing::sidecar::Sidecar;
use tulle_testing::upstream::{Http2Reply, Http2Upstream, Reply, Upstream};

use crate::mesh;

fn publish(control: &Control, replicas: &[&Sidecar]) {
    let endpoints = |service: Service, port| {
        let add = |service: Service, replica: &&Sidecar| {
            service.endpoint(&replica.inbound(port).to_string(), Some(&mesh::id("app")))
        };
        replicas.iter().fold(service.retry(mesh::SAFE, 2), add)
    };
    control.publish(&endpoints(Service::http(&mesh::name("app")), 8080));
    control.publish(&endpoints(Service::grpc(&mesh::name("echo")), 8081));
}

async fn http1_load(sidecar: &Sidecar, done: &AtomicBool, served: &AtomicUsize) {
    let mut client = Raw::connect(sidecar.outbound(&mesh::name("app"))).await;
    while !done.load(Ordering::SeqCst) {
        for (method, body) in [("GET", &b""[..]), ("POST", b"order")] {
            client.send(raw::request(method, "/", "app.shop", &[], body)).await;
            let reply = client.response().await;
            assert_eq!(reply.status, 200, "{method} after {served:?}: {reply:?}");
            served.fetch_add(1, Ordering::SeqCst);
        }
    }
}

async fn grpc_load(sidecar: &Sidecar, done: &AtomicBool, served: &AtomicUsize) {
    let client = Http2Client::connect(sidecar.outbound(&mesh::name("echo"))).await;
    while !done.load(Ordering::SeqCst) {
        let reply = client.grpc("echo.shop", "/echo.Echo/Unary", b"ping").await.expect("an answer");
        assert_eq!(reply.grpc_status(), Some("0"), "after {served:?}: {reply:?}");
        served.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn replicas_are_replaced_without_a_failure() {
    let control = mesh::control().await;
    let http1 = Upstream::http1(|_| Reply::ok("hello")).await;
    let grpc = Http2Upstream::start(|_| Http2Reply::grpc(&[b"pong"], 0)).await;
    let ports = [(8080, "http", http1.addr()), (8081, "grpc", grpc.addr())];
    let replica = || mesh::server_builder(&control, "app", &ports).arg("--drain-min", "300ms").start();
    let (mut one, mut two) = (replica().await, replica().await);
    publish(&control, &[&one, &two]);
    let sidecar = mesh::client(&control, &["app", "echo"]).await;
    let (done, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let roll = async {
        for round in 0..4 {
            let fresh = replica().await;
            let old = std::mem::replace(&mut one, std::mem::replace(&mut two, fresh));
            if round % 2 == 0 {
                publish(&control, &[&one, &two]);
                assert_eq!(old.terminate().await.code(), Some(0));
            } else {
                assert_eq!(old.terminate().await.code(), Some(0));
                publish(&control, &[&one, &two]);
            }
        }
        done.store(true, Ordering::SeqCst);
    };
    let (first, second) = (http1_load(&sidecar, &done, &served), http1_load(&sidecar, &done, &served));
    tokio::join!(roll, first, second, grpc_load(&sidecar, &done, &served));
    assert!(served.load(Ordering::SeqCst) > 100, "{served:?}");
}
