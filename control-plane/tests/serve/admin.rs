//! Health, metrics and debug pages.

use super::world::{World, http};

const HOST: [(&str, &str); 2] = [("host", "localhost"), ("tulle-admin", "1")];

#[tokio::test]
async fn health_and_metrics() {
    let world = World::start().await;
    let admin = world.handle.admin_addr;
    assert_eq!(http(admin, "GET", "/healthz/live", &HOST).await.0, 200);
    let mut stream =
        super::world::Delta::open(world.connect_plain().await, None, super::world::envoy_node()).await.unwrap();
    stream.ask(tulle_proto::ResourceType::Cluster, &["*"]).await;
    stream.take().await;
    assert_eq!(http(admin, "GET", "/healthz/ready", &HOST).await, (200, "ready\n".to_owned()));
    let (status, metrics) = http(admin, "GET", "/metrics", &HOST).await;
    assert_eq!(status, 200);
    for name in [
        "tulle_build_info{version=",
        "tulle_mesh_version ",
        "tulle_problems 0",
        "tulle_xds_pushes_total{type=\"cds\"} 1",
    ] {
        assert!(metrics.contains(name), "{name} is missing from {metrics}");
    }
}

#[tokio::test]
async fn debug_pages_hold_no_secrets_and_answer_no_browser() {
    let world = World::start().await;
    let admin = world.handle.admin_addr;
    let token = world.token("shop", "web");
    for path in ["/debug/mesh", "/debug/proxies"] {
        let (status, body) = http(admin, "GET", path, &HOST).await;
        assert_eq!(status, 200);
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        let text = body.to_string();
        assert!(!text.contains("PRIVATE KEY") && !text.contains(&token));
        assert_eq!(http(admin, "GET", path, &[("host", "evil.test")]).await.0, 403);
    }
    let (_, mesh) = http(admin, "GET", "/debug/mesh", &HOST).await;
    assert!(mesh.contains("reviews"), "{mesh}");
    let forged = [("host", "localhost"), ("tulle-admin", "1"), ("origin", "http://evil.test")];
    assert_eq!(http(admin, "POST", "/rotate-root/begin", &forged).await.0, 403);
    assert_eq!(http(admin, "POST", "/rotate-root/begin", &[("host", "localhost")]).await.0, 403);
    assert_eq!(http(admin, "GET", "/rotate-root/begin", &HOST).await.0, 405);
    assert_eq!(http(admin, "POST", "/rotate-root/sideways", &HOST).await.0, 404);
    let (status, body) = http(admin, "POST", "/rotate-root/finish", &HOST).await;
    assert_eq!(status, 409, "{body}");
    assert_eq!(world.bundle().roots().len(), 1);
}
