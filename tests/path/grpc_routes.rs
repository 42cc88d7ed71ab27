//! GRPCRoutes from manifest to wire: the control plane's translation, carried out for calls from sidecar to sidecar.

use std::collections::BTreeMap;

use tulle_proto::ResourceType;
use tulle_testing::client::Http2Client;
use tulle_testing::client::http2::{Http2Response, request};
use tulle_testing::control::{Control, Service};
use tulle_testing::sidecar::Sidecar;
use tulle_testing::upstream::http2::grpc_frame;
use tulle_testing::upstream::{Http2Reply, Http2Upstream};

use crate::mesh;
use crate::routes::{manifests, translated};

/// An application that answers every call with two messages, its own name and the end, behind a sidecar.
struct Server {
    app: Http2Upstream,
    _sidecar: Sidecar,
}

impl Server {
    async fn start(control: &Control, name: &'static str) -> Self {
        let app = Http2Upstream::start(move |_| Http2Reply::grpc(&[name.as_bytes(), b"end"], 0)).await;
        let sidecar = mesh::server(control, name, &[(8080, "grpc", app.addr())]).await;
        let endpoint = sidecar.inbound(8080).to_string();
        control.publish(&Service::grpc(&mesh::name(name)).endpoint(&endpoint, Some(&mesh::id(name))));
        Self { app, _sidecar: sidecar }
    }
}

/// Who answered a call: the application, else the status and the reason of the proxy.
fn who(reply: &Http2Response) -> String {
    assert_eq!(reply.status, 200, "gRPC tells errors in its own status: {reply:?}");
    let status = reply.grpc_status().unwrap_or_default();
    if status != "0" {
        return format!("{status} {}", reply.header("tulle-reason").unwrap_or_default());
    }
    let answer = |name: &str| [grpc_frame(name.as_bytes()), grpc_frame(b"end")].concat();
    let who = ["one", "two"].into_iter().find(|name| reply.body == answer(name));
    who.unwrap_or_else(|| panic!("whose answer is this? {reply:?}")).to_owned()
}

async fn call(client: &Http2Client, path: &str, headers: &[(&str, &str)]) -> String {
    let headers = [&[("content-type", "application/grpc"), ("te", "trailers")], headers].concat();
    let head = request("POST", "web.shop", path, &headers);
    who(&client.exchange(head, grpc_frame(b"ping"), None).await.expect("an answer"))
}

const RULES: &str = "
  - matches: [{method: {service: shop.v1.Cart, method: Add}}]
    backendRefs: [{name: one, port: 80}]
  - matches: [{method: {service: shop.v1.Cart}, headers: [{name: X-Version, value: '2'}]}]
    filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-routed, value: 'yes'}]}}]
    backendRefs: [{name: two, port: 80}]
  - matches: [{method: {service: shop.v1.Cart, method: List}}]
    backendRefs: [{name: one, port: 80, weight: 3}, {name: two, port: 80, weight: 1}]
  - matches: [{method: {type: RegularExpression, service: 'shop[.]v[0-9][.]Stock', method: 'Get|Put'}}]
    backendRefs: [{name: two, port: 80}]
  - matches: [{method: {service: shop.v1.Lost}}]
    backendRefs: [{name: nobody, port: 80}]
";

#[tokio::test]
async fn calls_go_where_a_route_says() {
    let control = mesh::control().await;
    let (one, two) = (Server::start(&control, "one").await, Server::start(&control, "two").await);
    let web = Service::grpc(&mesh::name("web"));
    control.publish(&web);
    control.set_any(ResourceType::Route, web.name(), translated(&manifests("GRPCRoute", RULES)).await);
    let sidecar = mesh::client(&control, &["web"]).await;
    let client = Http2Client::connect(sidecar.outbound(&mesh::name("web"))).await;
    let second = [("x-version", "2")];
    for (path, headers, expected) in [
        ("/shop.v1.Cart/Add", &[][..], "one"),
        // The longer method comes first, whatever the header says.
        ("/shop.v1.Cart/Add", &second, "one"),
        ("/shop.v1.Cart/Remove", &second, "two"),
        ("/shop.v1.Cart/Remove", &[("x-version", "3")], "12 no_route"),
        ("/shop.v1.Cart/Remove", &[], "12 no_route"),
        ("/shop.v1.Cart/AddAll", &[], "12 no_route"),
        ("/shop.v1.Cart/add", &[], "12 no_route"),
        ("/shop.v1.CartAdmin/Add", &second, "12 no_route"),
        ("/shop.v2.Stock/Put", &[], "two"),
        ("/shop.v2.Stock/Puts", &[], "12 no_route"),
        ("/shop.v1.Lost/Found", &[], "14 route"),
    ] {
        assert_eq!(call(&client, path, headers).await, expected, "{path} {headers:?}");
    }
    let changed = two.app.request(0).await;
    assert_eq!(changed.header("x-routed"), Some("yes"), "{changed:?}");
    let seen = one.app.request(0).await;
    assert_eq!((seen.header("x-routed"), &seen.body), (None, &grpc_frame(b"ping")));
    assert!(seen.head.headers()["x-forwarded-client-cert"].to_str().is_ok_and(|peer| peer.contains("sa/web")));

    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..1_000 {
        *counts.entry(call(&client, "/shop.v1.Cart/List", &[]).await).or_default() += 1;
    }
    // Seven standard deviations.
    let share = counts.get("one").copied().unwrap_or(0);
    assert!(
        (650..=850).contains(&share) && counts.values().sum::<u32>() == counts["one"] + counts["two"],
        "{counts:?}"
    );
    assert!(control.refused().is_empty(), "{:?}", control.refused());
}
