//! Discovery: the session as vectors of requests and responses, and the whole of it against a scripted control plane.

mod live;
mod names;
mod ranges;
mod vectors;

use tulle_proto::ResourceType;
use tulle_proto::discovery::{DeltaDiscoveryResponse, Resource};

use crate::config::compile::samples;

/// A service with HTTP routes.
const NAME: &str = "reviews.shop.svc.cluster.local:80";
/// The workload's own listener.
const INBOUND: &str = "inbound/shop/web";

fn resource<M: prost::Name>(name: &str, version: &str, message: &M) -> Resource {
    Resource { name: name.into(), version: version.into(), resource: Some(samples::any(message)), ..Default::default() }
}

fn response(kind: ResourceType, nonce: &str, resources: Vec<Resource>) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse { type_url: kind.url().into(), nonce: nonce.into(), resources, ..Default::default() }
}

fn removal(kind: ResourceType, nonce: &str, names: &[&str]) -> DeltaDiscoveryResponse {
    let removed_resources = names.iter().map(|name| (*name).to_owned()).collect();
    DeltaDiscoveryResponse { type_url: kind.url().into(), nonce: nonce.into(), removed_resources, ..Default::default() }
}

/// All of the service `NAME`, one response per type, in make-before-break order.
fn service(version: &str) -> Vec<DeltaDiscoveryResponse> {
    let routes = samples::routes(NAME, vec![samples::route_to(NAME)]);
    vec![
        response(ResourceType::Cluster, "c", vec![resource(NAME, version, &samples::cluster(NAME))]),
        response(
            ResourceType::Endpoint,
            "e",
            vec![resource(NAME, version, &samples::endpoints(NAME, &["10.0.0.1:80"]))],
        ),
        response(ResourceType::Listener, "l", vec![resource(NAME, version, &samples::listener(NAME, NAME, "http"))]),
        response(ResourceType::Route, "r", vec![resource(NAME, version, &routes)]),
    ]
}
