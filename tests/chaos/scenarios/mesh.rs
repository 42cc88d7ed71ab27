//! Sidecars and services of the namespace `shop`, told by a scripted control plane.

use std::net::SocketAddr;
use std::sync::Arc;

use tulle_testing::certs::Ca;
use tulle_testing::control::{Control, Inbound, Mtls, Service};
use tulle_testing::sidecar::{Builder, Sidecar};

/// Conditions the control plane writes into the routes of a service without annotations.
pub(crate) const SAFE: &str = "connect-failure,refused-stream,reset-before-request";

/// An application port: its number, its protocol, where the application listens.
pub(crate) type Port = (u16, &'static str, SocketAddr);

pub(crate) async fn control() -> Control {
    Control::start(Arc::new(Ca::new())).await
}

pub(crate) fn name(service: &str) -> String {
    format!("{service}.shop.svc.cluster.local:80")
}

pub(crate) fn id(account: &str) -> String {
    format!("spiffe://cluster.local/ns/shop/sa/{account}")
}

/// The sidecar of the server `app`, not started yet.
pub(crate) fn server(control: &Control, ports: &[Port]) -> Builder {
    let inbound = Inbound::new("shop", "app");
    let inbound =
        ports.iter().fold(inbound, |inbound, (port, protocol, _)| inbound.port(*port, protocol, Mtls::Strict));
    control.publish_inbound(&inbound);
    let builder = Sidecar::of("shop", "app").control(control).arg("--workers", "1").arg("--access-log", "off");
    ports.iter().fold(builder, |builder, (port, _, app)| builder.receive(*port, *app))
}

/// The sidecar of the client `web`.
pub(crate) async fn client(control: &Control, services: &[&str]) -> Sidecar {
    control.publish_inbound(&Inbound::new("shop", "web"));
    let builder = Sidecar::of("shop", "web").control(control).arg("--workers", "1").arg("--access-log", "off");
    services.iter().fold(builder, |builder, service| builder.send(&name(service))).start().await
}

/// Publishes `service` with the port `port` of each replica.
pub(crate) fn publish(control: &Control, service: Service, replicas: &[&Sidecar], port: u16) {
    let add =
        |service: Service, replica: &&Sidecar| service.endpoint(&replica.inbound(port).to_string(), Some(&id("app")));
    control.publish(&replicas.iter().fold(service.retry(SAFE, 2), add));
}

/// The value of a metric: the sum of all series of `family`.
pub(crate) async fn metric(sidecar: &Sidecar, family: &str) -> f64 {
    let text = sidecar.metrics().await;
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let of_family = samples.filter(|line| line.split(['{', ' ']).next() == Some(family));
    of_family.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}
