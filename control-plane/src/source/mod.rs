//! Sources: where objects come from. Each runs beside the registry and hands it deltas; none of them knows it.

pub mod file;
