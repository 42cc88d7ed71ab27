//! A resource that was refused: which one, which field, why. Its text goes to the control plane in the NACK and to the
//! log. Nothing of a refused resource is kept; its last good version stays in force.

use std::borrow::Cow;
use std::fmt;

use tulle_proto::ResourceType;

/// A refused resource.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Rejected {
    /// Type of the resource.
    pub kind: ResourceType,
    /// Its name, as the response gave it.
    pub name: String,
    /// What is wrong with it.
    pub fault: Fault,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.kind, self.name, self.fault)
    }
}

/// What is wrong, and where in the resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Path of the field, `virtual_hosts[0].routes[2].route.cluster`; empty: the resource itself.
    pub field: String,
    /// The reason, as the rest of a sentence that starts with the field.
    pub reason: Cow<'static, str>,
}

impl Fault {
    /// A fault of `field`.
    pub fn new(field: impl Into<String>, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }

    /// A required field has no value.
    pub fn missing(field: impl Into<String>) -> Self {
        Self::new(field, "is missing")
    }

    /// The field has a meaning that this proxy would have to ignore, so it refuses it.
    pub fn unsupported(field: impl Into<String>) -> Self {
        Self::new(field, "is not supported by this proxy")
    }

    /// The same fault seen from the message that holds `parent`.
    #[must_use]
    pub fn within(mut self, parent: &str) -> Self {
        self.field = if self.field.is_empty() { parent.to_owned() } else { format!("{parent}.{}", self.field) };
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() { write!(f, "{}", self.reason) } else { write!(f, "{} {}", self.field, self.reason) }
    }
}

/// Adds the parent's field name to a fault.
pub(crate) trait Within {
    /// The same result; a fault in it is seen from the message that holds `parent`.
    fn within(self, parent: &str) -> Self;
    /// The same for element `index` of the repeated field `parent`.
    fn within_item(self, parent: &str, index: usize) -> Self;
}

impl<T> Within for Result<T, Fault> {
    fn within(self, parent: &str) -> Self {
        self.map_err(|fault| fault.within(parent))
    }

    fn within_item(self, parent: &str, index: usize) -> Self {
        self.map_err(|fault| fault.within(&format!("{parent}[{index}]")))
    }
}
