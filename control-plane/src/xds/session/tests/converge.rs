//! Whatever happens in whatever order, the client ends up with what the world is: a seeded simulation, replayed by its
//! seed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tulle_proto::ResourceType;
use tulle_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse};

use super::Script;
use crate::xds::session::{Delta, Session, Sotw, World};

const SEEDS: u64 = 3000;
const STEPS: usize = 60;
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
const TYPES: [ResourceType; 3] = [ResourceType::Cluster, ResourceType::Endpoint, ResourceType::Listener];

/// Numbers that look random and are the same for the same seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % u64::try_from(sides).unwrap()).unwrap()
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.roll(from.len())]
    }
}

/// Changes something in the world.
fn change(dice: &mut Dice, world: &mut Script) {
    world.tick();
    for _ in 0..=dice.roll(2) {
        let (ty, name) = (dice.pick(&TYPES), dice.pick(&NAMES));
        if dice.roll(3) == 0 {
            world.remove(ty, name);
        } else {
            let version = dice.roll(4).to_string();
            world.put(ty, name, &version);
        }
    }
}

/// What a client should have in the end.
fn expected(world: &Script, ty: ResourceType, names: &BTreeSet<String>, wildcard: bool) -> BTreeMap<String, String> {
    let all = world.all(ty).into_iter();
    all.filter(|resource| wildcard || names.contains(&*resource.name))
        .map(|resource| (resource.name.to_string(), resource.version.to_string()))
        .collect()
}

#[derive(Default)]
struct DeltaClient {
    session: Delta,
    wanted: BTreeMap<ResourceType, (BTreeSet<String>, bool)>,
    held: BTreeMap<ResourceType, BTreeMap<String, String>>,
    unanswered: VecDeque<DeltaDiscoveryResponse>,
}

impl DeltaClient {
    fn ask(&mut self, ty: ResourceType, add: &[String], drop: &[String]) {
        self.session
            .on_request(DeltaDiscoveryRequest {
                type_url: ty.url().into(),
                resource_names_subscribe: add.to_vec(),
                resource_names_unsubscribe: drop.to_vec(),
                ..DeltaDiscoveryRequest::default()
            })
            .unwrap();
    }

    fn toggle(&mut self, dice: &mut Dice) {
        let (ty, name) = (dice.pick(&TYPES), dice.pick(&NAMES).to_owned());
        let (names, wildcard) = self.wanted.entry(ty).or_default();
        if dice.roll(5) == 0 {
            *wildcard = !*wildcard;
            let (on, names) = (*wildcard, names.clone());
            let star = ["*".to_owned()];
            if on {
                self.ask(ty, &star, &[]);
            } else {
                self.held.entry(ty).or_default().retain(|name, _| names.contains(name));
                self.ask(ty, &[], &star);
            }
        } else if names.insert(name.clone()) {
            self.ask(ty, &[name], &[]);
        } else {
            names.remove(&name);
            if !*wildcard {
                self.held.entry(ty).or_default().remove(&name);
            }
            self.ask(ty, &[], &[name]);
        }
    }

    fn receive(&mut self, world: &Script) -> bool {
        let Some(sent) = self.session.next(world) else { return false };
        let held = self.held.entry(sent.ty).or_default();
        let (names, wildcard) = self.wanted.entry(sent.ty).or_default();
        for resource in &sent.response.resources {
            if *wildcard || names.contains(&resource.name) {
                held.insert(resource.name.clone(), resource.version.clone());
            }
        }
        for name in &sent.response.removed_resources {
            held.remove(name);
        }
        self.unanswered.push_back(sent.response);
        true
    }

    fn answer(&mut self) -> bool {
        let Some(response) = self.unanswered.pop_front() else { return false };
        let request = DeltaDiscoveryRequest {
            type_url: response.type_url,
            response_nonce: response.nonce,
            ..DeltaDiscoveryRequest::default()
        };
        self.session.on_request(request).unwrap();
        true
    }

    fn reconnect(&mut self) {
        self.session = Delta::default();
        self.unanswered.clear();
        for (&ty, (names, wildcard)) in &self.wanted {
            let mut subscribe: Vec<String> = names.iter().cloned().collect();
            subscribe.extend(wildcard.then(|| "*".to_owned()));
            if subscribe.is_empty() {
                continue;
            }
            let held = self.held.entry(ty).or_default();
            let request = DeltaDiscoveryRequest {
                type_url: ty.url().into(),
                resource_names_subscribe: subscribe,
                initial_resource_versions: held.clone().into_iter().collect(),
                ..DeltaDiscoveryRequest::default()
            };
            self.session.on_request(request).unwrap();
        }
    }
}

#[test]
fn delta() {
    for seed in 0..SEEDS {
        let mut dice = Dice(seed);
        let mut world = Script::new(&[]);
        let mut client = DeltaClient::default();
        // An empty first subscription would be the legacy wildcard; the client of this test always says what it wants.
        for ty in TYPES {
            client.ask(ty, &["never".to_owned()], &[]);
        }
        for _ in 0..STEPS {
            match dice.roll(10) {
                0..=2 => change(&mut dice, &mut world),
                3..=4 => client.toggle(&mut dice),
                5..=6 => _ = client.receive(&world),
                7..=8 => _ = client.answer(),
                _ if dice.roll(5) == 0 => client.reconnect(),
                _ => {}
            }
        }
        while client.receive(&world) || client.answer() {}
        for (&ty, (names, wildcard)) in &client.wanted {
            let held = client.held.get(&ty).cloned().unwrap_or_default();
            assert_eq!(held, expected(&world, ty, names, *wildcard), "seed {seed}, {ty}");
        }
    }
}

#[derive(Default)]
struct SotwClient {
    session: Sotw,
    wanted: BTreeMap<ResourceType, BTreeSet<String>>,
    held: BTreeMap<ResourceType, BTreeMap<String, String>>,
    accepted: BTreeMap<ResourceType, (String, String)>,
    unread: VecDeque<(ResourceType, DiscoveryResponse)>,
}

impl SotwClient {
    /// Says what is wanted; also how a response is accepted.
    fn ask(&mut self, ty: ResourceType) {
        let (version_info, response_nonce) = self.accepted.get(&ty).cloned().unwrap_or_default();
        let resource_names = self.wanted[&ty].iter().cloned().collect();
        let type_url = ty.url().into();
        let request = DiscoveryRequest { version_info, response_nonce, resource_names, type_url, ..Default::default() };
        self.session.on_request(request).unwrap();
    }

    fn toggle(&mut self, dice: &mut Dice) {
        let (ty, name) = (dice.pick(&TYPES), dice.pick(&NAMES).to_owned());
        let name = if dice.roll(6) == 0 && ty != ResourceType::Endpoint { "*".to_owned() } else { name };
        let names = self.wanted.entry(ty).or_default();
        if !names.insert(name.clone()) {
            names.remove(&name);
        }
        if !names.contains("*") {
            self.held.entry(ty).or_default().retain(|name, _| names.contains(name));
        }
        self.ask(ty);
    }

    fn send(&mut self, world: &Script) -> bool {
        let Some(sent) = self.session.next(world) else { return false };
        self.unread.push_back((sent.ty, sent.response));
        true
    }

    /// Reads a response. The script's bodies say nothing, so the world is asked what they were; it must not have
    /// changed since.
    fn read(&mut self, world: &Script) -> bool {
        let Some((ty, response)) = self.unread.pop_front() else { return false };
        let names = self.wanted.entry(ty).or_default();
        let held = self.held.entry(ty).or_default();
        if ty != ResourceType::Endpoint {
            held.clear();
        }
        for body in &response.resources {
            let found = world.all(ty).into_iter().find(|resource| resource.body == *body);
            let Some(resource) = found else { continue };
            if names.contains(&*resource.name) || names.contains("*") {
                held.insert(resource.name.to_string(), resource.version.to_string());
            }
        }
        self.accepted.insert(ty, (response.version_info, response.nonce));
        self.ask(ty);
        true
    }

    fn reconnect(&mut self) {
        self.session = Sotw::default();
        self.unread.clear();
        for ty in self.wanted.keys().copied().collect::<Vec<_>>() {
            if let Some((_, nonce)) = self.accepted.get_mut(&ty) {
                nonce.clear();
            }
            self.ask(ty);
        }
    }
}

#[test]
fn sotw() {
    for seed in 0..SEEDS {
        let mut dice = Dice(seed);
        let mut world = Script::new(&[]);
        world.distinct_bodies = true;
        let mut client = SotwClient::default();
        for ty in TYPES {
            client.wanted.insert(ty, ["never".to_owned()].into());
            client.ask(ty);
        }
        for _ in 0..STEPS {
            match dice.roll(10) {
                0..=2 => {
                    while client.read(&world) {}
                    change(&mut dice, &mut world);
                }
                3..=4 => client.toggle(&mut dice),
                5..=6 => _ = client.send(&world),
                7..=8 => _ = client.read(&world),
                _ if dice.roll(5) == 0 => client.reconnect(),
                _ => {}
            }
        }
        while client.send(&world) || client.read(&world) {}
        for ty in TYPES {
            let mut held = client.held.get(&ty).cloned().unwrap_or_default();
            // Absence cannot be said for endpoints; their cluster's absence says it.
            held.retain(|name, _| world.resource(ty, name).is_some() || ty != ResourceType::Endpoint);
            let names = &client.wanted[&ty];
            assert_eq!(held, expected(&world, ty, names, names.contains("*")), "seed {seed}, {ty}");
        }
    }
}
