//! Pods without a cluster: network namespaces on one bridge, with processes, captures and name tables of their own.
//!
//! A [`Network`] is a bridge in a namespace of its own, so that tests run side by side with the same addresses and the
//! machine's own network is never touched. A [`Pod`] is a namespace on it. All of it goes when dropped, panic or not.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use tulle_testing::netns::{self, Network};
//! if !netns::available(&["nft", "curl"])? {
//!     return Ok(());
//! }
//! let net = Network::new()?;
//! let (client, server) = (net.pod("client")?, net.pod("server")?);
//! server.redirect(&["--mode", "nft"])?;
//! let reply = client.output("curl", &["-sS", &format!("http://{}:8080/", server.v4())])?;
//! # Ok(())
//! # }
//! ```

mod available;
mod capture;
mod namespace;
mod network;
mod nginx;
mod running;
mod server;

pub use available::available;
pub use capture::{Capture, Packet, Packets};
pub use namespace::Namespace;
pub use network::{Network, PROXY_UID, Pod};
pub use nginx::Nginx;
pub use running::{Finished, Running};
pub use server::Server;
