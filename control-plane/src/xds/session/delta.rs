//! The incremental variant: a response carries what changed and which names ceased to exist.
//!
//! Questions are answered at once. Changes go out type by type in make-before-break order, a type only after the
//! client answered its last response; removals go last, in the opposite order.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use tulle_proto::ResourceType;
use tulle_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource as Wire};
use tulle_proto::envoy::config::core::v3::Node;

use super::state::{Answered, Entry, Held, TypeState};
use super::{Heard, MAX_NAMES, MAX_RESPONSE_BYTES, MAX_UNANSWERED, Refused, Report, Sent, Session, Topics, World};
use super::{check_name, has_wildcard, wire_size};
use crate::translate::Resource;

/// State of an incremental stream.
#[derive(Debug, Default)]
pub(crate) struct Delta {
    /// Ordered as [`ResourceType`] is: make before break.
    types: BTreeMap<ResourceType, TypeState>,
    nonce: u64,
}

impl Session for Delta {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;
    const VARIANT: &'static str = "delta";

    fn take_node(request: &mut Self::Request) -> Option<Node> {
        request.node.take()
    }

    fn asks(request: &Self::Request) -> bool {
        let (subscribe, unsubscribe) = (&request.resource_names_subscribe, &request.resource_names_unsubscribe);
        // A first request without names may be one for everything.
        !subscribe.is_empty() || !unsubscribe.is_empty() || request.response_nonce.is_empty()
    }

    fn on_request(&mut self, request: Self::Request) -> Result<Heard, Refused> {
        let Some(ty) = ResourceType::from_url(&request.type_url) else {
            return Ok(Heard::UnknownType(request.type_url));
        };
        for name in request.resource_names_subscribe.iter().filter(|name| *name != "*") {
            check_name(name)?;
        }
        let first = !self.types.contains_key(&ty);
        let state = self.types.entry(ty).or_default();
        let error = request.error_detail.as_ref().map(|status| status.message.as_str());
        let heard = match state.answer(&request.response_nonce, error) {
            Answered::Stale => Heard::Subscribe,
            Answered::Ack => Heard::Ack(ty),
            Answered::Nack(nack) => Heard::Nack { ty, names: nack.names, reason: nack.reason },
        };
        unsubscribe(state, &request.resource_names_unsubscribe);
        subscribe(state, ty, first, request);
        if state.explicit() > MAX_NAMES {
            return Err(Refused::TooManyNames);
        }
        Ok(heard)
    }

    fn next(&mut self, world: &dyn World) -> Option<Sent<Self::Response>> {
        let parts = self.next_parts(world)?;
        Some(self.respond(world, parts))
    }

    fn topics(&self) -> Topics {
        let mut topics = Topics::default();
        self.types.values().for_each(|state| state.topics(&mut topics));
        topics
    }

    fn demand_bytes(&self) -> usize {
        self.types.values().map(TypeState::demand_bytes).sum()
    }

    fn report(&self) -> Report {
        self.types.iter().map(|(ty, state)| (ty.short(), state.report())).collect()
    }
}

/// What a response will carry.
struct Parts {
    ty: ResourceType,
    resources: Vec<Resource>,
    removed: Vec<Arc<str>>,
}

impl Delta {
    fn next_parts(&mut self, world: &dyn World) -> Option<Parts> {
        for (&ty, state) in &mut self.types {
            state.notice(ty, world);
            if let Some(parts) = answer(state, ty, world) {
                return Some(parts);
            }
        }
        for (&ty, state) in &mut self.types {
            if state.dirty.is_empty() && !state.wildcard_dirty {
                continue;
            }
            // A later type must not overtake an earlier one that still has something to say.
            if !state.unanswered.is_empty() {
                return None;
            }
            if let Some(parts) = change(state, ty, world) {
                return Some(parts);
            }
        }
        for (&ty, state) in self.types.iter_mut().rev() {
            if state.gone.is_empty() {
                continue;
            }
            if !state.unanswered.is_empty() {
                return None;
            }
            let removed = remove(state);
            if !removed.is_empty() {
                return Some(Parts { ty, resources: Vec::new(), removed });
            }
        }
        None
    }

    fn respond(&mut self, world: &dyn World, parts: Parts) -> Sent<DeltaDiscoveryResponse> {
        let Parts { ty, resources, removed } = parts;
        self.nonce = self.nonce.wrapping_add(1);
        let nonce = format!("{:x}", self.nonce);
        let version = world.clock(ty).to_string();
        let names = resources.iter().map(|resource| &resource.name).chain(&removed).cloned().collect();
        self.types.entry(ty).or_default().sent(nonce.clone(), version.clone(), names);
        Sent {
            ty,
            resources: resources.len(),
            removed: removed.len(),
            response: DeltaDiscoveryResponse {
                system_version_info: version,
                resources: resources.into_iter().map(to_wire).collect(),
                type_url: ty.url().to_owned(),
                removed_resources: removed.iter().map(ToString::to_string).collect(),
                nonce,
            },
        }
    }
}

fn to_wire(resource: Resource) -> Wire {
    Wire {
        name: resource.name.to_string(),
        aliases: Vec::new(),
        version: resource.version.to_string(),
        resource: Some(resource.body),
    }
}

fn unsubscribe(state: &mut TypeState, names: &[String]) {
    for name in names {
        if name == "*" {
            state.wildcard = false;
            state.wildcard_asked = false;
            state.wildcard_dirty = false;
            state.entries.retain(|_, entry| entry.explicit);
            let TypeState { gone, entries, .. } = state;
            gone.retain(|name| entries.contains_key(name));
        } else if !state.wildcard {
            state.forget(name);
        } else if let Some(entry) = state.entries.get_mut(name.as_str()) {
            // The wildcard may still cover it: the client must be told which of the two holds.
            entry.explicit = false;
            entry.held = Held::Unknown;
            state.asked.remove(name.as_str());
            state.dirty.remove(name.as_str());
            state.wildcard_dirty = true;
        }
    }
}

fn subscribe(state: &mut TypeState, ty: ResourceType, first: bool, request: DeltaDiscoveryRequest) {
    let silent = request.resource_names_unsubscribe.is_empty() && request.response_nonce.is_empty();
    let DeltaDiscoveryRequest { resource_names_subscribe: names, initial_resource_versions: mut held, .. } = request;
    let legacy = first && silent && names.is_empty() && has_wildcard(ty);
    for name in &names {
        if name == "*" {
            continue;
        }
        let name: Arc<str> = name.as_str().into();
        // Asking again means asking anew, unless the client says what it still holds from an earlier stream.
        let brought = if first { held.remove(&*name) } else { None };
        let entry = state.entry(&name);
        entry.explicit = true;
        entry.held = brought.map_or(Held::Unknown, |version| Held::Version(version.into()));
        state.gone.remove(&name);
        state.asked.insert(name);
    }
    if legacy || names.iter().any(|name| name == "*") {
        state.wildcard = true;
        if first {
            // What it brought beyond its names belongs to the wildcard; with it, no answer is an answer.
            state.wildcard_asked = held.is_empty();
            let brought = held.into_iter().filter(|(name, _)| check_name(name).is_ok());
            for (name, version) in brought {
                let entry = Entry::new(&name, false, Held::Version(version.into()));
                state.entries.insert(name.into(), entry);
            }
        } else {
            state.wildcard_asked = true;
        }
        state.wildcard_dirty = true;
    }
}

/// Answers names that were asked for: the resource, or that there is none. Names the client still holds need no answer.
fn answer(state: &mut TypeState, ty: ResourceType, world: &dyn World) -> Option<Parts> {
    if state.unanswered.len() >= MAX_UNANSWERED {
        return None;
    }
    let (mut resources, mut removed, mut size) = (Vec::new(), Vec::new(), 0_usize);
    while size < MAX_RESPONSE_BYTES {
        let Some(name) = state.asked.pop_first() else { break };
        state.dirty.remove(&name);
        let Some(entry) = state.entries.get_mut(&name) else { continue };
        entry.noticed = world.clock(ty);
        match world.resource(ty, &name) {
            Some(resource) if entry.held.is(&resource.version) => {}
            Some(resource) => {
                entry.held = Held::Version(resource.version.clone());
                size = size.saturating_add(wire_size(&resource));
                resources.push(resource);
            }
            None => {
                entry.held = Held::Absent;
                size = size.saturating_add(name.len());
                removed.push(name);
            }
        }
    }
    let wildcard = std::mem::take(&mut state.wildcard_asked);
    if wildcard {
        wildcard_changes(state, ty, world, (&mut resources, &mut size));
    }
    (wildcard || !resources.is_empty() || !removed.is_empty()).then_some(Parts { ty, resources, removed })
}

/// Collects changed resources; names that ceased to exist are kept for later.
fn change(state: &mut TypeState, ty: ResourceType, world: &dyn World) -> Option<Parts> {
    let (mut resources, mut size) = (Vec::new(), 0_usize);
    while size < MAX_RESPONSE_BYTES {
        let Some(name) = state.dirty.pop_first() else { break };
        let Some(entry) = state.entries.get_mut(&name) else { continue };
        match world.resource(ty, &name) {
            Some(resource) if entry.held.is(&resource.version) => {
                state.gone.remove(&name);
            }
            Some(resource) => {
                entry.held = Held::Version(resource.version.clone());
                size = size.saturating_add(wire_size(&resource));
                state.gone.remove(&name);
                resources.push(resource);
            }
            None if entry.held == Held::Absent => {}
            None => {
                state.gone.insert(name);
            }
        }
    }
    if state.wildcard_dirty && size < MAX_RESPONSE_BYTES {
        wildcard_changes(state, ty, world, (&mut resources, &mut size));
    }
    (!resources.is_empty()).then_some(Parts { ty, resources, removed: Vec::new() })
}

/// Adds what changed of the wildcard's set until the response is full; what is left keeps the type dirty.
fn wildcard_changes(
    state: &mut TypeState,
    ty: ResourceType,
    world: &dyn World,
    (resources, size): (&mut Vec<Resource>, &mut usize),
) {
    let all = world.all(ty);
    state.wildcard_dirty = false;
    let present: HashSet<&Arc<str>> = all.iter().map(|resource| &resource.name).collect();
    for (name, entry) in &state.entries {
        if !entry.explicit && !present.contains(name) {
            state.gone.insert(name.clone());
        }
    }
    for resource in &all {
        if !state.entry(&resource.name).explicit {
            state.gone.remove(&resource.name);
        }
        let entry = state.entry(&resource.name);
        if entry.held.is(&resource.version) {
            continue;
        }
        if *size >= MAX_RESPONSE_BYTES {
            state.wildcard_dirty = true;
            break;
        }
        entry.held = Held::Version(resource.version.clone());
        *size = size.saturating_add(wire_size(resource));
        resources.push(resource.clone());
    }
}

/// Takes the names to remove; those the client is still subscribed to stay known as absent.
fn remove(state: &mut TypeState) -> Vec<Arc<str>> {
    let gone = std::mem::take(&mut state.gone);
    for name in &gone {
        match state.entries.get_mut(name) {
            Some(entry) if entry.explicit => entry.held = Held::Absent,
            _ => {
                state.entries.remove(name);
            }
        }
    }
    gone.into_iter().collect()
}
