//! Other people's clients against the real control plane: what it says is understood by more than our own proxy.
//! Needs Envoy and gRPC's Python library, see `tulle_testing::foreign`. One file per client.

/// A control plane in this process, with the service `greeter.demo`.
mod mesh;

/// gRPC without a proxy.
mod grpc;

/// Envoy, by both protocol variants.
mod envoy;

/// Envoy in the mesh.
mod mutual;
