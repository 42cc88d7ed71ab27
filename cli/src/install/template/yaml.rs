//! Values as YAML in block style, which can follow other entries of a mapping or sequence. Texts and keys are always in
//! double quotes: JSON's escapes are YAML's.

use serde_json::Value;

/// The lines of a value, without a line break at the end.
pub(super) fn block(value: &Value) -> String {
    let mut lines = Vec::new();
    write(value, &mut lines);
    lines.join("\n")
}

fn write(value: &Value, lines: &mut Vec<String>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (key, value) in fields {
                entry(&format!("{}:", Value::String(key.clone())), "  ", value, lines);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                entry("-", "  ", item, lines);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            lines.push(value.to_string());
        }
    }
}

/// `lead` and a value: on its line when it has one, else below and further in.
fn entry(lead: &str, step: &str, value: &Value, lines: &mut Vec<String>) {
    let mut inner = Vec::new();
    write(value, &mut inner);
    let nested = match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    };
    if nested {
        lines.push(lead.to_owned());
        lines.extend(inner.into_iter().map(|line| format!("{step}{line}")));
    } else {
        lines.push(format!("{lead} {}", inner.concat()));
    }
}
