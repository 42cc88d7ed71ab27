//! A template as a row of texts and actions, with the white space that `{{-` and `-}}` take away gone, and an action as a
//! row of words.

use super::TemplateError;

/// A piece of a template.
#[derive(Debug)]
pub(super) enum Piece {
    /// Copied as it is.
    Text(String),
    /// Between `{{` and `}}`.
    Action(Action),
}

/// The words of an action.
#[derive(Debug)]
pub(super) struct Action {
    pub(super) line: usize,
    pub(super) words: Vec<Word>,
}

/// A word of an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// A keyword or function.
    Name(String),
    /// `.`, `.a.b`, `$` or `$.a.b`: whether it starts at the root, and the fields.
    Path(bool, Vec<String>),
    /// `"text"`.
    Text(String),
    /// `12`.
    Number(i64),
    /// `|`.
    Pipe,
    /// `(`.
    Open,
    /// `)`.
    Close,
}

pub(super) fn lex(file: &str, text: &str) -> Result<Vec<Piece>, TemplateError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut line = 1;
    let mut trim_next = false;
    let error = |line: usize, reason: String| TemplateError { file: file.to_owned(), line, reason };
    loop {
        let (before, inside) = match rest.split_once("{{") {
            Some((before, inside)) => (before, Some(inside)),
            None => (rest, None),
        };
        let mut kept = if trim_next { before.trim_start() } else { before };
        let (mark, inside) = match inside {
            Some(inside) => match inside.strip_prefix('-').filter(|rest| rest.starts_with([' ', '\n', '/'])) {
                Some(inside) => (true, Some(inside)),
                None => (false, Some(inside)),
            },
            None => (false, None),
        };
        if mark {
            kept = kept.trim_end();
        }
        if !kept.is_empty() {
            pieces.push(Piece::Text(kept.to_owned()));
        }
        line += before.matches('\n').count();
        let Some(inside) = inside else { return Ok(pieces) };
        let (action, after) =
            inside.split_once("}}").ok_or_else(|| error(line, "the action is not closed".to_owned()))?;
        let (action, trims) = match action.strip_suffix('-') {
            Some(action) => (action, true),
            None => (action, false),
        };
        trim_next = trims;
        let action_line = line;
        line += action.matches('\n').count();
        rest = after;
        if action.trim_start().starts_with("/*") {
            if !action.trim_end().ends_with("*/") {
                return Err(error(action_line, "the comment is not closed".to_owned()));
            }
            continue;
        }
        let words = words(action).map_err(|reason| error(action_line, reason))?;
        pieces.push(Piece::Action(Action { line: action_line, words }));
    }
}

fn words(action: &str) -> Result<Vec<Word>, String> {
    let mut words = Vec::new();
    let mut rest = action.trim_start();
    while let Some(first) = rest.chars().next() {
        let (word, after) = match first {
            '|' => (Word::Pipe, &rest[1..]),
            '(' => (Word::Open, &rest[1..]),
            ')' => (Word::Close, &rest[1..]),
            '"' => text(rest)?,
            _ => {
                let end = rest.find(|c: char| c.is_whitespace() || "|()\"".contains(c)).unwrap_or(rest.len());
                let (word, after) = rest.split_at(end);
                (plain(word)?, after)
            }
        };
        words.push(word);
        rest = after.trim_start();
    }
    Ok(words)
}

/// A text in quotes, and what follows it. Its escapes are those of JSON, as far as the chart needs them.
fn text(rest: &str) -> Result<(Word, &str), String> {
    let mut stream = serde_json::Deserializer::from_str(rest).into_iter::<String>();
    match stream.next() {
        Some(Ok(text)) => Ok((Word::Text(text), &rest[stream.byte_offset()..])),
        Some(Err(_)) | None => Err(format!("a text is not closed: {rest}")),
    }
}

fn plain(word: &str) -> Result<Word, String> {
    let fields = |path: &str| path.split('.').filter(|field| !field.is_empty()).map(str::to_owned).collect();
    if let Some(path) = word.strip_prefix('.') {
        return Ok(Word::Path(false, fields(path)));
    }
    if word == "$" || word.starts_with("$.") {
        return Ok(Word::Path(true, fields(&word[1..])));
    }
    if let Ok(number) = word.parse() {
        return Ok(Word::Number(number));
    }
    if word.chars().all(char::is_alphanumeric) {
        return Ok(Word::Name(word.to_owned()));
    }
    Err(format!("`{word}` is not understood"))
}
