//! Any JSON as a value, without a depth that an object chooses: what is deeper than every manifest is left out, and so
//! are managed fields, which nobody here reads. The JSON library gives up a whole list where an object is too deep.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Levels that are kept; the deepest manifest has 12.
const DEPTH: u8 = 48;

/// Levels below this are skipped.
#[derive(Clone, Copy)]
struct Level(u8);

/// The value, whatever it is.
///
/// # Errors
/// When the text is no JSON.
pub(super) fn bounded<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    Level(DEPTH).deserialize(deserializer)
}

impl<'de> DeserializeSeed<'de> for Level {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        if self.0 == 0 {
            return deserializer.deserialize_ignored_any(IgnoredAny).map(|_| Value::Null);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let below = Self(self.0.saturating_sub(1));
        let mut all = Vec::new();
        while let Some(item) = items.next_element_seed(below)? {
            all.push(item);
        }
        Ok(Value::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let below = Self(self.0.saturating_sub(1));
        let mut all = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if key == "managedFields" {
                entries.next_value::<IgnoredAny>()?;
                continue;
            }
            all.insert(key, entries.next_value_seed(below)?);
        }
        Ok(Value::Object(all))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Value {
        bounded(&mut serde_json::Deserializer::from_str(text)).unwrap()
    }

    #[test]
    fn every_json_is_taken_and_no_depth_ends_a_list() {
        let value = json!({"a": [1, -2, 0.5, "x", null, true, {"b": {}}], "c": 18_446_744_073_709_551_615_u64});
        assert_eq!(read(&value.to_string()), value);
        let deep = format!("{{\"name\":\"x\",\"deep\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
        assert_eq!(read(&deep)["name"], "x");
        assert_eq!(read(r#"{"managedFields":[{"fieldsV1":{}}],"name":"x"}"#), json!({"name": "x"}));
    }
}
