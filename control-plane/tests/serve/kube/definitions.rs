//! The definition of Workload refuses what the control plane refuses, also while no webhook does.

use kube::Api;
use kube::api::{ApiResource, DynamicObject, PostParams};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};
use tulle_control_plane::validate;
use tulle_testing::api_server::ApiServer;

use super::cluster::{self, Cluster};

/// Specs that are wrong, and a part of what the API server says.
const WRONG: &[(&str, &str)] = &[
    ("{addresses: []}", "at least 1 items"),
    ("{addresses: [web.example.com]}", "must be of type ipv4"),
    ("{addresses: [10.1.2.3, 10.1.2.4]}", "one address of each family at most, such as [10.1.2.3"),
    ("{addresses: ['fd00::3', 'fd00::4']}", "one address of each family"),
    ("{addresses: [0.0.0.0]}", "neither unspecified nor multicast"),
    ("{addresses: ['0:0::0']}", "neither unspecified nor multicast"),
    ("{addresses: [224.0.0.1]}", "neither unspecified nor multicast"),
    ("{addresses: [239.255.255.255]}", "neither unspecified nor multicast"),
    ("{addresses: ['FF02::1']}", "neither unspecified nor multicast"),
    ("{addresses: [10.1.2.3], weight: 0}", "greater than or equal to 1"),
    ("{addresses: [10.1.2.3], weight: 10001}", "less than or equal to 10000"),
    ("{addresses: [10.1.2.3], health: well}", "Unsupported value"),
    ("{addresses: [10.1.2.3], ports: [{port: 0}]}", "greater than or equal to 1"),
    ("{addresses: [10.1.2.3], serviceAccount: 'a/b'}", "should match"),
];

/// Specs at the edge of what is right.
const RIGHT: &[&str] = &[
    "{addresses: [10.1.2.3, 'fd00::3']}",
    "{addresses: [223.255.255.255]}",
    "{addresses: [240.0.0.1]}",
    "{addresses: ['ff::1']}",
    "{addresses: [10.1.2.3], weight: 10000, ports: [{port: 65535}], health: draining}",
];

/// The definition in the chart, without what Helm fills in.
fn definition() -> Value {
    let template = include_str!("../../../../deploy/helm/tulle/templates/crds.yaml");
    let lines: Vec<_> = template.lines().filter(|line| !line.contains("{{")).collect();
    serde_saphyr::from_str(&lines.join("\n")).expect("YAML")
}

fn workload(name: &str, spec: &str) -> Value {
    let spec: Value = serde_saphyr::from_str(spec).expect("YAML");
    json!({
        "apiVersion": "tulle.io/v1alpha1", "kind": "Workload", "metadata": {"name": name, "namespace": "shop"}, "spec": spec,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_workloads_are_refused_by_the_api_server_and_the_control_plane_alike() {
    let Some(api) = ApiServer::start().await else { return };
    let cluster = Cluster::furnish(&api).await;
    cluster.apply(&definition()).await;
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("tulle.io", "v1alpha1", "Workload"));
    let workloads: Api<DynamicObject> = Api::namespaced_with(cluster::client(&api).await, "shop", &kind);
    cluster::until("the kind is served", || async { workloads.list(&Default::default()).await.ok() }).await;
    let create = async |name: &str, spec: &str| {
        let object = serde_json::from_value(workload(name, spec)).unwrap();
        workloads.create(&PostParams::default(), &object).await
    };
    let problems = |spec: &str| validate::object(&workload("w", spec).to_string());
    for (index, spec) in RIGHT.iter().enumerate() {
        assert_eq!(problems(spec), [], "{spec}");
        create(&format!("right-{index}"), spec).await.unwrap_or_else(|error| panic!("{spec}: {error}"));
    }
    for (spec, said) in WRONG {
        assert_eq!(problems(spec).len(), 1, "{spec}");
        let refused = create("wrong", spec).await.expect_err(spec).to_string();
        assert!(refused.contains(said), "{spec}: {refused}");
    }
}
