//! How the path and DNS ask for what they do not know yet. Asking never blocks and never fails: the answer shows in
//! a later snapshot, and how long to wait for it is the asker's business.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::mpsc;
use tulle_proto::ResourceType;

/// Questions in flight between all workers and the control thread. More than this many at once means that the control
/// thread is stuck; then a question is dropped and its connection waits out its bound.
const QUEUE: usize = 4096;

/// Reports of use in flight: one of each worker, and as many again.
const REPORTS: usize = 128;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DemandKey {
    /// A captured connection's destination.
    Addr(SocketAddr),
    /// `reviews.shop.svc.cluster.local:80`.
    Name(Arc<str>),
    /// What a DNS name stands for: `reviews.shop.svc.cluster.local`.
    Host(Arc<str>),
}

impl DemandKey {
    /// The type of the resource.
    pub const fn kind(&self) -> ResourceType {
        match self {
            Self::Addr(_) | Self::Name(_) => ResourceType::Listener,
            Self::Host(_) => ResourceType::Name,
        }
    }

    /// The resource name: the key of `Snapshot::by_name` and of `Names`.
    pub fn name(&self) -> Arc<str> {
        match self {
            Self::Addr(address) => SocketAddr::new(address.ip().to_canonical(), address.port()).to_string().into(),
            Self::Name(name) | Self::Host(name) => Arc::clone(name),
        }
    }
}

impl fmt::Display for DemandKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

/// The asking end; clones share the queue.
#[derive(Clone, Debug)]
pub struct Demand {
    queue: mpsc::Sender<DemandKey>,
    uses: mpsc::Sender<Vec<Arc<str>>>,
}

/// The answering end, for the control thread.
#[derive(Debug)]
pub struct Demands {
    pub(crate) queue: mpsc::Receiver<DemandKey>,
    pub(crate) uses: mpsc::Receiver<Vec<Arc<str>>>,
}

impl Demand {
    /// Both ends of a new queue.
    pub fn channel() -> (Self, Demands) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let (uses, used) = mpsc::channel(REPORTS);
        (Self { queue: sender, uses }, Demands { queue: receiver, uses: used })
    }

    /// Asks for `key`; asking again for what was asked for already costs little and changes nothing.
    /// False: the queue is full and the question was dropped.
    pub fn want(&self, key: DemandKey) -> bool {
        self.queue.try_send(key).is_ok()
    }

    /// Tells which clusters were used since a worker told last; none is a report too. What nobody uses for long is
    /// forgotten. A report that finds the queue full is dropped: what it would have kept is asked for again.
    pub fn used(&self, clusters: Vec<Arc<str>>) {
        let _ = self.uses.try_send(clusters);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_address_is_asked_for_as_v4() {
        let key = DemandKey::Addr("[::ffff:10.96.0.12]:80".parse().unwrap());
        assert_eq!(&*key.name(), "10.96.0.12:80");
        assert_eq!(&*DemandKey::Addr("[fd00::12]:80".parse().unwrap()).name(), "[fd00::12]:80");
    }

    #[test]
    fn a_full_queue_drops() {
        let (demand, _demands) = Demand::channel();
        let key = DemandKey::Name("a:80".into());
        assert_eq!((0..QUEUE + 5).filter(|_| demand.want(key.clone())).count(), QUEUE);
    }
}
