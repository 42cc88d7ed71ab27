//! One request through two sidecars over mutual TLS, with configuration from a control plane.

use std::sync::Arc;

use tulle_testing::certs::Ca;
use tulle_testing::client::raw;
use tulle_testing::control::{Control, Inbound, Mtls, Service};
use tulle_testing::sidecar::Sidecar;
use tulle_testing::upstream::{Reply, Upstream};

const REVIEWS: &str = "reviews.shop.svc.cluster.local:80";

#[tokio::test]
async fn a_request_crosses_two_sidecars_and_the_application_learns_who_sent_it() {
    let control = Control::start(Arc::new(Ca::new())).await;
    let app = Upstream::http1(|request| Reply::ok(format!("you asked for {}", request.path()))).await;
    control.publish_inbound(&Inbound::new("shop", "reviews").port(8080, "http", Mtls::Strict));
    control.publish_inbound(&Inbound::new("shop", "web"));
    let server = Sidecar::of("shop", "reviews").control(&control).receive(8080, app.addr()).start().await;
    let identity = "spiffe://cluster.local/ns/shop/sa/reviews";
    control.publish(&Service::http(REVIEWS).endpoint(&server.inbound(8080).to_string(), Some(identity)));
    let client = Sidecar::of("shop", "web").control(&control).send(REVIEWS).start().await;

    let reply = raw::get(client.outbound(REVIEWS), "/1?x=y", "reviews.shop").await;

    assert_eq!(reply.text(), "you asked for /1?x=y", "{reply:?}");
    let seen = app.request(0).await;
    assert_eq!(seen.header("host"), Some("reviews.shop"));
    let peer = seen.header("x-forwarded-client-cert").unwrap_or_default();
    assert!(peer.contains("URI=spiffe://cluster.local/ns/shop/sa/web"), "{peer}");
}
