//! Who may read what: tokens and what the node claims (CP-07).

use std::time::Duration;

use tonic::{Code, Status};
use tulle_proto::ResourceType::Cluster;
use tulle_proto::envoy::config::core::v3::Node;

use super::world::{Delta, REVIEWS_80, World, connect_tls, envoy_node, tulle_node};

/// What becomes of a stream with this token and node.
async fn attempt(world: &World, token: Option<&str>, node: Node) -> Result<(), Status> {
    let mut stream = Delta::open(world.connect().await, token, node).await?;
    stream.ask(Cluster, &[REVIEWS_80]).await;
    stream.next().await.map(|_| ())
}

#[tokio::test]
async fn a_node_may_claim_only_what_its_token_says() {
    let world = World::start().await;
    let token = world.token("shop", "web");
    attempt(&world, Some(&token), tulle_node("shop", "web", "web")).await.unwrap();
    attempt(&world, Some(&token), envoy_node()).await.unwrap();

    let cases = [(tulle_node("bank", "web", "web"), "bank"), (tulle_node("shop", "vault", "web"), "vault")];
    for (node, claimed) in cases {
        let refused = attempt(&world, Some(&token), node).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        let text = refused.message();
        assert!(text.contains(claimed) && text.contains("spiffe://cluster.local/ns/shop/sa/web"), "{text}");
    }
    let mut nameless = tulle_node("shop", "web", "web");
    nameless.metadata = None;
    assert_eq!(attempt(&world, Some(&token), nameless).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn over_tls_a_token_is_needed() {
    let world = World::start().await;
    for token in [None, Some("garbage")] {
        let refused = attempt(&world, token, tulle_node("shop", "web", "web")).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated);
    }
}

#[tokio::test]
async fn on_loopback_a_token_is_optional_but_never_wrong() {
    let world = World::start().await;
    let mut stream = Delta::open(world.connect_plain().await, None, envoy_node()).await.unwrap();
    stream.ask(Cluster, &[REVIEWS_80]).await;
    stream.take().await;
    let refused = Delta::open(world.connect_plain().await, Some("garbage"), envoy_node()).await.map(|_| ());
    assert_eq!(refused.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn the_server_proves_who_it_is() {
    let (one, other) = (World::start().await, World::start().await);
    let refused = connect_tls(one.handle.xds_addr, &other.bundle()).await;
    assert!(refused.is_err(), "another mesh's roots must not do");
}

/// A stream lives no longer than the proof of who reads it.
#[tokio::test]
async fn a_stream_ends_with_its_token() {
    let world = World::start().await;
    let token = world.token_for("shop", "web", Duration::from_secs(3));
    let mut stream = Delta::open(world.connect().await, Some(&token), tulle_node("shop", "web", "web")).await.unwrap();
    stream.ask(Cluster, &[REVIEWS_80]).await;
    stream.take().await;
    let ended = stream.next().await.unwrap_err();
    assert_eq!(ended.code(), Code::Unauthenticated, "{ended}");
    attempt(&world, Some(&world.token("shop", "web")), tulle_node("shop", "web", "web")).await.unwrap();
}
