//! Values of the Helm chart, from its schema and its defaults.

use serde_json::Value;

use crate::table::Table;

#[test]
fn values() {
    let folder = super::root().join("deploy/helm/tulle");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect("a file of the chart");
    let schema: Value = serde_json::from_str(&read("values.schema.json")).expect("JSON");
    let defaults: Value = serde_saphyr::from_str(&read("values.yaml")).expect("YAML");
    let mut table = Table::new(&["value", "default", "meaning"]);
    rows(&schema, &schema, &defaults, "", &mut table);
    let intro = "For `helm install -f values.yaml` and `tulle install -f values.yaml`, or singly with `--set value=...`. What is not\n\
                 in this list is refused.";
    super::page("helm-values.md", "Values of the Helm chart", intro, &table.text());
}

fn rows(root: &Value, schema: &Value, defaults: &Value, path: &str, table: &mut Table) {
    for (key, schema) in schema["properties"].as_object().into_iter().flatten() {
        if key == "global" {
            continue;
        }
        let schema = match schema["$ref"].as_str().and_then(|name| name.strip_prefix("#/$defs/")) {
            Some(name) => &root["$defs"][name],
            None => schema,
        };
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let default = &defaults[key];
        if schema["properties"].is_object() && !path.ends_with("resources") {
            rows(root, schema, default, &path, table);
            continue;
        }
        let about = schema["description"].as_str().unwrap_or_default();
        let allowed: Vec<&str> = schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let about =
            if allowed.is_empty() { about.to_owned() } else { format!("{about} One of {}.", allowed.join(", ")) };
        table.row(&[&format!("`{path}`"), &format!("`{default}`"), &about]);
    }
}
