//! The state-of-the-world variant: listeners and clusters as full sets, the other types as what changed of the
//! subscribed names.
//!
//! A type has at most one response without an answer. The version of a response is a digest of the whole subscribed
//! set, so a client that reconnects to a wildcard with it, to whichever replica, is sent nothing it has. With names
//! that would not be safe: the client may have dropped one and asked for it again since that version.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tulle_proto::ResourceType;
use tulle_proto::discovery::{DiscoveryRequest, DiscoveryResponse};
use tulle_proto::envoy::config::core::v3::Node;

use super::state::{Answered, Entry, Held, TypeState};
use super::{
    Heard, MAX_NAMES, MAX_RESPONSE_BYTES, Refused, Report, Sent, Session, Topics, World, check_name, has_wildcard,
    wire_size,
};
use crate::translate::Resource;

/// State of a state-of-the-world stream.
#[derive(Debug, Default)]
pub(crate) struct Sotw {
    types: BTreeMap<ResourceType, Type>,
    nonce: u64,
}

/// What this variant keeps beyond [`TypeState`].
#[derive(Debug, Default)]
struct Type {
    state: TypeState,
    /// Nonce of the last response; a request with another one was written before that response arrived.
    nonce: Option<String>,
    /// Digest of the wildcard's set the client brought from an earlier stream, until that set was compared.
    brought: Option<String>,
    /// Names were given once; from then on an empty list means none.
    named: bool,
}

impl Session for Sotw {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;
    const VARIANT: &'static str = "sotw";

    fn take_node(request: &mut Self::Request) -> Option<Node> {
        request.node.take()
    }

    fn asks(_: &Self::Request) -> bool {
        // Each request has the whole list.
        true
    }

    fn on_request(&mut self, request: Self::Request) -> Result<Heard, Refused> {
        let Some(ty) = ResourceType::from_url(&request.type_url) else {
            return Ok(Heard::UnknownType(request.type_url));
        };
        for name in &request.resource_names {
            check_name(name)?;
        }
        let first = !self.types.contains_key(&ty);
        let slot = self.types.entry(ty).or_default();
        if let Some(nonce) = &slot.nonce
            && *nonce != request.response_nonce
        {
            return Ok(Heard::Subscribe);
        }
        let error = request.error_detail.as_ref().map(|status| status.message.as_str());
        let heard = match slot.state.answer(&request.response_nonce, error) {
            Answered::Stale => Heard::Subscribe,
            Answered::Ack => Heard::Ack(ty),
            Answered::Nack(nack) => Heard::Nack { ty, names: nack.names, reason: nack.reason },
        };
        subscribe(slot, ty, &request.resource_names);
        if first && slot.state.wildcard && !slot.named && !request.version_info.is_empty() {
            slot.brought = Some(request.version_info);
        }
        if slot.state.explicit() > MAX_NAMES {
            return Err(Refused::TooManyNames);
        }
        Ok(heard)
    }

    fn next(&mut self, world: &dyn World) -> Option<Sent<Self::Response>> {
        for (&ty, slot) in &mut self.types {
            slot.state.notice(ty, world);
        }
        // First what appeared or changed, in make-before-break order; a change does not overtake an earlier type that
        // waits for an answer, a question does.
        let mut blocked = false;
        for (&ty, slot) in &mut self.types {
            blocked |= slot.state.pending() && !slot.state.unanswered.is_empty();
            if blocked && !slot.state.questioned() {
                continue;
            }
            if let Some(found) = look(slot, ty, world, false) {
                return Some(self.respond(ty, found));
            }
        }
        if blocked {
            return None;
        }
        // Then sets that only shrank, in the opposite order.
        let (ty, found) =
            self.types.iter_mut().rev().find_map(|(&ty, slot)| Some((ty, look(slot, ty, world, true)?)))?;
        Some(self.respond(ty, found))
    }

    fn topics(&self) -> Topics {
        let mut topics = Topics::default();
        self.types.values().for_each(|slot| slot.state.topics(&mut topics));
        topics
    }

    fn demand_bytes(&self) -> usize {
        self.types.values().map(|ty| ty.state.demand_bytes()).sum()
    }

    fn report(&self) -> Report {
        self.types.iter().map(|(ty, slot)| (ty.short(), slot.state.report())).collect()
    }
}

/// What a response will carry.
struct Found {
    resources: Vec<Resource>,
    version: String,
    /// Names whose version is new to the client.
    changed: Vec<Arc<str>>,
    removed: usize,
}

impl Sotw {
    fn respond(&mut self, ty: ResourceType, found: Found) -> Sent<DiscoveryResponse> {
        self.nonce = self.nonce.wrapping_add(1);
        let nonce = format!("{:x}", self.nonce);
        if ty == ResourceType::Cluster {
            self.renew_endpoints(&found.changed);
        }
        let slot = self.types.entry(ty).or_default();
        slot.nonce = Some(nonce.clone());
        slot.state.sent(nonce.clone(), found.version.clone(), found.changed);
        Sent {
            ty,
            resources: found.resources.len(),
            removed: found.removed,
            response: DiscoveryResponse {
                version_info: found.version,
                resources: found.resources.into_iter().map(|resource| resource.body).collect(),
                type_url: ty.url().to_owned(),
                nonce,
            },
        }
    }

    /// A client warms a changed cluster until it is sent its endpoints again, and asks in a way that looks like an
    /// ACK; so they are sent unasked.
    fn renew_endpoints(&mut self, clusters: &[Arc<str>]) {
        let Some(slot) = self.types.get_mut(&ResourceType::Endpoint) else { return };
        for name in clusters {
            if let Some(entry) = slot.state.entries.get_mut(name) {
                entry.held = Held::Unknown;
                slot.state.dirty.insert(name.clone());
            }
        }
    }
}

/// Replaces the names of a type.
fn subscribe(slot: &mut Type, ty: ResourceType, names: &[String]) {
    let wanted: BTreeSet<&str> = names.iter().map(String::as_str).filter(|name| *name != "*").collect();
    let wildcard = names.iter().any(|name| name == "*") || (names.is_empty() && !slot.named && has_wildcard(ty));
    slot.named |= !names.is_empty();
    let state = &mut slot.state;
    if wildcard && !state.wildcard {
        state.wildcard_asked = true;
    }
    if state.wildcard && !wildcard {
        state.entries.retain(|_, entry| entry.explicit);
    }
    state.wildcard = wildcard;
    let dropped: Vec<Arc<str>> = state
        .entries
        .iter()
        .filter(|(name, entry)| entry.explicit && !wanted.contains(&***name))
        .map(|(name, _)| name.clone())
        .collect();
    for name in dropped {
        match state.entries.get_mut(&name) {
            // Still covered: what the client has of it counts.
            Some(entry) if wildcard => entry.explicit = false,
            _ => state.forget(&name),
        }
    }
    for name in wanted {
        let name: Arc<str> = name.into();
        let entry = state.entry(&name);
        if !entry.explicit {
            (entry.explicit, entry.held) = (true, Held::Unknown);
            state.asked.insert(name);
        }
    }
}

/// What the type has to say; with `shrink` also when all it has to say is that resources are gone.
fn look(slot: &mut Type, ty: ResourceType, world: &dyn World, shrink: bool) -> Option<Found> {
    if !slot.state.pending() || !slot.state.unanswered.is_empty() {
        return None;
    }
    let state = &mut slot.state;
    let found = if has_wildcard(ty) { full_set(state, ty, world, shrink) } else { changes(state, ty, world) }?;
    // The client may have all of it from an earlier stream.
    (slot.brought.take().as_ref() != Some(&found.version)).then_some(found)
}

/// Every subscribed resource that exists: what is missing from the response ceases to exist for the client.
fn full_set(state: &mut TypeState, ty: ResourceType, world: &dyn World, shrink: bool) -> Option<Found> {
    let mut resources = BTreeMap::new();
    if state.wildcard {
        resources.extend(world.all(ty).into_iter().map(|resource| (resource.name.clone(), resource)));
    }
    for (name, _) in state.entries.iter().filter(|(_, entry)| entry.explicit) {
        if !resources.contains_key(name)
            && let Some(resource) = world.resource(ty, name)
        {
            resources.insert(name.clone(), resource);
        }
    }
    let held = |name: &Arc<str>, version: &str| state.entries.get(name).is_some_and(|entry| entry.held.is(version));
    let changed: Vec<Arc<str>> =
        resources.values().filter(|r| !held(&r.name, &r.version)).map(|r| r.name.clone()).collect();
    let gone = |name: &Arc<str>, entry: &Entry| matches!(entry.held, Held::Version(_)) && !resources.contains_key(name);
    let removed = state.entries.iter().filter(|(name, entry)| gone(name, entry)).count();
    if changed.is_empty() && !state.questioned() {
        if removed == 0 {
            state.settle();
            return None;
        }
        if !shrink {
            return None;
        }
    }
    state.entries.retain(|name, entry| {
        let exists = resources.contains_key(name);
        if !exists {
            entry.held = Held::Absent;
        }
        entry.explicit || exists
    });
    for resource in resources.values() {
        state.entry(&resource.name).held = Held::Version(resource.version.clone());
    }
    state.settle();
    let version = digest(resources.values().map(|resource| (&*resource.name, &*resource.version)));
    Some(Found { resources: resources.into_values().collect(), version, changed, removed })
}

/// What changed of the subscribed names. This variant has no way to say that one ceased to exist.
fn changes(state: &mut TypeState, ty: ResourceType, world: &dyn World) -> Option<Found> {
    let mut resources = Vec::new();
    let mut bytes = 0_usize;
    let names: Vec<Arc<str>> = state.asked.union(&state.dirty).cloned().collect();
    let mut rest = Vec::new();
    for name in &names {
        let Some(entry) = state.entries.get_mut(name) else { continue };
        if !rest.is_empty() {
            rest.push(name.clone());
            continue;
        }
        match world.resource(ty, name) {
            Some(resource) if entry.held.is(&resource.version) => {}
            Some(resource) => {
                let size = wire_size(&resource);
                if bytes.saturating_add(size) > MAX_RESPONSE_BYTES && !resources.is_empty() {
                    rest.push(name.clone());
                    continue;
                }
                bytes = bytes.saturating_add(size);
                entry.held = Held::Version(resource.version.clone());
                resources.push(resource);
            }
            None => entry.held = Held::Absent,
        }
    }
    state.settle();
    // What has no room follows when the client has answered.
    state.dirty.extend(rest);
    if resources.is_empty() {
        return None;
    }
    let mut held: Vec<(&str, &str)> = Vec::new();
    for (name, entry) in &state.entries {
        if let Held::Version(version) = &entry.held {
            held.push((name, version));
        }
    }
    held.sort_unstable();
    let version = digest(held.into_iter());
    let changed = resources.iter().map(|resource| resource.name.clone()).collect();
    Some(Found { resources, version, changed, removed: 0 })
}

impl TypeState {
    /// Something may have to be said.
    fn pending(&self) -> bool {
        self.questioned() || self.wildcard_dirty || !self.dirty.is_empty()
    }

    /// The client asked and has no answer yet.
    fn questioned(&self) -> bool {
        self.wildcard_asked || !self.asked.is_empty()
    }

    /// Everything pending was looked at.
    fn settle(&mut self) {
        self.asked.clear();
        self.dirty.clear();
        self.wildcard_asked = false;
        self.wildcard_dirty = false;
    }
}

/// The same for the same set on every replica.
fn digest<'a>(set: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut text = String::new();
    for (name, version) in set {
        for part in [name, "\0", version, "\n"] {
            text.push_str(part);
        }
    }
    format!("{:016x}", rapidhash::v3::rapidhash_v3(text.as_bytes()))
}
