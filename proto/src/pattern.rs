//! Regular expressions of routes: one reading for the side that accepts them from users and the side that runs them.
//!
//! The syntax is RE2's, as Envoy reads it: linear in the text, no back references. `.` is any byte.

use regex::bytes::{Regex, RegexBuilder};

/// Bytes a compiled expression may take, so that a short text cannot ask for much memory.
const LARGEST: usize = 1 << 20;

/// An expression that holds when it describes a whole text.
///
/// # Errors
/// Why it is no expression, or too large a one, in one line. The fault is the author's.
pub fn whole(pattern: &str) -> Result<Regex, String> {
    // By itself first: it must not lean on what is put around it.
    compile(pattern)?;
    compile(&format!("^(?:{pattern})$"))
}

/// An expression that holds when it is found anywhere in a text.
///
/// # Errors
/// As [`whole`].
pub fn anywhere(pattern: &str) -> Result<Regex, String> {
    compile(pattern)
}

/// An expression for exactly this text.
pub fn literal(text: &str) -> String {
    regex::escape(text)
}

fn compile(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern).unicode(false).size_limit(LARGEST).build().map_err(|error| {
        let text = error.to_string();
        text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_text_or_none() {
        let found = whole("/v[12]/.*|/x").unwrap();
        for (text, holds) in [("/v1/a", true), ("/x", true), ("/xy", false), ("/a/v1/b", false), ("/v3/a", false)] {
            assert_eq!(found.is_match(text.as_bytes()), holds, "{text}");
        }
        assert!(whole("(?i)abc").unwrap().is_match(b"ABC"));
        assert!(anywhere("b").unwrap().is_match(b"abc"));
    }

    #[test]
    fn what_is_no_expression_is_said() {
        assert_eq!(whole("a)(b").unwrap_err(), "unopened group");
        assert!(whole("(").unwrap_err().contains("unclosed group"));
        assert!(whole("(a{1000}){1000}").unwrap_err().contains("size limit"));
    }
}
