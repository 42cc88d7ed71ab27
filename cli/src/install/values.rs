//! Values of the chart: the defaults, then files, then single ones, each over what was before, as Helm has it.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use serde_json::{Map, Value};

use super::chart;

/// What the user wants otherwise than the defaults.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Overrides {
    /// Values of the chart, as YAML; repeat for more, the last one wins
    #[arg(short = 'f', long = "values", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// One value of the chart, such as controlPlane.replicas=3; repeat for more
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub(crate) single: Vec<String>,
}

/// Puts the overrides over `values`.
///
/// # Errors
/// When a file cannot be read, or a single value is not of the form `a.b=c`.
pub(super) fn apply(values: &mut Value, overrides: &Overrides) -> anyhow::Result<()> {
    for path in &overrides.files {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let over = chart::parse(&text).with_context(|| format!("{} is not YAML", path.display()))?;
        match over {
            Value::Object(over) => merge(values, over),
            Value::Null => {}
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                bail!("{} has no values: a mapping such as `trustDomain: example.com` is needed", path.display())
            }
        }
    }
    for single in &overrides.single {
        let Some((path, text)) = single.split_once('=') else {
            bail!("--set {single}: a path and a value are needed, such as controlPlane.replicas=3");
        };
        set(values, path, text).with_context(|| format!("--set {single}"))?;
    }
    Ok(())
}

/// Mappings are merged, everything else is replaced; `null` takes a value away.
fn merge(values: &mut Value, over: Map<String, Value>) {
    if !values.is_object() {
        *values = Value::Object(Map::new());
    }
    let Some(fields) = values.as_object_mut() else { return };
    for (key, over) in over {
        match over {
            Value::Object(over) => merge(fields.entry(key).or_insert(Value::Null), over),
            Value::Null => {
                fields.remove(&key);
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                fields.insert(key, over);
            }
        }
    }
}

/// Sets one value. Where a text is, a text it stays; elsewhere numbers and `true` are what they look like.
fn set(values: &mut Value, path: &str, text: &str) -> anyhow::Result<()> {
    let mut place = values;
    for field in path.split('.') {
        let Value::Object(fields) = place else { bail!("{path} leads through something that is not a mapping") };
        place = fields.entry(field).or_insert_with(|| Value::Object(Map::new()));
    }
    *place = match (&place, text.parse::<i64>(), text.parse::<bool>()) {
        (Value::String(_), _, _) => Value::String(text.to_owned()),
        (_, Ok(number), _) => number.into(),
        (_, _, Ok(truth)) => truth.into(),
        _ => Value::String(text.to_owned()),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_last_one_wins_and_mappings_are_merged() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("values.yaml");
        std::fs::write(&file, "a: {x: 2}\ngone: null\nlist: [3]\n").unwrap();
        let mut values = json!({"a": {"x": 1, "y": 1}, "gone": 1, "list": [1, 2], "text": "t"});
        let single = ["a.y=5", "text=7", "b.c=true"].map(str::to_owned).to_vec();
        apply(&mut values, &Overrides { files: vec![file], single }).unwrap();
        assert_eq!(values, json!({"a": {"x": 2, "y": 5}, "list": [3], "text": "7", "b": {"c": true}}));
        let wrong = Overrides { files: Vec::new(), single: vec!["text.a=1".to_owned()] };
        assert!(apply(&mut values, &wrong).is_err());
    }
}
