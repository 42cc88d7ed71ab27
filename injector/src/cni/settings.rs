//! A runtime's call comes in the environment: the only place of the plugin that reads it.

use std::collections::BTreeMap;

/// The variables of this process that are text.
pub(super) fn environment() -> BTreeMap<String, String> {
    std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?))).collect()
}
