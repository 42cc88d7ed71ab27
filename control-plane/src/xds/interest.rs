//! Who is told of what: each stream names the topics of what it asked for, and a published mesh wakes the streams of
//! the topics it touched. So a change costs what its subscribers cost, whatever the number of streams.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rapidhash::fast::RandomState;
use tokio::sync::{Notify, broadcast};

use crate::registry::{Changes, Topic};

/// A stream that did not look for so many touched topics looks at everything instead.
const MAX_TOUCHED: usize = 64;

/// The streams by topic.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interest(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    /// Streams by what they asked for; a stream is there once for each of its topics.
    by_topic: HashMap<Topic, Vec<Arc<Mailbox>>, RandomState>,
    all: HashMap<usize, Arc<Mailbox>, RandomState>,
}

/// What a stream was not told yet.
#[derive(Debug, Default)]
struct Mailbox {
    touched: Mutex<Touched>,
    word: Notify,
}

/// What may have changed since a stream looked last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Touched {
    #[default]
    Nothing,
    Topics(Vec<Topic>),
    All,
}

impl Touched {
    /// Whether a name about `topic` may have changed.
    pub(crate) fn has(&self, topic: Topic) -> bool {
        match self {
            Self::Nothing => false,
            Self::Topics(topics) => topic == Topic::ALL || topics.contains(&topic),
            Self::All => true,
        }
    }

    /// Adds what `other` has.
    pub(crate) fn add(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::All, _) | (_, Self::Nothing) => {}
            (_, Self::All) => *self = Self::All,
            (Self::Nothing, other @ Self::Topics(_)) => *self = other,
            (Self::Topics(topics), Self::Topics(more)) => {
                let new: Vec<Topic> = more.into_iter().filter(|topic| !topics.contains(topic)).collect();
                topics.extend(new);
                if topics.len() > MAX_TOUCHED {
                    *self = Self::All;
                }
            }
        }
    }
}

/// The interests of one stream; dropping it ends them.
#[derive(Debug)]
pub(super) struct Interests {
    interest: Interest,
    mailbox: Arc<Mailbox>,
    topics: HashSet<Topic, RandomState>,
}

impl Interest {
    /// A stream that asked for nothing yet.
    pub(super) fn join(&self) -> Interests {
        let mailbox = Arc::new(Mailbox::default());
        self.lock().all.insert(key(&mailbox), mailbox.clone());
        Interests { interest: self.clone(), mailbox, topics: HashSet::default() }
    }

    /// Tells the streams what changes, for ever.
    pub(crate) async fn follow(self, mut changes: broadcast::Receiver<Arc<Changes>>) {
        loop {
            match changes.recv().await {
                Ok(changes) => self.tell(&changes),
                Err(broadcast::error::RecvError::Lagged(_)) => self.tell(&Changes::All),
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }

    fn tell(&self, changes: &Changes) {
        let table = self.lock();
        match changes {
            Changes::All => table.all.values().for_each(|mailbox| mailbox.tell(Touched::All)),
            Changes::Topics(topics) => {
                for topic in topics {
                    let streams = table.by_topic.get(topic).into_iter().flatten();
                    streams.for_each(|mailbox| mailbox.tell(Touched::Topics(vec![*topic])));
                }
                let of_all = table.by_topic.get(&Topic::ALL).into_iter().flatten();
                of_all.for_each(|mailbox| mailbox.tell(Touched::Topics(vec![Topic::ALL])));
            }
        }
    }

    /// The table is whole whatever panicked while holding it: each change is one call.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Interests {
    /// Replaces the topics. What changes after this is told; the caller looks at what changed before.
    pub(super) fn set(&mut self, topics: HashSet<Topic, RandomState>) {
        if topics == self.topics {
            return;
        }
        let mut table = self.interest.lock();
        for topic in topics.difference(&self.topics) {
            table.by_topic.entry(*topic).or_default().push(self.mailbox.clone());
        }
        for topic in self.topics.difference(&topics) {
            table.leave(*topic, &self.mailbox);
        }
        drop(table);
        self.topics = topics;
    }

    /// Waits until something it asked for may have changed. Cancel safe: what was not taken stays.
    pub(super) async fn word(&self) -> Touched {
        loop {
            let touched = std::mem::take(&mut *self.mailbox.lock());
            if touched != Touched::Nothing {
                return touched;
            }
            self.mailbox.word.notified().await;
        }
    }
}

impl Drop for Interests {
    fn drop(&mut self) {
        let mut table = self.interest.lock();
        table.all.remove(&key(&self.mailbox));
        for topic in &self.topics {
            table.leave(*topic, &self.mailbox);
        }
    }
}

impl Table {
    fn leave(&mut self, topic: Topic, mailbox: &Arc<Mailbox>) {
        let Some(streams) = self.by_topic.get_mut(&topic) else { return };
        if let Some(at) = streams.iter().position(|other| Arc::ptr_eq(other, mailbox)) {
            streams.swap_remove(at);
        }
        if streams.is_empty() {
            self.by_topic.remove(&topic);
        }
    }
}

impl Mailbox {
    fn tell(&self, touched: Touched) {
        self.lock().add(touched);
        self.word.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Touched> {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(mailbox: &Arc<Mailbox>) -> usize {
    Arc::as_ptr(mailbox).addr()
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn told(interests: &Interests) -> Touched {
        match pin!(interests.word()).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(touched) => touched,
            Poll::Pending => Touched::Nothing,
        }
    }

    fn topics(names: &[&str]) -> HashSet<Topic, RandomState> {
        names.iter().map(|name| Topic::of(name)).collect()
    }

    fn change(names: &[&str]) -> Changes {
        Changes::Topics(names.iter().map(|name| Topic::of(name)).collect())
    }

    #[test]
    fn a_stream_is_told_of_what_it_asked_for_and_nothing_else() {
        let interest = Interest::default();
        let (mut one, mut two, mut every) = (interest.join(), interest.join(), interest.join());
        one.set(topics(&["a.shop.svc.x:80", "b.shop.svc.x:80"]));
        two.set(topics(&["b.shop.svc.x:80"]));
        every.set(topics(&["*"]));
        interest.tell(&change(&["a.shop.svc.x:443"]));
        assert_eq!(told(&one), Touched::Topics(vec![Topic::of("a.shop.svc.x:80")]));
        assert_eq!((told(&one), told(&two)), (Touched::Nothing, Touched::Nothing));
        assert_eq!(told(&every), Touched::Topics(vec![Topic::ALL]));
        one.set(topics(&["b.shop.svc.x:80"]));
        interest.tell(&change(&["a.shop.svc.x:80"]));
        assert_eq!(told(&one), Touched::Nothing);
        drop(one);
        interest.tell(&Changes::All);
        assert_eq!(told(&two), Touched::All);
        drop((two, every));
        assert!(interest.lock().by_topic.is_empty() && interest.lock().all.is_empty());
    }

    #[test]
    fn a_stream_that_never_looks_holds_a_bounded_word() {
        let interest = Interest::default();
        let names: Vec<String> = (0..1000).map(|i| format!("s{i}.shop.svc.x:80")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut stream = interest.join();
        stream.set(topics(&names));
        interest.tell(&change(&names));
        assert_eq!(told(&stream), Touched::All);
    }
}
