//! `--set` and `--set-string` in Helm's own syntax (its package `strvals`): `a.b=1,c={x,y},d[0].e=z`, with `\\` before a
//! character that is meant as it is. Text into a mapping, no file.

use std::iter::Peekable;
use std::str::Chars;

use serde_json::{Map, Value};

/// Largest index of a list, as in Helm.
const MAX_INDEX: usize = 65_536;

/// Most levels of a path, as in Helm.
const MAX_LEVELS: usize = 30;

/// Whether values are read as what they look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Typing {
    /// `--set`: `true`, `false`, `null` and whole numbers are no texts.
    Typed,
    /// `--set-string`.
    Text,
}

/// Puts the values that `text` sets over `values`.
///
/// # Errors
/// What is wrong, as a sentence without a full stop.
pub(super) fn parse_into(values: &mut Map<String, Value>, text: &str, typing: Typing) -> Result<(), String> {
    let mut parser = Parser { rest: text.chars().peekable(), typing };
    while parser.rest.peek().is_some() {
        parser.key(values, 0)?;
    }
    Ok(())
}

struct Parser<'a> {
    rest: Peekable<Chars<'a>>,
    typing: Typing,
}

/// A value, as far as it came.
enum Found {
    /// In braces.
    List(Vec<Value>),
    Scalar(Value),
}

impl Parser<'_> {
    /// One path with its value, from its key at `level` on.
    fn key(&mut self, values: &mut Map<String, Value>, level: usize) -> Result<(), String> {
        if level > MAX_LEVELS {
            return Err(format!("a path has {MAX_LEVELS} levels at most"));
        }
        let (key, stop) = self.until("=[,.");
        match stop {
            Some('=') => {
                let value = self.value()?;
                values.insert(key, value);
                Ok(())
            }
            Some('[') => {
                let index = self.index()?;
                let mut list = match values.remove(&key) {
                    Some(Value::Array(list)) => list,
                    Some(Value::Null) | None => Vec::new(),
                    Some(_) => return Err(format!("{key} is not a list")),
                };
                self.item(&mut list, index, level)?;
                values.insert(key, Value::Array(list));
                Ok(())
            }
            Some('.') => {
                let mut inner = match values.remove(&key) {
                    Some(Value::Object(inner)) => inner,
                    Some(Value::Null) | None => Map::new(),
                    Some(_) => return Err(format!("{key} is not a mapping")),
                };
                self.key(&mut inner, level + 1)?;
                values.insert(key, Value::Object(inner));
                Ok(())
            }
            Some(_) | None => {
                Err(format!("{key:?} has no value: PATH=VALUE is needed, such as controlPlane.replicas=3"))
            }
        }
    }

    /// What follows an index.
    fn item(&mut self, list: &mut Vec<Value>, index: usize, level: usize) -> Result<(), String> {
        let (text, stop) = self.until("[.=");
        if !text.is_empty() {
            return Err(format!("{text:?} cannot follow an index"));
        }
        if list.len() <= index {
            list.resize(index.saturating_add(1), Value::Null);
        }
        let Some(place) = list.get_mut(index) else { return Err("the index is too large".to_owned()) };
        match stop {
            Some('=') => *place = self.value()?,
            Some('[') => {
                let index = self.index()?;
                let mut inner = match place.take() {
                    Value::Array(inner) => inner,
                    Value::Null => Vec::new(),
                    Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
                        return Err("an item with an index is not a list".to_owned());
                    }
                };
                self.item(&mut inner, index, level)?;
                *place = Value::Array(inner);
            }
            Some('.') => {
                let mut inner = match place.take() {
                    Value::Object(inner) => inner,
                    Value::Null => Map::new(),
                    Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                        return Err("an item with a path is not a mapping".to_owned());
                    }
                };
                self.key(&mut inner, level + 1)?;
                *place = Value::Object(inner);
            }
            Some(_) | None => return Err("an index has no value".to_owned()),
        }
        Ok(())
    }

    /// The number before a bracket closes.
    fn index(&mut self) -> Result<usize, String> {
        let (text, stop) = self.until("]");
        let index = text.parse::<usize>().ok().filter(|index| *index <= MAX_INDEX);
        match (index, stop) {
            (Some(index), Some(_)) => Ok(index),
            _ => Err(format!("[{text} is not an index from 0 to {MAX_INDEX} in brackets")),
        }
    }

    fn value(&mut self) -> Result<Value, String> {
        Ok(match self.list_or_scalar()? {
            Found::List(items) => Value::Array(items),
            Found::Scalar(value) => value,
        })
    }

    fn list_or_scalar(&mut self) -> Result<Found, String> {
        if self.rest.next_if_eq(&'{').is_none() {
            let (text, _) = self.until(",");
            return Ok(Found::Scalar(self.typed(text)));
        }
        let mut items = Vec::new();
        loop {
            let (text, stop) = self.until(",}");
            match stop {
                // As in Helm, empty braces hold one empty text; `null` is how a list is taken away.
                Some(_) => items.push(self.typed(text)),
                None => return Err("a list has no closing brace".to_owned()),
            }
            if stop == Some('}') {
                break;
            }
        }
        match self.rest.next() {
            None | Some(',') => Ok(Found::List(items)),
            Some(other) => Err(format!("{other:?} cannot follow a list")),
        }
    }

    fn typed(&self, text: String) -> Value {
        if self.typing == Typing::Text {
            return Value::String(text);
        }
        match text.as_str() {
            "true" => return true.into(),
            "false" => return false.into(),
            "null" => return Value::Null,
            "0" => return 0.into(),
            _ => {}
        }
        // A number with a zero in front is an account or a version.
        let number = text.parse::<i64>().ok().filter(|_| !text.starts_with('0'));
        number.map_or(Value::String(text), Value::from)
    }

    /// Text up to one of `stops`, which is taken too, without the marks that make characters mean themselves.
    fn until(&mut self, stops: &str) -> (String, Option<char>) {
        let mut text = String::new();
        while let Some(next) = self.rest.next() {
            match next {
                next if stops.contains(next) => return (text, Some(next)),
                '\\' => text.extend(self.rest.next()),
                next => text.push(next),
            }
        }
        (text, None)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(text: &str, typing: Typing) -> Result<Value, String> {
        let mut values = Map::new();
        parse_into(&mut values, text, typing).map(|()| Value::Object(values))
    }

    /// `cli/tests/install.rs` compares the same with Helm.
    #[test]
    fn mend_26_helms_syntax() {
        for (text, values) in [
            ("a=1,b=2", json!({"a": 1, "b": 2})),
            ("a.b=true,a.c=null", json!({"a": {"b": true, "c": null}})),
            ("a\\.b/c=x", json!({"a.b/c": "x"})),
            ("a=x\\,y", json!({"a": "x,y"})),
            ("a={x,2,true}", json!({"a": ["x", 2, true]})),
            ("a={},b={x}", json!({"a": [""], "b": ["x"]})),
            ("a[1]=x", json!({"a": [null, "x"]})),
            ("a[0].b=1,a[0].c=2,a[1].b=3", json!({"a": [{"b": 1, "c": 2}, {"b": 3}]})),
            ("a[0][1]=x", json!({"a": [[null, "x"]]})),
            ("a=", json!({"a": ""})),
            ("a=,b=1", json!({"a": "", "b": 1})),
            ("a=x=y", json!({"a": "x=y"})),
            ("a=0,b=007,c=1.5,d=-3,e=1e3", json!({"a": 0, "b": "007", "c": "1.5", "d": -3, "e": "1e3"})),
            ("a=1,a=2", json!({"a": 2})),
            ("a=b c", json!({"a": "b c"})),
        ] {
            assert_eq!(parse(text, Typing::Typed), Ok(values), "{text}");
        }
        assert_eq!(
            parse("a=1,b=true,c={null,2}", Typing::Text),
            Ok(json!({"a": "1", "b": "true", "c": ["null", "2"]}))
        );
        for wrong in
            ["a", "a.b", "a,b=1", "a[x]=1", "a[-1]=1", "a[0=1", "a[0]b=1", "a[0]", "a={x", "a={x}y", "a[70000]=1"]
        {
            assert!(parse(wrong, Typing::Typed).is_err(), "{wrong}");
        }
        assert!(parse(&format!("{}=1", vec!["a"; 40].join(".")), Typing::Typed).is_err());
        assert!(parse("a=1,a.b=2", Typing::Typed).is_err() && parse("a=1,a[0]=2", Typing::Typed).is_err());
    }
}
