//! What the fuzz targets of `tests/fuzz` run that is nobody else's business; only there with the feature `fuzz`.
//! Each takes any bytes and panics when a promise does not hold.

pub use crate::codec::fuzz::{chunked_body, http2_head, request_head, response_head};
pub use crate::codec::h2::fuzz::{http2_fields, http2_frames, http2_replies};
pub use crate::xds::fuzz::session;
