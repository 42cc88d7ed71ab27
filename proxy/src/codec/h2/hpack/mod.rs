//! Header compression (RFC 7541): fields out of blocks, and into them.

/// The code of compressed strings.
mod huffman;

/// Blocks as received.
pub(crate) mod decode;

/// Blocks as sent.
pub(crate) mod encode;

/// The table of fields that both ends know from the beginning, and what a name means.
pub(crate) mod names;

/// Overhead that is counted for each field (section 4.1).
pub(super) const OVERHEAD: usize = 32;
/// Size of a table of seen fields, unless its owner says otherwise (RFC 9113 section 6.5.2).
const TABLE: usize = 4096;
