//! What became of questions. Only the control thread counts.

use crate::telemetry::counters::Counter;

/// What became of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The mesh has the name.
    Mesh,
    /// A nameserver's earlier answer.
    Cached,
    /// A nameserver's answer.
    Forwarded,
    /// A nameserver's earlier answer beyond its time, for no nameserver answers now.
    Stale,
    /// No answer: SERVFAIL.
    Failed,
    /// No question that is answered here: refused with a code, or dropped.
    Malformed,
    /// Dropped, for too many were under way.
    Overload,
}

impl Outcome {
    /// All, in the order of their discriminants.
    pub const ALL: [Self; 7] =
        [Self::Mesh, Self::Cached, Self::Forwarded, Self::Stale, Self::Failed, Self::Malformed, Self::Overload];

    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mesh => "mesh",
            Self::Cached => "cached",
            Self::Forwarded => "forwarded",
            Self::Stale => "stale",
            Self::Failed => "failed",
            Self::Malformed => "malformed",
            Self::Overload => "overload",
        }
    }
}

/// Questions by what became of them.
#[derive(Debug, Default)]
pub struct Counts {
    by_outcome: [Counter; Outcome::ALL.len()],
}

impl Counts {
    /// One more.
    pub(super) fn count(&self, outcome: Outcome) {
        if let Some(counter) = self.by_outcome.get(outcome as usize) {
            counter.increment();
        }
    }

    /// How many there were.
    pub fn of(&self, outcome: Outcome) -> u64 {
        self.by_outcome.get(outcome as usize).map_or(0, Counter::value)
    }
}
