//! The rank tables, and the rule that a module imports only from a strictly lower rank.
//!
//! A crate's modules are listed as *units*: a unit is a module and everything below it that has no line of its own.
//! Inside a unit imports are free. A new module needs a line here before it compiles into a green build.

use crate::source::{PathUse, Source};

/// One crate with ranked modules.
#[derive(Debug)]
pub struct Crate {
    /// Folder of its manifest.
    pub dir: &'static str,
    /// Name in paths, as its binaries write it.
    pub name: &'static str,
    pub units: &'static [Unit],
}

/// A module with a rank.
#[derive(Debug)]
pub struct Unit {
    /// Module path from the crate root.
    pub path: &'static str,
    pub rank: u8,
    /// Narrows what the rank would allow.
    pub only: Option<Only>,
}

/// A closed list of what a unit may import, for units that stand beside the path.
#[derive(Debug)]
pub struct Only {
    /// Ranks up to and including this one ...
    pub max_rank: u8,
    /// ... and these units or modules whatever their rank, as long as it is lower.
    pub also: &'static [&'static str],
}

const fn unit(path: &'static str, rank: u8) -> Unit {
    Unit { path, rank, only: None }
}

const fn beside(path: &'static str, rank: u8, max_rank: u8, also: &'static [&'static str]) -> Unit {
    Unit { path, rank, only: Some(Only { max_rank, also }) }
}

/// Every ranked crate.
pub const CRATES: &[Crate] = &[
    Crate {
        dir: "proxy",
        name: "tulle_proxy",
        units: &[
            // Vocabulary. Errors live here, so that nothing imports upward for its error.
            unit("base", 0),
            // Data and signals; nothing here dials or accepts. Counters live here.
            unit("config", 1),
            unit("telemetry", 1),
            unit("drain", 1),
            unit("conn", 1),
            unit("spawn", 1),
            unit("logging", 2),
            // Bytes and sockets; these know no routes and do not know each other.
            unit("orig_dst", 2),
            unit("detect", 2),
            unit("tls", 2),
            unit("connect", 2),
            unit("codec", 2),
            unit("relay", 2),
            // Decisions: inputs in, verdict out.
            unit("route", 3),
            unit("policy", 3),
            unit("balance", 3),
            // What ends connections, from what they proved.
            unit("lifetime", 2),
            // Pools compose connect, tls and codec.
            unit("pool", 4),
            // A view is a snapshot with this core's state beside it, pools among it.
            unit("view", 5),
            // What one core owns.
            unit("worker", 6),
            // One request; one opaque connection.
            unit("forward", 7),
            unit("tcp", 7),
            // HTTP connections around forward; after a switch of protocols they go on as opaque ones.
            unit("http", 8),
            // One connection.
            unit("inbound", 9),
            unit("outbound", 9),
            // Threads, listeners, accept.
            unit("runtime", 10),
            // Beside the path: they write configuration and keys and read telemetry.
            beside("control_plane", 9, 1, &[]),
            beside("xds", 10, 1, &["tls::keys", "control_plane"]),
            beside("identity", 10, 1, &["tls::keys", "control_plane"]),
            beside("resolve", 10, 1, &["tls::keys"]),
            beside("dns", 9, 1, &[]),
            beside("admin", 10, 1, &["tls::keys", "dns"]),
            // Wiring.
            unit("app", 11),
            unit("wait", 11),
            unit("fuzz", 11),
            unit("cli", 12),
            unit("main", 13),
        ],
    },
    Crate {
        dir: "control-plane",
        name: "tulle_control_plane",
        units: &[
            unit("metrics", 0),
            unit("clock", 0),
            unit("model", 0),
            unit("quota", 1),
            unit("settings", 2),
            beside("source", 1, 0, &[]),
            beside("registry", 2, 0, &[]),
            beside("translate", 3, 0, &["registry"]),
            beside("validate", 3, 0, &["source", "registry"]),
            beside("caller", 3, 0, &["registry", "quota"]),
            beside("xds", 4, 0, &["registry", "translate", "caller", "quota"]),
            beside("identity", 4, 0, &["caller", "quota", "settings"]),
            unit("server", 5),
            unit("status", 5),
            unit("admin", 5),
            unit("app", 7),
            unit("fuzz", 7),
            unit("cli", 8),
            unit("main", 9),
        ],
    },
    Crate {
        dir: "injector",
        name: "tulle_injector",
        units: &[
            unit("metrics", 0),
            unit("pod", 0),
            unit("cert", 0),
            unit("redirect::settings", 0),
            unit("redirect::plan", 1),
            unit("redirect::rules", 2),
            unit("redirect::tools", 0),
            unit("redirect::probe", 2),
            unit("redirect::apply", 3),
            unit("redirect", 4),
            unit("values", 1),
            unit("annotations", 2),
            unit("settings", 2),
            // Decisions: a pod in, a verdict or a pod out.
            unit("decide", 3),
            unit("patch", 4),
            unit("manifests", 5),
            // What talks to others.
            unit("review", 1),
            unit("validate", 3),
            unit("events", 1),
            unit("serve", 1),
            unit("signals", 0),
            unit("cluster", 3),
            unit("webhook", 5),
            unit("app", 6),
            unit("fuzz", 6),
            unit("cli", 7),
            unit("init", 7),
            // The plugin: what is pure, what asks, what acts.
            unit("cni::settings", 0),
            unit("cni::protocol", 0),
            unit("cni::conflist", 0),
            unit("cni::kubeconfig", 0),
            unit("cni::netns", 0),
            unit("cni::ask", 1),
            unit("cni::node", 1),
            unit("cni::install", 2),
            unit("cni::wanted", 8),
            unit("cni::plugin", 9),
            unit("cni::cli", 10),
            unit("cni", 11),
            unit("main", 12),
            unit("bin", 12),
        ],
    },
];

impl Crate {
    /// The unit a module or item path belongs to: the longest listed prefix.
    fn unit_of(&self, path: &[String]) -> Option<&Unit> {
        let inside = |unit: &&Unit| starts_with(path, unit.path);
        self.units.iter().filter(inside).max_by_key(|unit| unit.path.len())
    }

    /// Checks every path of the file with module path `module`; `[]` is `lib.rs`, whose re-exports are the paved path.
    pub fn check(&self, module: &[String], source: &Source) -> Vec<(usize, String)> {
        if module.is_empty() {
            return Vec::new();
        }
        let Some(from) = self.unit_of(module) else {
            let message = format!(
                "module `{}` has no rank: give it a line in the table of tests/architecture/ranks.rs",
                module.join("::")
            );
            return vec![(1, message)];
        };
        let mut found: Vec<_> = source
            .paths
            .iter()
            .filter(|path| !path.test)
            .filter_map(|path| Some((path, self.target(module, path)?)))
            .filter_map(|(path, target)| Some((path.line, self.judge(from, &target)?)))
            .collect();
        found.dedup();
        found
    }

    /// The path from the crate root that `path` means, when it stays inside this crate.
    fn target(&self, module: &[String], path: &PathUse) -> Option<Vec<String>> {
        let first = path.segments.first()?;
        let binary = module.first().is_some_and(|m| m == "main" || m == "bin");
        if (!path.absolute && first == "crate" && !binary) || first == self.name {
            return Some(path.segments[1..].to_vec());
        }
        let mut base = module.to_vec();
        let mut rest = path.segments.as_slice();
        if first == "self" {
            rest = &rest[1..];
        } else if first != "super" {
            return None;
        }
        while rest.first().is_some_and(|s| s == "super") {
            base.pop();
            rest = &rest[1..];
        }
        base.extend(rest.iter().cloned());
        Some(base)
    }

    fn judge(&self, from: &Unit, target: &[String]) -> Option<String> {
        let shown = target.join("::");
        if target.first().is_some_and(|s| s == "*") {
            return Some("`use crate::*` hides what is imported: name the modules".to_owned());
        }
        let Some(to) = self.unit_of(target) else {
            return Some(format!("`{shown}` is not in a ranked module: import it through the module that defines it"));
        };
        if to.path == from.path || starts_with(target, from.path) {
            return None;
        }
        if to.rank >= from.rank {
            let (from_rank, to_rank) = (from.rank, to.rank);
            let relation = if to_rank > from_rank { "upward" } else { "sideways" };
            return Some(format!(
                "imports {relation}: `{shown}` is in `{}` (rank {to_rank}), this file in `{}` (rank {from_rank}); \
                 only strictly lower ranks may be imported",
                to.path, from.path
            ));
        }
        let only = from.only.as_ref()?;
        if to.rank <= only.max_rank || only.also.iter().any(|also| starts_with(target, also)) {
            return None;
        }
        Some(format!(
            "`{}` may import ranks up to {} and {:?} only, not `{shown}` of `{}` (rank {})",
            from.path, only.max_rank, only.also, to.path, to.rank
        ))
    }
}

fn starts_with(path: &[String], prefix: &str) -> bool {
    let prefix: Vec<&str> = prefix.split("::").collect();
    path.len() >= prefix.len() && path.iter().zip(&prefix).all(|(a, b)| a == b)
}
