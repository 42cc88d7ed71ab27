//! Incremental discovery over TLS, as a Tulle proxy uses it.

use tulle_proto::ResourceType::{Cluster, Endpoint, Listener, Secret};
use tulle_proto::discovery::DeltaDiscoveryResponse;
use tulle_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use tulle_proto::envoy::extensions::transport_sockets::tls::v3::Secret as TlsSecret;

use super::world::{Delta, REVIEWS_2, REVIEWS_80, World, http, tulle_node};

async fn open(world: &World) -> Delta {
    let token = world.token("shop", "web");
    Delta::open(world.connect().await, Some(&token), tulle_node("shop", "web", "web")).await.unwrap()
}

fn names(response: &DeltaDiscoveryResponse) -> Vec<&str> {
    response.resources.iter().map(|resource| resource.name.as_str()).collect()
}

/// Addresses in an endpoint response.
fn endpoints(response: &DeltaDiscoveryResponse) -> usize {
    let resource = response.resources[0].resource.as_ref().unwrap();
    let assignment: ClusterLoadAssignment = resource.unpack().unwrap();
    assignment.endpoints.iter().map(|locality| locality.lb_endpoints.len()).sum()
}

#[tokio::test]
async fn names_are_answered_and_changes_follow() {
    let world = World::start().await;
    let mut stream = open(&world).await;
    stream.ask(Cluster, &[REVIEWS_80]).await;
    assert_eq!(names(&stream.take().await), [REVIEWS_80]);
    stream.ask(Endpoint, &[REVIEWS_80]).await;
    assert_eq!(endpoints(&stream.take().await), 1);
    stream.ask(Listener, &[REVIEWS_80, "nobody.shop.svc.cluster.local:80", "10.96.0.12:80"]).await;
    let listeners = stream.take().await;
    assert_eq!(names(&listeners), ["10.96.0.12:80", REVIEWS_80]);
    assert_eq!(listeners.removed_resources, ["nobody.shop.svc.cluster.local:80"]);

    world.write("second.yaml", REVIEWS_2);
    let changed = stream.take().await;
    assert_eq!((changed.type_url.as_str(), endpoints(&changed)), (Endpoint.url(), 2));
}

#[tokio::test]
async fn a_reconnect_is_sent_only_what_changed_also_by_another_process() {
    let world = World::start().await;
    let mut stream = open(&world).await;
    stream.ask(Cluster, &[REVIEWS_80]).await;
    let clusters = stream.take().await;
    stream.ask(Endpoint, &[REVIEWS_80]).await;
    let endpoint = stream.take().await;
    drop(stream);

    let world = world.restart().await;
    let mut stream = open(&world).await;
    stream.resume(Cluster, &[REVIEWS_80], &[(REVIEWS_80, &clusters.resources[0].version)]).await;
    stream.resume(Endpoint, &[REVIEWS_80], &[(REVIEWS_80, &endpoint.resources[0].version)]).await;
    // Were the two sent again, they would come before the answer to this.
    stream.ask(Secret, &["ROOTCA"]).await;
    assert_eq!(names(&stream.take().await), ["ROOTCA"]);
    world.write("second.yaml", REVIEWS_2);
    assert_eq!(endpoints(&stream.take().await), 2);
}

#[tokio::test]
async fn a_refusal_is_kept_for_people_and_the_rest_goes_on() {
    let world = World::start().await;
    let mut stream = open(&world).await;
    stream.ask(Cluster, &[REVIEWS_80]).await;
    let clusters = stream.next().await.unwrap();
    stream.answer(&clusters, Some("field lb_policy: unknown")).await;
    stream.ask(Endpoint, &[REVIEWS_80]).await;
    assert_eq!(endpoints(&stream.take().await), 1);

    let host = [("host", "localhost")];
    let (_, body) = http(world.handle.admin_addr, "GET", "/debug/proxies", &host).await;
    let proxies: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(proxies[0]["node"], "web.shop");
    assert_eq!(proxies[0]["identity"], "spiffe://cluster.local/ns/shop/sa/web");
    assert_eq!(proxies[0]["types"]["cds"]["nacked"]["reason"], "field lb_policy: unknown");
    let (_, metrics) = http(world.handle.admin_addr, "GET", "/metrics", &host).await;
    assert!(metrics.contains("tulle_xds_nacks_total{type=\"cds\"} 1"), "{metrics}");
    assert!(metrics.contains("tulle_xds_streams{client=\"tulle\",variant=\"delta\"} 1"), "{metrics}");
}

#[tokio::test]
async fn roots_are_pushed_when_they_rotate() {
    let world = World::start().await;
    let mut stream = open(&world).await;
    stream.ask(Secret, &["ROOTCA"]).await;
    let roots = |response: &DeltaDiscoveryResponse| {
        let secret: TlsSecret = response.resources[0].resource.as_ref().unwrap().unpack().unwrap();
        format!("{:?}", secret.r#type)
    };
    let before = roots(&stream.take().await);
    for (step, changes) in [("begin", true), ("activate", false), ("finish", true)] {
        let path = format!("/rotate-root/{step}");
        let fields = [("host", "localhost"), ("tulle-admin", "1")];
        let (status, body) = http(world.handle.admin_addr, "POST", &path, &fields).await;
        assert_eq!(status, 200, "{body}");
        if changes {
            assert_ne!(roots(&stream.take().await), before);
        }
    }
    // The serving certificate has moved to the new root, which the published file holds alone.
    assert_eq!(world.bundle().roots().len(), 1);
    let mut again = open(&world).await;
    again.ask(Secret, &["ROOTCA"]).await;
    assert_ne!(roots(&again.take().await), before);
}

#[tokio::test]
async fn the_inbound_listener_is_its_own_workloads_alone() {
    let world = World::start().await;
    let (own, other) = ("inbound/shop/reviews-1", "inbound/shop/other");
    let token = world.token("shop", "reviews");
    let node = tulle_node("shop", "reviews", "reviews-1");
    let mut stream = Delta::open(world.connect().await, Some(&token), node).await.unwrap();
    stream.ask(Listener, &[own, other]).await;
    let response = stream.take().await;
    assert_eq!((names(&response), response.removed_resources.as_slice()), (vec![own], &[other.to_owned()][..]));
    let mut stream = open(&world).await;
    stream.ask(Listener, &[own]).await;
    assert_eq!(stream.take().await.removed_resources, [own]);
}

#[tokio::test]
async fn a_shutdown_tells_the_streams() {
    let world = World::start().await;
    let mut stream = open(&world).await;
    stream.ask(Cluster, &[REVIEWS_80]).await;
    stream.take().await;
    let World { handle, dir: _dir } = world;
    let (ended, ()) = tokio::join!(stream.next(), handle.shutdown());
    assert_eq!(ended.unwrap_err().code(), tonic::Code::Unavailable);
}
