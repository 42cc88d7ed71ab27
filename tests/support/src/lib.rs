//! Test support.

pub mod bin_path;
pub mod netns;
