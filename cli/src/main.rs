//! Tulle.
fn main() {}
