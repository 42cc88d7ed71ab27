//! A scripted control plane with an authority, and sidecars that take their configuration from it.

use std::net::SocketAddr;
use std::sync::Arc;

use tulle_testing::certs::Ca;
use tulle_testing::control::{Control, Inbound, Mtls};
use tulle_testing::sidecar::{Builder, Sidecar};

/// Conditions the control plane writes into the routes of a service without annotations.
pub(crate) const SAFE: &str = "connect-failure,refused-stream,reset-before-request";

/// An application port behind a sidecar: its number, its protocol, where the application listens.
pub(crate) type Port = (u16, &'static str, SocketAddr);

/// A control plane that knows nothing yet.
pub(crate) async fn control() -> Control {
    Control::start(Arc::new(Ca::new())).await
}

/// The full name of a service's port in the namespace `shop`.
pub(crate) fn name(service: &str) -> String {
    let (host, port) = service.split_once(':').unwrap_or((service, "80"));
    format!("{host}.shop.svc.cluster.local:{port}")
}

/// The identity of the service account `account` in the namespace `shop`.
pub(crate) fn id(account: &str) -> String {
    format!("spiffe://cluster.local/ns/shop/sa/{account}")
}

/// The sidecar of a server, one worker, ports that take mutual TLS only.
pub(crate) async fn server(control: &Control, workload: &str, ports: &[Port]) -> Sidecar {
    server_builder(control, workload, ports).start().await
}

/// [`server`], not started yet.
pub(crate) fn server_builder(control: &Control, workload: &str, ports: &[Port]) -> Builder {
    let inbound = Inbound::new("shop", workload);
    let inbound =
        ports.iter().fold(inbound, |inbound, (port, protocol, _)| inbound.port(*port, protocol, Mtls::Strict));
    control.publish_inbound(&inbound);
    let builder = Sidecar::of("shop", workload).control(control).arg("--workers", "1");
    ports.iter().fold(builder, |builder, (port, _, app)| builder.receive(*port, *app))
}

/// The sidecar of the client `web`, one worker, sending to each of `services` (see [`name`]).
pub(crate) async fn client(control: &Control, services: &[&str]) -> Sidecar {
    client_builder(control, services).start().await
}

/// [`client`], not started yet.
pub(crate) fn client_builder(control: &Control, services: &[&str]) -> Builder {
    control.publish_inbound(&Inbound::new("shop", "web"));
    let builder = Sidecar::of("shop", "web").control(control).arg("--workers", "1");
    services.iter().fold(builder, |builder, service| builder.send(&name(service)))
}

/// The value of a metric: the sum of all series of `family` that have every one of `labels`, written `name="value"`.
pub(crate) async fn metric(sidecar: &Sidecar, family: &str, labels: &[&str]) -> f64 {
    let text = sidecar.metrics().await;
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let of_family = samples.filter(|line| line.split(['{', ' ']).next() == Some(family));
    let matching = of_family.filter(|line| labels.iter().all(|label| line.contains(label)));
    matching.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}
