//! The proxy against scripted peers on loopback; needs no root. One file per subject.

/// Resources of the scripted control plane, as the proxy compiles them.
mod resources;

/// One request through two sidecars.
mod pair;
