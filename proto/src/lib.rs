//! Messages on Tulle's wires, and what both ends must read alike.
//!
//! - [`discovery`]: the ADS transport (delta and state-of-the-world), ours because its [`Any`] shares bytes;
//! - [`envoy`]: Envoy's v3 resource types, from the crate `envoy-types`;
//! - [`auth`]: the certificate signing service;
//! - [`own`]: resources and files that are Tulle's own;
//! - [`type_url`]: the resource types and their make-before-break order;
//! - [`names`]: resource names and metadata keys both sides agree on;
//! - [`pattern`], [`fields`]: regular expressions and header fields of routes, as both sides read them;
//! - [`endpoint`]: addresses that no endpoint may have.

pub mod endpoint;
pub mod fields;
pub mod names;
pub mod pattern;
pub mod type_url;

mod any;

pub use any::Any;
pub use envoy_types::pb::envoy;
pub use envoy_types::pb::google;
pub use type_url::ResourceType;

/// The discovery transport: `envoy.service.discovery.v3`.
pub mod discovery {
    #![allow(missing_docs, clippy::all, reason = "generated code")]
    tonic::include_proto!("envoy.service.discovery.v3");
}

/// The certificate signing service: `istio.v1.auth`.
pub mod auth {
    #![allow(missing_docs, clippy::all, reason = "generated code")]
    tonic::include_proto!("istio.v1.auth");
}

/// Resources and files that are Tulle's own: `tulle.v1`.
pub mod own {
    #![allow(missing_docs, clippy::all, reason = "generated code")]
    tonic::include_proto!("tulle.v1");

    impl prost::Name for AddressRanges {
        const NAME: &'static str = "AddressRanges";
        const PACKAGE: &'static str = "tulle.v1";

        fn type_url() -> String {
            crate::ResourceType::Ranges.url().to_owned()
        }
    }

    impl prost::Name for Name {
        const NAME: &'static str = "Name";
        const PACKAGE: &'static str = "tulle.v1";

        fn type_url() -> String {
            crate::ResourceType::Name.url().to_owned()
        }
    }
}
