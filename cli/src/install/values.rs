//! Values of the chart: the defaults, then files, then `--set`, then `--set-string`, each over what was before, as Helm
//! has it.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde_json::{Map, Value};

use super::chart;
use super::strvals::{self, Typing};

/// What the user wants otherwise than the defaults.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Overrides {
    /// Values of the chart, as YAML, - for standard input; repeat for more, the last one wins
    #[arg(short = 'f', long = "values", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Values of the chart in Helm's syntax, such as controlPlane.replicas=3 or a.b={x,y}; repeat for more
    #[arg(long = "set", value_name = "PATH=VALUE,..")]
    pub(crate) single: Vec<String>,
    /// The same, where every value is a text: image.tag=1
    #[arg(long = "set-string", value_name = "PATH=VALUE,..")]
    pub(crate) texts: Vec<String>,
}

/// Puts the overrides over `values`.
///
/// # Errors
/// When a file cannot be read, or a single value is not in Helm's syntax.
pub(super) fn apply(values: &mut Value, overrides: &Overrides) -> anyhow::Result<()> {
    let mut wanted = Map::new();
    for path in &overrides.files {
        let over = chart::parse(&read(path)?).with_context(|| format!("{} is not YAML", path.display()))?;
        match over {
            Value::Object(over) => join(&mut wanted, over),
            Value::Null => {}
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                bail!("{} has no values: a mapping such as `trustDomain: example.com` is needed", path.display())
            }
        }
    }
    for (flag, texts, typing) in
        [("--set", &overrides.single, Typing::Typed), ("--set-string", &overrides.texts, Typing::Text)]
    {
        for text in texts {
            strvals::parse_into(&mut wanted, text, typing)
                .map_err(|reason| anyhow::anyhow!("{flag} {text}: {reason}"))?;
        }
    }
    merge(values, wanted);
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<String> {
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("reading standard input")?;
        return Ok(text);
    }
    std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

/// One file's values over another's: what is null stays so, and takes away a default in the end.
fn join(values: &mut Map<String, Value>, over: Map<String, Value>) {
    for (key, over) in over {
        match (values.get_mut(&key), over) {
            (Some(Value::Object(inner)), Value::Object(over)) => join(inner, over),
            (_, over) => {
                values.insert(key, over);
            }
        }
    }
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
        let single = ["a.y=5,text=7", "b.c=true", "a.z=null"].map(str::to_owned).to_vec();
        let texts = vec!["text=7".to_owned()];
        apply(&mut values, &Overrides { files: vec![file], single, texts }).unwrap();
        assert_eq!(values, json!({"a": {"x": 2, "y": 5}, "list": [3], "text": "7", "b": {"c": true}}));
        let wrong = Overrides { single: vec!["text=1,text.a=1".to_owned()], ..Overrides::default() };
        assert!(apply(&mut values, &wrong).is_err());
        // An index makes a list of its own, and does not reach into the default.
        let list = Overrides { single: vec!["list[0].k=1".to_owned()], ..Overrides::default() };
        apply(&mut values, &list).unwrap();
        assert_eq!(values["list"], json!([{"k": 1}]));
    }
}
