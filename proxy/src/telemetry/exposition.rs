//! Prometheus' text format 0.0.4, as its documentation "Exposition formats" defines it.
//!
//! One family at a time: HELP, TYPE, then all of its samples, which the format demands to be together.

use std::fmt::{Display, Write};

/// Media type of what [`Exposition`] writes.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a metric is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// Only grows; the name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Cumulative buckets, sum and count.
    Histogram,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Text under construction.
#[derive(Debug, Default)]
pub(crate) struct Exposition {
    text: String,
    family: &'static str,
}

impl Exposition {
    /// Goes on writing after `text`, which is whole families already.
    pub(crate) const fn after(text: String) -> Self {
        Self { text, family: "" }
    }

    /// The finished text.
    pub(crate) fn finish(self) -> String {
        self.text
    }

    /// Begins a family; names are constants of ours, so only the help is escaped.
    pub(crate) fn family(&mut self, name: &'static str, kind: Kind, help: &str) {
        self.family = name;
        self.push(&["# HELP ", name, " "]);
        for c in help.chars() {
            match c {
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                c => self.text.push(c),
            }
        }
        self.push(&["\n# TYPE ", name, " ", kind.as_str(), "\n"]);
    }

    /// One sample of the family begun last.
    pub(crate) fn sample(&mut self, labels: &Labels, value: impl Display) {
        self.suffixed("", labels, "", value);
    }

    /// One series of a histogram family: cumulative buckets by their bound as text, the sum, and the count, which is
    /// the last bucket's.
    pub(crate) fn histogram<'b>(
        &mut self,
        labels: &Labels,
        buckets: impl IntoIterator<Item = (&'b str, u64)>,
        sum: impl Display,
    ) {
        let mut count = 0;
        for (bound, cumulative) in buckets {
            self.suffixed("_bucket", labels, bound, cumulative);
            count = cumulative;
        }
        self.suffixed("_sum", labels, "", sum);
        self.suffixed("_count", labels, "", count);
    }

    fn suffixed(&mut self, suffix: &str, labels: &Labels, bound: &str, value: impl Display) {
        let name = self.family;
        self.push(&[name, suffix]);
        match (labels.0.as_str(), bound) {
            ("", "") => {}
            (labels, "") => self.push(&["{", labels, "}"]),
            ("", bound) => self.push(&["{le=\"", bound, "\"}"]),
            (labels, bound) => self.push(&["{", labels, ",le=\"", bound, "\"}"]),
        }
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, " {value}");
    }

    fn push(&mut self, parts: &[&str]) {
        for part in parts {
            self.text.push_str(part);
        }
    }
}

/// Labels of a sample, escaped. They sort by their text.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Labels(String);

impl Labels {
    /// The labels given; names are constants of ours, values are anything.
    pub(crate) fn of(pairs: &[(&'static str, &str)]) -> Self {
        Self::default().and(pairs)
    }

    /// The same with more of them.
    #[must_use]
    pub(crate) fn and(&self, pairs: &[(&'static str, &str)]) -> Self {
        let mut text = self.0.clone();
        for (name, value) in pairs {
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(name);
            text.push_str("=\"");
            for c in value.chars() {
                match c {
                    '\\' => text.push_str("\\\\"),
                    '"' => text.push_str("\\\""),
                    '\n' => text.push_str("\\n"),
                    c => text.push(c),
                }
            }
            text.push('"');
        }
        Self(text)
    }
}

/// Nanoseconds shown as seconds, exactly.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seconds(pub(crate) u64);

impl Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:09}", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_help_and_label_values() {
        let mut out = Exposition::default();
        out.family("a_total", Kind::Counter, "back\\slash\nand \"quotes\"");
        out.sample(&Labels::of(&[("x", "a\\b\"c\nd"), ("y", "é")]), 3);
        out.sample(&Labels::default(), Seconds(1_500_000_000));
        let expected = "# HELP a_total back\\\\slash\\nand \"quotes\"\n# TYPE a_total counter\n\
                        a_total{x=\"a\\\\b\\\"c\\nd\",y=\"é\"} 3\na_total 1.500000000\n";
        assert_eq!(out.finish(), expected);
    }

    #[test]
    fn histogram_ends_in_sum_and_count() {
        let mut out = Exposition::default();
        out.family("d_seconds", Kind::Histogram, "h");
        out.histogram(&Labels::of(&[("x", "y")]), [("0.5", 1), ("+Inf", 4)], Seconds(7));
        let expected = "# HELP d_seconds h\n# TYPE d_seconds histogram\nd_seconds_bucket{x=\"y\",le=\"0.5\"} 1\n\
                        d_seconds_bucket{x=\"y\",le=\"+Inf\"} 4\nd_seconds_sum{x=\"y\"} 0.000000007\n\
                        d_seconds_count{x=\"y\"} 4\n";
        assert_eq!(out.finish(), expected);
    }
}
