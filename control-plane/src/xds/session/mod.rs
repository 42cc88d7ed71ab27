//! The state of one discovery stream, without IO: requests and worlds go in, responses come out.
//!
//! [`Delta`] and [`Sotw`] are the two variants of the protocol. Neither keeps a queue of responses: each looks at the
//! newest world when it is asked for the next response, so a slow client skips what was overtaken.
//! Source: "xDS REST and gRPC protocol" of Envoy's documentation.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::unreachable
)]

/// What the client was sent and what it answered, per resource type.
mod state;

/// The incremental variant.
mod delta;

/// The state-of-the-world variant.
mod sotw;

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "a script counts its own versions")]
mod tests;

pub(crate) use delta::Delta;
pub(crate) use sotw::Sotw;
pub(crate) use state::Report;

use std::collections::HashSet;

use crate::registry::Topic;
use crate::translate::Resource;
use tulle_proto::ResourceType;
use tulle_proto::envoy::config::core::v3::Node;

/// Names one stream may subscribe to, of each type: as many destinations as a proxy keeps at most.
pub(crate) const MAX_NAMES: usize = 10_000;

/// Longest resource name, in bytes. The longest DNS name is 253 bytes and a port adds 6.
pub(crate) const MAX_NAME_BYTES: usize = 512;

/// Responses of one type that may wait for their ACK. Changes wait for the last ACK; only answers to new questions
/// overtake it, and no further than this.
const MAX_UNANSWERED: usize = 16;

/// A response is closed when its resources reach this size, a quarter below the 4 MiB at which gRPC receivers refuse.
const MAX_RESPONSE_BYTES: usize = 3 * 1024 * 1024;

/// A set of topics.
pub(crate) type Topics = HashSet<Topic, rapidhash::fast::RandomState>;

/// What a session asks of the configuration it serves. Implemented by the newest mesh, as one client sees it.
pub(crate) trait World {
    /// The version of what resources of `ty` are made of; never decreases within a stream.
    fn clock(&self, ty: ResourceType) -> u64;
    /// The clock at which `name` last changed or later, 0 if it never existed; `*` asks for the wildcard's set.
    fn changed_at(&self, ty: ResourceType, name: &str) -> u64;
    /// Whether names about `topic` may have changed since the session was last looked at to its end.
    fn touched(&self, ty: ResourceType, topic: Topic) -> bool;
    /// The resource, if it exists.
    fn resource(&self, ty: ResourceType, name: &str) -> Option<Resource>;
    /// Every resource of a wildcard subscription.
    fn all(&self, ty: ResourceType) -> Vec<Resource>;
}

/// One variant of the protocol.
pub(crate) trait Session: Default + Send {
    /// What the client sends.
    type Request: Send + 'static;
    /// What it is sent.
    type Response: Send + 'static;
    /// The variant's name in metrics and dumps.
    const VARIANT: &'static str;

    /// Takes the node out of a request; the first of a stream must have one.
    fn take_node(request: &mut Self::Request) -> Option<Node>;

    /// Whether the request may change what is asked for.
    fn asks(request: &Self::Request) -> bool;

    /// Takes in one request.
    ///
    /// # Errors
    /// When the client broke a bound of the protocol. The stream ends then; the client is at fault and a retry of the
    /// same requests fails again.
    fn on_request(&mut self, request: Self::Request) -> Result<Heard, Refused>;

    /// The next response the client should get, if any. Call again until `None`; then after each request or new world.
    fn next(&mut self, world: &dyn World) -> Option<Sent<Self::Response>>;

    /// What everything that is asked for is about.
    fn topics(&self) -> Topics;

    /// Bytes that keeping all it asks for takes, about.
    fn demand_bytes(&self) -> usize;

    /// What the client was sent and answered, for dumps.
    fn report(&self) -> Report;
}

/// A response and its facts for metrics and logs.
#[derive(Debug)]
pub(crate) struct Sent<R> {
    pub(crate) ty: ResourceType,
    /// Resources in it.
    pub(crate) resources: usize,
    /// Names it removes.
    pub(crate) removed: usize,
    pub(crate) response: R,
}

/// What a request said about an earlier response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Nothing: it only subscribes, or names a response that was overtaken.
    Subscribe,
    /// The response was accepted.
    Ack(ResourceType),
    /// The response was refused; the client keeps what it had.
    Nack {
        /// Type of the response.
        ty: ResourceType,
        /// Names in the response, at most a handful.
        names: Vec<std::sync::Arc<str>>,
        /// The client's reason, shortened.
        reason: String,
    },
    /// A type this control plane has nothing of.
    UnknownType(String),
}

/// Why a stream ends: the client broke a bound.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// More names than one stream may have.
    #[error("more than {MAX_NAMES} resource names of one type on one stream")]
    TooManyNames,
    /// A name that cannot be one.
    #[error("a resource name of {0} bytes; names have 1 to {MAX_NAME_BYTES}")]
    BadName(usize),
}

/// Whether an empty first request for the type means everything (the protocol's legacy wildcard).
const fn has_wildcard(ty: ResourceType) -> bool {
    matches!(ty, ResourceType::Cluster | ResourceType::Listener)
}

/// Refuses names that no resource can have, before they are stored.
fn check_name(name: &str) -> Result<(), Refused> {
    if name.is_empty() || name.len() > MAX_NAME_BYTES { Err(Refused::BadName(name.len())) } else { Ok(()) }
}

/// Bytes a resource takes in a response, within a few.
fn wire_size(resource: &Resource) -> usize {
    let parts = [resource.body.value.len(), resource.body.type_url.len(), resource.name.len(), resource.version.len()];
    parts.iter().fold(32, |sum: usize, part| sum.saturating_add(*part))
}
