//! The control plane: source -> registry -> translate -> xds, with identity beside it.

pub mod model;
pub mod registry;
pub mod translate;
