//! Resource names and metadata keys that the control plane writes and the proxy reads.
//!
//! A service port has one name, `name.ns.svc.DOMAIN:port`, for its Listener, RouteConfiguration, Cluster and
//! ClusterLoadAssignment. A Listener may also be asked for by address, `10.96.0.12:80` or `[fd00::12]:80`. What its
//! DNS name stands for is asked for without a port.

/// Name of the one resource of address ranges.
pub const ADDRESS_RANGES: &str = "mesh";

/// Name of the trust bundle secret (SDS).
pub const TRUST_BUNDLE: &str = "ROOTCA";

/// Name of the certificate that an Envoy client holds itself, as a static secret of its bootstrap.
pub const CLIENT_CERTIFICATE: &str = "default";

/// The Listener a proxy receives captured traffic with: this prefix, the namespace, `/`, the workload.
pub const INBOUND_PREFIX: &str = "inbound/";

/// Cluster of the local application, in inbound listeners: this prefix and the port. It needs no resource.
pub const LOCAL_CLUSTER_PREFIX: &str = "local:";

/// In weighted clusters: the share of requests that are answered with 500, because what they should go to is not there
/// or may not be used. No cluster has this name.
pub const NO_CLUSTER: &str = "nowhere";

/// Key of Tulle's `filter_metadata` on endpoints, clusters and in filter chains, and prefix of annotations.
pub const METADATA: &str = "tulle.io";

/// Endpoint metadata: SPIFFE id the peer must present. Absent: the endpoint is not meshed and dialled plain.
pub const META_IDENTITY: &str = "identity";
/// Endpoint metadata: workload name (the owner, not the pod), for telemetry.
pub const META_WORKLOAD: &str = "workload";
/// Cluster metadata: service name. Endpoint metadata: workload's namespace under the next key.
pub const META_SERVICE: &str = "service";
/// Cluster and endpoint metadata: namespace.
pub const META_NAMESPACE: &str = "namespace";

/// ALPN tokens that mark mesh TLS (decision D9), most general last.
pub const ALPN_MESH_H2: &[u8] = b"istio-h2";
/// Mesh TLS carrying HTTP/1.1.
pub const ALPN_MESH_H1: &[u8] = b"istio-http/1.1";
/// Mesh TLS carrying opaque bytes.
pub const ALPN_MESH: &[u8] = b"istio";

/// Namespace in the control plane's own identity, `spiffe://TD/ns/tulle-system/sa/tulle-control-plane`.
pub const CONTROL_PLANE_NAMESPACE: &str = "tulle-system";

/// Service account in the control plane's own identity.
pub const CONTROL_PLANE_ACCOUNT: &str = "tulle-control-plane";

/// Node metadata keys.
pub mod node {
    /// Namespace of the workload.
    pub const NAMESPACE: &str = "NAMESPACE";
    /// Workload name: the owner for telemetry, and the key of the inbound listener.
    pub const WORKLOAD: &str = "WORKLOAD_NAME";
    /// Service account; with namespace and trust domain it is the identity.
    pub const SERVICE_ACCOUNT: &str = "SERVICE_ACCOUNT";
    /// `user_agent_name` of Tulle's own proxy.
    pub const USER_AGENT: &str = "tulle-proxy";
}

/// Name of the inbound listener of `workload` in `namespace`.
pub fn inbound_listener(namespace: &str, workload: &str) -> String {
    format!("{INBOUND_PREFIX}{namespace}/{workload}")
}

/// Name of the local application's cluster for `port`.
pub fn local_cluster(port: u16) -> String {
    format!("{LOCAL_CLUSTER_PREFIX}{port}")
}
