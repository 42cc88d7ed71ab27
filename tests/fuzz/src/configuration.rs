//! Resources that a proxy compiles, and manifests that a control plane makes them of.

use std::sync::{Arc, OnceLock};

use tulle_control_plane::fuzz::mesh;
use tulle_control_plane::model::Locality;
use tulle_control_plane::registry::Mesh;
use tulle_control_plane::translate::{ClientKind, Resource, Scope, Translator};
use tulle_control_plane::validate;
use tulle_identity::spiffe::TrustDomain;
use tulle_proto::{Any, ResourceType, names};
use tulle_proxy::config::compile::Store;

use crate::seeds;

const DOMAIN: &str = "cluster.local";

/// Services and workloads of a mesh that are asked about.
const MOST: usize = 4;

/// A resource, its type by the first byte, among good ones: taken or refused, and when refused all stays as it was;
/// taken a second time it changes nothing.
pub fn compile(bytes: &[u8]) {
    let Some((kind, body)) = bytes.split_first() else { return };
    let Some(kind) = ResourceType::ALL.get(usize::from(*kind) % ResourceType::ALL.len()) else { return };
    let mut store = Store::new();
    for (kind, resource) in good() {
        let taken = store.accept(*kind, &resource.name, &resource.body);
        assert!(taken.is_ok(), "{taken:?}");
    }
    let before = store.snapshot(std::iter::empty());
    assert!(before.is_some(), "good resources make a snapshot");
    let body = Any { type_url: kind.url().to_owned(), value: body.to_vec().into() };
    let name = if *kind == ResourceType::Secret { names::TRUST_BUNDLE } else { seeds::SERVICE };
    match store.accept(*kind, &name.into(), &body) {
        Ok(()) => {
            let _ = store.snapshot(std::iter::empty());
            let again = store.accept(*kind, &name.into(), &body);
            assert!(again.is_ok(), "{again:?} at the second time");
        }
        Err(rejected) => {
            assert!(!rejected.to_string().is_empty(), "a reason");
            let after = store.snapshot(std::iter::empty());
            assert!(after.is_none(), "a refused resource changed something: {rejected}");
        }
    }
}

/// Resources of one service.
fn good() -> &'static [(ResourceType, Resource)] {
    static GOOD: OnceLock<Vec<(ResourceType, Resource)>> = OnceLock::new();
    GOOD.get_or_init(|| {
        let mesh = mesh(seeds::MANIFESTS);
        let named = ResourceType::ALL.into_iter().map(|kind| (kind, seeds::SERVICE));
        named.filter_map(|(kind, name)| Some((kind, ask(&mesh, kind, name)?))).collect()
    })
}

/// What a proxy is told about `name`.
pub(crate) fn ask(mesh: &Mesh, kind: ResourceType, name: &str) -> Option<Resource> {
    translator().resource(mesh, &scope(ClientKind::Tulle), kind, name)
}

fn translator() -> &'static Translator {
    static TRANSLATOR: OnceLock<Translator> = OnceLock::new();
    TRANSLATOR.get_or_init(new_translator)
}

fn new_translator() -> Translator {
    Translator::new(DOMAIN, TrustDomain::parse(DOMAIN).expect("a trust domain"))
}

fn scope(client: ClientKind) -> Scope {
    let (namespace, workload) = ("shop".into(), "web".into());
    Scope { client, namespace, workload, locality: Locality::new("eu", "a"), outbound_address: None }
}

/// Manifests: whatever of them is taken makes resources that a proxy takes, for every kind of client without a crash.
pub fn manifests(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mesh = mesh(text);
    for problem in validate::object(text) {
        assert!(!problem.to_string().is_empty(), "a reason");
    }
    // A translator of its own: what the cache of another one holds is of other manifests.
    let translator = new_translator();
    for client in [ClientKind::Grpc, ClientKind::Envoy] {
        for kind in ResourceType::ALL {
            let _ = translator.all(&mesh, &scope(client), kind);
        }
    }
    let mut store = Store::new();
    for kind in ResourceType::ALL {
        for resource in translator.all(&mesh, &scope(ClientKind::Tulle), kind).into_iter().take(MOST) {
            accepted(&mut store, kind, &resource);
        }
    }
    for workload in mesh.workloads().take(MOST) {
        let key = &workload.workload.key;
        let name = names::inbound_listener(&key.namespace, &key.name);
        if let Some(resource) = translator.resource(&mesh, &scope(ClientKind::Tulle), ResourceType::Listener, &name) {
            accepted(&mut store, ResourceType::Listener, &resource);
        }
    }
    let _ = store.snapshot(std::iter::empty());
}

fn accepted(store: &mut Store, kind: ResourceType, resource: &Resource) {
    let name: &Arc<str> = &resource.name;
    let taken = store.accept(kind, name, &resource.body);
    assert!(taken.is_ok(), "what the control plane says is refused: {taken:?}");
}
