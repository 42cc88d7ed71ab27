//! Fuzz targets: functions that take any bytes, as a peer, a tenant or a control plane may send them, and panic when
//! a promise does not hold. `tests/fuzz/run.py` lets libFuzzer look for such bytes; `cargo test` runs the corpus.
#![expect(clippy::missing_panics_doc, reason = "a panic is how a target reports")]

/// Bytes off the wire.
pub mod wire;

/// What the control plane says, and the manifests it says it of.
pub mod configuration;

/// Pods and reviews.
pub mod admission;

/// Names and certificates.
pub mod identity;

/// Inputs to start from that are made rather than kept.
pub mod seeds;

/// A target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: its folder in `corpus/`, its dictionary in `dict/`.
    pub name: &'static str,
    /// Takes any bytes; panics when a promise does not hold.
    pub run: fn(&[u8]),
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "detect", run: wire::detect },
    Target { name: "client_hello", run: wire::client_hello },
    Target { name: "request_head", run: tulle_proxy::fuzz::request_head },
    Target { name: "response_head", run: tulle_proxy::fuzz::response_head },
    Target { name: "chunked_body", run: tulle_proxy::fuzz::chunked_body },
    Target { name: "http2_head", run: tulle_proxy::fuzz::http2_head },
    Target { name: "http2_fields", run: tulle_proxy::fuzz::http2_fields },
    Target { name: "http2_frames", run: tulle_proxy::fuzz::http2_frames },
    Target { name: "http2_replies", run: tulle_proxy::fuzz::http2_replies },
    Target { name: "compile", run: configuration::compile },
    Target { name: "session", run: tulle_proxy::fuzz::session },
    Target { name: "manifests", run: configuration::manifests },
    Target { name: "admission", run: admission::review },
    Target { name: "inject", run: admission::inject },
    Target { name: "spiffe", run: identity::spiffe },
    Target { name: "certificate", run: identity::certificate },
];

/// The target called `name`.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().copied().find(|target| target.name == name)
}
