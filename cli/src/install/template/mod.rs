//! The part of Helm's template language that the chart in `deploy/helm/tulle` keeps to, so that `tulle install` and Helm
//! render the same files to the same objects. Values and files in, text out; no file, no network.
//!
//! Actions: `if`, `else if`, `else`, `with`, `range` (lists), `define`, `include`, comments, pipelines, and the functions
//! of `functions.rs`. No variables. Anything else is an error that names the file and line. `cli/tests/install.rs`
//! compares with the real Helm.

/// Text to text and actions.
mod lex;

/// Actions to a tree.
mod parse;

/// A tree and data to text.
mod eval;

/// What can be called in an action.
mod functions;

/// Values as YAML in block style.
mod yaml;

use std::collections::BTreeMap;

use serde_json::Value;

use self::parse::Node;

/// What is wrong with a template, or with the values it was given.
#[derive(Debug, thiserror::Error)]
#[error("{file}:{line}: {reason}")]
pub(crate) struct TemplateError {
    /// The template's file.
    pub(crate) file: String,
    /// Line of the action, from 1.
    pub(crate) line: usize,
    /// What is wrong.
    pub(crate) reason: String,
}

/// A set of templates that may include each other.
#[derive(Debug, Default)]
pub(crate) struct Templates {
    named: BTreeMap<String, Vec<Node>>,
}

impl Templates {
    /// Adds a file under its name, and what it defines.
    ///
    /// # Errors
    /// When it uses what this part of the language lacks, or is not closed.
    pub(crate) fn add(&mut self, file: &str, text: &str) -> Result<(), TemplateError> {
        let body = parse::parse(file, lex::lex(file, text)?, &mut self.named)?;
        self.named.insert(file.to_owned(), body);
        Ok(())
    }

    /// Renders the file `name` with `data` as `.`.
    ///
    /// # Errors
    /// When an action fails, `fail` among them.
    pub(crate) fn render(&self, name: &str, data: &Value) -> Result<String, TemplateError> {
        eval::Renderer::new(self).template(name, data)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn render(text: &str, data: &Value) -> Result<String, String> {
        let mut templates = Templates::default();
        templates.add("t", text).and_then(|()| templates.render("t", data)).map_err(|error| error.to_string())
    }

    #[test]
    fn actions() {
        let data = json!({"on": true, "off": "", "n": 2, "list": ["a", "b"], "map": {"x": {"y": 1}}, "text": "a\"b"});
        let cases = [
            ("a {{ .n }} b", "a 2 b"),
            ("a {{- .n -}} \n b", "a2b"),
            ("{{/* nothing */}}x", "x"),
            ("{{ if .on }}yes{{ else }}no{{ end }}", "yes"),
            ("{{ if .off }}yes{{ else if eq .n 2 }}two{{ else }}no{{ end }}", "two"),
            ("{{ if and .on (not .off) (gt (int .n) 1) }}yes{{ end }}", "yes"),
            ("{{ range .list }}<{{ . }}>{{ end }}", "<a><b>"),
            ("{{ range .none }}x{{ else }}none{{ end }}", "none"),
            ("{{ with .map }}{{ .x.y }}{{ $.n }}{{ end }}", "12"),
            ("{{ with .none }}x{{ end }}", ""),
            ("{{ default \"d\" .off }}{{ .off | default \"e\" | quote }}", "d\"e\""),
            ("{{ quote .text }}", "\"a\\\"b\""),
            ("{{ define \"f\" }}[{{ .y }}]{{ end }}{{ include \"f\" .map.x }}", "[1]"),
            ("m:\n  {{- toYaml .map | nindent 2 }}", "m:\n  \"x\":\n    \"y\": 1"),
            ("m: {{ ne .n 2 }}", "m: false"),
        ];
        for (text, expected) in cases {
            assert_eq!(render(text, &data).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn mistakes_name_the_line() {
        let cases = [
            ("a\n{{ .n", "t:2: the action is not closed"),
            ("{{ if .n }}", "t:1: `if` has no end"),
            ("\n{{ end }}", "t:2: `end` without a beginning"),
            ("{{ $x := 1 }}", "t:1: "),
            ("{{ lookup \"v1\" }}", "t:1: there is no function `lookup`"),
            ("\n\n{{ fail \"no\" }}", "t:3: no"),
            ("{{ include \"x\" . }}", "t:1: there is no template `x`"),
            (
                "{{ define \"x\" }}{{ include \"x\" . }}{{ end }}{{ include \"x\" . }}",
                "t:1: templates include each other",
            ),
        ];
        for (text, expected) in cases {
            let error = render(text, &json!({"n": 1})).unwrap_err();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }
}
