//! What the client was sent and what it answered, per resource type.
//!
//! Shared by both variants: held versions, nonces, ACKs and NACKs. Knows nothing of how a variant asks.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use serde::Serialize;
use tulle_proto::ResourceType;

use super::{Topics, World};
use crate::registry::Topic;

/// Longest NACK text kept, in bytes: clients put whole configurations into it.
const MAX_REASON_BYTES: usize = 1024;

/// Names kept of a refused response.
const MAX_REFUSED_NAMES: usize = 8;

/// Names listed in a dump, per type.
const MAX_REPORTED_NAMES: usize = 1000;

/// Bytes that an entry takes beside its name and version: itself, its place in the map, and in the table of interests.
const ENTRY_BYTES: usize = 200;

/// What the client has of one name, as far as this stream knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Held {
    /// Nothing is known: it must be told.
    #[default]
    Unknown,
    /// It was told that the name does not exist.
    Absent,
    /// It was sent this version, or brought it from an earlier stream.
    Version(Arc<str>),
}

impl Held {
    pub(super) fn is(&self, version: &str) -> bool {
        matches!(self, Self::Version(held) if **held == *version)
    }
}

/// One name of one type.
#[derive(Debug)]
pub(super) struct Entry {
    /// Subscribed by name; otherwise it is here because of a wildcard.
    pub(super) explicit: bool,
    pub(super) held: Held,
    /// What the name is about.
    topic: Topic,
    /// The clock up to which its changes were noticed.
    pub(super) noticed: u64,
}

impl Entry {
    /// A name of which the client is known to have `held`.
    pub(super) fn new(name: &str, explicit: bool, held: Held) -> Self {
        Self { explicit, held, topic: Topic::of(name), noticed: 0 }
    }
}

/// A response that waits for its answer.
#[derive(Debug)]
pub(super) struct Unanswered {
    nonce: String,
    version: String,
    names: Vec<Arc<str>>,
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Nack {
    /// Version of the refused response.
    pub(crate) version: String,
    /// Some of the names in it.
    pub(crate) names: Vec<Arc<str>>,
    /// The client's reason.
    pub(crate) reason: String,
}

/// The state of one type.
#[derive(Debug, Default)]
pub(super) struct TypeState {
    /// All resources are subscribed.
    pub(super) wildcard: bool,
    pub(super) entries: HashMap<Arc<str>, Entry>,
    /// Names that were asked for and have no answer yet.
    pub(super) asked: BTreeSet<Arc<str>>,
    /// Names that may have changed.
    pub(super) dirty: BTreeSet<Arc<str>>,
    /// Names that ceased to exist and are removed once nothing else is pending.
    pub(super) gone: BTreeSet<Arc<str>>,
    /// A wildcard was asked for and has no answer yet; it gets one even when it is empty.
    pub(super) wildcard_asked: bool,
    /// The wildcard's set may have changed.
    pub(super) wildcard_dirty: bool,
    /// The clock up to which changes of the wildcard's set were noticed.
    scanned: u64,
    pub(super) unanswered: VecDeque<Unanswered>,
    sent: Option<String>,
    acked: Option<String>,
    nacked: Option<Nack>,
}

/// What answering a nonce did.
pub(super) enum Answered {
    /// The nonce is not outstanding.
    Stale,
    Ack,
    Nack(Nack),
}

impl TypeState {
    /// Names subscribed one by one.
    pub(super) fn explicit(&self) -> usize {
        if self.wildcard { self.entries.values().filter(|entry| entry.explicit).count() } else { self.entries.len() }
    }

    /// Marks what changed since this type was last looked at, of what the world says was touched.
    pub(super) fn notice(&mut self, ty: ResourceType, world: &dyn World) {
        let clock = world.clock(ty);
        for (name, entry) in &mut self.entries {
            if entry.explicit && entry.noticed < clock && world.touched(ty, entry.topic) {
                if world.changed_at(ty, name) > entry.noticed {
                    self.dirty.insert(name.clone());
                }
                entry.noticed = clock;
            }
        }
        if self.wildcard && self.scanned < clock && world.touched(ty, Topic::ALL) {
            self.wildcard_dirty |= world.changed_at(ty, "*") > self.scanned;
            self.scanned = clock;
        }
    }

    /// The entry of `name`, made when there is none.
    pub(super) fn entry(&mut self, name: &Arc<str>) -> &mut Entry {
        self.entries.entry(name.clone()).or_insert_with(|| Entry::new(name, false, Held::Unknown))
    }

    /// Adds what the names of this type are about.
    pub(super) fn topics(&self, topics: &mut Topics) {
        topics.extend(self.entries.values().filter(|entry| entry.explicit).map(|entry| entry.topic));
        if self.wildcard {
            topics.insert(Topic::ALL);
        }
    }

    /// Bytes that the names of this type take, about.
    pub(super) fn demand_bytes(&self) -> usize {
        let entry = |(name, entry): (&Arc<str>, &Entry)| {
            let version = if let Held::Version(version) = &entry.held { version.len() } else { 0 };
            name.len().saturating_add(version).saturating_add(ENTRY_BYTES)
        };
        self.entries.iter().map(entry).sum()
    }

    /// Notes a response as sent.
    pub(super) fn sent(&mut self, nonce: String, version: String, names: Vec<Arc<str>>) {
        self.sent = Some(version.clone());
        self.unanswered.push_back(Unanswered { nonce, version, names });
    }

    /// Takes the client's answer to `nonce`; earlier responses count as answered too, as answers come in order.
    pub(super) fn answer(&mut self, nonce: &str, error: Option<&str>) -> Answered {
        let Some(at) = self.unanswered.iter().position(|sent| sent.nonce == nonce) else {
            return Answered::Stale;
        };
        let Some(sent) = self.unanswered.drain(..=at).next_back() else { return Answered::Stale };
        let Some(reason) = error else {
            self.acked = Some(sent.version);
            return Answered::Ack;
        };
        let names = sent.names.into_iter().take(MAX_REFUSED_NAMES).collect();
        let nack = Nack { version: sent.version, names, reason: shorten(reason) };
        self.nacked = Some(nack.clone());
        Answered::Nack(nack)
    }

    /// Drops one name and everything pending for it.
    pub(super) fn forget(&mut self, name: &str) {
        self.entries.remove(name);
        self.asked.remove(name);
        self.dirty.remove(name);
        self.gone.remove(name);
    }

    pub(super) fn report(&self) -> TypeReport {
        let mut names: Vec<_> = self
            .entries
            .iter()
            .map(|(name, entry)| Name {
                name: name.clone(),
                version: match &entry.held {
                    Held::Unknown => None,
                    Held::Absent => Some("absent".into()),
                    Held::Version(version) => Some(version.clone()),
                },
            })
            .collect();
        names.sort_by(|a, b| a.name.cmp(&b.name));
        let count = names.len();
        names.truncate(MAX_REPORTED_NAMES);
        TypeReport {
            wildcard: self.wildcard,
            count,
            names,
            sent: self.sent.clone(),
            acked: self.acked.clone(),
            nacked: self.nacked.clone(),
            unanswered: self.unanswered.len(),
        }
    }
}

/// Cuts a reason at a character boundary.
fn shorten(reason: &str) -> String {
    let mut end = reason.len().min(MAX_REASON_BYTES);
    while !reason.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    reason.get(..end).unwrap_or_default().to_owned()
}

/// A session's dump: short type name to its state.
pub(crate) type Report = std::collections::BTreeMap<&'static str, TypeReport>;

/// One type's dump.
#[derive(Debug, Serialize)]
pub(crate) struct TypeReport {
    wildcard: bool,
    /// How many names the client has or wants; `names` lists the first of them.
    count: usize,
    names: Vec<Name>,
    /// Version of the last response.
    sent: Option<String>,
    /// Version of the last accepted response.
    acked: Option<String>,
    /// The last refused response.
    nacked: Option<Nack>,
    /// Responses without an answer so far.
    unanswered: usize,
}

/// One name and the version the client was sent: `absent` when it was told there is none.
#[derive(Debug, Serialize)]
struct Name {
    name: Arc<str>,
    version: Option<Arc<str>>,
}
