//! The chapters, in their order. Each leaves the mesh as it found it.

/// Change under load.
mod change;
/// Redirect rules from the node.
mod cni;
/// What a sidecar costs.
mod cost;
/// Names, while nobody else knows them.
mod dns;
/// Tulle comes, and goes.
mod install;
/// Routes of the Gateway API.
mod routes;
/// What a user is told.
mod told;
/// Who sees what.
mod traffic;

use crate::harness::Cluster;

/// One step of the story.
#[derive(Debug)]
pub(crate) struct Chapter {
    pub(crate) name: &'static str,
    /// Told even when others are asked for: they stand on it.
    pub(crate) ground: bool,
    pub(crate) tell: fn(&mut Cluster) -> anyhow::Result<()>,
}

/// The whole story.
pub(crate) const CHAPTERS: &[Chapter] = &[
    ground("plain", install::plain),
    ground("install", install::install),
    ground("label", install::label),
    chapter("told", told::told),
    chapter("mutual-tls", traffic::mutual_tls),
    chapter("strict", traffic::strict),
    chapter("opted-out", traffic::opted_out),
    chapter("job", traffic::job),
    chapter("dns", dns::captured),
    chapter("routes", routes::routes),
    chapter("memory", cost::memory),
    chapter("servers-change", change::servers),
    chapter("mesh-changes", change::mesh),
    chapter("restarts", change::restarts),
    chapter("cni", cni::cni),
    chapter("uninstall", install::uninstall),
];

const fn ground(name: &'static str, tell: fn(&mut Cluster) -> anyhow::Result<()>) -> Chapter {
    Chapter { name, ground: true, tell }
}

const fn chapter(name: &'static str, tell: fn(&mut Cluster) -> anyhow::Result<()>) -> Chapter {
    Chapter { name, ground: false, tell }
}
