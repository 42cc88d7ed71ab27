//! HTTP/1.1, strictly: what is counted as one message here is what the other side counts (security.md 1.1, 1.2).

/// The fields of a head.
pub(crate) mod field_list;

/// Heads as received: lexed by `httparse`, then held to the rules it does not know.
pub(crate) mod parse;

/// What can be read of a head that was refused.
pub(crate) mod outline;

/// The request line: method, target, authority.
mod target;

/// Heads as sent.
pub(crate) mod write;

/// Body framing as received: lengths and chunks.
pub(crate) mod decode;

/// One connection in either role: heads and bodies over a `Duplex`.
pub(crate) mod conn;

/// Tables of request heads.
#[cfg(test)]
mod request_tests;

/// Tables of reply heads.
#[cfg(test)]
mod response_tests;

/// Random heads, read and written.
#[cfg(test)]
mod roundtrip_tests;
