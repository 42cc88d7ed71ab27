//! HTTP/2 (RFC 9113): our own engine. One task moves a connection's bytes, streams share its state; all of it on one
//! thread, so that nothing is locked and what many streams write goes out together.

/// Requests off a server connection, replies back.
pub(crate) mod server;

/// Requests onto a client connection.
pub(crate) mod client;

/// Heads as received.
pub(crate) mod head;

/// Heads as sent.
mod write;

/// Bodies of streams.
mod body;

/// Moves the bytes of a connection.
mod drive;

/// The state of a connection, without its socket.
mod engine;

/// Frames into it: those of streams.
mod receive;

/// Those of the connection.
mod manage;

/// What peers may do only so often.
mod bucket;

/// Frames out of it.
mod send;

/// The state of a stream, and the table of them.
mod stream;

/// How streams and connections end.
mod error;

/// Compressed heads.
pub(crate) mod hpack;

/// Frames.
mod frame;

/// The state of connections, played with values.
#[cfg(test)]
mod tests;

/// What the fuzz targets run of it.
#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;

pub(crate) use self::body::{BodyReader, BodyWriter};
pub(crate) use self::error::{Fault, H2Error, ResetCode};
