//! Inputs to start from that follow from what is in the repository: golden inputs, resources, a ClientHello.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tulle_control_plane::fuzz::mesh;
use tulle_proto::ResourceType;

use crate::configuration::ask;

/// A service of [`MANIFESTS`].
pub const SERVICE: &str = "reviews.shop.svc.cluster.local:80";

/// A workload and the service it is of.
pub const MANIFESTS: &str = "
apiVersion: v1
kind: Service
metadata:
  {name: reviews, namespace: shop, annotations: {tulle.io/retry-on: '5xx', tulle.io/timeout: 5s, tulle.io/outlier: consecutive-5xx=5}}
spec: {clusterIP: 10.96.0.12, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: tulle.io/v1alpha1
kind: Workload
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {addresses: [10.0.0.1], serviceAccount: web, ports: [{name: http, port: 8080}]}
";

/// Inputs for the target called `name`.
///
/// # Errors
/// When golden inputs cannot be read.
pub fn of(name: &str) -> std::io::Result<Vec<Vec<u8>>> {
    Ok(match name {
        "compile" => resources().map(|(kind, _, body)| [&[kind][..], &body].concat()).collect(),
        "session" => sessions(),
        "manifests" => golden("control-plane/testdata/translate")?,
        "inject" => [golden("injector/testdata/patch")?, golden("injector/testdata/manifests")?].concat(),
        "admission" => golden("injector/testdata/patch")?.iter().filter_map(|yaml| json(yaml)).collect(),
        "client_hello" => hello().into_iter().collect(),
        _ => Vec::new(),
    })
}

/// Resources: type, name of the session's list, body.
fn resources() -> impl Iterator<Item = (u8, u8, Vec<u8>)> {
    let mesh = mesh(MANIFESTS);
    let names = (0..).zip(["inbound/shop/web", SERVICE, "10.96.0.12:80"]);
    let asked = names.flat_map(|(name, text)| (0..).zip(ResourceType::ALL).map(move |kind| (name, text, kind)));
    asked.filter_map(move |(name, text, (number, kind))| {
        Some((number, name, ask(&mesh, kind, text)?.body.value.to_vec()))
    })
}

/// A session with all of them, and one with each by itself.
fn sessions() -> Vec<Vec<u8>> {
    let step = |(kind, name, body): (u8, u8, Vec<u8>)| {
        let [.., high, low] = body.len().to_be_bytes();
        [&[kind * 4 + name, high, low], &body[..]].concat()
    };
    let steps: Vec<_> = resources().map(step).collect();
    let demands = [[61, 0, 0], [62, 0, 0]].concat();
    let whole = [demands, steps.concat(), [80, 0, 0, 200, 0, 0, 25, 0, 0, 37, 0, 0].to_vec()].concat();
    steps.into_iter().chain([whole]).collect()
}

fn golden(folder: &str) -> std::io::Result<Vec<Vec<u8>>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(folder);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)?.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.to_string_lossy().ends_with(".in.yaml"));
    files.sort();
    files.iter().map(std::fs::read).collect()
}

fn json(yaml: &[u8]) -> Option<Vec<u8>> {
    let value: serde_json::Value = serde_saphyr::from_slice(yaml).ok()?;
    Some(value.to_string().into_bytes())
}

/// The first message of a mesh peer, without its record.
fn hello() -> Option<Vec<u8>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .ok()?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"istio-h2".to_vec(), b"h2".to_vec()];
    let name = ServerName::try_from("reviews.shop.svc").ok()?;
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).ok()?;
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).ok()?;
    // The record's head makes room for the size of fragments.
    bytes.drain(1..5);
    Some(bytes)
}
