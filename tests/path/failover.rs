//! Which endpoint a request goes to: priorities, health, policies, and answers when there is none.

use std::collections::HashMap;

use tulle_proto::envoy::config::cluster::v3::cluster::LbPolicy;
use tulle_proto::envoy::config::core::v3::HealthStatus;
use tulle_testing::client::{Raw, raw};
use tulle_testing::control::{Control, Endpoint, Service};
use tulle_testing::sidecar::Sidecar;
use tulle_testing::upstream::{Reply, Upstream};
use tulle_testing::wait::{self, Gate};

use crate::mesh;

async fn replica(name: &'static str) -> Upstream {
    Upstream::http1(move |_| Reply::ok(name)).await
}

fn at(app: &Upstream, priority: u32, health: HealthStatus) -> Endpoint {
    Endpoint { priority, health, ..Endpoint::at(app.addr()) }
}

/// Publishes endpoints and waits until an answer is as wanted: a worker takes over a configuration a moment after it
/// was accepted.
async fn becomes(control: &Control, sidecar: &Sidecar, endpoints: &[Endpoint], wanted: &str) {
    let service = Service::http(&mesh::name("app")).retry(mesh::SAFE, 2);
    control.publish(&endpoints.iter().cloned().fold(service, Service::with));
    let addr = sidecar.outbound(&mesh::name("app"));
    wait::until_ready(&format!("answers of {wanted}"), || async move {
        let reply = raw::get(addr, "/", "app.shop").await;
        let seen = reply.header("tulle-reason").map_or_else(|| reply.text(), str::to_owned);
        (seen == wanted).then_some(())
    })
    .await;
    // From now on always.
    let mut client = Raw::connect(addr).await;
    for _ in 0..20 {
        let reply = client.exchange("GET", "/", "app.shop").await;
        assert_eq!(reply.header("tulle-reason").map_or_else(|| reply.text(), str::to_owned), wanted, "{reply:?}");
    }
}

#[tokio::test]
async fn traffic_moves_to_the_next_priority_and_back() {
    use HealthStatus::{Draining, Healthy, Unhealthy};
    let control = mesh::control().await;
    let (near, far) = (replica("near").await, replica("far").await);
    control.publish(&Service::http(&mesh::name("app")).with(at(&near, 0, Healthy)));
    let sidecar = mesh::client(&control, &["app"]).await;
    type Listed<'l> = &'l [(&'l Upstream, u32, HealthStatus)];
    let steps: [(Listed<'_>, &str); 8] = [
        (&[(&near, 0, Healthy), (&far, 1, Healthy)], "near"),
        (&[(&near, 0, Unhealthy), (&far, 1, Healthy)], "far"),
        (&[(&near, 0, Healthy), (&far, 1, Healthy)], "near"),
        (&[(&near, 0, Draining), (&far, 1, Healthy)], "far"),
        (&[(&near, 0, Draining), (&far, 1, Unhealthy)], "near"),
        (&[(&far, 1, Healthy)], "far"),
        (&[(&near, 0, Unhealthy), (&far, 1, Unhealthy)], "no_healthy_endpoints"),
        (&[], "no_endpoints"),
    ];
    for (endpoints, wanted) in steps {
        let endpoints: Vec<_> = endpoints.iter().map(|(app, priority, health)| at(app, *priority, *health)).collect();
        becomes(&control, &sidecar, &endpoints, wanted).await;
    }
    let reply = raw::get(sidecar.outbound(&mesh::name("app")), "/", "app.shop").await;
    assert_eq!((reply.status, reply.header("tulle-proxy")), (503, Some("outbound")), "{reply:?}");

    // A replica that has died but is still listed: the other priority takes over without a failure.
    becomes(&control, &sidecar, &[at(&near, 0, Healthy), at(&far, 1, Healthy)], "near").await;
    near.stop().await;
    let mut client = Raw::connect(sidecar.outbound(&mesh::name("app"))).await;
    for _ in 0..40 {
        assert_eq!(client.exchange("GET", "/", "app.shop").await.text(), "far");
    }
    unknown_names(&sidecar).await;
}

/// On the listener for any service, the host says which one.
async fn unknown_names(sidecar: &Sidecar) {
    let mut client = Raw::connect(sidecar.outbound_http()).await;
    for host in ["app", "app.shop", "app.shop.svc.cluster.local", "APP.shop:80"] {
        assert_eq!(client.exchange("GET", "/", host).await.text(), "far", "{host}");
    }
    let reply = client.exchange("GET", "/", "nobody.shop").await;
    assert_eq!((reply.status, reply.header("tulle-reason")), (502, Some("unknown_destination")), "{reply:?}");
    assert_eq!(client.exchange("GET", "/", "app.shop").await.text(), "far", "the connection goes on");
}

#[tokio::test]
async fn each_policy_spreads_requests() {
    let control = mesh::control().await;
    let (one, two, three) = (replica("one").await, replica("two").await, replica("three").await);
    let policies = [("turns", LbPolicy::RoundRobin), ("dice", LbPolicy::Random), ("least", LbPolicy::LeastRequest)];
    for (name, policy) in policies {
        let service = Service::http(&mesh::name(name)).balance(policy);
        let endpoints = [&one, &two, &three].map(|app| at(app, 0, HealthStatus::Healthy));
        control.publish(&endpoints.into_iter().fold(service, Service::with));
    }
    let gate = Gate::closed();
    let held = gate.clone();
    let slow = Upstream::http1(move |request| match request.path() {
        "/held" => Reply::default().after(&held).write("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nslow"),
        _ => Reply::ok("slow"),
    })
    .await;
    let busy = Service::http(&mesh::name("busy")).with(at(&slow, 0, HealthStatus::Healthy));
    control.publish(&busy.with(at(&one, 0, HealthStatus::Healthy)));
    let sidecar = mesh::client(&control, &["turns", "dice", "least", "busy"]).await;
    for (name, policy) in policies {
        let mut client = Raw::connect(sidecar.outbound(&mesh::name(name))).await;
        let mut seen: HashMap<String, usize> = HashMap::new();
        for _ in 0..300 {
            *seen.entry(client.exchange("GET", "/", name).await.text()).or_default() += 1;
        }
        let range = if policy == LbPolicy::RoundRobin { 100..=100 } else { 50..=150 };
        assert!(seen.len() == 3 && seen.values().all(|count| range.contains(count)), "{name}: {seen:?}");
    }
    // Once a request hangs at the slow one, a client alone is always the lesser load at the other.
    let addr = sidecar.outbound(&mesh::name("busy"));
    let mut hanging = Vec::new();
    while slow.requests().iter().all(|request| request.path() != "/held") {
        let mut client = Raw::connect(addr).await;
        client.send(raw::request("GET", "/held", "busy.shop", &[], &[])).await;
        let (before, other) = (slow.requests().len(), one.requests().len());
        wait::until("the request at one of them", || slow.requests().len() > before || one.requests().len() > other)
            .await;
        hanging.push(client);
    }
    let mut client = Raw::connect(addr).await;
    for _ in 0..50 {
        assert_eq!(client.exchange("GET", "/", "busy.shop").await.text(), "one");
    }
    gate.open();
}
