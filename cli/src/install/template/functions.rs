//! What can be called in an action. Meanings are those of Helm.

use serde_json::Value;

use super::yaml;

/// Calls a function other than `include`.
pub(super) fn call(name: &str, arguments: &[Value]) -> Result<Value, String> {
    let wrong = || Err(format!("`{name}` is given the wrong values"));
    Ok(match (name, arguments) {
        ("default", [otherwise, value]) => if is_true(value) { value } else { otherwise }.clone(),
        ("index", [Value::Object(fields), Value::String(key)]) => fields.get(key).cloned().unwrap_or_default(),
        ("quote", [value]) => Value::String(Value::String(text(value)).to_string()),
        ("toYaml", [value]) => Value::String(yaml::block(value)),
        ("nindent", [Value::Number(spaces), value]) => {
            let Some(spaces) = spaces.as_u64().and_then(|spaces| usize::try_from(spaces).ok()) else { return wrong() };
            Value::String(format!("\n{}", indent(&text(value), spaces)))
        }
        ("int", [value]) => text(value).parse::<i64>().unwrap_or_default().into(),
        ("eq", [a, b]) => (a == b).into(),
        ("ne", [a, b]) => (a != b).into(),
        ("gt", [Value::Number(a), Value::Number(b)]) => (a.as_i64() > b.as_i64()).into(),
        ("not", [value]) => (!is_true(value)).into(),
        ("and", [.., last]) => arguments.iter().find(|value| !is_true(value)).unwrap_or(last).clone(),
        ("or", [.., last]) => arguments.iter().find(|value| is_true(value)).unwrap_or(last).clone(),
        ("fail", [Value::String(reason)]) => return Err(reason.clone()),
        (
            "default" | "index" | "quote" | "toYaml" | "nindent" | "int" | "eq" | "ne" | "gt" | "not" | "and" | "or"
            | "fail",
            _,
        ) => {
            return wrong();
        }
        _ => return Err(format!("there is no function `{name}`")),
    })
}

/// What `if` takes for true: anything but nothing, false, zero and the empty.
pub(super) fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

/// A value as an action prints it.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

fn indent(text: &str, spaces: usize) -> String {
    let spaces = " ".repeat(spaces);
    text.split('\n').map(|line| format!("{spaces}{line}")).collect::<Vec<_>>().join("\n")
}
