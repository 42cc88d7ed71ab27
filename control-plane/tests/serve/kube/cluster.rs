//! What is in the cluster: a shop with a service, two pods and a node, as Kubernetes' controllers would write it.

use std::future::Future;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, ServiceAccount};
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use tulle_identity::svid::TrustBundle;
use tulle_testing::api_server::ApiServer;

/// Machines are slow and shared; a test that passes never waits for it.
const DEADLINE: Duration = Duration::from_secs(120);

/// A furnished cluster.
pub(crate) struct Cluster {
    client: Client,
    saved: String,
}

/// Calls `probe` until it gives a value.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(what: &str, probe: impl Fn() -> F) -> T {
    let wait = async {
        loop {
            if let Some(value) = probe().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.expect(what)
}

/// A client of the admin.
pub(crate) async fn client(api: &ApiServer) -> Client {
    let kubeconfig = Kubeconfig::read_from(api.kubeconfig("admin")).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

impl Cluster {
    pub(crate) async fn furnish(api: &ApiServer) -> Self {
        let client = client(api).await;
        let mut cluster = Self { client, saved: String::new() };
        for namespace in ["tulle-system", "shop"] {
            cluster.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})).await;
        }
        let labels = json!({"topology.kubernetes.io/zone": "a", "topology.kubernetes.io/region": "eu"});
        cluster.apply(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": labels}})).await;
        for account in ["web", "reviews"] {
            let metadata = json!({"name": account, "namespace": "shop"});
            cluster.apply(&json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})).await;
        }
        cluster
            .apply(&json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": "reviews", "namespace": "shop"},
                "spec": {"selector": {"app": "reviews"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
            }))
            .await;
        cluster.pod("reviews-1", "reviews", "10.1.0.1").await;
        cluster.pod("web-1", "web", "10.1.0.2").await;
        cluster.slice(&[("10.1.0.1", json!({"ready": true}))]).await;
        cluster.saved = cluster.token("reviews-1", &["tulle"]).await;
        cluster
    }

    /// Writes an object, whatever is there.
    pub(crate) async fn apply(&self, object: &Value) {
        let text = |key: &str| object[key].as_str().unwrap();
        let (group, version) = text("apiVersion").split_once('/').unwrap_or_else(|| ("", text("apiVersion")));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, text("kind")));
        let api: Api<DynamicObject> = match object["metadata"]["namespace"].as_str() {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        let name = object["metadata"]["name"].as_str().unwrap();
        api.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(object)).await.unwrap();
    }

    /// A pod that runs, with a proxy.
    async fn pod(&self, name: &str, account: &str, address: &str) {
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": name, "namespace": "shop", "labels": {"app": account},
                "annotations": {"tulle.io/workload": account, "tulle.io/inject-status": "{}"},
            },
            "spec": {
                "nodeName": "n1", "serviceAccountName": account,
                "containers": [{"name": account, "image": "x"}, {"name": "tulle-proxy", "image": "x"}],
            },
        }))
        .await;
        let status = json!({"status": {
            "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": "True"}],
        }});
        self.pods().patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    }

    /// A pod in its node's network, which the mesh leaves out.
    pub(crate) async fn node_pod(&self, name: &str, account: &str) {
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "shop"},
            "spec": {
                "nodeName": "n1", "serviceAccountName": account, "hostNetwork": true,
                "containers": [{"name": account, "image": "x"}],
            },
        }))
        .await;
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "shop")
    }

    pub(crate) async fn delete_pod(&self, name: &str) {
        self.pods().delete(name, &DeleteParams::default().grace_period(0)).await.unwrap();
    }

    /// The endpoints of the service: addresses with their conditions.
    pub(crate) async fn slice(&self, endpoints: &[(&str, Value)]) {
        let endpoint = |(address, conditions): &(&str, Value)| json!({"addresses": [address], "conditions": conditions, "zone": "a", "nodeName": "n1"});
        let endpoints: Vec<_> = endpoints.iter().map(endpoint).collect();
        self.apply(&json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "reviews-x", "namespace": "shop", "labels": {"kubernetes.io/service-name": "reviews"}},
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints,
        }))
        .await;
    }

    /// A token bound to a pod, as its kubelet would project it.
    pub(crate) async fn token(&self, pod: &str, audiences: &[&str]) -> String {
        let pod = self.pods().get(pod).await.unwrap();
        let account = pod.spec.unwrap().service_account_name.unwrap();
        let bound = json!({"kind": "Pod", "apiVersion": "v1", "name": pod.metadata.name, "uid": pod.metadata.uid});
        self.request_token(&account, &json!({"audiences": audiences, "boundObjectRef": bound})).await
    }

    /// A token of an account alone.
    pub(crate) async fn unbound_token(&self) -> String {
        self.request_token("web", &json!({"audiences": ["tulle"]})).await
    }

    /// A token nobody has shown yet.
    pub(crate) fn saved_token(&self) -> String {
        self.saved.clone()
    }

    async fn request_token(&self, account: &str, spec: &Value) -> String {
        let request: TokenRequest = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), "shop");
        let made = accounts.create_token_request(account, &PostParams::default(), &request).await.unwrap();
        made.status.unwrap().token
    }

    /// The trust bundle as pods of a namespace mount it.
    pub(crate) async fn bundle(&self, namespace: &str) -> TrustBundle {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let map = until("the trust bundle", || async { maps.get_opt("tulle-trust-bundle").await.unwrap() }).await;
        TrustBundle::from_pem(map.data.unwrap()["bundle.pem"].as_bytes()).unwrap()
    }

    /// The name of the one object that owns the trust bundle of a namespace.
    pub(crate) async fn bundle_owner(&self, namespace: &str) -> String {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let owners = maps.get("tulle-trust-bundle").await.unwrap().metadata.owner_references.unwrap();
        assert_eq!(owners.len(), 1, "{owners:?}");
        assert_eq!(owners[0].kind, "ClusterRole");
        owners[0].name.clone()
    }

    /// Gives a user these rights.
    pub(crate) async fn role(&self, user: &str, rules: &[Value]) {
        let group = "rbac.authorization.k8s.io";
        let head = |kind: &str| json!({"apiVersion": format!("{group}/v1"), "kind": kind, "metadata": {"name": user}});
        let mut role = head("ClusterRole");
        role["rules"] = json!(rules);
        self.apply(&role).await;
        let mut binding = head("ClusterRoleBinding");
        binding["roleRef"] = json!({"apiGroup": group, "kind": "ClusterRole", "name": user});
        binding["subjects"] = json!([{"apiGroup": group, "kind": "User", "name": user}]);
        self.apply(&binding).await;
    }
}
