//! SPIFFE ids and trust domains: parsed once, valid ever after.
//!
//! The rules are those of the SPIFFE-ID standard, section 2, without leniency: no upper case in the trust domain, no
//! percent encoding, no empty or dot segments, no trailing slash, no port, query or fragment, at most 2048 bytes.
//! An id here always names a workload, so it has a path; a trust domain alone is a type of its own.

#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::cast_possible_truncation,
        clippy::unreachable
    )
)]

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Name of a trust domain, such as `cluster.local`: `[a-z0-9._-]`, 1 to 255 bytes. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Arc<str>);

/// A workload's identity, `spiffe://TRUST-DOMAIN/PATH`, at most 2048 bytes. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId(Arc<str>);

/// Why a text is not an identity or not a part of one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpiffeError {
    /// Longer than 2048 bytes.
    #[error("SPIFFE id is longer than {MAX_ID_BYTES} bytes")]
    TooLong,
    /// Does not start with `spiffe://`.
    #[error("SPIFFE id does not start with spiffe://")]
    Scheme,
    /// Empty, too long, or a character outside `[a-z0-9._-]`; user info and ports end up here.
    #[error("trust domain is empty, too long, or not of a-z 0-9 . - _")]
    TrustDomain,
    /// No path at all, or only `/`.
    #[error("SPIFFE id has no path")]
    NoPath,
    /// A path segment is empty, `.`, `..`, or has a character outside `[A-Za-z0-9._-]`.
    #[error("SPIFFE id has a path segment that is empty, a dot segment, or not of a-z A-Z 0-9 . - _")]
    Path,
    /// Not a namespace name (RFC 1123 label, at most 63 bytes).
    #[error("namespace is not an RFC 1123 label")]
    Namespace,
    /// Not a service account name (letters, digits and inner dashes, at most 253 bytes).
    #[error("service account is not of a-z 0-9 and inner dashes")]
    ServiceAccount,
}

impl TrustDomain {
    /// Parses a bare trust domain name.
    ///
    /// # Errors
    /// [`SpiffeError::TrustDomain`], the caller's fault.
    pub fn parse(name: &str) -> Result<Self, SpiffeError> {
        check_trust_domain(name)?;
        Ok(Self(name.into()))
    }

    /// The bare name, without `spiffe://`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl SpiffeId {
    /// Parses an id.
    ///
    /// # Errors
    /// The first rule the text breaks; see [`SpiffeError`].
    pub fn parse(text: &str) -> Result<Self, SpiffeError> {
        if text.len() > MAX_ID_BYTES {
            return Err(SpiffeError::TooLong);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(SpiffeError::Scheme)?;
        let (domain, path) = rest.split_once('/').unwrap_or((rest, ""));
        check_trust_domain(domain)?;
        if path.is_empty() {
            return Err(SpiffeError::NoPath);
        }
        if !path.split('/').all(is_segment) {
            return Err(SpiffeError::Path);
        }
        Ok(Self(text.into()))
    }

    /// The id of a service account: `spiffe://TD/ns/NAMESPACE/sa/ACCOUNT`.
    ///
    /// Both names are held to letters, digits and inner dashes, so that nobody can smuggle a path segment. Kubernetes
    /// would let a service account's name hold dots; such an account gets no identity.
    ///
    /// # Errors
    /// [`SpiffeError::Namespace`] or [`SpiffeError::ServiceAccount`].
    pub fn workload(domain: &TrustDomain, namespace: &str, service_account: &str) -> Result<Self, SpiffeError> {
        if !is_label(namespace, 63) {
            return Err(SpiffeError::Namespace);
        }
        if !is_label(service_account, 253) {
            return Err(SpiffeError::ServiceAccount);
        }
        Self::parse(&format!("{SCHEME}{domain}/ns/{namespace}/sa/{service_account}"))
    }

    /// The whole id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> TrustDomain {
        TrustDomain(self.parts().0.into())
    }

    /// Whether the id belongs to `domain`; does not allocate.
    pub fn is_in(&self, domain: &TrustDomain) -> bool {
        self.parts().0 == domain.as_str()
    }

    /// The path, without its leading slash; never empty.
    pub fn path(&self) -> &str {
        self.parts().1
    }

    /// The namespace, when the path has the form `ns/NAMESPACE/sa/ACCOUNT`.
    pub fn namespace(&self) -> Option<&str> {
        self.account().map(|(namespace, _)| namespace)
    }

    /// The service account, when the path has the form `ns/NAMESPACE/sa/ACCOUNT`.
    pub fn service_account(&self) -> Option<&str> {
        self.account().map(|(_, account)| account)
    }

    fn parts(&self) -> (&str, &str) {
        // Both separators are there: `parse` is the only way to make an id.
        self.0.strip_prefix(SCHEME).and_then(|rest| rest.split_once('/')).unwrap_or_default()
    }

    fn account(&self) -> Option<(&str, &str)> {
        let (namespace, account) = self.path().strip_prefix("ns/")?.split_once("/sa/")?;
        (!namespace.contains('/') && !account.contains('/')).then_some((namespace, account))
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl FromStr for TrustDomain {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn check_trust_domain(name: &str) -> Result<(), SpiffeError> {
    let legal = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    if name.is_empty() || name.len() > MAX_TRUST_DOMAIN_BYTES || !name.bytes().all(legal) {
        return Err(SpiffeError::TrustDomain);
    }
    Ok(())
}

fn is_segment(segment: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    !matches!(segment, "" | "." | "..") && segment.bytes().all(legal)
}

fn is_label(name: &str, max_bytes: usize) -> bool {
    let inner = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    !name.is_empty()
        && name.len() <= max_bytes
        && name.bytes().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// SPIFFE-ID section 2.3: ids of up to 2048 bytes must be supported, longer ones must not be made.
const MAX_ID_BYTES: usize = 2048;
/// SPIFFE-ID section 2.3, the host part of RFC 3986.
const MAX_TRUST_DOMAIN_BYTES: usize = 255;
const SCHEME: &str = "spiffe://";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_id_has_its_parts() {
        let domain = TrustDomain::parse("cluster.local").unwrap();
        let id = SpiffeId::workload(&domain, "shop", "reviews").unwrap();
        assert_eq!(id.as_str(), "spiffe://cluster.local/ns/shop/sa/reviews");
        assert_eq!(id.trust_domain(), domain);
        assert!(id.is_in(&domain));
        assert_eq!(id.path(), "ns/shop/sa/reviews");
        assert_eq!((id.namespace(), id.service_account()), (Some("shop"), Some("reviews")));
        assert_eq!(id, id.to_string().parse().unwrap());
    }

    #[test]
    fn other_paths_have_no_account() {
        for path in ["web", "ns/shop", "ns/shop/sa", "ns/a/b/sa/c", "ns/a/sa/b/c", "x/ns/a/sa/b"] {
            let id = SpiffeId::parse(&format!("spiffe://td/{path}")).unwrap();
            assert_eq!((id.namespace(), id.service_account()), (None, None), "{path}");
        }
    }

    #[test]
    fn broken_ids_are_refused() {
        let long = format!("spiffe://td/{}", "a".repeat(2048));
        let cases = [
            ("", SpiffeError::Scheme),
            ("http://td/a", SpiffeError::Scheme),
            ("SPIFFE://td/a", SpiffeError::Scheme),
            ("spiffe:/td/a", SpiffeError::Scheme),
            ("spiffe:///a", SpiffeError::TrustDomain),
            ("spiffe://TD/a", SpiffeError::TrustDomain),
            ("spiffe://user@td/a", SpiffeError::TrustDomain),
            ("spiffe://td:80/a", SpiffeError::TrustDomain),
            ("spiffe://td?q/a", SpiffeError::TrustDomain),
            ("spiffe://t\u{e9}/a", SpiffeError::TrustDomain),
            ("spiffe://td%41/a", SpiffeError::TrustDomain),
            ("spiffe://td", SpiffeError::NoPath),
            ("spiffe://td/", SpiffeError::NoPath),
            ("spiffe://td/a/", SpiffeError::Path),
            ("spiffe://td//a", SpiffeError::Path),
            ("spiffe://td/a//b", SpiffeError::Path),
            ("spiffe://td/./a", SpiffeError::Path),
            ("spiffe://td/a/..", SpiffeError::Path),
            ("spiffe://td/a%2fb", SpiffeError::Path),
            ("spiffe://td/a?q=1", SpiffeError::Path),
            ("spiffe://td/a#f", SpiffeError::Path),
            ("spiffe://td/a b", SpiffeError::Path),
            ("spiffe://td/a\0", SpiffeError::Path),
            (long.as_str(), SpiffeError::TooLong),
        ];
        for (text, error) in cases {
            assert_eq!(SpiffeId::parse(text), Err(error), "{text}");
        }
        assert!(SpiffeId::parse(&long[..2048]).is_ok());
    }

    #[test]
    fn names_cannot_smuggle_segments() {
        let domain = TrustDomain::parse("td").unwrap();
        for bad in ["", "A", "a.b", "a/b", "-a", "a-", "a_b", "a%2f", ".."] {
            assert_eq!(SpiffeId::workload(&domain, bad, "ok"), Err(SpiffeError::Namespace), "{bad}");
            assert_eq!(SpiffeId::workload(&domain, "ok", bad), Err(SpiffeError::ServiceAccount), "{bad}");
        }
    }
}
