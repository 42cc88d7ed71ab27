//! `tulle check` against a real API server where something is wrong: the line that says so, what mends it, and the
//! exit code. A cluster without nodes: the injector runs beside the API server, its Service leads there.

#![expect(clippy::unwrap_used, clippy::panic, reason = "what cannot fail on a machine that runs tests")]

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use k8s_openapi::ByteString;
use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use tulle_testing::api_server::ApiServer;
use tulle_testing::process::Process;
use tulle_testing::{ports, wait};

/// As the injector's certificate names it.
const INJECTOR: &str = "tulle-injector.tulle-system.svc";

/// What `tulle check` said.
struct Checked {
    code: Option<i32>,
    out: String,
    error: String,
}

impl Checked {
    /// The one line about `check`.
    fn line(&self, check: &str) -> &str {
        let mut lines = self.out.lines().filter(|line| line.starts_with(&format!("{check}  ")));
        lines.next().unwrap_or_else(|| panic!("no line about {check}: {}{}", self.out, self.error))
    }

    /// The lines that are not well.
    fn unwell(&self) -> Vec<&str> {
        self.out.lines().skip(1).filter(|line| !line.contains("  ok  ")).collect()
    }

    /// Of all that was looked at only `check` failed, for this reason, and this is what mends it.
    fn assert_only(&self, check: &str, reason: &str, mend: &str) {
        let line = self.line(check);
        assert_eq!((self.code, self.unwell()), (Some(1), vec![line]), "{}", self.out);
        for part in ["  FAILED  ", reason, mend] {
            assert!(line.contains(part), "`{part}` in {line}");
        }
    }
}

fn tulle(kubeconfig: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tulle"));
    command.args(words).env("KUBECONFIG", kubeconfig);
    command
}

fn check(api: &ApiServer, token: &str, flags: &[&str]) -> Checked {
    let out = tulle(&api.kubeconfig(token), &["check"]).args(flags).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Checked { code: out.status.code(), out: text(&out.stdout), error: text(&out.stderr) }
}

/// Lets `narrow` do `verb` with `resources` in every group.
fn allow(api: &ApiServer, verb: &str, resources: &[&str]) {
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": verb},
        "rules": [{"apiGroups": ["*"], "resources": resources, "verbs": [verb]}],
    });
    api.kubectl(&["apply", "-f", "-"], &role.to_string());
    let binding = format!("narrow-{verb}");
    api.kubectl(&["create", "clusterrolebinding", &binding, "--user=narrow", &format!("--clusterrole={verb}")], "");
}

#[tokio::test]
async fn rights_that_are_missing() {
    let Some(api) = ApiServer::start().await else { return };
    let checked = check(&api, "nobody", &["--before"]);
    let refused = checked.error.contains("Unauthorized") && checked.error.contains("kubectl auth whoami");
    assert!(checked.code == Some(1) && refused, "{}", checked.error);

    // Who may see nothing is told so, and not that there is nothing.
    let checked = check(&api, "narrow", &[]);
    let line = checked.line("installed");
    assert!(checked.code == Some(1) && line.contains("FAILED") && line.contains("ClusterRole view"), "{}", checked.out);
    assert!(line.contains(r#"User "narrow" cannot get resource "deployments""#), "{line}");
    let checked = check(&api, "narrow", &["--before"]);
    let rights = checked.line("your rights");
    assert!(checked.code == Some(1) && rights.contains("FAILED"), "{}", checked.out);
    assert!(rights.contains("clusterroles, ") && rights.contains("install as cluster-admin"), "{rights}");
    let nodes = checked.line("nodes");
    assert!(nodes.contains("skipped") && nodes.contains(r#"User "narrow" cannot list resource "nodes""#), "{nodes}");

    // Exactly what is missing is named.
    allow(&api, "list", &["*"]);
    let most = [
        "clusterroles",
        "configmaps",
        "customresourcedefinitions",
        "deployments",
        "namespaces",
        "poddisruptionbudgets",
        "rolebindings",
        "roles",
        "secrets",
        "serviceaccounts",
        "services",
        "validatingwebhookconfigurations",
    ];
    allow(&api, "create", &most);
    wait::until_ready("the rights", || async {
        let checked = check(&api, "narrow", &["--before"]);
        let lacking = "you may not make mutatingwebhookconfigurations, clusterrolebindings: install as cluster-admin";
        checked.line("your rights").contains(lacking).then(|| checked.assert_only("your rights", lacking, ""))
    })
    .await;
}

/// The injector beside an API server in which Tulle is installed, as far as that goes without nodes.
struct Mesh {
    api: ApiServer,
    webhook: SocketAddr,
    injector: Option<Process>,
}

impl Mesh {
    async fn install() -> Option<Self> {
        let mesh = Self { api: ApiServer::start().await?, webhook: ports::free(), injector: None };
        let installed = tulle(Path::new("/dev/null"), &["install"]).output().unwrap();
        let text = String::from_utf8(installed.stdout).unwrap();
        let documents = text.split("---\n").filter(|document| !document.trim().is_empty());
        let objects = documents.map(|document| mesh.led_here(serde_saphyr::from_str(document).unwrap()));
        mesh.apply(objects.collect());
        for name in ["tulle-control-plane", "tulle-injector"] {
            let status = json!({"status": {"replicas": 2, "readyReplicas": 2, "updatedReplicas": 2}}).to_string();
            let words = ["patch", "deployment", name, "-n", "tulle-system", "--subresource=status", "-p", &status];
            mesh.api.kubectl(&words, "");
        }
        let authority = rcgen::generate_simple_self_signed(["authority".to_owned()]).unwrap().cert.pem();
        let labels = json!({"tulle.io/inject": "enabled"});
        mesh.apply(vec![
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": labels}}),
        ]);
        mesh.apply(vec![secret("tulle-ca", &[("tls.crt", &authority)])]);
        for namespace in ["tulle-system", "shop"] {
            let metadata = json!({"name": "tulle-trust-bundle", "namespace": namespace});
            let data = json!({"bundle.pem": authority});
            mesh.apply(vec![json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})]);
        }
        Some(mesh)
    }

    /// The object, changed where it says how the injector is reached.
    fn led_here(&self, mut object: Value) -> Value {
        for webhook in object.get_mut("webhooks").and_then(Value::as_array_mut).into_iter().flatten() {
            webhook["clientConfig"]["service"]["port"] = self.webhook.port().into();
        }
        if object["kind"] == "Service" && object["metadata"]["name"] == "tulle-injector" {
            object["spec"] = json!({"type": "ExternalName", "externalName": self.webhook.ip().to_string()});
        }
        object
    }

    fn apply(&self, objects: Vec<Value>) {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        self.api.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", "-"], &list.to_string());
    }

    /// Starts an injector in the place of the one before it, and waits until it has made its objects.
    async fn start_injector(&mut self, flags: &[&str]) {
        self.injector = None;
        let injector = Process::start("tulle-injector", "tulle-injector", |command| {
            command.env("KUBECONFIG", self.api.kubeconfig("admin"));
            command.arg(format!("--webhook-address={}", self.webhook)).arg("--admin-address=127.0.0.1:0").args(flags);
        });
        let injector = injector.await;
        injector.line("serving with a new certificate").await;
        self.injector = Some(injector);
    }

    /// Checks until the line about injection has `part`, for which the injector and the API server may need a moment.
    async fn injection(&self, part: &str) -> Checked {
        wait::until_ready(part, || async {
            let checked = check(&self.api, "admin", &[]);
            checked.line("injection").contains(part).then_some(checked)
        })
        .await
    }
}

fn secret(name: &str, pems: &[(&str, &str)]) -> Value {
    let data: Value = pems.iter().map(|(key, pem)| ((*key).to_owned(), base64(pem))).collect();
    let metadata = json!({"name": name, "namespace": "tulle-system"});
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})
}

fn base64(text: &str) -> Value {
    serde_json::to_value(ByteString(text.as_bytes().to_vec())).unwrap()
}

#[tokio::test]
async fn a_webhook_that_cannot_be_asked() {
    let Some(mut mesh) = Mesh::install().await else { return };
    mesh.start_injector(&[]).await;
    let checked = mesh.injection("would get a sidecar (dry run in shop)").await;
    assert_eq!((checked.code, checked.unwell()), (Some(0), vec![]), "{}{}", checked.out, checked.error);

    // Nobody is there; there is not even a Service.
    mesh.injector = None;
    let reach = "may the API server reach its port 15017?";
    mesh.injection("connection refused").await.assert_only("injection", "namespace.inject.tulle.io", reach);
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "tulle-injector", "namespace": "tulle-system"}});
    mesh.api.kubectl(&["delete", "-f", "-"], &service.to_string());
    mesh.injection("not found").await.assert_only("injection", r#"service "tulle-injector" not found"#, reach);
    mesh.apply(vec![mesh.led_here(service)]);

    // The bundle is somebody else's, and nobody keeps it.
    let foreign = rcgen::generate_simple_self_signed([INJECTOR.to_owned()]).unwrap().cert.pem();
    let webhooks = ["namespace", "pod"]
        .map(|name| json!({"name": format!("{name}.inject.tulle.io"), "clientConfig": {"caBundle": base64(&foreign)}}));
    let patch = json!({"webhooks": webhooks}).to_string();
    mesh.api.kubectl(&["patch", "mutatingwebhookconfiguration", "tulle-injector", "-p", &patch], "");
    mesh.start_injector(&["--webhook-configuration=none"]).await;
    let belong = "caBundle and the injector's certificate do not belong together";
    mesh.injection("unknown authority").await.assert_only("injection", "x509", belong);

    // The injector puts it right.
    mesh.start_injector(&[]).await;
    assert_eq!(mesh.injection("would get a sidecar").await.code, Some(0));

    // An operator's own certificate is over.
    let mut params = CertificateParams::new(["authority".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let mut params = CertificateParams::new([INJECTOR.to_owned()]).unwrap();
    params.not_after = (SystemTime::now() - Duration::from_secs(3_600)).into();
    let key = KeyPair::generate().unwrap();
    let over = params.signed_by(&key, &authority).unwrap().pem();
    mesh.injector = None;
    mesh.api.kubectl(&["delete", "secret", "tulle-injector-tls", "-n", "tulle-system"], "");
    let pems = [("ca.crt", authority.pem()), ("tls.crt", over), ("tls.key", key.serialize_pem())];
    mesh.apply(vec![secret("tulle-injector-tls", &pems.each_ref().map(|(name, pem)| (*name, pem.as_str())))]);
    mesh.start_injector(&[]).await;
    let checked = mesh.injection("certificate has expired").await;
    assert_eq!((checked.code, checked.unwell().len()), (Some(1), 2), "{}", checked.out);
    assert!(checked.line("injection").contains("unless you brought the Secret tulle-injector-tls"), "{}", checked.out);
    assert!(checked.line("webhook certificate").contains("ended 1 hours ago"), "{}", checked.out);
}

#[tokio::test]
async fn mend_30_what_a_pod_or_namespace_says_is_right_or_told() {
    let Some(mut mesh) = Mesh::install().await else { return };
    mesh.start_injector(&[]).await;
    mesh.injection("would get a sidecar").await;
    mesh.apply(vec![json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "plain"}})]);
    let said = |object: &Value| {
        mesh.api.kubectl_says(&["create", "--dry-run=server", "-o", "json", "-f", "-"], &object.to_string())
    };
    let pod = |namespace: &str, metadata: Value| {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata,
            "spec": {"serviceAccountName": "default", "containers": [{"name": "a", "image": "a:1"}]}});
        pod["metadata"]["name"] = "a".into();
        pod["metadata"]["namespace"] = namespace.into();
        pod
    };
    for place in ["labels", "annotations"] {
        let inject = |value: &str| json!({place: {"tulle.io/inject": value}});
        // As documented, in a namespace that has no label.
        let enabled = said(&pod("plain", inject("enabled")));
        assert!(enabled.contains("tulle-proxy"), "{place}: {enabled}");
        for namespace in ["plain", "shop"] {
            let wrong = said(&pod(namespace, inject("true")));
            assert!(wrong.contains("did you mean enabled?"), "{place} {namespace}: {wrong}");
            let disabled = said(&pod(namespace, inject("disabled")));
            assert!(disabled.contains("\"image\"") && !disabled.contains("tulle-proxy"), "{place}: {disabled}");
        }
    }
    assert!(!said(&pod("plain", json!({}))).contains("tulle-proxy"));
    let namespace = |labels: Value, annotations: Value| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "new", "labels": labels, "annotations": annotations}});
    let wrong = said(&namespace(json!({"tulle.io/inject": "true"}), json!({})));
    assert!(wrong.contains("denied the request") && wrong.contains("did you mean enabled?"), "{wrong}");
    let typo = said(&namespace(json!({}), json!({"tulle.io/timeot": "5s"})));
    assert!(typo.contains("Warning:") && typo.contains("did you mean tulle.io/timeout?"), "{typo}");
    let template = json!({"metadata": {"labels": {"a": "b"}, "annotations": {"tulle.io/skip-inbound-port": "80"}},
        "spec": {"containers": [{"name": "a", "image": "a:1"}]}});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "namespace": "shop"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}});
    let told = said(&deployment);
    assert!(told.contains("Warning:") && told.contains("did you mean tulle.io/skip-inbound-ports?"), "{told}");
    let mut once = template;
    once["spec"]["restartPolicy"] = "Never".into();
    let cron = json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "a", "namespace": "shop"},
        "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": once}}}});
    let told = said(&cron);
    assert!(told.contains("Warning:") && told.contains("did you mean tulle.io/skip-inbound-ports?"), "{told}");
}

#[tokio::test]
async fn mend_24_a_guaranteed_pod_stays_guaranteed() {
    let Some(mut mesh) = Mesh::install().await else { return };
    mesh.start_injector(&[]).await;
    mesh.injection("would get a sidecar").await;
    let made = |name: &str, annotations: Value, spec: Value| {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "spec": spec,
            "metadata": {"name": name, "namespace": "shop", "annotations": annotations}});
        pod["spec"]["serviceAccountName"] = "default".into();
        mesh.api.kubectl(&["create", "-f", "-"], &pod.to_string());
        let text = mesh.api.kubectl(&["get", "pod", name, "-n", "shop", "-o", "json"], "");
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let all = json!({"cpu": "1", "memory": "1Gi"});
    let own = json!({"containers": [{"name": "a", "image": "a:1", "resources": {"requests": all, "limits": all}}]});
    let annotations = json!({"tulle.io/proxy-cpu-request": "1", "tulle.io/proxy-cpu-limit": "1",
        "tulle.io/proxy-memory-request": "512Mi", "tulle.io/proxy-memory-limit": "512Mi"});
    let pod = made("guaranteed", annotations, own);
    assert_eq!(pod["status"]["qosClass"], "Guaranteed", "{pod}");
    // A request alone is taken, and the API server accepts the pod.
    made(
        "request",
        json!({"tulle.io/proxy-memory-request": "512Mi"}),
        json!({"containers": [{"name": "a", "image": "a:1"}]}),
    );
    // Resources of the whole pod are those of the proxy too.
    let spec = json!({"resources": {"requests": all, "limits": all}, "containers": [{"name": "a", "image": "a:1", "resources": {"requests": all}}]});
    assert_eq!(made("whole", json!({}), spec)["status"]["qosClass"], "Guaranteed");
}
