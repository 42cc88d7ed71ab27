//! Where something that was written stands, so that a problem can say so. Objects of an API stand nowhere.

use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Deserializer};
use serde_saphyr::{Location, Spanned};

use crate::model::problem::{Place, Problem, Severity};
use crate::model::{Object, ObjectRef, Port};

/// The last good value of an object of the same origin.
pub(in crate::source) type LastGood<'a> = &'a dyn Fn(&ObjectRef) -> Option<Object>;

/// A value and where in its document it stands; an unknown place outside of YAML.
#[derive(Clone, Debug)]
pub(in crate::source) struct Located<T> {
    value: T,
    pub(in crate::source) at: Location,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Located<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Spanned::deserialize(deserializer).map(|Spanned { value, defined, .. }| Self { value, at: defined })
    }
}

/// A number as wide as those of JSON: one that is out of range is a fault of its field, not of the whole text.
pub(in crate::source) type Number = Located<i64>;

impl Number {
    /// The port with this number, or why it is none.
    pub(in crate::source) fn port(&self) -> Result<Port, String> {
        let port = u16::try_from(**self).ok().and_then(Port::new);
        port.ok_or_else(|| format!("{} is not a port: ports are from 1 to 65535", **self))
    }
}

/// An address as it is compared: an IPv4 address within IPv6 (`::ffff:10.1.2.3`) is the IPv4 address.
pub(in crate::source) fn address(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

impl<T> Deref for Located<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// The document an object is written in, if it is written in one.
#[derive(Clone, Copy, Debug)]
pub(in crate::source) struct At<'a> {
    /// The file, and the first line of the document in it, from 1.
    document: Option<(&'a Arc<str>, u32)>,
}

impl<'a> At<'a> {
    /// For objects of an API.
    pub(in crate::source) const NOWHERE: Self = Self { document: None };

    /// In the document of `file` that starts at `line`.
    pub(in crate::source) const fn document(file: &'a Arc<str>, line: u32) -> Self {
        Self { document: Some((file, line)) }
    }

    /// Why an endpoint must not have this address. Manifests in a directory may describe a mesh on one machine, where
    /// loopback addresses lead somewhere; for objects of a cluster's API they lead to the caller's own pod.
    pub(in crate::source) fn unfit(&self, address: IpAddr) -> Option<String> {
        let reason = tulle_proto::endpoint::unfit(address, self.document.is_some())?;
        Some(format!("{address} {reason}"))
    }

    /// Where in the file something of this document stands.
    pub(in crate::source) fn place(&self, location: &Location) -> Option<Place> {
        let (file, first) = self.document?;
        let line = u32::try_from(location.line()).unwrap_or(u32::MAX).max(1);
        Some(Place {
            file: file.clone(),
            line: first.saturating_add(line).saturating_sub(1),
            column: u32::try_from(location.column()).unwrap_or(0),
        })
    }

    /// The reason why the object, and with it its file, is not used, at `location`.
    pub(in crate::source) fn error(
        &self,
        object: &ObjectRef,
        field: &str,
        location: &Location,
        reason: impl Into<Box<str>>,
    ) -> Problem {
        let mut problem = Problem::new(Severity::Error, object.clone(), field, reason);
        problem.place = self.place(location);
        problem
    }
}
