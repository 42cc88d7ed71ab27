//! The items of a `List`, as `kubectl get -o yaml` or `-o json` writes it, as documents of their own: each keeps its lines
//! and columns, so that a problem is found where it is.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::super::object::Located;

/// A List as written.
#[derive(Deserialize)]
pub(super) struct ListManifest {
    #[serde(default)]
    items: Option<Vec<Located<IgnoredAny>>>,
}

impl ListManifest {
    /// The items of the list that is `text`: each with its first line within that, from 0.
    pub(super) fn items(&self, text: &str) -> Vec<(u32, String)> {
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let item = |located: &Located<IgnoredAny>| {
            let line = usize::try_from(located.at.line().saturating_sub(1)).ok()?;
            let column = usize::try_from(located.at.column().saturating_sub(1)).ok()?;
            let text = cut(lines.get(line..)?, column)?;
            Some((u32::try_from(line).ok()?, text))
        };
        self.items.iter().flatten().filter_map(item).collect()
    }
}

/// The item that starts in the first of `lines`, `column` characters in.
fn cut(lines: &[&str], column: usize) -> Option<String> {
    let (first, rest) = lines.split_first()?;
    let start: String = first.chars().skip(column).collect();
    let mut item = " ".repeat(column);
    if start.starts_with('{') {
        let mut flow = Flow::default();
        let whole = std::iter::once(start.as_str()).chain(rest.iter().copied()).flat_map(str::chars);
        for c in whole {
            item.push(c);
            if flow.ends_with(c) {
                break;
            }
        }
        return Some(item);
    }
    item.push_str(&start);
    // A block ends where something stands further to the left.
    let belongs = |line: &&&str| {
        let text = line.trim_start_matches(' ');
        let indent = line.len().saturating_sub(text.len());
        indent >= column || text.trim().is_empty() || text.starts_with('#')
    };
    item.extend(rest.iter().take_while(belongs).copied());
    Some(item)
}

/// How deep in braces a text is, and in which quotes.
#[derive(Default)]
struct Flow {
    depth: usize,
    quote: Option<char>,
    escaped: bool,
}

impl Flow {
    /// Takes in a character, and says whether it closes the first brace.
    fn ends_with(&mut self, c: char) -> bool {
        match (self.quote, c) {
            (Some(_), _) if self.escaped => self.escaped = false,
            (Some('"'), '\\') => self.escaped = true,
            (Some(quote), c) if c == quote => self.quote = None,
            (None, '"' | '\'') => self.quote = Some(c),
            (None, '{' | '[') => self.depth = self.depth.saturating_add(1),
            (None, '}' | ']') => {
                self.depth = self.depth.saturating_sub(1);
                return self.depth == 0;
            }
            (Some(_) | None, _) => {}
        }
        false
    }
}
