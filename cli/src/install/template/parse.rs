//! Pieces to a tree. Definitions go to the set of named templates.

use std::collections::BTreeMap;

use super::TemplateError;
use super::lex::{Action, Piece, Word};

/// A part of a template.
#[derive(Debug)]
pub(super) enum Node {
    /// Copied.
    Text(String),
    /// Printed.
    Print(Expr),
    /// The first branch whose condition holds; the last may have none.
    If(Vec<(Option<Expr>, Vec<Self>)>),
    /// With `.` set to a value, if that is something; else the other branch.
    With(Expr, Vec<Self>, Vec<Self>),
    /// For each item of a list, with `.` set to it; the other branch when there is none.
    Range(Expr, Vec<Self>, Vec<Self>),
}

/// A pipeline and where it is.
#[derive(Debug)]
pub(super) struct Expr {
    pub(super) file: String,
    pub(super) line: usize,
    pub(super) calls: Vec<Call>,
}

/// One step of a pipeline. Its last argument is what the step before gave.
#[derive(Debug)]
pub(super) enum Call {
    /// A value.
    Value(Operand),
    /// A function and what it is given.
    Function(String, Vec<Operand>),
}

/// A value in an action.
#[derive(Debug)]
pub(super) enum Operand {
    Path(bool, Vec<String>),
    Text(String),
    Number(i64),
    Bool(bool),
    Nested(Vec<Call>),
}

/// Parses one file; what it defines goes to `named`.
pub(super) fn parse(
    file: &str,
    pieces: Vec<Piece>,
    named: &mut BTreeMap<String, Vec<Node>>,
) -> Result<Vec<Node>, TemplateError> {
    let mut parser = Parser { file, pieces: pieces.into_iter(), named };
    match parser.body("file", 1)? {
        (nodes, None) => Ok(nodes),
        (_, Some(end)) => Err(parser.error(end.line, format!("`{}` without a beginning", end.keyword))),
    }
}

struct Parser<'a> {
    file: &'a str,
    pieces: std::vec::IntoIter<Piece>,
    named: &'a mut BTreeMap<String, Vec<Node>>,
}

/// The action that ended a body: `end`, or `else` with what follows it.
struct End {
    line: usize,
    keyword: &'static str,
    rest: Vec<Word>,
}

impl Parser<'_> {
    fn error(&self, line: usize, reason: String) -> TemplateError {
        TemplateError { file: self.file.to_owned(), line, reason }
    }

    /// Nodes up to `end` or `else`, or to the end of the file, which only the outermost body may reach.
    fn body(&mut self, of: &str, started: usize) -> Result<(Vec<Node>, Option<End>), TemplateError> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let Action { line, words } = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action(action) => action,
            };
            let (keyword, rest) = match words.split_first() {
                Some((Word::Name(name), rest)) => (name.as_str(), rest),
                _ => ("", words.as_slice()),
            };
            match keyword {
                "end" => return Ok((nodes, Some(End { line, keyword: "end", rest: Vec::new() }))),
                "else" => return Ok((nodes, Some(End { line, keyword: "else", rest: rest.to_vec() }))),
                "if" => nodes.push(self.branches(line, rest)?),
                "with" => {
                    let (value, some, none) = self.block("with", line, rest)?;
                    nodes.push(Node::With(value, some, none));
                }
                "range" => {
                    let (value, some, none) = self.block("range", line, rest)?;
                    nodes.push(Node::Range(value, some, none));
                }
                "define" => self.define(line, rest)?,
                _ => nodes.push(Node::Print(self.expr(line, &words)?)),
            }
        }
        if of == "file" { Ok((nodes, None)) } else { Err(self.error(started, format!("`{of}` has no end"))) }
    }

    /// A body that must be closed by the parser itself.
    fn inner(&mut self, of: &str, line: usize) -> Result<(Vec<Node>, End), TemplateError> {
        match self.body(of, line)? {
            (nodes, Some(end)) => Ok((nodes, end)),
            (_, None) => Err(self.error(line, format!("`{of}` has no end"))),
        }
    }

    fn branches(&mut self, line: usize, condition: &[Word]) -> Result<Node, TemplateError> {
        let mut branches = Vec::new();
        let mut condition = Some(self.expr(line, condition)?);
        loop {
            let is_else = condition.is_none();
            let (nodes, end) = self.inner("if", line)?;
            branches.push((condition, nodes));
            if end.keyword == "end" {
                return Ok(Node::If(branches));
            }
            condition = match end.rest.as_slice() {
                _ if is_else => return Err(self.error(end.line, "`else` after `else`".to_owned())),
                [] => None,
                [Word::Name(name), rest @ ..] if name == "if" => Some(self.expr(end.line, rest)?),
                _ => return Err(self.error(end.line, "`else` may be followed by `if` only".to_owned())),
            };
        }
    }

    fn block(&mut self, of: &str, line: usize, words: &[Word]) -> Result<(Expr, Vec<Node>, Vec<Node>), TemplateError> {
        let value = self.expr(line, words)?;
        let (some, end) = self.inner(of, line)?;
        if end.keyword == "end" {
            return Ok((value, some, Vec::new()));
        }
        let (none, end) = self.inner(of, line)?;
        if end.keyword == "end" && end.rest.is_empty() {
            return Ok((value, some, none));
        }
        Err(self.error(end.line, "`else` after `else`".to_owned()))
    }

    fn define(&mut self, line: usize, words: &[Word]) -> Result<(), TemplateError> {
        let [Word::Text(name)] = words else {
            return Err(self.error(line, "`define` takes one name in quotes".to_owned()));
        };
        let (nodes, end) = self.inner("define", line)?;
        if end.keyword != "end" {
            return Err(self.error(end.line, "`else` in `define`".to_owned()));
        }
        self.named.insert(name.clone(), nodes);
        Ok(())
    }

    fn expr(&self, line: usize, words: &[Word]) -> Result<Expr, TemplateError> {
        let mut rest = words;
        let calls = pipeline(&mut rest).map_err(|reason| self.error(line, reason))?;
        if !rest.is_empty() {
            return Err(self.error(line, "`)` without `(`".to_owned()));
        }
        Ok(Expr { file: self.file.to_owned(), line, calls })
    }
}

/// Calls up to the end or to a `)` that is not theirs.
fn pipeline(rest: &mut &[Word]) -> Result<Vec<Call>, String> {
    let mut calls = vec![call(rest)?];
    while let [Word::Pipe, after @ ..] = *rest {
        *rest = after;
        calls.push(call(rest)?);
    }
    Ok(calls)
}

fn call(rest: &mut &[Word]) -> Result<Call, String> {
    let function = match *rest {
        [Word::Name(name), after @ ..] if name != "true" && name != "false" => {
            *rest = after;
            Some(name.clone())
        }
        _ => None,
    };
    let mut operands = Vec::new();
    while let [word, after @ ..] = *rest {
        if matches!(word, Word::Pipe | Word::Close) {
            break;
        }
        *rest = after;
        operands.push(operand(word, rest)?);
    }
    match (function, operands.len()) {
        (Some(name), _) => Ok(Call::Function(name, operands)),
        (None, 1) => Ok(Call::Value(operands.remove(0))),
        (None, 0) => Err("a value is missing".to_owned()),
        (None, _) => Err("a value is followed by another".to_owned()),
    }
}

fn operand(word: &Word, rest: &mut &[Word]) -> Result<Operand, String> {
    match word {
        Word::Path(root, fields) => Ok(Operand::Path(*root, fields.clone())),
        Word::Text(text) => Ok(Operand::Text(text.clone())),
        Word::Number(number) => Ok(Operand::Number(*number)),
        Word::Name(name) if name == "true" || name == "false" => Ok(Operand::Bool(name == "true")),
        Word::Name(name) => Ok(Operand::Nested(vec![Call::Function(name.clone(), Vec::new())])),
        Word::Open => {
            let calls = pipeline(rest)?;
            let [Word::Close, after @ ..] = *rest else { return Err("`(` without `)`".to_owned()) };
            *rest = after;
            Ok(Operand::Nested(calls))
        }
        Word::Pipe | Word::Close => Err("a value is missing".to_owned()),
    }
}
