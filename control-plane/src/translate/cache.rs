//! Inputs to encoded resources, bounded by bytes.
//!
//! Two generations: what is used moves to the young one; when that is full it becomes the old one, and what was old
//! and not used since is dropped. So a hit costs one look-up, and nothing has to be aged.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rapidhash::fast::RandomState;

use super::Resource;
use super::input::Input;

/// Encoded bytes one generation may hold; twice that is the most there is. Enough for 10 000 services of 20 endpoints.
const GENERATION_BYTES: usize = 64 << 20;

/// What an entry costs beside its body: its input is about as large as the body.
const ENTRY_BYTES: usize = 256;

/// A cache of encoded resources.
#[derive(Debug)]
pub(super) struct Cache {
    generations: Mutex<Generations>,
    limit_bytes: usize,
}

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Arc<Input>, Resource, RandomState>,
    old: HashMap<Arc<Input>, Resource, RandomState>,
    young_bytes: usize,
}

impl Default for Cache {
    fn default() -> Self {
        Self::with_limit(GENERATION_BYTES)
    }
}

impl Cache {
    fn with_limit(limit_bytes: usize) -> Self {
        Self { generations: Mutex::default(), limit_bytes }
    }

    /// The resource called `name` made of `input`; built when it is not there. The lock is not held while building.
    pub(super) fn get(&self, name: &str, input: Input) -> Resource {
        let input = Arc::new(input);
        if let Some(found) = self.locked(|generations| generations.find(&input)) {
            debug_assert_eq!(&*found.name, name, "the name is part of the input");
            return found;
        }
        let resource = Resource { name: name.into(), version: input.version(), body: input.build() };
        self.locked(|generations| generations.insert(input, resource.clone(), self.limit_bytes));
        resource
    }

    fn locked<T>(&self, f: impl FnOnce(&mut Generations) -> T) -> T {
        // Entries are whole before they are inserted, so a panic elsewhere leaves nothing half done.
        f(&mut self.generations.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Generations {
    fn find(&mut self, input: &Arc<Input>) -> Option<Resource> {
        if let Some(found) = self.young.get(input) {
            return Some(found.clone());
        }
        let (input, resource) = self.old.remove_entry(input)?;
        self.young_bytes = self.young_bytes.saturating_add(cost(&resource));
        self.young.insert(input, resource.clone());
        Some(resource)
    }

    fn insert(&mut self, input: Arc<Input>, resource: Resource, limit_bytes: usize) {
        self.young_bytes = self.young_bytes.saturating_add(cost(&resource));
        self.young.insert(input, resource);
        if self.young_bytes > limit_bytes {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
    }
}

fn cost(resource: &Resource) -> usize {
    resource.body.value.len().saturating_mul(2).saturating_add(ENTRY_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_two_generations_at_most_and_keeps_what_is_used() {
        let cache = Cache::with_limit(4 * ENTRY_BYTES);
        let input = |port: u16| super::super::outbound::tests::listener(port);
        let first = cache.get("127.0.0.1:1", input(1)).body.value;
        for port in 2..200 {
            cache.get(&format!("127.0.0.1:{port}"), input(port));
            // Used all the time, so never built again.
            assert_eq!(cache.get("127.0.0.1:1", input(1)).body.value.as_ptr(), first.as_ptr());
            let held = cache.locked(|g| g.young.len() + g.old.len());
            assert!(held <= 8, "{held}");
        }
    }
}
