//! Rules about Markdown: relative links lead somewhere, and the commands of the README are run by `.ci/run`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Checks the relative links of the page at `path` (relative to `root`): the file exists, and the heading of an anchor.
pub fn check_links(root: &Path, path: &str, text: &str) -> Vec<(usize, String)> {
    let folder = Path::new(path).parent().map_or_else(PathBuf::new, Path::to_path_buf);
    let mut found = Vec::new();
    for (line, target) in links(text) {
        if target.contains("://") || target.starts_with("mailto:") {
            continue;
        }
        let (file, anchor) =
            target.split_once('#').map_or((target.as_str(), None), |(file, anchor)| (file, Some(anchor)));
        let goal = if file.is_empty() { root.join(path) } else { root.join(&folder).join(file) };
        if !goal.exists() {
            found.push((line, format!("link to `{target}`: no such file")));
            continue;
        }
        let Some(anchor) = anchor.filter(|_| goal.extension().is_some_and(|e| e == "md")) else { continue };
        let page = std::fs::read_to_string(&goal).unwrap_or_default();
        if !anchors(&page).contains(anchor) {
            found.push((line, format!("link to `{target}`: no such heading")));
        }
    }
    found
}

/// The commands of a page's shell blocks that start with `cargo`, without prompt, comment and `--locked`.
pub fn commands(text: &str) -> Vec<(usize, String)> {
    let mut block: Option<bool> = None;
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            block = if block.is_some() {
                None
            } else {
                Some(["sh", "bash", "console", "shell"].contains(&language.trim()))
            };
            continue;
        }
        let command = normalize(line);
        if block == Some(true) && command.starts_with("cargo ") {
            found.push((number, command));
        }
    }
    found
}

/// Checks that `.ci/run` runs every `cargo` command the README shows.
pub fn check_commands(readme: &str, ci: &str) -> Vec<(usize, String)> {
    let run: Vec<String> = ci.lines().filter(|line| !line.trim_start().starts_with('#')).map(normalize).collect();
    commands(readme)
        .into_iter()
        .filter(|(_, command)| !run.iter().any(|line| line.contains(command.as_str())))
        .map(|(line, command)| (line, format!("`{command}` is not run by .ci/run")))
        .collect()
}

fn normalize(line: &str) -> String {
    let line = line.trim().trim_start_matches("$ ");
    let line = line.split(" #").next().unwrap_or_default();
    line.split_whitespace().filter(|word| *word != "--locked").collect::<Vec<_>>().join(" ")
}

/// Targets of `[text](target)` with their lines, outside code.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        let mut rest = line.as_str();
        while let Some(start) = rest.find("](") {
            rest = &rest[start + 2..];
            let Some(end) = rest.find(')') else { break };
            let target = rest[..end].split_whitespace().next().unwrap_or_default();
            found.push((number, target.trim_matches(['<', '>']).to_owned()));
            rest = &rest[end..];
        }
    }
    found
}

/// Lines outside fenced blocks, with inline code taken out.
fn prose(text: &str) -> Vec<(usize, String)> {
    let mut fenced = false;
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            lines.push((number, line.split('`').step_by(2).collect::<Vec<_>>().join(" ")));
        }
    }
    lines
}

/// Heading anchors as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut fenced = false;
    let mut found = BTreeSet::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        let title = line.trim_start_matches('#');
        if fenced || title.len() == line.len() || !title.starts_with(' ') {
            continue;
        }
        let lower = title.trim().to_lowercase();
        let slug = lower.chars().filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
            _ => None,
        });
        found.insert(slug.collect());
    }
    found
}
