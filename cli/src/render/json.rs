//! JSON for programs: pretty, one document.

use serde_json::Value;

/// The document as text.
pub(crate) fn json(value: &Value) -> String {
    // A `Value` has text keys and finite numbers only, which is all that can go wrong.
    format!("{value:#}")
}
