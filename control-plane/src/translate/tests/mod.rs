//! Golden pairs and rules of translate.
//!
//! A golden input is a directory's worth of manifests; its comments `# ask CLIENT TYPE NAME` say what is asked, CLIENT
//! being `tulle`, `grpc` or `envoy`, with `+NAMESPACE` and `@REGION/ZONE` where they matter, and NAME `*` for everything of the type.
//! `UPDATE_GOLDEN=1` writes the outputs anew; a difference in one is a change of the API.

mod clients;
mod render;
mod touched;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tulle_identity::spiffe::TrustDomain;
use tulle_proto::ResourceType;
use tulle_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;

use super::{ClientKind, Resource, Scope, Translator};
use crate::model::{Delta, Locality};
use crate::registry::{Mesh, Writer};
use crate::source::file;

fn translator() -> Translator {
    Translator::new("cluster.local", TrustDomain::parse("cluster.local").unwrap())
}

/// The mesh of one manifest.
fn mesh(manifest: &str) -> Arc<Mesh> {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("in.yaml"), manifest).unwrap();
    let (items, problems) = file::read(directory.path());
    assert_eq!(problems, [], "golden inputs are right");
    let mut writer = Writer::default();
    writer.apply(0, Delta::Reset(items));
    writer.build().0
}

/// A client written as `tulle+shop@eu/zone-a`.
fn scope(text: &str) -> Scope {
    let (client, locality) = text.split_once('@').unwrap_or((text, "/"));
    let (region, zone) = locality.split_once('/').unwrap();
    let (client, namespace) = client.split_once('+').unwrap_or((client, "shop"));
    let client = match client {
        "tulle" => ClientKind::Tulle,
        "grpc" => ClientKind::Grpc,
        "envoy" => ClientKind::Envoy,
        other => panic!("no such client: {other}"),
    };
    Scope {
        client,
        namespace: namespace.into(),
        workload: "client".into(),
        locality: Locality::new(region, zone),
        outbound_address: None,
    }
}

fn answers(translator: &Translator, mesh: &Mesh, ask: &str) -> Vec<Resource> {
    let words: Vec<_> = ask.split_whitespace().collect();
    let [client, ty, name] = words[..] else { panic!("not a question: {ask}") };
    let ty = ResourceType::ALL.into_iter().find(|t| t.short() == ty).expect("a type: cds, eds, lds, rds, names");
    match name {
        "*" => translator.all(mesh, &scope(client), ty),
        name => translator.resource(mesh, &scope(client), ty, name).into_iter().collect(),
    }
}

fn golden(input: &Path) -> String {
    let text = fs::read_to_string(input).unwrap();
    let (mesh, translator) = (mesh(&text), translator());
    let mut out = String::new();
    for ask in text.lines().filter_map(|line| line.strip_prefix("# ask ")) {
        out.push_str(&format!("# {ask}\n"));
        let answers = answers(&translator, &mesh, ask);
        if answers.is_empty() {
            out.push_str("# there is none\n");
        }
        for resource in answers {
            out.push_str(&format!("---\nresource: {:?}\n{}", &*resource.name, render::body(&resource.body)));
        }
        out.push_str("---\n");
    }
    out
}

#[test]
fn golden_pairs() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/translate");
    let inputs: Vec<PathBuf> = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(".in.yaml"))
        .collect();
    assert!(!inputs.is_empty(), "no inputs in {}", directory.display());
    #[expect(clippy::disallowed_methods, reason = "a switch for the person who runs the test")]
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    for input in inputs {
        let output = PathBuf::from(input.to_string_lossy().replace(".in.yaml", ".out.yaml"));
        let now = golden(&input);
        if update {
            fs::write(&output, &now).unwrap();
        } else if fs::read_to_string(&output).unwrap_or_default() != now {
            let first = fs::read_to_string(&output).unwrap_or_default();
            let line = first.lines().zip(now.lines()).position(|(a, b)| a != b);
            wrong.push(format!("{} differs from line {line:?} on", output.display()));
        }
    }
    assert!(wrong.is_empty(), "{}; run with UPDATE_GOLDEN=1 and review", wrong.join("\n"));
}

const SHOP: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop, annotations: {tulle.io/failover: 'zone,any'}}
spec: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: tulle.io/v1alpha1
kind: Workload
metadata: {name: web-1, namespace: shop, labels: {app: web}}
spec: {addresses: [10.1.0.1], zone: a}
---
apiVersion: tulle.io/v1alpha1
kind: Workload
metadata: {name: web-2, namespace: shop, labels: {app: web}}
spec: {addresses: [10.1.0.2], zone: b}
";

const WEB: &str = "web.shop.svc.cluster.local:80";

#[test]
fn equal_scopes_share_bytes_and_replicas_agree() {
    let (mesh, one, two) = (mesh(SHOP), translator(), translator());
    for ty in [ResourceType::Listener, ResourceType::Route, ResourceType::Cluster, ResourceType::Endpoint] {
        for client in ["tulle@/a", "grpc@/a", "envoy@/a"] {
            let first = one.resource(&mesh, &scope(client), ty, WEB).unwrap();
            let again = one.resource(&mesh, &scope(client), ty, WEB).unwrap();
            assert_eq!(first.body.value.as_ptr(), again.body.value.as_ptr(), "{client} {ty}");
            assert_eq!(first.version, two.resource(&mesh, &scope(client), ty, WEB).unwrap().version, "{client} {ty}");
            assert_eq!(first.body.type_url, ty.url());
        }
    }
}

#[test]
fn only_distance_tells_localities_apart() {
    let (mesh, translator) = (mesh(SHOP), translator());
    let of = |client: &str, ty| translator.resource(&mesh, &scope(client), ty, WEB).unwrap();
    let eds = |client: &str| of(client, ResourceType::Endpoint).body.unpack::<ClusterLoadAssignment>().unwrap();
    let priorities = |client: &str| {
        let mut found: Vec<_> =
            eds(client).endpoints.iter().map(|g| (g.locality.clone().unwrap().zone, g.priority)).collect();
        found.sort();
        found
    };
    assert_eq!(priorities("tulle@/a"), [("a".to_owned(), 0), ("b".to_owned(), 1)]);
    assert_eq!(priorities("tulle@/b"), [("a".to_owned(), 1), ("b".to_owned(), 0)]);
    // Nobody is in this zone: priorities start at 0 all the same.
    assert_eq!(priorities("tulle@/c"), [("a".to_owned(), 0), ("b".to_owned(), 0)]);
    assert_eq!(priorities("tulle"), [("a".to_owned(), 0), ("b".to_owned(), 0)]);
    assert_eq!(of("tulle@/a", ResourceType::Cluster).version, of("tulle@/b", ResourceType::Cluster).version);
    assert_ne!(of("tulle@/a", ResourceType::Endpoint).version, of("tulle@/b", ResourceType::Endpoint).version);
}

#[test]
fn names_that_are_not_exactly_right_are_nothing() {
    let (mesh, translator) = (mesh(SHOP), translator());
    for name in [
        "web.shop.svc.cluster.local:81",
        "web.shop.svc.other.domain:80",
        "web.shop.svc.cluster.local",
        "web.shop:80",
        "web.shop.svc.cluster.local:080",
        "10.96.0.1:81",
        "10.96.0.9:80",
        "pod/10.96.0.1:80",
        "inbound/shop/nobody",
        "inbound/shop",
        "outbound",
        "*",
        "",
        ":",
        "pod/",
    ] {
        let found = translator.resource(&mesh, &scope("tulle"), ResourceType::Listener, name);
        assert_eq!(found.map(|r| r.name), None, "{name}");
    }
    let by_address = translator.resource(&mesh, &scope("tulle"), ResourceType::Cluster, "10.96.0.1:80");
    assert_eq!(by_address, None, "only listeners are asked for by address");
}
