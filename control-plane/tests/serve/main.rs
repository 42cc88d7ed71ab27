//! The control plane in process, asked over real connections as proxies, Envoys and gRPC clients ask it.

#![expect(clippy::unwrap_used, clippy::large_futures, reason = "tests: a failure is a panic, and memory is no concern")]

mod admin;
mod ca;
mod delta;
mod identity;
mod kube;
mod sotw;
mod start;
mod world;
