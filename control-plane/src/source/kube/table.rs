//! What was seen of one kind: the last good value of each object, and what is wrong with any. No IO.

use std::collections::BTreeMap;

use kube::runtime::watcher::Event;

use super::watched::{Manifest, Watched};
use crate::model::{Key, Problem};

/// The objects of one kind.
#[derive(Debug)]
pub(super) struct Table<V> {
    values: BTreeMap<Key, V>,
    problems: BTreeMap<Key, Vec<Problem>>,
    /// The set that is being listed, while one is.
    fresh: Option<BTreeMap<Key, Option<V>>>,
    listed: bool,
}

/// What an event means for the values.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change<V> {
    None,
    /// The whole set was listed.
    Reset,
    Set(V),
    /// The value that is gone.
    Gone(V),
}

/// A value, unless there is no use for the object, and what is wrong with it though it is usable; or why it is not.
pub(super) type Converted<V> = Result<(Option<V>, Vec<Problem>), Problem>;

impl<V> Default for Table<V> {
    fn default() -> Self {
        Self { values: BTreeMap::new(), problems: BTreeMap::new(), fresh: None, listed: false }
    }
}

impl<V: Clone + PartialEq> Table<V> {
    /// Takes in an event. `convert` gets the last good value of the object; one that cannot be converted keeps it.
    pub(super) fn apply<T: Manifest>(
        &mut self,
        event: Event<Watched<T>>,
        convert: impl FnOnce(&Watched<T>, Option<&V>) -> Converted<V>,
    ) -> Change<V> {
        match event {
            Event::Init => {
                self.fresh = Some(BTreeMap::new());
                Change::None
            }
            Event::InitApply(object) => {
                let value = self.convert(&object, convert);
                self.fresh.get_or_insert_default().insert(object.key(), value);
                Change::None
            }
            Event::InitDone => {
                self.listed = true;
                let fresh = self.fresh.take().unwrap_or_default();
                self.problems.retain(|key, _| fresh.contains_key(key));
                self.values = fresh.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
                Change::Reset
            }
            Event::Apply(object) => {
                let (key, value) = (object.key(), self.convert(&object, convert));
                match value {
                    Some(value) if self.values.get(&key) == Some(&value) => Change::None,
                    Some(value) => {
                        self.values.insert(key, value.clone());
                        Change::Set(value)
                    }
                    None => self.remove(&key),
                }
            }
            Event::Delete(object) => {
                self.problems.remove(&object.key());
                self.remove(&object.key())
            }
        }
    }

    fn convert<T>(
        &mut self,
        object: &Watched<T>,
        convert: impl FnOnce(&Watched<T>, Option<&V>) -> Converted<V>,
    ) -> Option<V> {
        let key = object.key();
        let last = self.values.get(&key);
        let (value, problems) = match convert(object, last) {
            Ok(converted) => converted,
            Err(mut problem) => {
                if last.is_some() {
                    problem.reason = format!("{}; its last good value stays in force", problem.reason).into();
                }
                (last.cloned(), vec![problem])
            }
        };
        if problems.is_empty() {
            self.problems.remove(&key);
        } else {
            self.problems.insert(key, problems);
        }
        value
    }

    fn remove(&mut self, key: &Key) -> Change<V> {
        self.values.remove(key).map_or(Change::None, Change::Gone)
    }

    /// As if a list of nothing had been answered, unless one was listed before; whether that is a change.
    pub(super) fn give_up(&mut self) -> bool {
        !std::mem::replace(&mut self.listed, true)
    }

    /// Forgets all objects; whether there were any, good or not.
    pub(super) fn clear(&mut self) -> bool {
        let any = !self.values.is_empty() || !self.problems.is_empty();
        self.values.clear();
        self.problems.clear();
        any
    }

    /// Whether the whole set was listed once.
    pub(super) const fn listed(&self) -> bool {
        self.listed
    }

    pub(super) fn get(&self, key: &Key) -> Option<&V> {
        self.values.get(key)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.values.values()
    }

    pub(super) fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.values().flatten()
    }
}
