//! The registry, fed by hand.
