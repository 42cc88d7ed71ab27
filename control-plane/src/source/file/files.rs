//! The files as they were last good, and what has to be told when their content changes. No IO.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::documents;
use super::scan::{Content, Contents};
use crate::model::delta::Item;
use crate::model::problem::{Place, Problem};
use crate::model::{Delta, ObjectRef, Origin};

/// Every file's last good objects and present problems.
#[derive(Debug, Default)]
pub(super) struct Files {
    files: BTreeMap<Arc<str>, FileState>,
    /// Whether the whole set was told once.
    told: bool,
    problems: Option<Vec<Problem>>,
}

#[derive(Debug, Default)]
struct FileState {
    /// Hash of the newest content, good or not; none when it could not be read.
    seen: Option<u64>,
    items: Vec<Item>,
    problems: Vec<Problem>,
}

impl Files {
    /// Takes in the content of now. Returns what to tell: everything the first time, then only what changed, and
    /// nothing when nothing did.
    pub(super) fn update(&mut self, contents: Contents) -> Vec<Delta> {
        let mut step = Vec::new();
        self.files.retain(|name, state| {
            let stays = contents.contains_key(name);
            if !stays {
                step.extend(state.items.iter().map(removal));
            }
            stays
        });
        for (name, content) in contents {
            let Content::Read(content) = content else { continue };
            self.files.entry(name.clone()).or_default().update(&name, content, &mut step);
        }
        if !self.told {
            self.told = true;
            step = vec![Delta::Reset(self.all().0)];
        }
        let problems: Vec<Problem> = self.files.values().flat_map(|state| &state.problems).cloned().collect();
        if self.problems.as_ref() != Some(&problems) {
            step.push(Delta::Problems(problems.clone()));
            self.problems = Some(problems);
        }
        step
    }

    /// All last good objects, and all problems.
    pub(super) fn all(&self) -> (Vec<Item>, Vec<Problem>) {
        let items = self.files.values().flat_map(|state| state.items.iter().cloned()).collect();
        (items, self.files.values().flat_map(|state| state.problems.iter().cloned()).collect())
    }

    /// Somebody else told of a problem in our name: ours are told again the next time.
    pub(super) fn forget_problems(&mut self) {
        self.problems = None;
    }
}

impl FileState {
    fn update(&mut self, name: &Arc<str>, content: Result<Vec<u8>, String>, step: &mut Vec<Delta>) {
        let whole = || Place { file: name.clone(), line: 0, column: 0 };
        let text = match content {
            Err(reason) => {
                self.seen = None;
                return self.reject(vec![Problem::file(whole(), format!("it cannot be read: {reason}"))]);
            }
            Ok(bytes) => {
                let hash = rapidhash::v3::rapidhash_v3(&bytes);
                if self.seen.replace(hash) == Some(hash) {
                    return;
                }
                match String::from_utf8(bytes) {
                    Ok(text) => text,
                    Err(_) => return self.reject(vec![Problem::file(whole(), "it is not UTF-8 text")]),
                }
            }
        };
        let last = |reference: &ObjectRef| {
            self.items.iter().map(|item| &item.object).find(|object| object.reference() == *reference).cloned()
        };
        match documents::read(name, &text, &last) {
            Ok(read) => {
                let gone = self.items.iter().filter(|old| !read.items.iter().any(|new| same_place(old, new)));
                step.extend(gone.map(removal));
                let changed = read.items.iter().filter(|new| !self.items.contains(new));
                step.extend(changed.cloned().map(Delta::Upsert));
                (self.items, self.problems) = (read.items, read.problems);
            }
            Err(problems) => self.reject(problems),
        }
    }

    /// Keeps the objects, and says that they stay.
    fn reject(&mut self, mut problems: Vec<Problem>) {
        if !self.items.is_empty() {
            for problem in &mut problems {
                problem.reason =
                    format!("{}; the last good content of this file stays in force", problem.reason).into();
            }
        }
        self.problems = problems;
    }
}

fn same_place(a: &Item, b: &Item) -> bool {
    a.origin == b.origin && a.object.reference() == b.object.reference()
}

fn removal(item: &Item) -> Delta {
    let origin: Origin = item.origin.clone();
    Delta::Remove(origin, item.object.reference())
}
