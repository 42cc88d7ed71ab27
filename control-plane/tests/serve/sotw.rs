//! State-of-the-world discovery without TLS on loopback, as an Envoy on a laptop uses it.

use tulle_proto::ResourceType::{Cluster, Endpoint};

use super::world::{REVIEWS_2, REVIEWS_80, Sotw, World, envoy_node};

#[tokio::test]
async fn an_envoy_gets_all_clusters_and_the_endpoints_it_names() {
    let world = World::start().await;
    let mut stream = Sotw::open(world.connect_plain().await, None, envoy_node()).await.unwrap();
    stream.ask(Cluster, &[]).await;
    let clusters = stream.take(&[]).await;
    assert_eq!((clusters.type_url.as_str(), clusters.resources.len()), (Cluster.url(), 1));
    stream.ask(Endpoint, &[REVIEWS_80]).await;
    let before = stream.take(&[REVIEWS_80]).await;
    assert_eq!(before.resources.len(), 1);

    world.write("second.yaml", REVIEWS_2);
    let after = stream.take(&[REVIEWS_80]).await;
    assert_eq!(after.type_url, Endpoint.url());
    assert_ne!(after.resources, before.resources);
}
