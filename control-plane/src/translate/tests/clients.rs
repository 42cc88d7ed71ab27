//! What each kind of client gets of the same endpoints.

use tulle_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;

use super::{answers, mesh, translator};

/// A service whose endpoints have these conditions, one to a slice.
fn slices(conditions: &[(&str, &str)]) -> String {
    let slice = |(index, (address, conditions)): (usize, &(&str, &str))| {
        format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: web-{index}, namespace: shop, labels: {{kubernetes.io/service-name: web}}}}\n\
             addressType: IPv4\nports: [{{name: http, port: 8080}}]\n\
             endpoints: [{{addresses: [{address}], conditions: {conditions}}}]\n"
        )
    };
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\n\
                   spec: {clusterIP: 10.96.0.9, ports: [{name: http, port: 80}]}\n";
    service.to_owned() + &conditions.iter().enumerate().map(slice).collect::<String>()
}

/// Health of the endpoints of `web`, by Envoy's numbers: 1 healthy, 2 unhealthy, 3 draining.
fn health_for(client: &str, conditions: &[(&str, &str)]) -> Vec<i32> {
    let mesh = mesh(&slices(conditions));
    let found = answers(&translator(), &mesh, &format!("{client} eds web.shop.svc.cluster.local:80"));
    let assignment: ClusterLoadAssignment = found[0].body.unpack().unwrap();
    assignment.endpoints.iter().flat_map(|group| &group.lb_endpoints).map(|endpoint| endpoint.health_status).collect()
}

#[test]
fn mend_18_each_kind_of_client_gets_the_endpoints_it_can_use() {
    const READY: &str = "{ready: true}";
    const UNREADY: &str = "{ready: false}";
    const DRAINING: &str = "{ready: false, serving: true, terminating: true}";
    let of = |conditions: [&'static str; 3]| {
        let endpoints: Vec<_> = ["10.1.0.1", "10.1.0.2", "10.1.0.3"].into_iter().zip(conditions).collect();
        ["tulle", "envoy", "grpc"].map(|client| health_for(client, &endpoints))
    };
    assert_eq!(of([READY, UNREADY, DRAINING]), [vec![1, 2, 3], vec![1, 2, 3], vec![1]]);
    assert_eq!(of([UNREADY, UNREADY, DRAINING]), [vec![2, 2, 3], vec![2, 2, 1], vec![1]]);
    assert_eq!(of([UNREADY, UNREADY, UNREADY]), [vec![2, 2, 2], vec![2, 2, 2], vec![]]);
}

#[test]
fn mend_19_an_address_in_two_slices_serves_when_one_says_so() {
    let (ready, unready, draining) = ("{ready: true}", "{ready: false}", "{terminating: true}");
    for (first, second, health) in
        [(unready, ready, 1), (ready, unready, 1), (draining, ready, 1), (unready, draining, 3), (unready, unready, 2)]
    {
        assert_eq!(health_for("tulle", &[("10.1.0.1", first), ("10.1.0.1", second)]), [health], "{first} {second}");
    }
}
