//! `known-gaps.toml`: cases that are known to fail, each with its reason. One that passes must leave the list.

use std::path::PathBuf;

/// A case that is known to fail.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Gap {
    /// `h2spec`.
    pub(crate) suite: String,
    /// `plain` or `mtls`; empty: any.
    pub(crate) listener: String,
    /// The case as the suite names it.
    pub(crate) case: String,
    /// Why it is so, and why it may stay so.
    pub(crate) reason: String,
}

/// The gaps of `suite` at `listener`.
pub(crate) fn gaps(suite: &str, listener: &str) -> Vec<Gap> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/known-gaps.toml");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let all = read(&text);
    for gap in &all {
        assert!(!gap.suite.is_empty() && !gap.case.is_empty() && !gap.reason.is_empty(), "incomplete: {gap:?}");
    }
    let here = |gap: &Gap| gap.suite == suite && (gap.listener.is_empty() || gap.listener == listener);
    all.into_iter().filter(here).collect()
}

/// The part of TOML that the ledger is written in: tables `[[gap]]` of strings.
fn read(text: &str) -> Vec<Gap> {
    let mut gaps: Vec<Gap> = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if line == "[[gap]]" {
            gaps.push(Gap::default());
            continue;
        }
        let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("not `key = \"value\"`: {line}"));
        let value = value.trim().strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        let value = value.unwrap_or_else(|| panic!("not a string: {line}")).to_owned();
        let gap = gaps.last_mut().unwrap_or_else(|| panic!("before the first [[gap]]: {line}"));
        match key.trim() {
            "suite" => gap.suite = value,
            "listener" => gap.listener = value,
            "case" => gap.case = value,
            "reason" => gap.reason = value,
            other => panic!("no such key: {other}"),
        }
    }
    gaps
}

#[test]
fn a_ledger_is_read() {
    let text = "# why\n[[gap]]\nsuite = \"s\"\ncase = \"1/2 name\"\nreason = \"r\"\n\n[[gap]]\nlistener = \"mtls\"\n";
    let gaps = read(text);
    assert_eq!((gaps.len(), gaps[0].case.as_str(), gaps[1].listener.as_str()), (2, "1/2 name", "mtls"));
}
