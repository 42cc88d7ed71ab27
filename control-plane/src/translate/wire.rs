//! Short spellings for the parts every resource has. Nothing here decides anything.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tulle_proto::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use tulle_proto::envoy::config::core::v3::socket_address::PortSpecifier;
use tulle_proto::envoy::config::core::v3::{
    Address, AggregatedConfigSource, ApiVersion, ConfigSource, Metadata, SocketAddress, address,
};
use tulle_proto::envoy::config::listener::v3::{Filter, filter};
use tulle_proto::google::protobuf::{self, BoolValue, Struct, UInt32Value, Value, value};
use tulle_proto::names::METADATA;

/// 'Ask for it on the aggregated stream.'
pub(super) fn ads() -> ConfigSource {
    ConfigSource {
        resource_api_version: ApiVersion::V3.into(),
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..ConfigSource::default()
    }
}

pub(super) fn any<M: prost::Name>(message: &M) -> protobuf::Any {
    protobuf::Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

pub(super) fn address(address: SocketAddr) -> Address {
    let (ip, port) = match address.ip() {
        IpAddr::V4(ip) => (ip.to_string(), address.port()),
        IpAddr::V6(ip) => (ip.to_string(), address.port()),
    };
    let socket = SocketAddress {
        address: ip,
        port_specifier: Some(PortSpecifier::PortValue(port.into())),
        ..SocketAddress::default()
    };
    Address { address: Some(address::Address::SocketAddress(socket)) }
}

/// Saturates at the largest duration protobuf has, far above what policy allows.
pub(super) fn duration(duration: Duration) -> protobuf::Duration {
    protobuf::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

pub(super) const fn number(value: u32) -> UInt32Value {
    UInt32Value { value }
}

pub(super) const fn flag(value: bool) -> BoolValue {
    BoolValue { value }
}

/// A struct of texts.
pub(super) fn fields<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> Struct {
    let text = |text: &str| Value { kind: Some(value::Kind::StringValue(text.to_owned())) };
    Struct { fields: fields.into_iter().map(|(key, value)| (key.to_owned(), text(value))).collect() }
}

/// Metadata under Tulle's key.
pub(super) fn metadata<'a>(of: impl IntoIterator<Item = (&'a str, &'a str)>) -> Metadata {
    Metadata { filter_metadata: [(METADATA.to_owned(), fields(of))].into(), ..Metadata::default() }
}

pub(super) fn filter<M: prost::Name>(name: &str, config: &M) -> Filter {
    Filter { name: name.to_owned(), config_type: Some(filter::ConfigType::TypedConfig(any(config))) }
}
