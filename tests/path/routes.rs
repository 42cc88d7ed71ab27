//! Routes of the Gateway API from manifest to wire: the control plane's translation, carried out by a real proxy in front
//! of applications, over HTTP/1 and HTTP/2.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tulle_control_plane::model::{Delta, Locality, Problem};
use tulle_control_plane::registry::Registry;
use tulle_control_plane::source::file;
use tulle_control_plane::translate::{ClientKind, Scope, Translator};
use tulle_identity::spiffe::TrustDomain;
use tulle_proto::ResourceType;
use tulle_testing::client::http2::request as http2_request;
use tulle_testing::client::{Http2Client, Raw, raw};
use tulle_testing::control::{Control, Service};
use tulle_testing::sidecar::Sidecar;
use tulle_testing::upstream::{Reply, Upstream};

use crate::http2::publish_http1_only;
use crate::mesh;

/// The services of every test of routes, and the route of one.
pub(crate) fn manifests(kind: &str, rules: &str) -> String {
    let protocol = kind.trim_end_matches("Route").to_lowercase();
    let service = |name: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{ports: [{{name: {protocol}, port: 80}}]}}\n---\n"
        )
    };
    let services: String = ["web", "one", "two"].map(service).concat();
    format!(
        "{services}apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: r, namespace: shop}}\n\
         spec:\n  parentRefs: [{{group: '', kind: Service, name: web}}]\n  rules:\n{rules}"
    )
}

/// The resource that says where requests to `web` go, as the control plane makes it for the client `web` of `shop`.
pub(crate) async fn translated(manifests: &str) -> tulle_proto::Any {
    let (routes, problems) = translated_with_problems(manifests).await;
    assert!(problems.is_empty(), "{problems:?}");
    routes
}

/// The same of manifests with faults, and what is said of these.
async fn translated_with_problems(manifests: &str) -> (tulle_proto::Any, Vec<Problem>) {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("mesh.yaml"), manifests).expect("a file");
    let (items, problems) = file::read(directory.path());
    let (registry, inputs) = Registry::start(1, None);
    let mut meshes = registry.subscribe();
    inputs[0].send(vec![Delta::Reset(items)]).await.expect("the registry runs");
    let mesh = Arc::clone(&*meshes.wait_for(|mesh| mesh.version > 0).await.expect("the registry runs"));
    let translator = Translator::new("cluster.local", TrustDomain::parse("cluster.local").expect("a domain"));
    let scope = Scope {
        client: ClientKind::Tulle,
        namespace: "shop".into(),
        workload: "web".into(),
        locality: Locality::default(),
        outbound_address: None,
    };
    let routes = translator.resource(&mesh, &scope, ResourceType::Route, &mesh::name("web")).expect("routes").body;
    (routes, problems)
}

/// A proxy whose requests to `web` are routed so, and the applications `one` and `two`, which say who they are.
struct Routed {
    control: Control,
    proxy: Sidecar,
    one: Upstream,
    _two: Upstream,
}

impl Routed {
    async fn start(rules: &str) -> Self {
        Self::with(translated(&manifests("HTTPRoute", rules)).await).await
    }

    async fn with(routes: tulle_proto::Any) -> Self {
        let application = |name: &'static str| {
            Upstream::http1(move |request| match request.path() {
                "/slow" => Reply::never(),
                _ => Reply::status(200, &[("x-app", name), ("x-less", "1"), ("x-more", "1")], name),
            })
        };
        let (one, two) = (application("one").await, application("two").await);
        let control = mesh::control().await;
        let web = Service::http(&mesh::name("web")).endpoint(&one.addr().to_string(), None);
        control.publish(&web);
        for (name, app) in [("one", &one), ("two", &two)] {
            publish_http1_only(&control, &Service::http(&mesh::name(name)).endpoint(&app.addr().to_string(), None));
        }
        control.set_any(ResourceType::Route, web.name(), routes);
        let proxy = mesh::client(&control, &["web"]).await;
        Self { control, proxy, one, _two: two }
    }

    /// Asks over both versions, and what came: status, application or location.
    async fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> [(u16, String); 2] {
        let address = self.proxy.outbound(&mesh::name("web"));
        let mut old = Raw::connect(address).await;
        old.send(raw::request(method, target, "web.shop", headers, b"")).await;
        let reply = old.response_to(method).await;
        let who = |app: Option<&str>, location: Option<&str>| location.or(app).unwrap_or_default().to_owned();
        let first = (reply.status, who(reply.header("x-app"), reply.header("location")));
        let new = Http2Client::connect(address).await;
        let reply =
            new.exchange(http2_request(method, "web.shop", target, headers), "", None).await.expect("an answer");
        assert!(self.control.refused().is_empty(), "{:?}", self.control.refused());
        [first, (reply.status, who(reply.header("x-app"), reply.header("location")))]
    }

    async fn expect(&self, method: &str, target: &str, headers: &[(&str, &str)], status: u16, who: &str) {
        for answer in self.ask(method, target, headers).await {
            assert_eq!(answer, (status, who.to_owned()), "{method} {target} {headers:?}");
        }
    }
}

#[tokio::test]
async fn who_answers() {
    let mesh = Routed::start(
        "
  - matches: [{path: {value: /two}}, {headers: [{name: X-Version, value: '2'}]}, {queryParams: [{name: v, value: '2'}]}]
    backendRefs: [{name: two, port: 80}]
  - matches: [{path: {type: Exact, value: /two/one}}, {path: {value: /two/three/one}}]
    backendRefs: [{name: one, port: 80}]
  - matches: [{path: {type: RegularExpression, value: '/item/[0-9]+'}}, {method: DELETE}]
    backendRefs: [{name: two, port: 80}]
  - matches: [{path: {value: /one}}]
    backendRefs: [{name: one, port: 80}]
  - matches: [{path: {value: /nobody}}]
    backendRefs: [{name: nobody, port: 80}]
",
    )
    .await;
    for (method, target, headers, status, who) in [
        ("GET", "/two", &[][..], 200, "two"),
        ("GET", "/two/x?y", &[], 200, "two"),
        ("GET", "/two/one", &[], 200, "one"),
        ("GET", "/two/one/more", &[], 200, "two"),
        ("GET", "/two/three/one", &[], 200, "one"),
        ("GET", "/twofold", &[], 404, ""),
        ("GET", "/one", &[], 200, "one"),
        // The longer prefix comes first, whatever the header says.
        ("GET", "/one", &[("x-version", "2")], 200, "one"),
        ("GET", "/", &[("x-version", "2")], 200, "two"),
        ("GET", "/", &[("x-version", "3")], 404, ""),
        ("GET", "/?a=b&v=2", &[], 200, "two"),
        ("GET", "/item/12", &[], 200, "two"),
        ("GET", "/item/12/x", &[], 404, ""),
        ("DELETE", "/", &[], 200, "two"),
        ("GET", "/nobody", &[], 500, ""),
    ] {
        mesh.expect(method, target, headers, status, who).await;
    }
}

#[tokio::test]
async fn requests_are_shared_by_weight() {
    let mesh = Routed::start(
        "  - backendRefs: [{name: one, port: 80, weight: 3}, {name: two, port: 80, weight: 1}, {name: nobody, port: 80}]\n",
    )
    .await;
    let mut client = Raw::connect(mesh.proxy.outbound(&mesh::name("web"))).await;
    let mut counts: BTreeMap<(u16, String), u32> = BTreeMap::new();
    for _ in 0..1_000 {
        let reply = client.exchange("GET", "/", "web.shop").await;
        *counts.entry((reply.status, reply.header("x-app").unwrap_or_default().to_owned())).or_default() += 1;
    }
    // Six standard deviations and more.
    for (answer, share) in [((200, "one"), 600), ((200, "two"), 200), ((500, ""), 200)] {
        let count = counts.get(&(answer.0, answer.1.to_owned())).copied().unwrap_or(0);
        assert!((share - 100..=share + 100).contains(&count), "{counts:?}");
    }
}

#[tokio::test]
async fn what_changes_on_the_way() {
    let mesh = Routed::start(
        "
  - matches: [{path: {value: /api}}]
    filters:
      - type: RequestHeaderModifier
        requestHeaderModifier:
          {set: [{name: X-Set, value: '50%'}], add: [{name: x-add, value: b}], remove: [X-Gone, cookie]}
      - type: ResponseHeaderModifier
        responseHeaderModifier:
          {set: [{name: x-more, value: '2'}], add: [{name: x-new, value: n}], remove: [X-Less]}
      - {type: URLRewrite, urlRewrite: {hostname: one.example.com, path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}
    backendRefs: [{name: one, port: 80}]
  - matches: [{path: {value: /full}}]
    filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /x}}}]
    backendRefs: [{name: one, port: 80}]
",
    )
    .await;
    let sent = [("x-set", "old"), ("x-add", "a"), ("x-gone", "1"), ("cookie", "a=b"), ("x-kept", "1")];
    mesh.expect("GET", "/api/v1?q=/api", &sent, 200, "one").await;
    mesh.expect("GET", "/api", &[], 200, "one").await;
    mesh.expect("GET", "/full/path?q", &[], 200, "one").await;
    // HTTP/1, then HTTP/2, for each.
    let paths: Vec<_> = mesh.one.requests().iter().map(|request| request.path().to_owned()).collect();
    assert_eq!(paths, ["/v1?q=/api", "/v1?q=/api", "/", "/", "/x?q", "/x?q"]);
    for index in [0, 1] {
        let seen = mesh.one.request(index).await;
        let all = |name: &str| {
            let fields = seen.headers().iter().filter(|(field, _)| field.eq_ignore_ascii_case(name));
            fields.map(|(_, value)| value.clone()).collect::<Vec<_>>()
        };
        assert_eq!(all("host"), ["one.example.com"]);
        assert_eq!(
            (all("x-set"), all("x-add"), all("x-kept")),
            (vec!["50%".into()], vec!["a".into(), "b".into()], vec!["1".into()])
        );
        assert!(all("x-gone").is_empty() && all("cookie").is_empty(), "{seen:?}");
    }
    let address = mesh.proxy.outbound(&mesh::name("web"));
    let reply = raw::get(address, "/api", "web.shop").await;
    assert_eq!((reply.header("x-more"), reply.header("x-new"), reply.header("x-less")), (Some("2"), Some("n"), None));
    let reply = Http2Client::connect(address).await.get("web.shop", "/api").await.expect("an answer");
    assert_eq!((reply.header("x-more"), reply.header("x-new"), reply.header("x-less")), (Some("2"), Some("n"), None));
}

#[tokio::test]
async fn clients_are_sent_elsewhere() {
    let mesh = Routed::start(
        "
  - matches: [{path: {value: /https}}]
    filters: [{type: RequestRedirect, requestRedirect: {scheme: https, statusCode: 301}}]
  - matches: [{path: {value: /old}}]
    filters:
      - type: RequestRedirect
        requestRedirect: {hostname: new.example.com, port: 8080, path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}
",
    )
    .await;
    mesh.expect("GET", "/https/a?b=c", &[], 301, "https://web.shop/https/a?b=c").await;
    mesh.expect("GET", "/old/a?b=c", &[], 302, "http://new.example.com:8080/new/a?b=c").await;
    mesh.expect("GET", "/", &[], 404, "").await;
    assert!(mesh.one.requests().is_empty());
}

#[tokio::test]
async fn a_route_limits_the_time_of_a_request() {
    let mesh = Routed::start(
        "
  - timeouts: {request: 200ms}
    backendRefs: [{name: one, port: 80}]
",
    )
    .await;
    let answers = tokio::time::timeout(Duration::from_secs(60), mesh.ask("GET", "/slow", &[])).await;
    assert_eq!(answers.expect("an answer in time").map(|(status, _)| status), [504, 504]);
    mesh.expect("GET", "/", &[], 200, "one").await;
}

#[tokio::test]
async fn mend_17_a_rule_that_is_not_carried_out_is_answered_with_500_and_the_others_work() {
    let rules = "
  - {matches: [{path: {value: /ext}}], filters: [{type: ExtensionRef, extensionRef: {group: a.b, kind: C, name: d}}], \
     backendRefs: [{name: one, port: 80}]}
  - {matches: [{path: {value: /blocked}}], backendRefs: [{name: missing, port: 80}]}
  - {matches: [{path: {type: RegularExpression, value: '/admin/('}}], backendRefs: [{name: one, port: 80}]}
  - {matches: [{path: {value: /late}}], timeouts: {request: soon}, backendRefs: [{name: one, port: 80}]}
  - {backendRefs: [{name: two, port: 80}]}
";
    let (routes, problems) = translated_with_problems(&manifests("HTTPRoute", rules)).await;
    assert_eq!(problems.len(), 3, "{problems:?}");
    let routed = Routed::with(routes).await;
    for path in ["/ext", "/ext/a", "/blocked", "/admin/x", "/late"] {
        routed.expect("GET", path, &[], 500, "").await;
    }
    routed.expect("GET", "/", &[], 200, "two").await;
    routed.expect("GET", "/administration", &[], 200, "two").await;
}

#[tokio::test]
async fn mend_11_a_host_has_one_reader_for_look_up_and_routes() {
    let control = mesh::control().await;
    let app = Upstream::http1(|_| Reply::ok("hello")).await;
    let name = mesh::name("web");
    control.publish(&Service::http(&name).endpoint(&app.addr().to_string(), None));
    let address = "[fd00::12]:8080";
    control.publish(&Service::http(address).endpoint(&app.addr().to_string(), None));
    control.publish(&Service::http("10.96.0.12:80").endpoint(&app.addr().to_string(), None));
    let sidecar = mesh::client(&control, &[]).await;
    for host in [
        "web.shop.svc.cluster.local",
        "web.shop.svc.cluster.local.",
        "web.shop.svc.cluster.local.:80",
        "web.shop.svc.cluster.local:080",
        "web.shop.svc.cluster.local:",
        "web.shop.svc.cluster.local.:",
        "WEB.Shop.svc.Cluster.LOCAL.",
        "web.shop.svc.",
        "web.shop.",
        "web.",
        "web:80",
        "[fd00::12]:8080",
        "[FD00:0:0:0::12]:8080",
        "10.96.0.12",
        "10.96.0.12.:80",
        "[::ffff:10.96.0.12]",
    ] {
        let reply = raw::get(sidecar.outbound_http(), "/", host).await;
        assert_eq!((reply.status, reply.text()), (200, "hello".to_owned()), "{host}: {reply:?}");
    }
    for host in ["web.other.", "web..", "[fd00::13]:8080", "web:81"] {
        let reply = raw::get(sidecar.outbound_http(), "/", host).await;
        assert_eq!(reply.header("tulle-reason"), Some("unknown_destination"), "{host}: {reply:?}");
    }
}
