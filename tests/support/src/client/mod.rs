//! Clients: raw bytes for what no well-behaved client would send, and simple HTTP/1 and HTTP/2 ones for the rest.

pub mod raw;

pub mod http2;

pub mod frames;

pub use frames::Frames;
pub use http2::{Http2Client, Http2Response};
pub use raw::{Raw, Response};
