//! Peers for Tulle's integration tests: servers and clients of the application's side, a scripted control plane, and
//! real processes, all on loopback.
//!
//! Helpers panic with what they saw when the peer does something else: in a test that is the message. Waiting is for a
//! state with a deadline ([`wait`]), never for a time. Servers stop when they are dropped.

#![expect(clippy::missing_panics_doc, clippy::panic, reason = "a helper's panic is the test's failure message")]

pub mod wait;

pub mod ports;

pub mod upstream;

pub mod client;

pub mod certs;

pub mod forge;

pub mod control;

pub mod process;

pub mod sidecar;

pub mod fleet;

pub mod foreign;

pub mod api_server;

pub mod netns;

pub mod bin_path;

pub mod progress;

mod message;

mod stream;
