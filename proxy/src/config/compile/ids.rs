//! Numbers for cluster names. A name keeps its number for as long as any compiled resource refers to it, so that a
//! route table compiled once serves every later snapshot.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::ClusterId;

/// The numbering.
#[derive(Debug, Default)]
pub(super) struct Ids {
    slots: Vec<Option<Arc<str>>>,
    free: Vec<u32>,
    numbers: HashMap<Arc<str>, ClusterId>,
}

impl Ids {
    /// The number of `name`, a new one when it has none yet.
    pub(super) fn number(&mut self, name: &str) -> ClusterId {
        if let Some(&id) = self.numbers.get(name) {
            return id;
        }
        let name: Arc<str> = name.into();
        let slot = self.free.pop().and_then(|number| Some((number, self.slots.get_mut(number as usize)?)));
        let id = match slot {
            Some((number, slot)) => {
                *slot = Some(Arc::clone(&name));
                ClusterId(number)
            }
            None => {
                // 2^32 names do not fit in memory, let alone in messages of bounded size.
                let number = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
                self.slots.push(Some(Arc::clone(&name)));
                ClusterId(number)
            }
        };
        self.numbers.insert(name, id);
        id
    }

    /// The name behind a number.
    pub(super) fn name(&self, id: ClusterId) -> Option<&Arc<str>> {
        self.slots.get(id.0 as usize)?.as_ref()
    }

    /// Every slot in order; a free one has no name.
    pub(super) fn slots(&self) -> impl Iterator<Item = Option<&Arc<str>>> {
        self.slots.iter().map(Option::as_ref)
    }

    /// Frees the numbers for which `in_use` says no.
    pub(super) fn sweep(&mut self, in_use: impl Fn(ClusterId) -> bool) {
        for (number, slot) in (0u32..).zip(&mut self.slots) {
            if slot.is_some()
                && !in_use(ClusterId(number))
                && let Some(name) = slot.take()
            {
                self.numbers.remove(&name);
                self.free.push(number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_stable_and_reused_once_free() {
        let mut ids = Ids::default();
        let (a, b) = (ids.number("a"), ids.number("b"));
        assert_eq!((ids.number("a"), ids.number("b")), (a, b));
        ids.sweep(|id| id == b);
        assert!(ids.name(a).is_none());
        assert_eq!(ids.number("b"), b);
        assert_eq!(ids.number("c"), a, "the freed slot");
        assert_eq!(ids.slots().count(), 2);
    }
}
