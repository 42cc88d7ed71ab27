//! The proxy against scripted peers on loopback; needs no root. One file per subject.

/// Resources of the scripted control plane, as the proxy compiles them.
mod resources;

/// One request through two sidecars.
mod pair;

/// The two ways to an application: one proxy in plain, two with mutual TLS between them.
mod boundary_lanes;

/// What counts as a request: the same for the proxy and for the application.
mod boundary;

/// Header fields and trailers on their way.
mod fields;

/// Interim replies.
mod expect;

/// Replies, whole and broken.
mod boundary_replies;

/// Sizes and times.
mod boundary_limits;

/// Who may come in, and who is called.
mod identity;
