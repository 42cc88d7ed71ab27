//! HTTP on the wire. The types of the crates underneath (`httparse`) stay in here.

/// Buffers held only while bytes are in flight.
pub(crate) mod buffer;

/// Message heads of either version, and the fields a proxy must not pass on.
pub(crate) mod head;

/// What each header field means to a proxy.
pub(crate) mod fields;

/// Message bodies of either version, as streams.
pub(crate) mod body;

/// The way back to a downstream of either version.
pub(crate) mod reply;

/// HTTP/1.1: our own strict codec.
pub(crate) mod h1;

/// HTTP/2: our own engine.
pub(crate) mod h2;

/// What the fuzz targets run of it.
#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
