//! Reading single fields of Envoy's messages: packed messages, durations, metadata, addresses. Every function turns a
//! bad value into a [`Fault`] of that field; none panics.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::unreachable
)]

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tulle_proto::envoy::config::core::v3 as core;
use tulle_proto::google::protobuf as google;
use tulle_proto::names;

use crate::config::reject::Fault;

/// Longest duration a field may ask for: 30 days, so that sums of durations cannot overflow.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// The message packed in `any`, which must be an `M`.
pub(super) fn unpack<M: prost::Message + prost::Name + Default>(
    any: Option<&google::Any>,
    field: &str,
) -> Result<M, Fault> {
    let any = any.ok_or_else(|| Fault::missing(field))?;
    if !is::<M>(any) {
        return Err(Fault::new(field, format!("is a {}, not a {}", printable(&any.type_url), M::full_name())));
    }
    M::decode(any.value.as_slice()).map_err(|error| Fault::new(field, format!("does not decode: {error}")))
}

/// Whether `any` packs an `M`.
pub(super) fn is<M: prost::Name>(any: &google::Any) -> bool {
    any.type_url.rsplit('/').next() == Some(M::full_name().as_str())
}

/// At most 200 characters of a text that came from the peer, without control characters.
pub(crate) fn printable(text: &str) -> String {
    text.chars().take(200).map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// A duration of at least zero and at most 30 days.
pub(super) fn duration(value: Option<&google::Duration>, field: &str) -> Result<Option<Duration>, Fault> {
    let Some(value) = value else { return Ok(None) };
    let (Ok(seconds), Ok(nanos)) = (u64::try_from(value.seconds), u32::try_from(value.nanos)) else {
        return Err(Fault::new(field.to_owned(), "is negative"));
    };
    if nanos >= 1_000_000_000 || seconds > LONGEST.as_secs() {
        return Err(Fault::new(field.to_owned(), "is longer than 30 days or not normalized"));
    }
    Ok(Some(Duration::new(seconds, nanos)))
}

/// A duration in which zero stands for none.
pub(super) fn nonzero(value: Option<&google::Duration>, field: &str) -> Result<Option<Duration>, Fault> {
    Ok(duration(value, field)?.filter(|duration| !duration.is_zero()))
}

/// The text under `key` of Tulle's metadata; none when there is no such key.
pub(super) fn text<'m>(metadata: Option<&'m core::Metadata>, key: &str) -> Result<Option<&'m str>, Fault> {
    let value = metadata.and_then(|m| m.filter_metadata.get(names::METADATA)).and_then(|s| s.fields.get(key));
    match value.map(|value| value.kind.as_ref()) {
        None => Ok(None),
        Some(Some(google::value::Kind::StringValue(text))) => Ok(Some(text)),
        Some(_) => Err(Fault::new(format!("metadata[{}].{key}", names::METADATA), "is not a string")),
    }
}

/// The same for telemetry: an empty text when there is none.
pub(super) fn label(metadata: Option<&core::Metadata>, key: &str) -> Result<Arc<str>, Fault> {
    Ok(text(metadata, key)?.unwrap_or_default().into())
}

/// An IP address and port. `None`: the message has none.
pub(super) fn socket(address: Option<&core::Address>) -> Result<Option<SocketAddr>, Fault> {
    let Some(address) = address else { return Ok(None) };
    let Some(core::address::Address::SocketAddress(socket)) = &address.address else {
        return Err(Fault::unsupported("address"));
    };
    if socket.protocol != 0 {
        return Err(Fault::new("socket_address.protocol", "is not TCP"));
    }
    let ip: IpAddr =
        socket.address.parse().map_err(|_| Fault::new("socket_address.address", "is not an IP address"))?;
    let Some(core::socket_address::PortSpecifier::PortValue(port)) = socket.port_specifier else {
        return Err(Fault::new("socket_address.port_value", "is missing"));
    };
    let port = u16::try_from(port).map_err(|_| Fault::new("socket_address.port_value", "is above 65535"))?;
    Ok(Some(SocketAddr::new(ip.to_canonical(), port)))
}

/// Refuses a message whose `field` is set, because ignoring it would change what it means.
pub(super) fn unset(field: &str, is_set: bool) -> Result<(), Fault> {
    if is_set { Err(Fault::unsupported(field)) } else { Ok(()) }
}
