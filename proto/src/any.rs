//! `google.protobuf.Any` over shared bytes: cloning one does not copy the resource.

use bytes::Bytes;

/// An encoded message and the name of its type. Wire-compatible with `google.protobuf.Any`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Any {
    /// `type.googleapis.com/` and the full message name.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The encoded message; clones share it.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

impl Any {
    /// Encodes `message` under its own type name.
    pub fn pack<M: prost::Name>(message: &M) -> Self {
        Self { type_url: M::type_url(), value: message.encode_to_vec().into() }
    }

    /// Decodes the message if it is an `M`.
    ///
    /// # Errors
    /// When the type is another one, or the bytes are not a valid `M`.
    pub fn unpack<M: prost::Name + Default>(&self) -> Result<M, prost::DecodeError> {
        if self.type_url.rsplit('/').next() != Some(M::full_name().as_str()) {
            return Err(prost::DecodeError::new_unexpected_type_url(&self.type_url, M::type_url()));
        }
        M::decode(self.value.clone())
    }
}
