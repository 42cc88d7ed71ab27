//! The fields of a head, as a list in memory that is used again: a head is moved on its way more often than it is made.

use std::ops::{Deref, DerefMut};

use super::parse::Field;
use crate::base::spare::{self, Spares};

/// Room of a new list; heads rarely have more.
const USUAL: usize = 24;
/// Lists with more room than this are freed.
const LARGEST: usize = 128;
/// Lists kept on a thread.
const KEPT: usize = 256;

thread_local! {
    static FREE: Spares<Vec<Field>> = const { Spares::at_most(KEPT) };
}

/// A list of fields. The default one has no memory.
#[derive(Debug, Default)]
pub(crate) struct FieldList(Vec<Field>);

impl FieldList {
    /// An empty list with room for what is usual.
    pub(crate) fn take() -> Self {
        Self(spare::take(&FREE).unwrap_or_else(|| Vec::with_capacity(USUAL)))
    }
}

impl Deref for FieldList {
    type Target = Vec<Field>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for FieldList {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl Drop for FieldList {
    fn drop(&mut self) {
        if !(1..=LARGEST).contains(&self.0.capacity()) {
            return;
        }
        let mut list = std::mem::take(&mut self.0);
        list.clear();
        spare::give(&FREE, list);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again() {
        let mut list = FieldList::take();
        list.reserve(50);
        let room = list.capacity();
        drop(list);
        assert_eq!(FieldList::take().capacity(), room);
        let mut large = FieldList::take();
        large.reserve(LARGEST + 1);
        drop(large);
        assert_eq!(FieldList::take().capacity(), USUAL, "what is large is freed");
        assert_eq!(FieldList::default().capacity(), 0);
    }
}
