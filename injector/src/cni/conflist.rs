//! A node's network configuration as text, with Tulle's plugin at the end of its list and without. Pure.

use serde_json::{Map, Value, json};

/// The plugin's name: that of its program.
pub(crate) const TYPE: &str = "tulle-cni";

/// Why a text cannot be changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EditError {
    /// Not JSON.
    #[error("not JSON: {0}")]
    NotJson(String),
    /// Neither a list of plugins nor one plugin.
    #[error("neither a network configuration list nor a single plugin's configuration")]
    NoPlugins,
}

/// The text with `entry` as the last plugin; `None` when it is so already. A single plugin's configuration becomes a list.
///
/// # Errors
/// See [`EditError`].
pub(crate) fn with(text: &str, entry: &Value) -> Result<Option<String>, EditError> {
    let mut list = read(text)?;
    if list.get("plugins").is_none() {
        list = list_of(list)?;
    }
    let plugins = plugins(&mut list)?;
    let ours: Vec<usize> = (0..plugins.len()).filter(|index| plugins.get(*index).is_some_and(is_ours)).collect();
    if ours.len() == 1 && plugins.last() == Some(entry) {
        return Ok(None);
    }
    plugins.retain(|plugin| !is_ours(plugin));
    plugins.push(entry.clone());
    Ok(Some(written(&list)))
}

/// The text without our plugin; `None` when it is not there.
///
/// # Errors
/// See [`EditError`].
pub(crate) fn without(text: &str) -> Result<Option<String>, EditError> {
    let mut list = read(text)?;
    if list.get("plugins").is_none() {
        return Ok(None);
    }
    let plugins = plugins(&mut list)?;
    let before = plugins.len();
    plugins.retain(|plugin| !is_ours(plugin));
    let gone = plugins.len() < before;
    Ok(gone.then(|| written(&list)))
}

/// Whether two texts are the same configuration, however they are written.
pub(crate) fn same(one: &str, other: &str) -> bool {
    read(one).is_ok_and(|one| read(other) == Ok(one))
}

fn read(text: &str) -> Result<Value, EditError> {
    let value: Value = serde_json::from_str(text).map_err(|error| EditError::NotJson(error.to_string()))?;
    if value.is_object() { Ok(value) } else { Err(EditError::NoPlugins) }
}

fn plugins(list: &mut Value) -> Result<&mut Vec<Value>, EditError> {
    list.get_mut("plugins").and_then(Value::as_array_mut).ok_or(EditError::NoPlugins)
}

/// Name and version belong to the list; the rest is the plugin's.
fn list_of(plugin: Value) -> Result<Value, EditError> {
    let Value::Object(mut plugin) = plugin else { return Err(EditError::NoPlugins) };
    if !plugin.get("type").is_some_and(Value::is_string) {
        return Err(EditError::NoPlugins);
    }
    let mut list = Map::new();
    for key in ["cniVersion", "name"] {
        list.extend(plugin.remove(key).map(|value| (key.to_owned(), value)));
    }
    list.insert("plugins".to_owned(), json!([plugin]));
    Ok(Value::Object(list))
}

fn is_ours(plugin: &Value) -> bool {
    plugin.get("type").and_then(Value::as_str) == Some(TYPE)
}

fn written(list: &Value) -> String {
    format!("{list:#}\n")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn entry() -> Value {
        json!({"type": TYPE, "kubeconfig": "/etc/cni/net.d/tulle-cni.kubeconfig"})
    }

    /// Golden files in `testdata/cni`: `NAME.in` is what a network plugin wrote, `NAME.out` what becomes of it.
    #[test]
    fn golden_pairs() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/cni");
        let mut seen = 0;
        for file in std::fs::read_dir(&folder).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "in") {
                continue;
            }
            let before = std::fs::read_to_string(&path).unwrap();
            let after = with(&before, &entry()).unwrap().expect("it was not there");
            let golden = path.with_extension("out");
            if std::env::vars().any(|(key, _)| key == "UPDATE_GOLDEN") {
                std::fs::write(&golden, &after).unwrap();
            }
            assert_eq!(std::fs::read_to_string(&golden).unwrap_or_default(), after, "{}", path.display());
            assert_eq!(with(&after, &entry()), Ok(None), "a second time changes nothing");
            let gone = without(&after).unwrap().expect("it was there");
            assert_eq!(without(&gone), Ok(None));
            if before.contains("plugins") {
                assert!(same(&gone, &before), "{}", path.display());
            }
            seen += 1;
        }
        assert!(seen > 2, "no golden pairs in {}", folder.display());
    }

    #[test]
    fn an_older_entry_is_replaced_and_comes_last() {
        let old =
            r#"{"cniVersion": "1.0.0", "plugins": [{"type": "tulle-cni", "kubeconfig": "/old"}, {"type": "portmap"}]}"#;
        let new: Value = serde_json::from_str(&with(old, &entry()).unwrap().unwrap()).unwrap();
        assert_eq!(new["plugins"], json!([{"type": "portmap"}, entry()]));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in ["[]", "1", "{}", r#"{"plugins": {}}"#, r#"{"type": 3}"#] {
            assert_eq!(with(text, &entry()), Err(EditError::NoPlugins), "{text}");
        }
        assert!(matches!(with("{", &entry()), Err(EditError::NotJson(_))));
    }
}
