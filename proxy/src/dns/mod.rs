//! DNS for the workload, beside the path on the control thread: names of the mesh from discovery, everything else from
//! the pod's own nameservers. `serve` reads and writes messages, `resolve` decides; the rest has no sockets but
//! `upstream`. `docs/decisions/006-dns-on-demand.md` says why it is as it is.

/// Which names of the mesh a question may mean.
mod expand;

/// Bytes -> questions, answers -> bytes.
mod message;

/// Answers of nameservers, kept for their time.
mod cache;

/// The pod's nameservers.
mod upstream;

/// What discovery knows of names.
mod mesh;

/// A question -> its answer.
mod resolve;

/// The sockets.
mod serve;

/// What was answered, counted.
pub mod counts;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::watch;

use crate::config::bootstrap::{Bootstrap, Dns as Settings};
use crate::config::demand::Demand;
use crate::config::names::{KnownName, Names};
use crate::config::status::Status;
use counts::Counts;
use resolve::Resolver;
use serve::Sockets;

/// The DNS server, bound.
#[derive(Debug)]
pub struct Dns {
    sockets: Sockets,
    resolver: Arc<Resolver>,
}

/// What admin shows of it; clones share it.
#[derive(Clone, Debug)]
pub struct DnsView {
    resolver: Arc<Resolver>,
}

/// Everything there is to see, as JSON has it.
#[derive(Debug, Serialize)]
pub struct Dump {
    /// Names of the mesh that were asked for.
    names: BTreeMap<String, Shown>,
    /// A line for each.
    nameservers: Vec<String>,
    /// A line for each answer.
    cached: Vec<String>,
}

/// What is known of a name: its addresses, or the word `absent`.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Shown {
    Absent(&'static str),
    Addresses(Vec<IpAddr>),
}

/// Everything the DNS server needs.
#[derive(Debug)]
pub struct Deps {
    /// Settings of the process.
    pub bootstrap: Arc<Bootstrap>,
    /// What discovery knows of names.
    pub names: watch::Receiver<Arc<Names>>,
    /// How names are asked for.
    pub demand: Demand,
    /// Whether the control plane can be asked.
    pub status: Status,
}

impl Dns {
    /// Binds every address of `settings`; needs a running tokio runtime. An IPv6 address that the host does not have
    /// is left out while another address is bound.
    ///
    /// # Errors
    /// The address that cannot be bound, and why.
    pub async fn bind(settings: &Settings, deps: Deps) -> io::Result<Self> {
        let sockets = Sockets::bind(&settings.listen).await?;
        Ok(Self { sockets, resolver: Arc::new(Resolver::new(settings, deps)) })
    }

    /// Where it listens.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.sockets.addresses()
    }

    /// What admin shows.
    pub fn view(&self) -> DnsView {
        DnsView { resolver: Arc::clone(&self.resolver) }
    }

    /// Answers questions for as long as it is polled; dropping it drops every question under way.
    pub async fn run(self) {
        self.sockets.run(self.resolver).await;
    }
}

impl DnsView {
    /// What was answered so far.
    pub fn counts(&self) -> &Counts {
        self.resolver.counts()
    }

    /// Names of the mesh, nameservers and what is cached, as text.
    pub fn text(&self) -> String {
        let Dump { names, nameservers, cached } = self.dump();
        let name = |(name, shown): (String, Shown)| match shown {
            Shown::Absent(_) => format!("{name} not in the mesh"),
            Shown::Addresses(addresses) if addresses.is_empty() => format!("{name} without addresses"),
            Shown::Addresses(addresses) => {
                let all: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                format!("{name} {}", all.join(" "))
            }
        };
        let names = names.into_iter().map(name).collect();
        let sections: [(_, Vec<String>); 3] =
            [("names of the mesh", names), ("nameservers", nameservers), ("cached", cached)];
        let section = |(head, lines): (&str, Vec<String>)| {
            let lines: String = lines.iter().map(|line| format!("  {line}\n")).collect();
            format!("{head}:\n{lines}")
        };
        sections.map(section).concat()
    }

    /// The same, for programs.
    pub fn dump(&self) -> Dump {
        let shown = |known: &KnownName| match known {
            KnownName::Absent => Shown::Absent("absent"),
            KnownName::Addresses(addresses) => Shown::Addresses(addresses.to_vec()),
        };
        let names = self.resolver.names();
        Dump {
            names: names.known.iter().map(|(name, known)| (name.to_string(), shown(known))).collect(),
            nameservers: self.resolver.nameservers(),
            cached: self.resolver.cached(),
        }
    }
}
