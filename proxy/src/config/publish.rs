//! The one place where a snapshot becomes visible: the control thread publishes, each worker subscribes and swaps its
//! view when told. The path itself never reads the channel.

use std::sync::Arc;

use tokio::sync::watch;

use super::Snapshot;

/// Publishes snapshots; owned by the control thread.
#[derive(Debug)]
pub struct Publisher {
    sender: watch::Sender<Arc<Snapshot>>,
}

impl Publisher {
    /// A publisher whose first snapshot is the empty one, generation 0.
    pub fn new() -> Self {
        Self { sender: watch::Sender::new(Arc::new(Snapshot::default())) }
    }

    /// Makes `snapshot` the current one under the next generation number, which is returned.
    pub fn publish(&self, mut snapshot: Snapshot) -> u64 {
        let generation = self.sender.borrow().generation.saturating_add(1);
        snapshot.generation = generation;
        self.sender.send_replace(Arc::new(snapshot));
        generation
    }

    /// The current snapshot and every later one; a slow reader sees the latest only.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.sender.subscribe()
    }
}

impl Default for Publisher {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_count_up_and_readers_see_the_latest() {
        let publisher = Publisher::new();
        let mut reader = publisher.subscribe();
        assert_eq!(reader.borrow().generation, 0);
        assert_eq!(publisher.publish(Snapshot::default()), 1);
        assert_eq!(publisher.publish(Snapshot::default()), 2);
        assert!(reader.has_changed().unwrap());
        assert_eq!(reader.borrow_and_update().generation, 2);
    }
}
