//! What the scripted control plane hands out is what the proxy understands in full.

use std::sync::Arc;

use prost::Name;
use tulle_proto::{Any, ResourceType, names};
use tulle_proxy::config::compile::Store;
use tulle_testing::certs::Ca;
use tulle_testing::control::resources::trust_bundle;
use tulle_testing::control::{Inbound, Mtls, Service};

fn accept<M: Name>(store: &mut Store, kind: ResourceType, name: &str, resource: &M) {
    let resource = Any { type_url: kind.url().to_owned(), value: resource.encode_to_vec().into() };
    store.accept(kind, &Arc::from(name), &resource).unwrap_or_else(|rejected| panic!("{rejected:?}"));
}

#[test]
fn services_of_every_protocol_are_accepted() {
    let name = "reviews.shop.svc.cluster.local:80";
    for service in [Service::http, Service::http2, Service::grpc, Service::tcp, Service::auto] {
        let service = service(name)
            .endpoint("127.0.0.1:9080", Some("spiffe://cluster.local/ns/shop/sa/reviews"))
            .endpoint("[::1]:9080", None)
            .address("10.96.0.12:80")
            .retry("connect-failure,refused-stream", 2);
        let mut store = Store::new();
        accept(&mut store, ResourceType::Cluster, name, &service.cluster());
        accept(&mut store, ResourceType::Endpoint, name, &service.endpoints());
        accept(&mut store, ResourceType::Listener, name, &service.listener());
        accept(&mut store, ResourceType::Route, name, &service.routes());
    }
}

#[test]
fn inbound_listeners_and_trust_bundles_are_accepted() {
    let mut inbound = Inbound::new("shop", "reviews").undeclared(Mtls::Strict);
    for (port, protocol) in (8080..).zip(["http", "http2", "grpc", "tcp", "tls", "auto"]) {
        inbound = inbound.port(port, protocol, Mtls::Permissive);
    }
    let inbound = inbound.port(9000, "http", Mtls::Strict).port(9001, "tcp", Mtls::Disable);
    let mut store = Store::new();
    accept(&mut store, ResourceType::Listener, &inbound.name(), &inbound.listener());
    accept(&mut store, ResourceType::Secret, names::TRUST_BUNDLE, &trust_bundle(&Ca::new().bundle_pem()));
}
