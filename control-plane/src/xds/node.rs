//! Who a client says it is, checked against who it is.
//!
//! A client may only speak for its own namespace and service account (CP-07). What it says beyond that, its workload
//! name and zone, decides nothing but which of its own resources it reads.

use std::net::SocketAddr;
use std::sync::Arc;

use tulle_identity::spiffe::SpiffeId;
use tulle_proto::envoy::config::core::v3::Node;
use tulle_proto::google::protobuf::value::Kind;
use tulle_proto::names::node as keys;

use crate::caller::Caller;
use crate::model::{Key, Locality, Workload};
use crate::translate::{ClientKind, Scope};

/// Longest text taken from a node, in bytes.
const MAX_TEXT_BYTES: usize = 253;

/// A client that may be served.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// The node id, for people.
    pub(crate) id: String,
    pub(crate) scope: Scope,
    /// The authenticated identity; `None` on the loopback listener without a token.
    pub(crate) identity: Option<SpiffeId>,
    /// The pod it is, in a cluster.
    pub(crate) pod: Option<Key>,
}

/// Why a client is not served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NodeError {
    /// Another namespace or service account than the token's.
    #[error("the node says {field} {claimed:?}, but the token is of {identity}")]
    Mismatch { field: &'static str, claimed: String, identity: SpiffeId },
    /// Another workload than its pod's.
    #[error("the node says it is of workload {claimed:?}, but pod {pod} is of {actual:?}")]
    OtherWorkload { claimed: Arc<str>, pod: Key, actual: Arc<str> },
    /// A Tulle proxy must say where it belongs.
    #[error("the node metadata lacks {0}")]
    Missing(&'static str),
    /// A field that is too long.
    #[error("the node's {0} is longer than {MAX_TEXT_BYTES} bytes")]
    TooLong(&'static str),
    /// Metadata that does not parse.
    #[error("the node metadata has OUTBOUND_ADDRESS {0:?}, which is not an address and port such as 127.0.0.1:15001")]
    BadAddress(String),
}

/// Which kind of client this is.
pub(crate) fn kind(node: &Node) -> ClientKind {
    let agent = node.user_agent_name.as_str();
    if agent == keys::USER_AGENT {
        ClientKind::Tulle
    } else if agent.starts_with("gRPC") {
        ClientKind::Grpc
    } else {
        ClientKind::Envoy
    }
}

/// The kind's name in metrics and dumps.
pub(crate) const fn kind_name(kind: ClientKind) -> &'static str {
    match kind {
        ClientKind::Tulle => "tulle",
        ClientKind::Grpc => "grpc",
        ClientKind::Envoy => "envoy",
    }
}

/// Checks what `node` claims against `identity`. Clients that claim nothing get the namespace of their identity.
///
/// # Errors
/// See [`NodeError`]; the client is at fault, and the same node fails again.
pub(crate) fn check(node: &Node, caller: Option<Caller>) -> Result<Client, NodeError> {
    let (identity, pod) = caller.map_or((None, None), |caller| (Some(caller.id), caller.pod));
    let client = kind(node);
    let namespace = claim(node, keys::NAMESPACE)?;
    let account = claim(node, keys::SERVICE_ACCOUNT)?;
    let workload = claim(node, keys::WORKLOAD)?;
    if let Some(identity) = &identity {
        let claims = [
            ("namespace", &namespace, identity.namespace()),
            ("service account", &account, identity.service_account()),
        ];
        for (field, claimed, actual) in claims {
            if let Some(claimed) = claimed
                && Some(claimed.as_str()) != actual
            {
                return Err(NodeError::Mismatch { field, claimed: claimed.clone(), identity: identity.clone() });
            }
        }
    }
    if matches!(client, ClientKind::Tulle) {
        let all = [(keys::NAMESPACE, &namespace), (keys::WORKLOAD, &workload), (keys::SERVICE_ACCOUNT, &account)];
        if let Some((key, _)) = all.into_iter().find(|(_, value)| value.is_none()) {
            return Err(NodeError::Missing(key));
        }
    }
    let own = || identity.as_ref().and_then(|identity| identity.namespace()).map(str::to_owned);
    let namespace = namespace.or_else(own).unwrap_or_default();
    let locality = node.locality.as_ref();
    let region = text("region", locality.map_or("", |locality| &locality.region))?;
    let zone = text("zone", locality.map_or("", |locality| &locality.zone))?;
    let outbound_address = match claim(node, OUTBOUND_ADDRESS)? {
        Some(address) => Some(address.parse::<SocketAddr>().map_err(|_| NodeError::BadAddress(address))?),
        None => None,
    };
    Ok(Client {
        id: text("id", &node.id)?.to_owned(),
        scope: Scope {
            client,
            namespace: namespace.into(),
            workload: workload.unwrap_or_default().into(),
            locality: Locality { region: Arc::from(region), zone: Arc::from(zone) },
            outbound_address,
        },
        identity,
        pod,
    })
}

impl Client {
    /// Takes from the client's pod what it did not say itself: its workload, its zone and region.
    ///
    /// # Errors
    /// [`NodeError::OtherWorkload`]: the inbound listener of another workload is none of its business.
    pub(crate) fn join(&mut self, pod: &Workload) -> Result<(), NodeError> {
        if self.scope.workload.is_empty() {
            self.scope.workload = pod.owner.clone();
        } else if self.scope.workload != pod.owner {
            let (claimed, actual) = (self.scope.workload.clone(), pod.owner.clone());
            return Err(NodeError::OtherWorkload { claimed, pod: pod.key.clone(), actual });
        }
        if self.scope.locality == Locality::default() {
            self.scope.locality = pod.locality.clone();
        }
        Ok(())
    }
}

/// Node metadata: where an Envoy's one outbound HTTP listener is bound.
const OUTBOUND_ADDRESS: &str = "OUTBOUND_ADDRESS";

/// A text field of the metadata; empty counts as absent.
fn claim(node: &Node, key: &'static str) -> Result<Option<String>, NodeError> {
    let value = node.metadata.as_ref().and_then(|metadata| metadata.fields.get(key)).and_then(|v| v.kind.as_ref());
    match value {
        Some(Kind::StringValue(value)) if !value.is_empty() => Ok(Some(text(key, value)?.to_owned())),
        _ => Ok(None),
    }
}

fn text<'a>(field: &'static str, value: &'a str) -> Result<&'a str, NodeError> {
    if value.len() > MAX_TEXT_BYTES { Err(NodeError::TooLong(field)) } else { Ok(value) }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use tulle_proto::google::protobuf::{Struct, Value};

    use super::*;

    fn node(agent: &str, fields: &[(&str, &str)]) -> Node {
        let value = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
        let fields = fields.iter().map(|(key, text)| (key.to_string(), value(text))).collect();
        Node { user_agent_name: agent.to_owned(), metadata: Some(Struct { fields }), ..Node::default() }
    }

    #[test]
    fn kinds() {
        let kinds = ["tulle-proxy", "gRPC C-core", "envoy", ""].map(|agent| kind_name(kind(&node(agent, &[]))));
        assert_eq!(kinds, ["tulle", "grpc", "envoy", "envoy"]);
    }

    #[test]
    fn an_identity_stands_in_for_claims_that_are_not_made() {
        let identity = SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/web").unwrap();
        let caller = Caller { id: identity, pod: None, expires: SystemTime::UNIX_EPOCH };
        let client = check(&node("envoy", &[("OUTBOUND_ADDRESS", "127.0.0.1:1")]), Some(caller)).unwrap();
        assert_eq!(&*client.scope.namespace, "shop");
        assert_eq!(client.scope.outbound_address, Some(([127, 0, 0, 1], 1).into()));
    }

    #[test]
    fn refusals_say_what_is_wrong() {
        let long = "x".repeat(300);
        let identity = SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/web").unwrap();
        // Similar is not the same: no prefix, no other case.
        let cases = [
            (node("envoy", &[("NAMESPACE", "shop2")]), "namespace \"shop2\""),
            (node("envoy", &[("NAMESPACE", "Shop")]), "namespace \"Shop\""),
            (node("envoy", &[("SERVICE_ACCOUNT", "we")]), "service account \"we\""),
            (node("tulle-proxy", &[("NAMESPACE", "shop")]), "WORKLOAD_NAME"),
            (node("envoy", &[("NAMESPACE", &long)]), "NAMESPACE"),
            (node("envoy", &[("OUTBOUND_ADDRESS", "here")]), "here"),
        ];
        for (node, text) in cases {
            let error = check(&node, Some(Caller { id: identity.clone(), pod: None, expires: SystemTime::UNIX_EPOCH }))
                .unwrap_err()
                .to_string();
            assert!(error.contains(text), "{error}");
        }
    }
}
