//! The proxy against what others say a server must do, and against clients that mean harm. One file per subject.

/// A proxy with an application behind it, and the ways in.
mod target;

/// What is known not to conform, and why.
mod ledger;

/// HTTP/2 as h2spec sees it.
mod h2spec;

/// Heads of HTTP/2 requests that must reach nobody.
mod heads;

/// HTTP/2 clients that mean harm.
mod floods;

/// Clients that are slow on purpose.
mod slow;

/// Hostile neighbours, by class.
mod neighbours;

/// Figures of the page, from the code.
mod figures;

/// The page about all of this.
mod security;
