//! Compiles the .proto files of this crate without a `protoc` binary.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "transport/discovery.proto",
        "transport/csr.proto",
        "tulle/v1/name.proto",
        "tulle/v1/ranges.proto",
        "tulle/v1/state.proto",
    ];
    for dir in ["transport", "tulle"] {
        println!("cargo::rerun-if-changed={dir}");
    }
    let descriptors = protox::compile(files, ["."])?;
    tonic_prost_build::configure()
        .bytes(".")
        .extern_path(".google.protobuf.Any", "crate::Any")
        .extern_path(".google.protobuf.Struct", "::prost_types::Struct")
        .extern_path(".envoy.config.core.v3.Node", "::envoy_types::pb::envoy::config::core::v3::Node")
        .extern_path(".google.rpc.Status", "::envoy_types::pb::google::rpc::Status")
        .compile_fds(descriptors)?;
    Ok(())
}
