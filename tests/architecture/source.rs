//! One Rust file as the rules see it: its tokens, without comments, with test-only code marked.
//!
//! Working on tokens rather than on lines finds `crate::x::y` inside macros and nested `use` groups alike, and is
//! never fooled by strings or comments. Rules are in `ranks.rs` and `rules.rs`; nothing here knows of any.

use std::collections::BTreeSet;

use proc_macro2::{Delimiter, Group, Spacing, TokenStream, TokenTree};

/// A path written in code: `crate::a::b`, `super::c`, `std::env::var`; a `use` tree gives one per leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathUse {
    /// The segments as written, with enclosing inline modules already applied to `self` and `super`.
    pub segments: Vec<String>,
    /// Written with a leading `::`, so its first segment names a crate.
    pub absolute: bool,
    /// Leaf of a `use`.
    pub import: bool,
    pub line: usize,
    /// Inside test-only code.
    pub test: bool,
}

/// An identifier or keyword.
#[derive(Debug, Clone)]
pub struct Word {
    pub text: String,
    pub line: usize,
    pub test: bool,
    /// The next token is `{`, `fn`, `impl`, `trait` or `extern`; tells an `unsafe` that does something.
    pub opens_item: bool,
}

/// Everything the rules read about one file.
#[derive(Debug, Default)]
pub struct Source {
    /// Starts with `//!`.
    pub module_doc: bool,
    /// The whole file is test-only by its own `#![cfg(test)]`.
    pub test_file: bool,
    /// Lines that hold code outside `#[cfg(test)]`: no comments, no blank lines.
    pub code_lines: BTreeSet<usize>,
    pub paths: Vec<PathUse>,
    pub words: Vec<Word>,
    /// Modules declared `#[cfg(test)] mod name;`, by path inside this file.
    pub test_modules: Vec<Vec<String>>,
    /// Names this file binds itself: by `use` or by `mod`.
    pub bound: BTreeSet<String>,
    /// Modules this file declares.
    pub declared: BTreeSet<String>,
}

impl Source {
    /// Reads `text`.
    ///
    /// # Errors
    /// When it is not Rust.
    pub fn parse(text: &str) -> Result<Self, String> {
        let tokens: TokenStream = text.parse().map_err(|error| format!("not Rust: {error}"))?;
        let mut source = Self { module_doc: text.trim_start().starts_with("//!"), ..Self::default() };
        let trees: Vec<TokenTree> = tokens.into_iter().collect();
        source.test_file = has_inner_cfg_test(&trees);
        let scope = Scope { modules: Vec::new(), test: source.test_file };
        source.walk(&trees, &scope);
        Ok(source)
    }

    fn walk(&mut self, trees: &[TokenTree], scope: &Scope) {
        let mut at = 0;
        while at < trees.len() {
            let rest = &trees[at..];
            if let Some(group) = attribute(rest) {
                let consumed = attribute_len(rest);
                if is_cfg_test(group) && !inner(rest) {
                    at += consumed;
                    let end = at + item_len(&trees[at..]);
                    self.walk(&trees[at..end], &scope.as_test());
                    at = end;
                    continue;
                }
                if !is_doc(group) {
                    self.cover(&rest[..consumed], scope);
                    self.walk(&flat(group), scope);
                }
                at += consumed;
                continue;
            }
            at += self.token(trees, at, scope);
        }
    }

    /// Handles what starts at `at`; returns how many tokens it took.
    fn token(&mut self, trees: &[TokenTree], at: usize, scope: &Scope) -> usize {
        let rest = &trees[at..];
        match &rest[0] {
            TokenTree::Ident(ident) if ident == "use" && !punct_at(rest, 1, '<') => self.use_item(rest, scope),
            TokenTree::Ident(ident) if ident == "mod" => self.mod_item(rest, scope),
            TokenTree::Ident(ident) => {
                let text = ident.to_string();
                let opens_item = match rest.get(1) {
                    Some(TokenTree::Group(group)) => group.delimiter() == Delimiter::Brace,
                    Some(TokenTree::Ident(next)) => {
                        ["fn", "impl", "trait", "extern"].contains(&next.to_string().as_str())
                    }
                    _ => false,
                };
                let line = ident.span().start().line;
                self.words.push(Word { text: text.clone(), line, test: scope.test, opens_item });
                if !follows_path_separator(trees, at) {
                    self.expression_path(rest, text, scope, follows_leading_separator(trees, at));
                }
                self.cover(&rest[..1], scope);
                1
            }
            TokenTree::Group(group) => {
                self.cover_group(group, scope);
                self.walk(&flat(group), scope);
                1
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => {
                self.cover(&rest[..1], scope);
                1
            }
        }
    }

    fn expression_path(&mut self, rest: &[TokenTree], first: String, scope: &Scope, absolute: bool) {
        let line = rest[0].span().start().line;
        let mut segments = vec![first];
        let mut at = 1;
        while separator_at(rest, at) {
            match rest.get(at + 2) {
                Some(TokenTree::Ident(ident)) => segments.push(ident.to_string()),
                _ => break,
            }
            at += 3;
        }
        if segments.len() > 1 {
            let segments = scope.resolve(segments);
            self.paths.push(PathUse { segments, absolute, import: false, line, test: scope.test });
        }
    }

    fn mod_item(&mut self, rest: &[TokenTree], scope: &Scope) -> usize {
        let Some(TokenTree::Ident(name)) = rest.get(1) else {
            self.cover(&rest[..1], scope);
            return 1;
        };
        self.bound.insert(name.to_string());
        self.declared.insert(name.to_string());
        let mut modules = scope.modules.clone();
        modules.push(name.to_string());
        self.cover(&rest[..2], scope);
        match rest.get(2) {
            Some(TokenTree::Group(body)) => {
                self.cover_group(body, scope);
                let trees = flat(body);
                let test = scope.test || has_inner_cfg_test(&trees);
                self.walk(&trees, &Scope { modules, test });
                3
            }
            _ => {
                if scope.test {
                    self.test_modules.push(modules);
                }
                2
            }
        }
    }

    fn use_item(&mut self, rest: &[TokenTree], scope: &Scope) -> usize {
        let end = rest.iter().position(|t| matches!(t, TokenTree::Punct(p) if p.as_char() == ';'));
        let end = end.map_or(rest.len(), |end| end + 1);
        for tree in &rest[..end] {
            self.cover(std::slice::from_ref(tree), scope);
        }
        let absolute = separator_at(rest, 1);
        let body = &rest[if absolute { 3 } else { 1 }..end];
        self.use_tree(body, &[], absolute, scope);
        end
    }

    fn use_tree(&mut self, trees: &[TokenTree], prefix: &[String], absolute: bool, scope: &Scope) {
        for branch in trees.split(|t| matches!(t, TokenTree::Punct(p) if p.as_char() == ',')) {
            let mut segments = prefix.to_vec();
            let mut alias = None;
            let mut line = 0;
            let mut nested = false;
            let mut tokens = branch.iter().peekable();
            while let Some(tree) = tokens.next() {
                line = tree.span().start().line;
                match tree {
                    TokenTree::Ident(ident) if ident == "as" => alias = tokens.next().map(ToString::to_string),
                    TokenTree::Ident(ident) => segments.push(ident.to_string()),
                    TokenTree::Punct(p) if p.as_char() == '*' => segments.push("*".to_owned()),
                    TokenTree::Group(group) => {
                        nested = true;
                        self.use_tree(&flat(group), &segments, absolute, scope);
                    }
                    TokenTree::Punct(_) | TokenTree::Literal(_) => {}
                }
            }
            if nested || segments.is_empty() || branch.is_empty() {
                continue;
            }
            if segments.last().is_some_and(|last| last == "self") && segments.len() > 1 {
                segments.pop();
            }
            for text in &segments {
                self.words.push(Word { text: text.clone(), line, test: scope.test, opens_item: false });
            }
            if let Some(name) = alias.or_else(|| segments.last().cloned()) {
                self.bound.insert(name);
            }
            let segments = scope.resolve(segments);
            self.paths.push(PathUse { segments, absolute, import: true, line, test: scope.test });
        }
    }

    fn cover(&mut self, trees: &[TokenTree], scope: &Scope) {
        if !scope.test {
            for tree in trees {
                self.code_lines.extend(tree.span().start().line..=tree.span().end().line);
            }
        }
    }

    fn cover_group(&mut self, group: &Group, scope: &Scope) {
        if !scope.test {
            self.code_lines.insert(group.span_open().start().line);
            self.code_lines.insert(group.span_close().start().line);
        }
    }
}

/// Where in the file a token is.
struct Scope {
    modules: Vec<String>,
    test: bool,
}

impl Scope {
    fn as_test(&self) -> Self {
        Self { modules: self.modules.clone(), test: true }
    }

    /// Makes `self::` and `super::` inside an inline module relative to the file.
    fn resolve(&self, mut segments: Vec<String>) -> Vec<String> {
        let mut modules = self.modules.clone();
        while !modules.is_empty() && segments.first().is_some_and(|s| s == "super") {
            modules.pop();
            segments[0] = "self".to_owned();
            if segments.get(1).is_some_and(|s| s == "super") {
                segments.remove(0);
            }
        }
        if segments.first().is_some_and(|s| s == "self") {
            segments.splice(1..1, modules);
        }
        segments
    }
}

fn flat(group: &Group) -> Vec<TokenTree> {
    group.stream().into_iter().collect()
}

fn punct_at(trees: &[TokenTree], at: usize, char: char) -> bool {
    matches!(trees.get(at), Some(TokenTree::Punct(p)) if p.as_char() == char)
}

/// `::` at `at`.
fn separator_at(trees: &[TokenTree], at: usize) -> bool {
    matches!(trees.get(at), Some(TokenTree::Punct(p)) if p.as_char() == ':' && p.spacing() == Spacing::Joint)
        && punct_at(trees, at + 1, ':')
}

fn follows_path_separator(trees: &[TokenTree], at: usize) -> bool {
    at >= 3
        && separator_at(trees, at - 2)
        && match &trees[at - 3] {
            TokenTree::Ident(ident) => !is_keyword_before_path(&ident.to_string()),
            TokenTree::Punct(p) => p.as_char() == '>',
            TokenTree::Group(_) | TokenTree::Literal(_) => false,
        }
}

fn follows_leading_separator(trees: &[TokenTree], at: usize) -> bool {
    at >= 2 && separator_at(trees, at - 2)
}

/// Words that may stand before a path with a leading `::`.
fn is_keyword_before_path(word: &str) -> bool {
    ["return", "in", "as", "dyn", "impl", "match", "if", "while", "else", "for", "mut", "ref", "await"].contains(&word)
}

fn inner(trees: &[TokenTree]) -> bool {
    punct_at(trees, 1, '!')
}

fn attribute(trees: &[TokenTree]) -> Option<&Group> {
    if !punct_at(trees, 0, '#') {
        return None;
    }
    match trees.get(if inner(trees) { 2 } else { 1 }) {
        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Bracket => Some(group),
        _ => None,
    }
}

fn attribute_len(trees: &[TokenTree]) -> usize {
    if inner(trees) { 3 } else { 2 }
}

fn is_doc(group: &Group) -> bool {
    let trees = flat(group);
    matches!(trees.first(), Some(TokenTree::Ident(ident)) if ident == "doc") && punct_at(&trees, 1, '=')
}

/// `cfg(test)`, `cfg(all(test, ..))`; not `cfg(not(test))`, not `cfg_attr(test, ..)`.
fn is_cfg_test(group: &Group) -> bool {
    let trees = flat(group);
    match (trees.first(), trees.get(1)) {
        (Some(TokenTree::Ident(cfg)), Some(TokenTree::Group(args))) if cfg == "cfg" => {
            let words = all_words(args.stream());
            words.iter().any(|w| w == "test") && !words.iter().any(|w| w == "not" || w == "any")
        }
        _ => false,
    }
}

fn all_words(stream: TokenStream) -> Vec<String> {
    let mut words = Vec::new();
    for tree in stream {
        match tree {
            TokenTree::Ident(ident) => words.push(ident.to_string()),
            TokenTree::Group(group) => words.extend(all_words(group.stream())),
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
    words
}

fn has_inner_cfg_test(trees: &[TokenTree]) -> bool {
    (0..trees.len()).any(|at| {
        let rest = &trees[at..];
        inner(rest) && attribute(rest).is_some_and(is_cfg_test)
    })
}

/// Length of the item, field or arm that starts here.
fn item_len(trees: &[TokenTree]) -> usize {
    const BRACED: [&str; 8] = ["mod", "fn", "struct", "enum", "trait", "impl", "union", "macro_rules"];
    const TO_SEMICOLON: [&str; 5] = ["use", "static", "type", "let", "const"];
    let mut at = 0;
    while attribute(&trees[at..]).is_some() {
        at += attribute_len(&trees[at..]);
    }
    let mut kind = None;
    for (offset, tree) in trees[at..].iter().enumerate() {
        match tree {
            TokenTree::Ident(ident) if kind.is_none() => {
                let word = ident.to_string();
                let const_fn = word == "const" && word_at(trees, at + offset + 1, &["fn", "unsafe", "async"]);
                if BRACED.contains(&word.as_str()) {
                    kind = Some(true);
                } else if TO_SEMICOLON.contains(&word.as_str()) && !const_fn {
                    kind = Some(false);
                }
            }
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace && kind != Some(false) => {
                return at + offset + 1;
            }
            TokenTree::Punct(p) if p.as_char() == ';' || (p.as_char() == ',' && kind.is_none()) => {
                return at + offset + 1;
            }
            TokenTree::Ident(_) | TokenTree::Group(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
    trees.len()
}

fn word_at(trees: &[TokenTree], at: usize, words: &[&str]) -> bool {
    matches!(trees.get(at), Some(TokenTree::Ident(ident)) if words.contains(&ident.to_string().as_str()))
}
