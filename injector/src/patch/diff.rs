//! The difference of two values as a JSON patch (RFC 6902).

use serde_json::{Value, json};

/// Operations that make `new` of `old`; none when they are equal. Lists that change their length are replaced whole.
pub fn diff(old: &Value, new: &Value) -> Vec<Value> {
    let mut operations = Vec::new();
    walk(old, new, &mut String::new(), &mut operations);
    operations
}

fn walk(old: &Value, new: &Value, path: &mut String, out: &mut Vec<Value>) {
    let length = path.len();
    match (old, new) {
        (Value::Object(before), Value::Object(after)) => {
            for (key, value) in after {
                push(path, key);
                match before.get(key) {
                    Some(old) => walk(old, value, path, out),
                    None => out.push(json!({"op": "add", "path": path.as_str(), "value": value})),
                }
                path.truncate(length);
            }
            for key in before.keys().filter(|key| !after.contains_key(*key)) {
                push(path, key);
                out.push(json!({"op": "remove", "path": path.as_str()}));
                path.truncate(length);
            }
        }
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            for (index, (old, new)) in before.iter().zip(after).enumerate() {
                push(path, &index.to_string());
                walk(old, new, path, out);
                path.truncate(length);
            }
        }
        _ if old == new => {}
        _ => out.push(json!({"op": "replace", "path": path.as_str(), "value": new})),
    }
}

/// Adds a token of a JSON pointer (RFC 6901).
fn push(path: &mut String, token: &str) {
    path.push('/');
    path.push_str(&token.replace('~', "~0").replace('/', "~1"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_as_small_as_its_fields() {
        let old = json!({"a": 1, "b": {"x/y~z": 1, "gone": 1}, "l": [1, {"p": 1}], "m": [1], "same": [1, 2]});
        let new =
            json!({"a": 1, "b": {"x/y~z": 2}, "l": [1, {"p": 1, "q": 2}], "m": [1, 2], "same": [1, 2], "n": null});
        let operations = diff(&old, &new);
        let expected = [
            json!({"op": "replace", "path": "/b/x~1y~0z", "value": 2}),
            json!({"op": "remove", "path": "/b/gone"}),
            json!({"op": "add", "path": "/l/1/q", "value": 2}),
            json!({"op": "replace", "path": "/m", "value": [1, 2]}),
            json!({"op": "add", "path": "/n", "value": null}),
        ];
        assert_eq!(operations, expected);
        assert_eq!(diff(&old, &old), Vec::<Value>::new());
    }
}
