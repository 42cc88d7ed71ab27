//! What a mesh says it touched is all that changed for anybody: a stream that is not told does not look.

use std::collections::BTreeMap;

use tulle_proto::ResourceType;

use super::{scope, translator};
use crate::model::Delta;
use crate::registry::{Changes, Topic, Writer};
use crate::source::file;

/// The objects there may be, and how each may be written.
const OBJECTS: [&[&str]; 8] = [
    &[
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}",
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, annotations: {tulle.io/mtls: strict}}",
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, annotations: {tulle.io/protocol: tcp}}",
    ],
    &[
        "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\n\
         spec: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}",
        "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop, annotations: {tulle.io/timeout: 3s}}\n\
         spec: {clusterIP: 10.96.0.2, selector: {app: web}, ports: [{name: grpc, port: 80, targetPort: 8080}]}",
        "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\n\
         spec: {selector: {app: api}, ports: [{port: 80, targetPort: 9090}, {name: http, port: 81, targetPort: 8080}]}",
    ],
    &[
        "apiVersion: v1\nkind: Service\nmetadata: {name: api, namespace: shop}\n\
         spec: {clusterIP: 10.96.0.2, ports: [{name: http, port: 80, targetPort: 8080}]}",
        "apiVersion: v1\nkind: Service\nmetadata: {name: api, namespace: shop}\n\
         spec: {clusterIP: 10.1.0.1, selector: {app: api}, ports: [{name: tcp, port: 81, targetPort: 8080}]}",
    ],
    &[
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
         metadata: {name: api-1, namespace: shop, labels: {kubernetes.io/service-name: api}}\n\
         endpoints: [{addresses: [10.1.0.1]}]\nports: [{name: http, port: 8080}]",
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
         metadata: {name: api-1, namespace: shop, labels: {kubernetes.io/service-name: web}}\n\
         endpoints: [{addresses: [10.1.0.2]}, {addresses: [10.1.0.3]}]\nports: [{name: http, port: 8080}]",
    ],
    &[
        "apiVersion: tulle.io/v1alpha1\nkind: Workload\nmetadata: {name: one, namespace: shop, labels: {app: web}}\n\
         spec: {addresses: [10.1.0.1], workload: web}",
        "apiVersion: tulle.io/v1alpha1\nkind: Workload\nmetadata: {name: one, namespace: shop, labels: {app: api}}\n\
         spec: {addresses: [10.1.0.1], workload: api, weight: 3, serviceAccount: api}",
        "apiVersion: tulle.io/v1alpha1\nkind: Workload\nmetadata: {name: one, namespace: shop, labels: {app: web}}\n\
         spec: {addresses: [10.1.0.2], workload: web, health: draining}",
    ],
    &[
        "apiVersion: tulle.io/v1alpha1\nkind: Workload\nmetadata: {name: two, namespace: shop, labels: {app: web}}\n\
         spec: {addresses: [10.1.0.3], workload: web, meshed: false, ports: [{name: http, port: 8080, protocol: http2}]}",
        "apiVersion: tulle.io/v1alpha1\nkind: Workload\nmetadata: {name: two, namespace: shop, labels: {app: api}}\n\
         spec: {addresses: [10.1.0.3], workload: web, zone: b}",
    ],
    &[
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: one, namespace: shop}\n\
         spec: {parentRefs: [{group: '', kind: Service, name: web}], rules: [{backendRefs: [{name: api, port: 80}]}]}",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: one, namespace: shop}\n\
         spec: {parentRefs: [{group: '', kind: Service, name: api}], rules: [{backendRefs: [{name: web, port: 81}]}]}",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: one, namespace: apart}\n\
         spec: {parentRefs: [{group: '', kind: Service, name: web, namespace: shop, port: 80}],\n\
         rules: [{backendRefs: [{name: api, namespace: shop, port: 80}]}]}",
    ],
    &[
        "apiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\nmetadata: {name: one, namespace: shop}\n\
         spec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: apart}],\n\
         to: [{group: '', kind: Service}]}",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {name: two, namespace: shop}\n\
         spec: {parentRefs: [{group: '', kind: Service, name: web}], rules: [{backendRefs: [{name: api, port: 81}]}]}",
    ],
];

const STEPS: usize = 400;

fn names() -> Vec<String> {
    let mut names = vec!["*".to_owned(), "outbound".to_owned()];
    for owner in ["web", "api"] {
        names.push(format!("inbound/shop/{owner}"));
        names.extend([80, 81].map(|port| format!("{owner}.shop.svc.cluster.local:{port}")));
        names.push(format!("{owner}.shop.svc.cluster.local"));
    }
    for address in ["10.96.0.1", "10.96.0.2", "10.1.0.1", "10.1.0.2", "10.1.0.3"] {
        names.extend([80, 81].map(|port| format!("{address}:{port}")));
        names.extend([format!("{address}:8080"), format!("pod/{address}:8080"), format!("pod/{address}:9090")]);
    }
    names
}

#[test]
fn whatever_changes_is_among_what_was_touched() {
    let (mut writer, translator) = (Writer::default(), translator());
    let mut seen: BTreeMap<(String, ResourceType, &str), Option<String>> = BTreeMap::new();
    let mut dice = 1_u64;
    let mut roll = |sides: usize| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(dice >> 33).unwrap() % sides
    };
    let mut there: [usize; OBJECTS.len()] = [0; OBJECTS.len()];
    let mut moved = 0;
    for step in 0..STEPS {
        let at = roll(OBJECTS.len());
        // One beyond the last: it is not there.
        there[at] = roll(OBJECTS[at].len() + 1);
        let directory = tempfile::tempdir().unwrap();
        for (object, variant) in there.iter().enumerate() {
            if let Some(text) = OBJECTS[object].get(*variant) {
                std::fs::write(directory.path().join(format!("{object}.yaml")), text).unwrap();
            }
        }
        writer.apply(0, Delta::Reset(file::read(directory.path()).0));
        let (mesh, changes) = writer.build();
        let touched = |name: &str| match &changes {
            Changes::All => true,
            Changes::Topics(topics) => Topic::of(name) == Topic::ALL || topics.contains(&Topic::of(name)),
        };
        for name in names() {
            for ty in ResourceType::ALL {
                for client in ["tulle@/b", "tulle+apart", "envoy"] {
                    let now = translator.resource(&mesh, &scope(client), ty, &name).map(|r| r.version.to_string());
                    let before = seen.insert((name.clone(), ty, client), now.clone()).flatten();
                    if before != now {
                        moved += 1;
                        assert!(touched(&name), "step {step}: {client} {ty} {name}: {before:?}, {now:?}: {changes:?}");
                    }
                }
            }
        }
    }
    assert!(moved > STEPS, "the steps change much: {moved}");
}
