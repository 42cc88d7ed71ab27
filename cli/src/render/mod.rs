//! Output: standard output carries results, standard error what a person should know. One place writes to each.

/// Columns for people.
mod table;

/// JSON for programs.
mod json;

pub(crate) use json::json;
pub(crate) use table::Table;

use std::fmt::Display;
use std::io::{Write as _, stderr, stdout};

/// Prints lines.
///
/// # Errors
/// When standard output is closed.
pub(crate) fn lines(lines: impl IntoIterator<Item = impl Display>) -> std::io::Result<()> {
    let mut out = stdout().lock();
    for line in lines {
        writeln!(out, "{line}")?;
    }
    out.flush()
}

/// Says what is wrong, on standard error.
pub(crate) fn complain(text: &str) {
    // There is nobody left to tell when standard error is closed.
    let _ = writeln!(stderr().lock(), "tulle: {text}");
}

/// Says what a person may want to know, on standard error.
pub(crate) fn tell(text: &str) {
    // There is nobody left to tell when standard error is closed.
    let _ = writeln!(stderr().lock(), "{text}");
}
