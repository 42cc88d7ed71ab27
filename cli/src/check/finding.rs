//! What a check found.

use serde_json::{Value, json};

use crate::cluster::CallError;

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    /// As it should be.
    Ok,
    /// It could not be looked at.
    Skipped,
    /// It works, but somebody should look at it.
    Warning,
    /// It does not work.
    Failed,
}

impl State {
    /// The word in the table.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Warning => "warning",
            Self::Failed => "FAILED",
        }
    }
}

/// One line of the table.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    /// What was looked at.
    pub(crate) about: &'static str,
    /// How it is.
    pub(crate) state: State,
    /// What was seen; for anything but `Ok` also what to do.
    pub(crate) detail: String,
}

impl Finding {
    pub(crate) fn ok(about: &'static str, detail: impl Into<String>) -> Self {
        Self { about, state: State::Ok, detail: detail.into() }
    }

    pub(crate) fn warning(about: &'static str, detail: impl Into<String>) -> Self {
        Self { about, state: State::Warning, detail: detail.into() }
    }

    pub(crate) fn failed(about: &'static str, detail: impl Into<String>) -> Self {
        Self { about, state: State::Failed, detail: detail.into() }
    }

    /// What a call that was not answered says about `about`: what the user may not see is skipped.
    pub(crate) fn of_call(about: &'static str, error: &CallError) -> Self {
        let state = if matches!(error, CallError::Forbidden(_)) { State::Skipped } else { State::Failed };
        Self { about, state, detail: error.to_string() }
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        json!({"check": self.about, "state": self.state.as_str().to_lowercase(), "detail": self.detail})
    }
}
