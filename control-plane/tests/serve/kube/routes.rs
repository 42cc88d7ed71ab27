//! Routes of the Gateway API over a real API server, whose definitions come after the control plane and go before it.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DeleteParams, DynamicObject};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use serde_json::{Value, json};
use tulle_proto::ResourceType::Route;
use tulle_testing::api_server::ApiServer;

use super::cluster::{self, Cluster};
use super::{REVIEWS, start};
use crate::world::{Delta, connect_tls, http, tulle_node};

/// The definitions of the kinds that are watched; none, said loudly, without Go.
fn definitions() -> Option<Vec<Value>> {
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/cluster/gateway-api");
    let told =
        Command::new("go").current_dir(module).args(["mod", "download", "-json", "sigs.k8s.io/gateway-api"]).output();
    let Ok(told) = told else {
        let _ = std::io::stderr().write_all(b"\nSKIPPED: `go` is needed for the definitions of the Gateway API.\n");
        return None;
    };
    let told: Value = serde_json::from_slice(&told.stdout).expect("what go says of a module");
    let folder = Path::new(told["Dir"].as_str().expect("where the module is")).join("config/crd/standard");
    let read = |kind: &str| {
        let path = folder.join(format!("gateway.networking.k8s.io_{kind}.yaml"));
        serde_saphyr::from_str(&std::fs::read_to_string(path).expect("a definition")).expect("YAML")
    };
    Some(["httproutes", "grpcroutes", "referencegrants"].map(read).to_vec())
}

fn routes(client: &Client) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "HTTPRoute");
    Api::namespaced_with(client.clone(), "shop", &ApiResource::from_gvk(&kind))
}

/// A route that splits by header, the rest by weight.
fn split(weight: u32) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "split", "namespace": "shop"},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "reviews", "port": 80}],
            "rules": [
                {"matches": [{"headers": [{"name": "x-version", "value": "2"}]}],
                 "backendRefs": [{"name": "reviews-v2", "port": 80}]},
                {"backendRefs": [
                    {"name": "reviews", "port": 80, "weight": weight},
                    {"name": "reviews-v2", "port": 80, "weight": 10},
                ]},
            ],
        },
    })
}

/// Waits until our conditions say so, for this generation.
async fn says(client: &Client, generation: i64, accepted: (&str, &str), resolved: (&str, &str)) {
    cluster::until("the status of the route", || async {
        let route = routes(client).get_opt("split").await.ok()??;
        let ours =
            route.data["status"]["parents"].as_array()?.iter().find(|p| p["controllerName"] == "tulle.io/mesh")?;
        assert_eq!(ours["parentRef"]["name"], "reviews");
        let says = |index: usize, name: &str, (status, reason): (&str, &str)| {
            let condition = &ours["conditions"][index];
            condition["type"] == name
                && condition["status"] == status
                && condition["reason"] == reason
                && condition["observedGeneration"] == generation
        };
        (says(0, "Accepted", accepted) && says(1, "ResolvedRefs", resolved)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_work_though_their_definitions_come_late_and_go() {
    let (Some(api), Some(definitions)) = (ApiServer::start().await, definitions()) else { return };
    let cluster = Cluster::furnish(&api).await;
    let client = cluster::client(&api).await;
    let handle = start(&api, "admin").await;
    let mesh = http(handle.admin_addr, "GET", "/debug/mesh", &[("host", "localhost")]).await.1;
    assert!(!mesh.contains("httproutes"), "a kind that is not installed is nobody's problem: {mesh}");
    let bundle = cluster.bundle("shop").await;
    let token = cluster.token("web-1", &["tulle"]).await;
    let channel = connect_tls(handle.xds_addr, &bundle).await.unwrap();
    let mut stream = Delta::open(channel, Some(&token), tulle_node("shop", "web", "web")).await.unwrap();
    stream.ask(Route, &[REVIEWS]).await;
    assert!(!format!("{:?}", body(&stream.take().await)).contains("HTTPRoute"));

    for definition in &definitions {
        cluster.apply(definition).await;
    }
    cluster::until("the kind is served", || async { routes(&client).list(&Default::default()).await.ok() }).await;
    cluster.apply(&split(90)).await;
    says(&client, 1, ("True", "Accepted"), ("False", "BackendNotFound")).await;
    let split_up = format!("{:?}", body(&stream.take().await));
    assert!(split_up.contains("HTTPRoute/shop/split") && split_up.contains("x-version"), "{split_up}");

    // What it refers to comes, and it changes itself.
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "reviews-v2", "namespace": "shop"},
        "spec": {"ports": [{"name": "http", "port": 80}]},
    });
    cluster.apply(&service).await;
    says(&client, 1, ("True", "Accepted"), ("True", "ResolvedRefs")).await;
    assert!(format!("{:?}", body(&stream.take().await)).contains("reviews-v2.shop.svc.cluster.local:80"));
    cluster.apply(&split(80)).await;
    says(&client, 2, ("True", "Accepted"), ("True", "ResolvedRefs")).await;
    assert!(format!("{:?}", body(&stream.take().await)).contains("80"));

    // Without the definitions there are no routes.
    let kinds: Api<CustomResourceDefinition> = Api::all(client.clone());
    kinds.delete("httproutes.gateway.networking.k8s.io", &DeleteParams::default()).await.unwrap();
    let gone = cluster::until("the route is gone", || async {
        let mesh = http(handle.admin_addr, "GET", "/debug/mesh", &[("host", "localhost")]).await.1;
        (!mesh.contains("HTTPRoute")).then_some(())
    });
    gone.await;
    let plain = format!("{:?}", body(&stream.take().await));
    assert!(!plain.contains("HTTPRoute"), "{plain}");
}

fn body(
    response: &tulle_proto::discovery::DeltaDiscoveryResponse,
) -> tulle_proto::envoy::config::route::v3::RouteConfiguration {
    response.resources[0].resource.as_ref().unwrap().unpack().unwrap()
}
