//! A tree and data to text.

use serde_json::Value;

use super::parse::{Call, Expr, Node, Operand};
use super::{TemplateError, Templates, functions};

/// How deep templates may include each other.
const MAX_DEPTH: usize = 32;

/// Renders templates of one set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Renderer<'a> {
    templates: &'a Templates,
    depth: usize,
}

/// What an action sees: `.` and `$`.
#[derive(Clone, Copy)]
struct Scope<'a> {
    dot: &'a Value,
    root: &'a Value,
}

impl<'a> Renderer<'a> {
    pub(super) fn new(templates: &'a Templates) -> Self {
        Self { templates, depth: 0 }
    }

    /// Renders one template whole.
    pub(super) fn template(&self, name: &str, data: &Value) -> Result<String, TemplateError> {
        let at = || TemplateError { file: name.to_owned(), line: 1, reason: format!("there is no template `{name}`") };
        let nodes = self.templates.named.get(name).ok_or_else(at)?;
        let mut out = String::new();
        self.nodes(nodes, Scope { dot: data, root: data }, &mut out)?;
        Ok(out)
    }

    fn nodes(&self, nodes: &[Node], scope: Scope<'_>, out: &mut String) -> Result<(), TemplateError> {
        for node in nodes {
            match node {
                Node::Text(text) => out.push_str(text),
                Node::Print(expr) => out.push_str(&functions::text(&self.value(expr, scope)?)),
                Node::If(branches) => self.branches(branches, scope, out)?,
                Node::With(expr, some, none) => {
                    let value = self.value(expr, scope)?;
                    if functions::is_true(&value) {
                        self.nodes(some, Scope { dot: &value, ..scope }, out)?;
                    } else {
                        self.nodes(none, scope, out)?;
                    }
                }
                Node::Range(expr, some, none) => self.range(expr, some, none, (scope, out))?,
            }
        }
        Ok(())
    }

    fn branches(
        &self,
        branches: &[(Option<Expr>, Vec<Node>)],
        scope: Scope<'_>,
        out: &mut String,
    ) -> Result<(), TemplateError> {
        for (condition, nodes) in branches {
            let holds = match condition {
                Some(condition) => functions::is_true(&self.value(condition, scope)?),
                None => true,
            };
            if holds {
                return self.nodes(nodes, scope, out);
            }
        }
        Ok(())
    }

    fn range(
        &self,
        expr: &Expr,
        some: &[Node],
        none: &[Node],
        (scope, out): (Scope<'_>, &mut String),
    ) -> Result<(), TemplateError> {
        match self.value(expr, scope)? {
            Value::Array(items) if !items.is_empty() => {
                for item in &items {
                    self.nodes(some, Scope { dot: item, ..scope }, out)?;
                }
                Ok(())
            }
            Value::Array(_) | Value::Null => self.nodes(none, scope, out),
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
                Err(at(expr, "`range` takes a list".to_owned()))
            }
        }
    }

    fn value(&self, expr: &Expr, scope: Scope<'_>) -> Result<Value, TemplateError> {
        self.calls(&expr.calls, scope).map_err(|failed| match failed {
            Failed::Here(reason) => at(expr, reason),
            Failed::Included(error) => error,
        })
    }

    fn calls(&self, calls: &[Call], scope: Scope<'_>) -> Result<Value, Failed> {
        let mut last = None;
        for call in calls {
            let value = match call {
                Call::Value(operand) if last.is_none() => self.operand(operand, scope)?,
                Call::Value(_) => return Err(Failed::Here("`|` is followed by a function".to_owned())),
                Call::Function(name, operands) => {
                    let mut arguments =
                        operands.iter().map(|o| self.operand(o, scope)).collect::<Result<Vec<_>, _>>()?;
                    arguments.extend(last.take());
                    self.call(name, &arguments)?
                }
            };
            last = Some(value);
        }
        Ok(last.unwrap_or_default())
    }

    fn call(&self, name: &str, arguments: &[Value]) -> Result<Value, Failed> {
        if name != "include" {
            return functions::call(name, arguments).map_err(Failed::Here);
        }
        let [Value::String(name), data] = arguments else {
            return Err(Failed::Here("`include` takes a name and a value".to_owned()));
        };
        if !self.templates.named.contains_key(name) {
            return Err(Failed::Here(format!("there is no template `{name}`")));
        }
        if self.depth == MAX_DEPTH {
            return Err(Failed::Here("templates include each other without end".to_owned()));
        }
        let inner = Self { depth: self.depth + 1, ..*self };
        inner.template(name, data).map(Value::String).map_err(Failed::Included)
    }

    fn operand(&self, operand: &Operand, scope: Scope<'_>) -> Result<Value, Failed> {
        Ok(match operand {
            Operand::Path(root, fields) => {
                let start = if *root { scope.root } else { scope.dot };
                fields.iter().try_fold(start, |value, field| value.get(field)).cloned().unwrap_or_default()
            }
            Operand::Text(text) => Value::String(text.clone()),
            Operand::Number(number) => (*number).into(),
            Operand::Bool(value) => (*value).into(),
            Operand::Nested(calls) => self.calls(calls, scope)?,
        })
    }
}

/// Where an error arose.
enum Failed {
    /// In the action itself.
    Here(String),
    /// In a template it includes.
    Included(TemplateError),
}

fn at(expr: &Expr, reason: String) -> TemplateError {
    TemplateError { file: expr.file.clone(), line: expr.line, reason }
}
