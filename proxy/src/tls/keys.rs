//! The identity this process uses now. Written by `identity::run`, read by each worker once per change; a connection
//! keeps the keys it was made with.

use std::sync::Arc;

use tokio::sync::watch;
use tulle_identity::tls::MeshTls;

/// Publishes the current identity; none until the first certificate has arrived.
#[derive(Debug)]
pub struct Keys {
    sender: watch::Sender<Option<Arc<MeshTls>>>,
}

impl Keys {
    /// No identity yet.
    pub fn new() -> Self {
        Self { sender: watch::Sender::new(None) }
    }

    /// Makes `tls` the identity of every handshake from now on. `None`: there is none any more, because the
    /// certificate has expired; handshakes fail closed.
    pub fn publish(&self, tls: Option<Arc<MeshTls>>) {
        self.sender.send_replace(tls);
    }

    /// The current identity and every later one.
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<MeshTls>>> {
        self.sender.subscribe()
    }
}

impl Default for Keys {
    fn default() -> Self {
        Self::new()
    }
}
