//! The control plane in process, asked over real connections as proxies, Envoys and gRPC clients ask it.

#![expect(clippy::unwrap_used, clippy::large_futures, reason = "tests: a failure is a panic, and memory is no concern")]

mod ca;
mod identity;
mod start;
mod world;
