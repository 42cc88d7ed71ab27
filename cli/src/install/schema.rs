//! Values against `values.schema.json`: the part of JSON Schema that file keeps to (a test holds it to that), since Helm
//! checks the rest of the same file.

use serde_json::Value;

/// What is wrong with `values`, each with its path; empty when all is well.
pub(super) fn check(schema: &Value, values: &Value) -> Vec<String> {
    let mut mistakes = Vec::new();
    Checker { root: schema, mistakes: &mut mistakes }.value(schema, values, "");
    mistakes
}

struct Checker<'a> {
    root: &'a Value,
    mistakes: &'a mut Vec<String>,
}

impl Checker<'_> {
    fn value(&mut self, schema: &Value, value: &Value, path: &str) {
        if let Some(name) = schema["$ref"].as_str().and_then(|name| name.strip_prefix("#/$defs/")) {
            let root = self.root;
            return self.value(&root["$defs"][name], value, path);
        }
        let kinds = &schema["type"];
        let kinds: Vec<&str> =
            kinds.as_array().into_iter().flatten().chain([kinds]).filter_map(Value::as_str).collect();
        if !kinds.is_empty() && !kinds.contains(&kind(value)) {
            return self.wrong(path, &format!("is not of type {}", kinds.join(" or ")));
        }
        match value {
            Value::Object(fields) => self.object(schema, fields, path),
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.value(&schema["items"], item, &format!("{path}[{index}]"));
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => self.scalar(schema, value, path),
        }
    }

    fn object(&mut self, schema: &Value, fields: &serde_json::Map<String, Value>, path: &str) {
        let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        for key in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !fields.contains_key(key) {
                self.wrong(&below(key), "is missing");
            }
        }
        for (key, value) in fields {
            match (schema["properties"].get(key), &schema["additionalProperties"]) {
                (Some(schema), _) => self.value(schema, value, &below(key)),
                (None, Value::Bool(false)) => {
                    let known = schema["properties"].as_object().into_iter().flatten().map(|(key, _)| key.as_str());
                    let known = known.collect::<Vec<_>>().join(", ");
                    self.wrong(&below(key), &format!("is not known; there are {known}"));
                }
                (None, rest) => self.value(rest, value, &below(key)),
            }
        }
    }

    fn scalar(&mut self, schema: &Value, value: &Value, path: &str) {
        if let Some(allowed) = schema["enum"].as_array()
            && !allowed.contains(value)
        {
            let allowed: Vec<String> = allowed.iter().map(ToString::to_string).collect();
            self.wrong(path, &format!("is none of {}", allowed.join(", ")));
        }
        if let Some(number) = value.as_i64() {
            let too_small = schema["minimum"].as_i64().filter(|least| number < *least);
            let too_large = schema["maximum"].as_i64().filter(|most| number > *most);
            if let Some(limit) = too_small.or(too_large) {
                self.wrong(path, &format!("is beyond the limit {limit}"));
            }
        }
        if let Some(text) = value.as_str() {
            let length = text.chars().count() as u64;
            let short = schema["minLength"].as_u64().is_some_and(|least| length < least);
            if short || schema["maxLength"].as_u64().is_some_and(|most| length > most) {
                self.wrong(path, "has the wrong length");
            }
            let pattern = schema["pattern"].as_str().and_then(|pattern| regex::Regex::new(pattern).ok());
            if pattern.is_some_and(|pattern| !pattern.is_match(text)) {
                let about = schema["description"].as_str().unwrap_or_default();
                self.wrong(path, &format!("{value} is not a right value: {about}"));
            }
        }
    }

    fn wrong(&mut self, path: &str, reason: &str) {
        self.mistakes.push(format!("value {path} {reason}"));
    }
}

/// The name of a value's type.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_i64() || number.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Value {
        serde_json::from_str(include_str!("../../../deploy/helm/tulle/values.schema.json")).unwrap()
    }

    #[test]
    fn mistakes() {
        let cases = [
            (json!({"trustDomian": "x"}), "value trustDomian is not known"),
            (json!({"injector": {"replicas": 0}}), "value injector.replicas is beyond the limit 1"),
            (json!({"injector": {"replicas": "2"}}), "value injector.replicas is not of type integer"),
            (json!({"injector": {"failurePolicy": "Retry"}}), "value injector.failurePolicy is none of \"Fail\""),
            (json!({"controlPlane": {"env": [{"name": "A"}]}}), "value controlPlane.env[0].value is missing"),
            (json!({"controlPlane": {"leafTtl": "1y"}}), "value controlPlane.leafTtl \"1y\" is not a right value"),
            (
                json!({"controlPlane": {"resources": {"limits": {"cpu": true}}}}),
                "value controlPlane.resources.limits.cpu",
            ),
            (json!({"trustDomain": ""}), "value trustDomain has the wrong length"),
        ];
        for (values, expected) in cases {
            let mistakes = check(&schema(), &values);
            assert!(mistakes.first().is_some_and(|first| first.starts_with(expected)), "{values}: {mistakes:?}");
        }
    }

    /// What this checker knows, and what it may ignore. Helm knows all of JSON Schema.
    #[test]
    fn the_schema_uses_what_is_checked_here() {
        fn words(schema: &Value, inside: bool, found: &mut Vec<String>) {
            let Value::Object(fields) = schema else { return };
            for (key, value) in fields {
                if inside {
                    found.push(key.clone());
                }
                words(value, !inside || key == "items" || key == "additionalProperties", found);
            }
        }
        let mut found = Vec::new();
        words(&schema(), true, &mut found);
        let known = [
            "$schema",
            "$defs",
            "$ref",
            "title",
            "description",
            "type",
            "properties",
            "additionalProperties",
            "required",
            "items",
            "enum",
            "minimum",
            "maximum",
            "minLength",
            "maxLength",
            "pattern",
        ];
        for word in found {
            assert!(known.contains(&word.as_str()), "{word}");
        }
    }
}
