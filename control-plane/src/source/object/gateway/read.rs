//! A route as written, its rules read one by one: a rule with a field or a value that is not known leaves the others readable.
//! Fields that are not known are refused here, and not only passed over: a newer Gateway API may mean something by them.

use serde::de::{DeserializeOwned, Error, IgnoredAny};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::refs::{NamedParent, ParentManifest, WrittenParent};
use crate::source::object::meta::Meta;

/// A route, as far as it can be read.
#[derive(Clone, Debug)]
pub(in crate::source) struct RouteManifest<R: RuleShape> {
    pub(in crate::source) metadata: Meta,
    pub(super) parents: Vec<WrittenParent>,
    pub(super) rules: Vec<Written<R>>,
}

/// A rule and its matches, as written.
pub(in crate::source) trait RuleShape: DeserializeOwned {
    /// A match as written.
    type Match: DeserializeOwned + Clone + std::fmt::Debug;
}

/// A rule, as far as it can be read.
#[derive(Clone, Debug)]
pub(super) enum Written<R: RuleShape> {
    /// All of it.
    Read(R),
    /// Its matches, without conditions that cannot be read.
    Wrong {
        /// None: everything matches.
        matches: Vec<R::Match>,
        /// What is wrong.
        reason: String,
    },
}

/// A route of which everything can be read. Only this reader tells where values stand in a text.
#[derive(Clone, Debug, Deserialize)]
#[serde(bound(deserialize = "R: DeserializeOwned"))]
pub(in crate::source) struct Exact<R> {
    metadata: Meta,
    #[serde(default)]
    spec: ExactSpec<R>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields, bound(deserialize = "R: DeserializeOwned"))]
struct ExactSpec<R> {
    parent_refs: Vec<ParentManifest>,
    rules: Option<Vec<R>>,
    /// A route of a Service is for all names of that.
    /// Source: Gateway API, `HTTPRouteSpec.hostnames`.
    #[serde(rename = "hostnames")]
    _hostnames: Option<IgnoredAny>,
    /// About Gateways.
    #[serde(rename = "useDefaultGateways")]
    _use_default_gateways: Option<IgnoredAny>,
}

impl<R> Default for ExactSpec<R> {
    fn default() -> Self {
        Self { parent_refs: Vec::new(), rules: None, _hostnames: None, _use_default_gateways: None }
    }
}

impl<R: RuleShape> From<Exact<R>> for RouteManifest<R> {
    fn from(Exact { metadata, spec }: Exact<R>) -> Self {
        Self {
            metadata,
            parents: spec.parent_refs.into_iter().map(WrittenParent::Read).collect(),
            rules: spec.rules.into_iter().flatten().map(Written::Read).collect(),
        }
    }
}

/// The parts of a route, each by itself.
#[derive(Deserialize)]
struct Parts {
    metadata: Meta,
    #[serde(default)]
    spec: Value,
}

impl<'de, R: RuleShape> Deserialize<'de> for RouteManifest<R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Parts { metadata, mut spec } = Parts::deserialize(deserializer)?;
        let list = |value: Option<Value>| match value {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(items)) => Ok(items),
            Some(_) => Err(D::Error::custom("spec.parentRefs and spec.rules are lists")),
        };
        let mut part = |name: &str| spec.as_object_mut().and_then(|spec| spec.remove(name));
        let (parents, rules) = (list(part("parentRefs"))?, list(part("rules"))?);
        let unknown = serde_json::from_value::<ExactSpec<IgnoredAny>>(spec.take()).err();
        let parent = |value: Value| parent(value).map_err(D::Error::custom);
        let rule = |value: Value| rule(value, unknown.as_ref().map(|error| format!("spec: {error}")));
        Ok(Self {
            metadata,
            parents: parents.into_iter().map(parent).collect::<Result<_, _>>()?,
            rules: rules.into_iter().map(rule).collect(),
        })
    }
}

fn parent(value: Value) -> Result<WrittenParent, serde_json::Error> {
    let named = NamedParent::deserialize(&value)?;
    Ok(match ParentManifest::deserialize(value) {
        Ok(parent) => WrittenParent::Read(parent),
        Err(error) => WrittenParent::Wrong(named, error.to_string()),
    })
}

/// Reads a rule, unless what stands around it has a fault.
fn rule<R: RuleShape>(value: Value, fault: Option<String>) -> Written<R> {
    let matches = value.get("matches").and_then(Value::as_array).cloned().unwrap_or_default();
    match (R::deserialize(value), fault) {
        (Ok(rule), None) => Written::Read(rule),
        (Ok(_), Some(reason)) => Written::Wrong { matches: matches.into_iter().filter_map(readable).collect(), reason },
        (Err(error), _) => {
            let found: Option<Vec<R::Match>> = matches.into_iter().map(readable).collect();
            Written::Wrong { matches: found.unwrap_or_default(), reason: error.to_string() }
        }
    }
}

/// A match without the conditions that cannot be read, so that it holds for at least what was meant.
fn readable<M: DeserializeOwned>(value: Value) -> Option<M> {
    if let Ok(whole) = M::deserialize(&value) {
        return Some(whole);
    }
    let Value::Object(conditions) = value else { return None };
    let alone = |(name, condition): &(String, Value)| {
        M::deserialize(Value::Object([(name.clone(), condition.clone())].into_iter().collect())).is_ok()
    };
    M::deserialize(Value::Object(conditions.into_iter().filter(alone).collect())).ok()
}
