//! A problem with what a user wrote, in the user's terms. It is data: sources and the registry make problems, the
//! admin pages, `tulle validate` and a metric show them.

use std::fmt;
use std::sync::Arc;

use super::name::ObjectRef;

/// How much a problem matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Something was left out knowingly; nothing is wrong with the rest.
    Info,
    /// The object is used, but not all of it as written.
    Warning,
    /// The object or file is not used as written; the last good content is in force if there was one.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// A position in a file, for people: both numbers count from 1.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The file, relative to the watched directory.
    pub file: Arc<str>,
    /// The line, from 1; 0 for the file as a whole.
    pub line: u32,
    /// The column, from 1; 0 where only the line is known.
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, self.column) {
            (0, _) => f.write_str(&self.file),
            (line, 0) => write!(f, "{}:{line}", self.file),
            (line, column) => write!(f, "{}:{line}:{column}", self.file),
        }
    }
}

/// One thing that is wrong, where, and what a right value would look like.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Problem {
    /// How much it matters.
    pub severity: Severity,
    /// The file and line, when it was read from a file.
    pub place: Option<Place>,
    /// The object, when it is known which.
    pub object: Option<ObjectRef>,
    /// The field path within the object, such as `spec.ports[0].targetPort`; empty for the whole object.
    pub field: Box<str>,
    /// What is wrong, as a sentence without a full stop.
    pub reason: Box<str>,
    /// A value that would have been right.
    pub example: Option<Box<str>>,
}

impl Problem {
    /// A problem of `severity` with `object` at `field`.
    pub fn new(severity: Severity, object: ObjectRef, field: &str, reason: impl Into<Box<str>>) -> Self {
        Self { severity, place: None, object: Some(object), field: field.into(), reason: reason.into(), example: None }
    }

    /// A problem with a file that could not be used.
    pub fn file(place: Place, reason: impl Into<Box<str>>) -> Self {
        Self {
            severity: Severity::Error,
            place: Some(place),
            object: None,
            field: Box::default(),
            reason: reason.into(),
            example: None,
        }
    }

    /// The same problem, with the position it was found at.
    #[must_use]
    pub fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// The same problem, with an example of a right value.
    #[must_use]
    pub fn example(mut self, example: impl Into<Box<str>>) -> Self {
        self.example = Some(example.into());
        self
    }
}

/// `shop.yaml:12:7: error: Service shop/reviews: metadata.annotations[tulle.io/timeout]: "5 minutes" is not ... (example: 5m)`
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        write!(f, "{}: ", self.severity)?;
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.reason)?;
        if let Some(example) = &self.example {
            write!(f, " (example: {example})")?;
        }
        Ok(())
    }
}
