//! The discovery session without its socket: responses in, requests out. Holds what is subscribed, which versions are
//! held, and what was accepted; survives streams. Incremental xDS over the aggregated stream; source: "xDS REST and gRPC
//! protocol", sections "Incremental xDS" and "ACK/NACK and resource type instance version".
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::unreachable
)]

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tulle_identity::svid::TrustBundle;
use tulle_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};
use tulle_proto::envoy::config::core::v3::Node;
use tulle_proto::google::rpc::Status as RpcStatus;
use tulle_proto::own::{LastGood, SavedResource};
use tulle_proto::{Any, ResourceType, names};

use super::per_type::PerType;
use crate::config::Snapshot;
use crate::config::compile::Store;
use crate::config::compile::fields::printable;
use crate::config::demand::DemandKey;
use crate::config::names::Names;
use crate::config::reject::{Fault, Rejected};

/// What is asked for by name because somebody wants it; all else is what these lead to.
const ROOTS: [ResourceType; 2] = [ResourceType::Listener, ResourceType::Name];

/// Most names of a type that may be subscribed on demand. Beyond it new destinations are treated as unknown ones.
pub(super) const MAX_WANTED: usize = 10_000;

/// Longest name that is asked for: a DNS name of 253 bytes, a port, and some room.
const MAX_NAME_BYTES: usize = 300;

/// Longest text of a NACK.
const MAX_DETAIL_BYTES: usize = 4096;

/// gRPC status "invalid argument", the code of a NACK.
const INVALID_ARGUMENT: i32 = 3;

/// What a session is for; does not change.
#[derive(Debug)]
pub(super) struct Config {
    /// Who asks, as sent in the first request of each stream.
    pub(super) node: Node,
    /// Name of the workload's own listener.
    pub(super) inbound: Arc<str>,
    /// Endpoints may have loopback addresses.
    pub(super) loopback: bool,
    /// Names that are always subscribed.
    pub(super) permanent: Vec<Arc<str>>,
    /// How long the answer "no such name" holds.
    pub(super) absent_ttl: Duration,
    /// How long a name that was asked for on demand is kept without use.
    pub(super) idle_after: Duration,
}

/// The session.
#[derive(Debug)]
pub(super) struct Session {
    config: Config,
    store: Store,
    /// Names of listeners and of DNS that are wanted, and whether for good.
    wanted: PerType<BTreeMap<Arc<str>, Want>>,
    /// Wanted names that do not exist, and until when that is believed.
    absent: PerType<HashMap<Arc<str>, Instant>>,
    /// Clusters that were used, and when last.
    used: HashMap<Arc<str>, Instant>,
    /// What is held, as it came.
    held: PerType<HashMap<Arc<str>, Held>>,
    /// What should be subscribed.
    desired: PerType<BTreeSet<Arc<str>>>,
    /// What is subscribed on the current stream.
    subscribed: PerType<BTreeSet<Arc<str>>>,
    /// Answers to responses; they are sent before anything that follows from them.
    answers: VecDeque<DeltaDiscoveryRequest>,
    /// Changes of subscriptions; none without a stream.
    outgoing: VecDeque<DeltaDiscoveryRequest>,
    connected: bool,
    /// What is held changed since `saved` was asked last.
    unsaved: bool,
    /// What is wanted or referred to changed since `settle`.
    unsettled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    Permanent,
    /// Asked for last at this time.
    OnDemand(Instant),
}

#[derive(Debug)]
struct Held {
    version: String,
    resource: Any,
}

/// What became of a response.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All of it was taken.
    Acked,
    /// Some or all of it was refused; the text went to the control plane.
    Nacked(String),
}

/// What became of a demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Demanded {
    /// It is subscribed now.
    New,
    /// It was before.
    Known,
    /// It is no possible name, or there are too many.
    Refused,
}

impl Session {
    /// A session that holds nothing yet.
    pub(super) fn new(config: Config) -> Self {
        let permanent = config.permanent.iter().filter(|name| is_name(name));
        let permanent = permanent.map(|name| (Arc::clone(name), Want::Permanent)).collect();
        let mut wanted = PerType::default();
        *wanted.get_mut(ResourceType::Listener) = permanent;
        let mut session = Self {
            store: Store::with_loopback(config.loopback),
            config,
            wanted,
            absent: PerType::default(),
            used: HashMap::new(),
            held: PerType::default(),
            desired: PerType::default(),
            subscribed: PerType::default(),
            answers: VecDeque::new(),
            outgoing: VecDeque::new(),
            connected: false,
            unsaved: false,
            unsettled: true,
        };
        session.settle();
        session
    }

    /// Takes in what an earlier process held, as far as it still compiles, and wants the same names again.
    pub(super) fn restore(&mut self, saved: LastGood, now: Instant) {
        for SavedResource { name, version, resource } in saved.resources {
            let name: Arc<str> = name.into();
            let (Some(resource), true) = (resource, is_name(&name)) else { continue };
            let Some(kind) = ResourceType::from_url(&resource.type_url) else { continue };
            if self.store.accept(kind, &name, &resource).is_ok() {
                let wanted = self.wanted.get_mut(kind);
                if ROOTS.contains(&kind) && name != self.config.inbound && wanted.len() < MAX_WANTED {
                    wanted.entry(Arc::clone(&name)).or_insert(Want::OnDemand(now));
                }
                self.held.get_mut(kind).insert(name, Held { version, resource });
            }
        }
        self.unsettled = true;
        self.settle();
    }

    /// Asks for what is wanted by its resource name.
    pub(super) fn demand(&mut self, key: &DemandKey, now: Instant) -> Demanded {
        let name = key.name();
        let wanted = self.wanted.get_mut(key.kind());
        if let Some(want) = wanted.get_mut(&name) {
            if let Want::OnDemand(asked) = want {
                *asked = now;
            }
            return Demanded::Known;
        }
        if wanted.len() >= MAX_WANTED || !is_name(&name) {
            return Demanded::Refused;
        }
        wanted.insert(name, Want::OnDemand(now));
        self.unsettled = true;
        Demanded::New
    }

    /// A stream is up: everything is subscribed anew, with the versions that are held.
    pub(super) fn connect(&mut self) {
        self.connected = true;
        self.answers.clear();
        self.outgoing.clear();
        self.subscribed = PerType::default();
        self.unsettled = true;
        self.settle();
        if let Some(first) = self.outgoing.front_mut() {
            first.node = Some(self.config.node.clone());
        }
    }

    /// The stream is gone: what is held stays in force.
    pub(super) fn disconnect(&mut self) {
        self.connected = false;
        self.answers.clear();
        self.outgoing.clear();
        self.subscribed = PerType::default();
    }

    /// The next request to send.
    pub(super) fn next_request(&mut self) -> Option<DeltaDiscoveryRequest> {
        self.settle();
        self.answers.pop_front().or_else(|| self.outgoing.pop_front())
    }

    /// Whether there is a request to send.
    pub(super) fn has_request(&mut self) -> bool {
        self.settle();
        !self.answers.is_empty() || !self.outgoing.is_empty()
    }

    /// Takes a response in and answers it: ACK when all of it was taken, else NACK with every reason. What is good in
    /// a refused response is in force all the same; of what is not, the last good version stays.
    pub(super) fn receive(&mut self, response: DeltaDiscoveryResponse, now: Instant) -> Outcome {
        self.settle();
        let DeltaDiscoveryResponse { resources, type_url, removed_resources, nonce, .. } = response;
        let problems = match envelope(&type_url, &resources, &removed_resources, &nonce) {
            Err(problem) => vec![problem],
            Ok(kind) => {
                let problems = self.update(kind, resources);
                for name in removed_resources {
                    self.removed(kind, &name.into(), now);
                }
                // Other types change nothing about what is needed.
                self.unsettled |= [ResourceType::Cluster, ResourceType::Listener, ResourceType::Route].contains(&kind);
                problems.iter().map(ToString::to_string).collect()
            }
        };
        self.answer(type_url, nonce, &problems)
    }

    fn update(&mut self, kind: ResourceType, resources: Vec<Resource>) -> Vec<Rejected> {
        let mut rejected = Vec::new();
        for Resource { name, version, resource, .. } in resources {
            let name: Arc<str> = name.into();
            // Of a name that was just unsubscribed an update may still be on its way. Others were never asked for.
            if !self.desired.get(kind).contains(&name) {
                continue;
            }
            let missing = || Rejected { kind, name: printable(&name), fault: Fault::missing("resource") };
            match resource
                .ok_or_else(missing)
                .and_then(|resource| self.store.accept(kind, &name, &resource).map(|()| resource))
            {
                Ok(resource) => {
                    self.absent.get_mut(kind).remove(&name);
                    self.held.get_mut(kind).insert(name, Held { version, resource });
                    self.unsaved = true;
                }
                Err(problem) => rejected.push(problem),
            }
        }
        rejected
    }

    fn removed(&mut self, kind: ResourceType, name: &Arc<str>, now: Instant) {
        // The workload's own rules serve until others come: a proxy that outlives its object still drains.
        let own = kind == ResourceType::Secret || *name == self.config.inbound;
        if own || !self.desired.get(kind).contains(name) {
            return;
        }
        if kind == ResourceType::Ranges && self.held.get(kind).contains_key(name) {
            // The ranges that are known stay: nothing that belongs to the mesh is passed through by a slip.
            return;
        }
        if self.held.get_mut(kind).remove(name).is_some() {
            self.unsaved = true;
        }
        self.store.gone(kind, name);
        if ROOTS.contains(&kind) {
            let until = now.checked_add(self.config.absent_ttl).unwrap_or(now);
            self.absent.get_mut(kind).insert(Arc::clone(name), until);
        }
    }

    fn answer(&mut self, type_url: String, response_nonce: String, problems: &[String]) -> Outcome {
        let mut answer = DeltaDiscoveryRequest { type_url, response_nonce, ..Default::default() };
        let outcome = if problems.is_empty() {
            Outcome::Acked
        } else {
            let message = shorten(problems.join("; "));
            answer.error_detail =
                Some(RpcStatus { code: INVALID_ARGUMENT, message: message.clone(), details: Vec::new() });
            Outcome::Nacked(message)
        };
        self.answers.push_back(answer);
        outcome
    }

    /// Lets answers "no such name" lapse: they are unsubscribed, and asked for again at the next demand. While the
    /// control plane is away they hold, for nobody could give a better answer; but for addresses of the mesh, where
    /// something may have appeared meanwhile that must not be reached in plain. Those are not known any more, and still
    /// subscribed.
    pub(super) fn expire(&mut self, now: Instant) {
        if !self.connected {
            let store = &self.store;
            let keep = |name: &Arc<str>, until: &mut Instant| *until > now || !lapses_in_an_outage(store, name);
            self.absent.get_mut(ResourceType::Listener).retain(keep);
            return;
        }
        for kind in ROOTS {
            let wanted = self.wanted.get_mut(kind);
            let before = wanted.len();
            self.absent.get_mut(kind).retain(|name, until| {
                let lapsed = *until <= now && matches!(wanted.get(name), Some(Want::OnDemand(_)));
                if lapsed {
                    wanted.remove(name);
                }
                !lapsed
            });
            self.unsettled |= wanted.len() != before;
        }
    }

    /// Takes in which clusters were used lately, and lets go of what nobody used for long: destinations that lead to none of
    /// them, and DNS names that were not asked for. They are unsubscribed, and asked for again at the next demand. How many
    /// there were. While the control plane is away all stay, for nobody could tell them again.
    pub(super) fn used(&mut self, clusters: Vec<Arc<str>>, now: Instant) -> usize {
        self.used.extend(clusters.into_iter().map(|name| (name, now)));
        if !self.connected {
            return 0;
        }
        let (store, idle_after) = (&self.store, self.config.idle_after);
        let recent = |at: &Instant| now.saturating_duration_since(*at) < idle_after;
        self.used.retain(|_, at| recent(at));
        let used = &self.used;
        let mut forgotten = 0_usize;
        for kind in ROOTS {
            let wanted = self.wanted.get_mut(kind);
            let before = wanted.len();
            wanted.retain(|name, want| {
                let mut keep = match want {
                    Want::Permanent => true,
                    Want::OnDemand(asked) => recent(asked),
                };
                if !keep && kind == ResourceType::Listener {
                    store
                        .needs(name, |kind, needed| keep |= kind == ResourceType::Cluster && used.contains_key(needed));
                }
                keep
            });
            forgotten = forgotten.saturating_add(before.saturating_sub(wanted.len()));
            self.absent.get_mut(kind).retain(|name, _| wanted.contains_key(name));
        }
        self.unsettled |= forgotten > 0;
        forgotten
    }

    /// When [`Session::expire`] has something to do.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        let lapsing = |kind| {
            let wanted = self.wanted.get(kind);
            let lapses = move |name: &Arc<str>| match self.connected {
                true => matches!(wanted.get(name), Some(Want::OnDemand(_))),
                false => kind == ResourceType::Listener && lapses_in_an_outage(&self.store, name),
            };
            let lapsing = self.absent.get(kind).iter().filter(move |(name, _)| lapses(name));
            lapsing.map(|(_, until)| *until).min()
        };
        ROOTS.into_iter().filter_map(lapsing).min()
    }

    /// The snapshot, when it changed.
    pub(super) fn snapshot(&mut self) -> Option<Snapshot> {
        self.settle();
        let snapshot = self.store.snapshot(self.absent.get(ResourceType::Listener).keys());
        self.unsettled |= self.store.take_moved();
        snapshot
    }

    /// What is known of DNS names, when it changed.
    pub(super) fn names(&mut self) -> Option<Names> {
        self.settle();
        self.store.names(self.absent.get(ResourceType::Name).keys())
    }

    /// The trust bundle, when one has arrived.
    pub(super) const fn bundle(&self) -> Option<&Arc<TrustBundle>> {
        self.store.bundle()
    }

    /// Whether something has to be saved; asking again says no until it changes again.
    pub(super) fn take_unsaved(&mut self) -> bool {
        std::mem::take(&mut self.unsaved)
    }

    /// Everything that is held, for the last-good file.
    pub(super) fn saved(&self) -> Vec<SavedResource> {
        let mut all = Vec::new();
        for kind in ResourceType::ALL {
            all.extend(self.held.get(kind).iter().map(|(name, held)| SavedResource {
                name: name.to_string(),
                version: held.version.clone(),
                resource: Some(held.resource.clone()),
            }));
        }
        all
    }

    /// Works out anew what should be subscribed, drops what no longer is, and asks for the difference. Costs as much as
    /// is subscribed, so demands and responses only note that it is due, and a burst of them pays once.
    fn settle(&mut self) {
        if !std::mem::take(&mut self.unsettled) {
            return;
        }
        let mut desired: PerType<BTreeSet<Arc<str>>> = PerType::default();
        desired.get_mut(ResourceType::Secret).insert(names::TRUST_BUNDLE.into());
        desired.get_mut(ResourceType::Ranges).insert(names::ADDRESS_RANGES.into());
        desired.get_mut(ResourceType::Listener).insert(Arc::clone(&self.config.inbound));
        let hosts = self.wanted.get(ResourceType::Name).keys();
        desired.get_mut(ResourceType::Name).extend(hosts.map(Arc::clone));
        let absent = self.absent.get(ResourceType::Listener);
        for name in self.wanted.get(ResourceType::Listener).keys() {
            desired.get_mut(ResourceType::Listener).insert(Arc::clone(name));
            let known = self.store.needs(name, |kind, needed| {
                desired.get_mut(kind).insert(Arc::clone(needed));
            });
            // A service's resources share its name: asking for all of them at once saves round trips.
            if !known && !absent.contains_key(name) && name.parse::<SocketAddr>().is_err() {
                for kind in [ResourceType::Route, ResourceType::Cluster, ResourceType::Endpoint] {
                    desired.get_mut(kind).insert(Arc::clone(name));
                }
            }
        }
        self.desired = desired;
        self.store.retain(|kind, name| self.desired.get(kind).contains(name));
        for kind in ResourceType::ALL {
            let desired = self.desired.get(kind);
            let held = self.held.get_mut(kind);
            let before = held.len();
            held.retain(|name, _| desired.contains(name));
            self.unsaved |= held.len() != before;
        }
        if self.connected {
            self.subscribe();
        }
    }

    fn subscribe(&mut self) {
        for kind in ResourceType::ALL {
            let (desired, subscribed) = (self.desired.get(kind), self.subscribed.get_mut(kind));
            let new: Vec<&Arc<str>> = desired.difference(subscribed).collect();
            let old: Vec<String> = subscribed.difference(desired).map(ToString::to_string).collect();
            if new.is_empty() && old.is_empty() {
                continue;
            }
            // Versions are told in the first request of a type on a stream only: later, nothing new is held.
            let versions = if subscribed.is_empty() {
                self.held.get(kind).iter().map(|(name, held)| (name.to_string(), held.version.clone())).collect()
            } else {
                HashMap::new()
            };
            self.outgoing.push_back(DeltaDiscoveryRequest {
                type_url: kind.url().to_owned(),
                resource_names_subscribe: new.iter().map(ToString::to_string).collect(),
                resource_names_unsubscribe: old,
                initial_resource_versions: versions,
                ..Default::default()
            });
            *subscribed = desired.clone();
        }
    }
}

/// Whether the answer "no such listener" to `name` ends while the control plane is away: it is an address of the mesh.
fn lapses_in_an_outage(store: &Store, name: &str) -> bool {
    name.parse::<SocketAddr>().is_ok_and(|address| store.is_of_the_mesh(address.ip()))
}

/// What must hold of a response before any of it is looked at.
fn envelope(type_url: &str, resources: &[Resource], removed: &[String], nonce: &str) -> Result<ResourceType, String> {
    let kind = ResourceType::from_url(type_url)
        .ok_or_else(|| format!("type `{}` is not one this proxy subscribed to", printable(type_url)))?;
    if nonce.is_empty() {
        return Err("response has no nonce".to_owned());
    }
    let mut seen = HashSet::new();
    let all = resources.iter().map(|resource| &resource.name).chain(removed);
    for name in all {
        if !seen.insert(name) {
            return Err(format!("{kind} {} is named twice in one response", printable(name)));
        }
    }
    Ok(kind)
}

/// Whether a text can be the name of a resource.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME_BYTES && name.chars().all(|c| c.is_ascii_graphic()) && name != "*"
}

/// At most [`MAX_DETAIL_BYTES`] of a text.
fn shorten(mut text: String) -> String {
    if text.len() > MAX_DETAIL_BYTES {
        let end = (0..=MAX_DETAIL_BYTES).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push_str(" ...");
    }
    text
}
