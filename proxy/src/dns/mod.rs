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

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

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
        let mut lines: Vec<String> = Vec::new();
        for (name, known) in &self.resolver.names().known {
            lines.push(match known {
                KnownName::Absent => format!("{name} not in the mesh"),
                KnownName::Addresses(addresses) if addresses.is_empty() => format!("{name} without addresses"),
                KnownName::Addresses(addresses) => {
                    let all: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                    format!("{name} {}", all.join(" "))
                }
            });
        }
        lines.sort();
        let mut text = String::from("names of the mesh:\n");
        let mut section = |head: &str, lines: Vec<String>| {
            text.push_str(head);
            for line in lines {
                text.push_str("  ");
                text.push_str(&line);
                text.push('\n');
            }
        };
        section("", lines);
        section("nameservers:\n", self.resolver.nameservers());
        section("cached:\n", self.resolver.cached());
        text
    }
}
